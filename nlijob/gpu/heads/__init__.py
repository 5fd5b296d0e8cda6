"""The task heads on the GPU side, described for the parent in `nlijob.heads`.

To add a head, subclass `Head` in a module of its own and enter it in both tables.
"""

from __future__ import annotations

from nlijob.gpu.heads.base import Batch, Head
from nlijob.gpu.heads.causal import CausalHead
from nlijob.gpu.heads.classification import ClassificationHead
from nlijob.gpu.heads.rows import Encoded, EncodedRows
from nlijob.heads import HeadName, find

HEAD_CLASSES: dict[HeadName, type[Head]] = {
    "causal": CausalHead,
    "sequence-classification": ClassificationHead,
}


def head_class(name: str) -> type[Head]:
    """Return the implementation of a head. Raises ConfigurationError for an unknown name."""
    return find(HEAD_CLASSES, name)


__all__ = [
    "HEAD_CLASSES",
    "Batch",
    "CausalHead",
    "ClassificationHead",
    "Encoded",
    "EncodedRows",
    "Head",
    "head_class",
]
