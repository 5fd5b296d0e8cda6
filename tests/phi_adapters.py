"""Fused layers with adapters on some parts of a Phi model, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast.model import FastModel, shape_of
from nlijob.gpu.fast.packing import PackShape, packed_tokens, rounded, view
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel

ALL = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
SOME = (
    ALL,
    ("q_proj", "v_proj"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_proj", "v_proj", "fc1", "fc2"),  # of the published runs
    ("fc1", "fc2"),
    ("k_proj", "dense", "fc2"),
    ("dense", "fc1"),
    ("v_proj",),
    ("fc2",),
)
some = pytest.mark.parametrize("targets", SOME, ids="-".join)


def result(
    fast: FastModel, loaded: LoadedModel, rows: list[Encoded], prefix: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits in training, and the gradient of the rows' mean loss, in the model's order.

    `prefix`: tokens that a pack holds once; by default, as many as is worthwhile.
    """
    loaded.model.train()
    fast.seed(5)
    shape = shape_of(rows)
    if prefix is not None:
        tokens = rounded(packed_tokens([row.length for row in rows], prefix))
        shape = PackShape(tokens, shape.rows, shape.longest, prefix)
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    logits = fast.logits(packed, shape)
    fast.adapter.gradient.zero_()
    fast.adapter.add_gradient(functional.cross_entropy(logits, packed.targets.long()))
    gradients = [p.grad for p in loaded.model.parameters() if p.requires_grad]
    return logits.detach(), torch.cat([grad.flatten() for grad in gradients if grad is not None])
