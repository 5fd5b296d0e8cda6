"""What the plan says of activations, beside what fused layers keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from nlijob.config import load_config
from nlijob.gpu.fast import host
from nlijob.gpu.fast.stacks.gated import Workspace
from nlijob.gpu.fast.stacks.llama import LlamaStack
from nlijob.gpu.model import add_adapter, meta_model
from nlijob.planning.memory import memory_need
from tools.memory_table import TOKENS, look_of

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
SHAPE = transformers.LlamaConfig(
    vocab_size=1024,
    hidden_size=3072,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=24,
    num_key_value_heads=8,
)
"""The layers of Llama 3.2 3B, some of them."""


def kept_bytes(held: Any, seen: set[int]) -> int:
    """Bytes of all tensors that an object holds, but for those that were `seen`."""
    if isinstance(held, Tensor):
        storage = held.untyped_storage()
        is_new = storage._cdata not in seen
        seen.add(storage._cdata)
        return storage.nbytes() if is_new else 0
    if isinstance(held, list | tuple):
        return sum(kept_bytes(part, seen) for part in held)
    own = vars(held) if type(held).__module__.startswith("nlijob.gpu.fast.stacks") else {}
    return sum(kept_bytes(part, seen) for part in own.values())


@pytest.mark.parametrize(("targets", "dropout"), [(ATTENTION, 0.0), (ALL_LINEAR, 0.05)])
def test_fused_layers_keep_what_the_plan_says(
    targets: list[str], dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "free_bytes", lambda device: 2**40)  # nothing is allocated
    changes = {"lora.target_modules": targets, "lora.dropout": dropout, "model.device": "cuda"}
    config = load_config("phi2", changes)
    meta = meta_model(config, SHAPE)
    with torch.device("meta"):
        adapted: Any = add_adapter(config, meta.model, (), meta.targets).to(torch.bfloat16)
        groups = LlamaStack.groups(adapted, torch.device("cpu"), torch.bfloat16)
        nothing: Any = None
        stack = LlamaStack(adapted, [(group, nothing, nothing) for group in groups], torch.bfloat16)
        tokens = 8 * 60
        x, last = torch.empty(tokens, 3072, dtype=torch.bfloat16), torch.zeros(8, dtype=torch.int64)
        workspace = Workspace(stack._layers, x, last, True, dropout)
    weights: set[int] = set()
    kept_bytes(stack._layers, weights)
    modes = memory_need(config, look_of(config, SHAPE)).modes
    (planned,) = (term for term in modes[-1].terms if term.name == "activations")
    per_token = planned.size_bytes / (8 * TOKENS.mean)
    assert kept_bytes(workspace, weights) / tokens == pytest.approx(per_token, rel=0.12)
