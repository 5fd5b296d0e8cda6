"""The fused layers of Llama and its relatives compared with the library's, on a CPU."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.config import JobConfig, TrainConfig
from nlijob.gpu.fast import host, kernels, row_dropout
from nlijob.gpu.fast import model as fast_model
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.model import FastModel, ids_of
from nlijob.gpu.fast.packing import pack_shape, view
from nlijob.gpu.fast.stacks.llama import LlamaStack
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import PlainTrainer, TrainingSchedule
from tests import tolerance
from tests.gated_models import ALL_LINEAR, ATTENTION, PACKED_ALL_LINEAR, new_gated_model

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
OPERATIONS = 3 * (4 * 128 + 2 * 96 + 128 + 32) + 128
"""Terms of the sums on a value's way through the widest such model, as in `tests.tolerance`."""
GRADIENTS = tolerance.rounding(torch.float32, 2 * OPERATIONS)
OWN_ROUNDING = 8
"""The `k` of `tests.tolerance`: how many times its own rounding a result may be off by chance."""
STORED = 3 * 12 + 4
"""Values rounded to a narrow dtype on that way."""
NewGated = Callable[..., LoadedModel]


@pytest.fixture
def new_gated(demo: JobConfig, tokenizer: Any) -> NewGated:
    def new(family: str, targets: tuple[str, ...], **options: Any) -> LoadedModel:
        return new_gated_model(demo, tokenizer, family, targets, CPU, **options)

    return new


def outcome(
    loaded: LoadedModel, head: CausalHead, rows: list[Encoded], prefix: int = 0
) -> tuple[Tensor, dict[str, Tensor], FastModel]:
    """Logits of rows in training, gradients of the adapter by name, and the fast model."""
    fast = FastModel(loaded, head, True)
    loaded.model.train()
    fast.seed(5)
    shape = pack_shape([row.length for row in rows], prefix)
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    logits = fast.logits(packed, shape)
    fast.adapter.add_gradient(functional.cross_entropy(logits, packed.targets.long()))
    parameters = loaded.model.named_parameters()
    gradients = {name: p.grad.clone() for name, p in parameters if p.grad is not None}
    fast.close()
    return logits.detach(), gradients, fast


def both(
    new: Callable[[], LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    prefix: int = 0,
) -> tuple[tuple[Tensor, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]:
    """Logits and gradients of the fused layers, and of the library's."""
    logits, gradients, fast = outcome(new(), head, rows, prefix)
    assert fast.kind.startswith(LlamaStack.__name__), fast.refused
    with monkeypatch.context() as patch:
        patch.setattr(fast_model, "choose", lambda *_: (None, [], ""))
        expected, wanted, other = outcome(new(), head, rows, prefix)
    assert other.kind.startswith("the library's layers")
    assert gradients.keys() == wanted.keys()
    return (logits, gradients), (expected, wanted)


def bounds(
    new: Callable[[], LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    prefix: int,
    wanted: dict[str, Tensor],
) -> dict[str, float]:
    """Largest distance of each gradient in float32 from `wanted`, the one of the library's layers.

    Gradients of queries and keys are small differences of large terms, the more so behind norms. So
    what rounding does to the library's own, beside a computation in float64, is allowed too.
    """
    loaded = new()
    loaded.model.double()
    with monkeypatch.context() as patch:
        patch.setattr(fast_model, "choose", lambda *_: (None, [], ""))
        exact = dataclasses.replace(loaded, compute_dtype=torch.float64)
        _, gradients, _ = outcome(exact, head, rows, prefix)
    own = {name: tolerance.distance(wanted[name], one) for name, one in gradients.items()}
    return {name: GRADIENTS + OWN_ROUNDING * distance for name, distance in own.items()}


LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.5,
    "short_factor": [1.5] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 32,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
OWN_ROPE = {
    "full_attention": {**LLAMA_3, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
BOTH_KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
CASES = [
    ("Llama", ATTENTION, 0, {}),
    ("Llama", ALL_LINEAR, 2, {"rope_parameters": LLAMA_3}),
    ("Llama", ("q_proj", "v_proj"), 2, {}),
    ("Llama", ("gate_proj", "down_proj"), 0, {}),
    ("Mistral", ATTENTION, 2, {}),
    ("Qwen2", ALL_LINEAR, 0, {}),
    ("Qwen2", ("k_proj", "up_proj"), 2, {}),
    ("Qwen3", ATTENTION, 0, {}),
    ("Qwen3", ALL_LINEAR, 2, {}),
    ("SmolLM3", ("v_proj", "o_proj"), 0, {}),
    ("Phi3", ("qkv_proj", "o_proj"), 2, {"rope_parameters": LONG_ROPE, "hidden_size": 128}),
    ("Phi3", PACKED_ALL_LINEAR, 0, {}),
    ("Olmo2", ATTENTION, 0, {}),
    ("Olmo2", ALL_LINEAR, 2, {}),
    ("Olmo2", ("gate_proj", "down_proj"), 0, {}),
    ("Olmo3", ("v_proj", "up_proj"), 2, {"rope_parameters": OWN_ROPE, "layer_types": BOTH_KINDS}),
    ("Gemma", ALL_LINEAR, 2, {}),
    ("Gemma2", ATTENTION, 2, {}),
    ("Gemma3Text", ALL_LINEAR, 0, {}),
    ("Gemma3Text", ("q_proj", "up_proj"), 2, {"head_dim": 256}),
    ("Gemma3", ("v_proj", "down_proj"), 2, {}),
]


@pytest.mark.parametrize(("family", "targets", "prefix", "options"), CASES)
def test_fused_layers_have_the_logits_and_gradients_of_the_librarys(
    new_gated: NewGated,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    targets: tuple[str, ...],
    prefix: int,
    options: dict[str, Any],
) -> None:
    how = (lambda: new_gated(family, targets, **options), head, rows[:5], monkeypatch, prefix)
    (logits, gradients), (expected, wanted) = both(*how)
    assert tolerance.distance(logits, expected) < GRADIENTS
    allowed = bounds(*how, wanted)
    for name, gradient in gradients.items():
        assert tolerance.distance(gradient, wanted[name]) < allowed[name], name
    assert ids_of(rows[0])[:2] == ids_of(rows[4])[:2]


@pytest.mark.slow
@pytest.mark.parametrize("target", ALL_LINEAR)
@pytest.mark.parametrize("family", ["Olmo2", "Olmo3", "Gemma", "Gemma3Text"])
def test_each_linear_layer_may_be_the_only_one_with_an_adapter(
    new_gated: NewGated,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    target: str,
) -> None:
    how = (lambda: new_gated(family, (target,)), head, rows[:5], monkeypatch, 2)
    (logits, gradients), (expected, wanted) = both(*how)
    assert tolerance.distance(logits, expected) < GRADIENTS
    allowed = bounds(*how, wanted)
    for name, gradient in gradients.items():
        assert tolerance.distance(gradient, wanted[name]) < allowed[name], name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Olmo2", "Gemma3Text"])
def test_in_16_bits_they_differ_by_rounding(
    new_gated: NewGated,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    dtype: torch.dtype,
) -> None:
    (logits, gradients), (expected, wanted) = both(
        lambda: new_gated(family, ALL_LINEAR, dtype=dtype), head, rows[:5], monkeypatch
    )
    bound = tolerance.rounding(dtype, STORED)
    assert tolerance.distance(logits, expected) < bound
    for name, gradient in gradients.items():
        assert tolerance.distance(gradient, wanted[name]) < 2 * bound, name


@pytest.fixture
def alike_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout goes by row, and alike in all calls: the library's layers number them otherwise."""
    draw = row_dropout.keep_by_row

    def alike(
        like: Tensor,
        rows: Tensor,
        positions: Tensor,
        key: Tensor,
        call: Tensor,
        calls: int,
        width: int,
        dropped: int,
    ) -> Tensor:
        first = torch.zeros_like(call.view(-1)[:1])
        one = draw(like, rows, positions, key, first, 1, width, dropped)
        return one.expand(calls, -1, -1).contiguous()

    monkeypatch.setattr(row_dropout, "keep_by_row", alike)
    monkeypatch.setattr(fast_model, "drops_by_row", lambda device: True)


@pytest.mark.usefixtures("alike_by_call")
@pytest.mark.parametrize(
    ("family", "targets", "prefix"),
    [
        ("Llama", ALL_LINEAR, 2),
        ("Qwen3", ("q_proj", "o_proj"), 0),
        ("Phi3", PACKED_ALL_LINEAR, 2),
        ("Olmo2", ALL_LINEAR, 2),
    ],
)
def test_dropout_has_the_effect_that_it_has_in_the_librarys_layers(
    new_gated: NewGated,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    targets: tuple[str, ...],
    prefix: int,
) -> None:
    how = (lambda: new_gated(family, targets, dropout=0.4), head, rows[:5], monkeypatch, prefix)
    (logits, gradients), (expected, wanted) = both(*how)
    assert tolerance.distance(logits, expected) < GRADIENTS
    allowed = bounds(*how, wanted)
    for name, gradient in gradients.items():
        assert tolerance.distance(gradient, wanted[name]) < allowed[name], name
    undropped, _, _ = outcome(new_gated(family, targets), head, rows[:5], prefix)
    assert tolerance.distance(logits, undropped) > 0.01


@pytest.mark.parametrize("by_row", [True, False])
def test_each_adapter_and_layer_has_masks_of_its_own(
    new_gated: NewGated,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    by_row: bool,
) -> None:
    monkeypatch.setattr(fast_model, "drops_by_row", lambda device: by_row)
    masks: list[Tensor] = []
    monkeypatch.setattr(kernels, "drop", lambda x, kept, *_: masks.extend(kept.clone()))
    loaded = new_gated("Llama", ALL_LINEAR, dropout=0.4)
    fast = FastModel(loaded, head, True)
    loaded.model.train()
    shape = pack_shape([row.length for row in rows[:5]], 0)
    packed = view(fast.to_device(rows[:5], shape, 5), shape)
    with torch.no_grad():
        fast.logits(packed, shape)
    assert len(masks) == 7 * 3
    seen = {tuple(mask[-1, :64].tolist()) for mask in masks}
    assert len(seen) == len(masks)


@pytest.mark.parametrize("family", ["Llama", "Olmo2", "Gemma2", "Gemma3Text"])
def test_with_the_adapter_disabled_the_base_model_is_scored(
    new_gated: NewGated, head: CausalHead, rows: list[Encoded], family: str
) -> None:
    loaded = new_gated(family, ALL_LINEAR)
    fast = FastModel(loaded, head, True)
    with loaded.model.disable_adapter():
        got = fast.score_rows(rows[:4])
        fast.close()
        with torch.no_grad():
            expected = head.logits(loaded.model.eval(), head.collate(rows[:4], CPU))
    assert tolerance.distance(got, expected) < GRADIENTS


@pytest.mark.parametrize(
    ("family", "targets", "options", "why"),
    [
        ("Llama", ATTENTION, {"hidden_act": "gelu"}, "the activation gelu"),
        ("Llama", ATTENTION, {"mlp_bias": True}, "biases in the MLP"),
        ("Llama", ATTENTION, {"attention_dropout": 0.1}, r"own dropout \(attention_dropout\)"),
        ("Llama", ATTENTION, {"num_attention_heads": 8}, "16 rotated values|heads of 8"),
        ("Llama", ATTENTION, {"num_hidden_layers": 1}, "a model of one layer"),
        ("Llama", ATTENTION, {"intermediate_size": 100}, "an MLP of width 100"),
        ("SmolLM3", ATTENTION, {"no_rope_layers": [1, 0, 1]}, "without a rotary embedding"),
        ("Gemma3Text", ATTENTION, {"use_bidirectional_attention": True}, "in both directions"),
    ],
)
def test_what_is_not_supported_is_named_and_the_librarys_layers_are_used(
    new_gated: NewGated,
    head: CausalHead,
    family: str,
    targets: tuple[str, ...],
    options: dict[str, Any],
    why: str,
) -> None:
    fast = FastModel(new_gated(family, targets, **options), head, True)
    assert fast.kind.startswith("the library's layers")
    assert re.search(why, fast.refused)


def test_without_room_for_a_second_copy_of_the_weights_the_librarys_layers_are_used(
    new_gated: NewGated, head: CausalHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "free_bytes", lambda device: host.KEPT_FREE_BYTES)
    fast = FastModel(new_gated("Llama", ATTENTION), head, True)
    assert fast.kind.startswith("the library's layers")
    assert fast.refused.endswith("a second time, in 0.0 GiB, and 1.0 GiB are free")


def test_layers_with_parts_of_another_kind_are_left_alone(new_gated: NewGated) -> None:
    class Doubled(torch.nn.Module):
        """An MLP that the library's layers do not have."""

    loaded = new_gated("Llama", ATTENTION)
    layers: Any = loaded.model.get_base_model().model.layers
    assert LlamaStack.groups(loaded.model, CPU, torch.float32)
    layers[1].mlp.up_proj = torch.nn.Identity()
    assert LlamaStack.groups(loaded.model, CPU, torch.float32) == []
    layers[1].mlp = Doubled()
    assert LlamaStack.groups(loaded.model, CPU, torch.float32) == []


def test_adapters_that_are_not_supported_are_named(new_gated: NewGated) -> None:
    loaded = new_gated("Llama", ATTENTION)
    layers: Any = loaded.model.get_base_model().model.layers
    layers[1].self_attn.q_proj.r["default"] = 8
    with pytest.raises(Unsupported, match="adapters of several ranks"):
        LlamaStack.groups(loaded.model, CPU, torch.float32)
    layers[1].self_attn.q_proj = layers[1].self_attn.q_proj.get_base_layer()
    with pytest.raises(Unsupported, match="some of the decoder layers only"):
        LlamaStack.groups(loaded.model, CPU, torch.float32)


def test_a_row_longer_than_the_window_of_attention_is_refused(
    new_gated: NewGated, head: CausalHead, rows: list[Encoded]
) -> None:
    fast = FastModel(new_gated("Mistral", ATTENTION, sliding_window=8), head, True)
    assert fast.is_fused
    with pytest.raises(Unsupported, match="a window of 8 tokens"):
        fast.score_rows(rows[:2])


def test_training_takes_the_steps_of_the_plain_loop(
    new_gated: NewGated, head: CausalHead, rows: list[Encoded]
) -> None:
    config = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-3)
    schedule = TrainingSchedule(config, rows[:11])
    plain, other = new_gated("Qwen3", ALL_LINEAR), new_gated("Qwen3", ALL_LINEAR)
    fast = FastTrainer(other, FastModel(other, head, True), schedule, None)
    losses = [
        [step.loss for epoch in (1, 2) for step in trainer.epoch(epoch)]
        for trainer in (PlainTrainer(plain, head, schedule), fast)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=7 * GRADIENTS)
    assert losses[0][-1] != pytest.approx(losses[0][0], rel=0.05)
