"""The fused layers of Llama and its relatives compared with the library's, on a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.config import JobConfig, TrainConfig, load_config
from nlijob.gpu.fast import model as fast_model
from nlijob.gpu.fast import steps
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import pack_shape, view
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import PlainTrainer, TrainingSchedule
from nlijob.records.job import Example
from tests import tolerance
from tests.gated_models import ALL_LINEAR, ATTENTION, PACKED_ALL_LINEAR, new_gated_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
GPU = torch.device("cuda", 0)
WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 384}
"""Heads of 64: wide enough for the kernels of attention."""
OPERATIONS, STORED = 3 * (4 * 256 + 2 * 384 + 128 + 64) + 256, 3 * 12 + 4
BOUNDS = {
    torch.float32: tolerance.rounding(torch.float32, 2 * OPERATIONS),
    torch.bfloat16: 2 * tolerance.rounding(torch.bfloat16, STORED),
    torch.float16: 2 * tolerance.rounding(torch.float16, STORED),
}
NewGated = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:101]


@pytest.fixture(scope="module")
def job() -> JobConfig:
    return load_config("demo", {"lora.dropout": 0.0, "model.residual_dropout": 0.0})


@pytest.fixture(scope="module")
def head(job: JobConfig, tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, job.prompt, 256, examples)


@pytest.fixture
def new_gated(job: JobConfig, tokenizer: Any) -> NewGated:
    def new(family: str, targets: tuple[str, ...], **options: Any) -> LoadedModel:
        sizes = {**WIDE, **options}
        return new_gated_model(job, tokenizer, family, targets, GPU, **sizes)

    return new


def outcome(
    loaded: LoadedModel, head: CausalHead, rows: list[Encoded], prefix: int, kind: str
) -> dict[str, Tensor]:
    """Logits of rows in training, and gradients of the adapter by name."""
    fast = FastModel(loaded, head, True)
    assert fast.kind.startswith(kind), fast.refused
    loaded.model.train()
    fast.seed(5)
    shape = pack_shape([row.length for row in rows], prefix)
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    logits = fast.logits(packed, shape)
    fast.adapter.add_gradient(functional.cross_entropy(logits, packed.targets.long()))
    parameters = loaded.model.named_parameters()
    gradients = {name: p.grad.clone() for name, p in parameters if p.grad is not None}
    fast.close()
    return {"logits": logits.detach(), **gradients}


CASES = [
    ("Llama", ATTENTION, 0, {}),
    ("Llama", ALL_LINEAR, 2, {}),
    ("Llama", ("q_proj", "v_proj"), 2, {"hidden_size": 512}),  # heads of 128
    ("Mistral", ATTENTION, 2, {}),
    ("Qwen2", ALL_LINEAR, 0, {}),
    ("Qwen3", ALL_LINEAR, 2, {"head_dim": 128}),
    ("SmolLM3", ("gate_proj", "o_proj"), 0, {}),
    ("Phi3", PACKED_ALL_LINEAR, 2, {"head_dim": 64}),
    ("Olmo2", ALL_LINEAR, 2, {}),
    ("Olmo3", ATTENTION, 0, {"hidden_size": 512}),
    ("Gemma", ALL_LINEAR, 2, {"head_dim": 256}),
    ("Gemma2", ALL_LINEAR, 2, {"head_dim": 256}),
    ("Gemma3Text", ALL_LINEAR, 2, {"head_dim": 256}),
    ("Gemma3Text", ATTENTION, 0, {"head_dim": 64}),
]


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
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
    dtype: torch.dtype,
) -> None:
    got = outcome(new_gated(family, targets, dtype=dtype, **options), head, rows[:5], prefix, "Ll")
    monkeypatch.setattr(fast_model, "choose", lambda *_: (None, [], ""))
    loaded = new_gated(family, targets, dtype=dtype, **options)
    expected = outcome(loaded, head, rows[:5], prefix, "the library's layers")
    wide = dataclasses.replace(loaded, compute_dtype=torch.float32)
    wide.model.float()
    exact = outcome(wide, head, rows[:5], prefix, "the library's layers")
    assert got.keys() == expected.keys()
    for name, values in got.items():
        # behind norms, some gradients are small differences of large terms
        own = tolerance.distance(expected[name], exact[name])
        assert tolerance.distance(values, expected[name]) < max(BOUNDS[dtype], 3 * own), name


def test_a_row_that_is_longer_than_usual_has_a_pack_of_its_own(
    new_gated: NewGated, head: CausalHead, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(epochs=1, batch_size=4, learning_rate=1e-3)
    one, two = rows[0].example, rows[1].example
    longer = dataclasses.replace(one, premise=" ".join([one.premise, two.premise] * 2))
    some = [*rows[:40], *head.encode("train", [longer])]
    schedule = TrainingSchedule(config, some)
    losses = []
    for usual in (max(row.length for row in rows), some[-1].length):
        monkeypatch.setattr(steps, "usual_longest", lambda *_, usual=usual: usual)
        loaded = new_gated("Llama", ATTENTION, dtype=torch.bfloat16)
        trainer = FastTrainer(loaded, FastModel(loaded, head, True), schedule, None)
        assert (trainer.steps._long is not None) == (usual < some[-1].length)
        losses.append([step.loss for step in trainer.epoch(1)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize(
    ("family", "targets"),
    [("Llama", ATTENTION), ("Llama", ALL_LINEAR), ("Qwen3", ALL_LINEAR), ("Olmo2", ALL_LINEAR)],
)
def test_losses_follow_the_plain_loops_over_100_steps(
    new_gated: NewGated,
    head: CausalHead,
    rows: list[Encoded],
    family: str,
    targets: tuple[str, ...],
) -> None:
    config = TrainConfig(epochs=8, batch_size=8, learning_rate=1e-3)
    schedule = TrainingSchedule(config, rows)
    # float32: in 16 bits, rounding grows over the steps as between two plain loops
    plain, other = (new_gated(family, targets) for _ in range(2))
    fast = FastTrainer(other, FastModel(other, head, True), schedule, None)
    losses = [
        torch.tensor([step.loss for epoch in range(1, 9) for step in trainer.epoch(epoch)])
        for trainer in (PlainTrainer(plain, head, schedule), fast)
    ]
    difference = (losses[1] - losses[0]).abs() / losses[0]
    assert len(difference) == 104
    assert losses[0][-13:].mean() < 0.9 * losses[0][:13].mean()
    assert difference.max() < 1e-2
    assert difference.mean() < 1e-3


def test_dropout_differs_between_steps_and_is_reproducible_from_the_seed(
    new_gated: NewGated, head: CausalHead, rows: list[Encoded]
) -> None:
    loaded = new_gated("Llama", ALL_LINEAR, dtype=torch.bfloat16, dropout=0.5)
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=1e-9)
    one = [rows[0]] * 64  # the same row in every step: only dropout makes losses differ
    trainer = FastTrainer(
        loaded, FastModel(loaded, head, True), TrainingSchedule(config, one), None
    )
    first, again = (torch.tensor([step.loss for step in trainer.epoch(1)]) for _ in range(2))
    assert (first - again).abs().max() < 1e-2 * first.mean()  # rounding
    assert first.max() - first.min() > 1e-2 * first.mean()
