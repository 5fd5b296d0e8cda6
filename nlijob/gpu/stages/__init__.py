"""The work of the GPU stages, one file per stage; their inputs and order are in `nlijob.stages`.

A stage takes the attempt's session, writes its records and returns the files that its completion
marker lists.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nlijob.gpu.session import Session
from nlijob.gpu.stages.baseline import baseline
from nlijob.gpu.stages.evaluate import evaluate
from nlijob.gpu.stages.explain import explain
from nlijob.gpu.stages.select import select
from nlijob.gpu.stages.train import train

WORK: dict[str, Callable[[Session], list[Path]]] = {
    "baseline": baseline,
    "train": train,
    "select": select,
    "evaluate": evaluate,
    "explain": explain,
}
"""Stage -> its work."""
