"""Whether a row's answer depends on anything beside the row: on other rows, or on padding.

The gradient of a row's logits with respect to the embedding of a token is exactly zero if the token
has no part in them. Unlike a comparison of logits, this holds in any data type, and it finds an
influence that rounding would hide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from nlijob.gpu.model.attention import WITHOUT_PLANS
from nlijob.gpu.model.targets import is_target


def influenced(embedding: nn.Module, logits: Callable[[], Tensor], own: Tensor) -> bool | None:
    """Whether tokens outside `own` influence rows' logits; None if gradients do not tell.

    `embedding`: the module that embeds the tokens. `logits` computes [rows, classes] of one batch.
    `own` [rows, ...]: for each row, which of the batch's tokens are the row's, in the shape of the
    batch's token ids.
    """
    embedded: list[Tensor] = []

    def start_here(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = embedding.register_forward_hook(start_here)
    try:
        with torch.enable_grad(), sdpa_kernel(WITHOUT_PLANS):
            values = logits()
            # every class in its own share, so that no symmetry cancels, and none overflows float16
            classes = torch.arange(values.shape[-1], device=values.device)
            answers = (values.float() * classes.cos() / len(classes) ** 0.5).sum(-1)
            if not embedded or not answers.requires_grad:
                return None
            return _any_influenced(answers, embedded, own)
    except torch.OutOfMemoryError:  # scoring needs less memory, and may still work
        return None
    finally:
        hook.remove()


def without_part(
    model: nn.Module, logits: Callable[[], Tensor], targets: Sequence[str]
) -> list[str]:
    """The targets of LoRA whose adapters have no part in a batch's logits.

    Some models read the weight of a layer without calling the layer, and so pass its adapter by.
    """
    weights = {n: p for n, p in model.named_parameters() if ".lora_B." in n and p.requires_grad}
    try:
        with torch.enable_grad(), sdpa_kernel(WITHOUT_PLANS):
            total = logits().float().sum()
        if not total.requires_grad:
            return list(targets)
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    except torch.OutOfMemoryError:  # training may need less memory, and still work
        return []
    used = [n for n, g in zip(weights, gradients, strict=True) if g is not None]
    layers = [name.partition(".lora_B.")[0] for name in used]
    return [t for t in targets if not any(is_target(layer, t) for layer in layers)]


def _any_influenced(answers: Tensor, embedded: Sequence[Tensor], own: Tensor) -> bool | None:
    """Look at every other row together, since a pair of neighbours is never in the same half."""
    for first in (0, 1):
        chosen = range(first, len(answers), 2)
        if not chosen:
            continue
        gradients = torch.autograd.grad(
            answers[first::2].sum(), embedded, retain_graph=True, allow_unused=True
        )
        theirs = own[first::2].any(0).to(answers.device)
        found = [gradient for gradient in gradients if gradient is not None]
        if any(gradient[..., 0].numel() != theirs.numel() for gradient in found):
            return None  # the model adds padding of its own
        reached = [_reached(gradient, theirs.shape) for gradient in found]
        if not any((at & theirs).any() for at in reached):
            return None  # the rows' own tokens must show
        if any((at & ~theirs).any() for at in reached):
            return True
    return False


def _reached(gradient: Tensor, shape: Sequence[int]) -> Tensor:
    """Which tokens have a gradient; not a number counts as one."""
    return (gradient.reshape(*shape, -1) != 0).any(-1)
