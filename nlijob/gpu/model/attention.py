"""Kinds of attention: in float32, as phi-2's scores overflow float16, and without plans."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FLOAT32_ATTENTION = "sdpa_float32"
WITHOUT_PLANS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Every backend except cuDNN's, which makes a plan for each new shape. That takes longer than the
computation where shapes are used once."""


def register_float32_attention() -> str:
    """Register attention that computes in float32; return its name."""
    ALL_ATTENTION_FUNCTIONS.register(FLOAT32_ATTENTION, float32_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(FLOAT32_ATTENTION, sdpa_mask)
    return FLOAT32_ATTENTION


def float32_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls; its result has the dtype of `query`."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), attention_mask, **options
    )
    return output.to(query.dtype), None
