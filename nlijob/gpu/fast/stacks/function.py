"""What stacks have in common: packs, one operation of autograd, the time of their products."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from nlijob.gpu.fast.fused_attention import PackLayout
from nlijob.gpu.fast.graphs import captured
from nlijob.gpu.fast.packing import PackView

TIMED_LAYERS = 4
"""Layers whose products are timed with few tokens, so that their weights exceed a GPU's cache."""
TIMED_TOKENS = 2_048
"""Tokens times layers that are timed at most; with many tokens, one layer takes long enough."""
TIMES = 3


class Passes(Protocol):
    """A stack's forward and backward pass; a workspace holds what the second needs.

    `pack`: the layout of the pack, or one for each layer.
    """

    def workspace(self, x: Tensor, pack: Any, dropout: float) -> Any:
        """A workspace for a forward pass that a backward pass follows."""

    def forward(self, x: Tensor, pack: Any, workspace: Any, adapted: bool) -> Tensor:
        """Hidden states [rows, width] of embeddings x [tokens, width]."""

    def backward(self, grad: Tensor, pack: Any, workspace: Any) -> Sequence[Tensor]:
        """Gradients of the adapter's leaves from that of the output."""


def apply(stack: Passes, x: Tensor, pack: Any, dropout: float, leaves: Sequence[Tensor]) -> Tensor:
    """The stack's output with the adapter `leaves`, which alone get gradients."""
    hidden: Tensor = _StackFunction.apply(stack, x, pack, dropout, *leaves)  # type: ignore[no-untyped-call]
    return hidden


class _StackFunction(torch.autograd.Function):
    """All layers as one operation of autograd."""

    @staticmethod
    def forward(
        ctx: Any, stack: Passes, x: Tensor, pack: Any, dropout: float, *_: Tensor
    ) -> Tensor:
        ctx.stack, ctx.pack = stack, pack
        ctx.workspace = stack.workspace(x, pack, dropout)
        return stack.forward(x, pack, ctx.workspace, True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.stack.backward(grad, ctx.pack, ctx.workspace)
        ctx.workspace = None
        return None, None, None, None, *gradients


def inputs(packed: PackView, prefix: int) -> dict[str, Any]:
    """What `layout_of` reads of a pack besides what torch's attention does."""
    return {
        "rows_to_keep": packed.last.long(),
        "row_count": packed.row_count,
        "shared_tokens": prefix,
    }


def layout_of(model: Any, x: Tensor, options: Mapping[str, Any], *kind: str) -> PackLayout:
    """The layout of a pack that a model's forward is given in `options`; x: its embeddings.

    `kind`: of layers, if the model has a rotary embedding for each kind.
    """
    angles = model.rotary_emb(x, options["position_ids"], *kind)
    half = angles[0].shape[-1] // 2
    # some families rotate in float32; the kernels read angles in the dtype of what they rotate
    cosine, sine = (part[0, :, :half].contiguous().to(x.dtype) for part in angles)
    attention = model.layers[0].self_attn
    return PackLayout(
        cosine,
        sine,
        bounds=options["cu_seq_lens_q"],
        longest=options["max_length_q"],
        head=attention.head_dim,
        scaling=attention.scaling,
        last=options["rows_to_keep"],
        shared=options["shared_tokens"],
        softcap=softcap_of(attention),
        row_count=options["row_count"],
    )


def softcap_of(attention: Any) -> float | None:
    """The limit of the scores of a model's attention; Gemma 3 has the option and ignores it."""
    is_read = type(attention).__name__ == "Gemma2Attention"
    return attention.attn_logit_softcapping if is_read else None


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Time that some work takes on the GPU, the least of a few times.

    It is captured as a graph, as a step is: launched one by one, small products would take as long
    as their launches do, which a busy CPU makes longer.
    """
    replay = captured(work, device)
    replay()
    moments = [torch.cuda.Event(enable_timing=True) for _ in range(TIMES + 1)]  # type: ignore[no-untyped-call]
    moments[0].record()
    for moment in moments[1:]:
        replay()
        moment.record()
    moments[-1].synchronize()
    return float(min(a.elapsed_time(b) for a, b in itertools.pairwise(moments))) / 1000


def timed_layers(tokens: int, layers: int) -> int:
    """Layers whose products are timed together for a pack of this size."""
    return max(1, min(TIMED_LAYERS, layers, TIMED_TOKENS // tokens))
