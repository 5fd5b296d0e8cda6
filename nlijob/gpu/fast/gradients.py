"""A check of fused layers before they train: their gradient beside that of the library's layers.

The logits of fused layers are compared with the library's as well, but only a gradient shows what
the backward pass does. Kernels may be right on one kind of GPU and wrong on another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.analysis.wording import percent
from nlijob.gpu.fast.agreement import relative_difference
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import view
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel

CHECKED_ROWS = 2
"""Rows whose gradient is compared; the library's layers need memory for them."""
MAX_DIFFERENCE = {torch.bfloat16: 0.2, torch.float16: 0.2, torch.float32: 1e-2}
"""Largest accepted relative difference in each kind of weight. Rounding causes less, and a gradient
that lacks a part of the model more."""
MAX_RATIO = 10
"""The same as a multiple of the difference in the logits: deep models with random weights round
more."""
SPREAD = 0.02
"""Standard deviation of the Bs that are checked. Those of a new adapter are 0, and with them the
gradients of the As."""
LOSS_SCALE = 1024.0
"""What the loss is multiplied by, so that float16 holds small gradients."""


def check_gradients(
    loaded: LoadedModel,
    head: Head,
    fast: FastModel,
    rows: Sequence[Encoded],
    logits_difference: float,
) -> None:
    """Raise Unsupported where fused layers give another gradient than the library's.

    Nothing is dropped, and the adapter is as before afterwards.
    """
    limit = max(MAX_DIFFERENCE[loaded.compute_dtype], MAX_RATIO * logits_difference)
    for kind, difference in gradient_differences(loaded, head, fast, rows).items():
        if not difference <= limit:
            raise Unsupported(
                f"fused layers: the gradient of {kind} differs from that of the library's layers "
                f"by {percent(difference)}"
            )


def gradient_differences(
    loaded: LoadedModel, head: Head, fast: FastModel, rows: Sequence[Encoded]
) -> dict[str, float]:
    """Relative difference of the gradients of each kind of trained weight, over all layers.

    A kind is, for example, "q_proj.lora_A".
    """
    adapter, rows = fast.adapter, sorted(rows, key=lambda row: row.length)[:CHECKED_ROWS]
    before = adapter.master.clone()
    loaded.model.eval()
    try:
        generator = torch.Generator(loaded.device).manual_seed(0)
        adapter.seconds.normal_(std=SPREAD, generator=generator)
        adapter.refresh()
        with fast.library_layers():
            library = _gradient(fast, lambda: _backward(loaded, head, rows))
        fused = _gradient(fast, lambda: adapter.add_gradient(_packed_loss(fast, rows)))
    finally:
        adapter.master.copy_(before)
        adapter.refresh()
    kinds = {id(p): _kind(name) for name, p in loaded.model.named_parameters() if p.requires_grad}
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for parameter, got, expected in zip(adapter.parameters, fused, library, strict=True):
        found.setdefault(kinds[id(parameter)], []).append((got.flatten(), expected.flatten()))
    return {
        kind: relative_difference(*(torch.cat(side) for side in zip(*pairs, strict=True)))
        for kind, pairs in found.items()
    }


def _gradient(fast: FastModel, work: Callable[[], None]) -> list[Tensor]:
    """The gradient of each trained weight that some work adds to the adapter's buffer."""
    adapter = fast.adapter
    adapter.sums.zero_()
    with torch.enable_grad():
        work()
    parts = [part.clone() for part in adapter.parts(adapter.gradient)]
    adapter.sums.zero_()
    return parts


def _backward(loaded: LoadedModel, head: Head, rows: Sequence[Encoded]) -> None:
    """Add the gradient that the model's own layers give."""
    logits = head.logits(loaded.model, head.collate(rows, loaded.device))
    loss = _scaled_loss(logits, head.targets(rows, logits.device))
    loss.backward()  # type: ignore[no-untyped-call]


def _packed_loss(fast: FastModel, rows: Sequence[Encoded]) -> Tensor:
    shape = fast.shape_of(rows)
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    return _scaled_loss(fast.logits(packed, shape), packed.targets.long())


def _scaled_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return LOSS_SCALE * functional.cross_entropy(logits.float(), targets, reduction="sum")


def _kind(name: str) -> str:
    """Which weight of a layer a name means: the LoRA layer's own name and its matrix."""
    parts = name.removesuffix(".weight").split(".")
    matrix = next((part for part in parts if part.startswith("lora_")), "")
    return f"{parts[parts.index(matrix) - 1]}.{matrix}" if matrix else name
