"""Encoders with a classification head on packed rows, compared with the plain loop in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nlijob.config import JobConfig, TrainConfig
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast.model import FastModel, shape_of
from nlijob.gpu.fast.packing import PackShape, view
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import ClassificationHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.scoring import score
from nlijob.gpu.training import PlainTrainer, TrainingSchedule
from nlijob.records.job import Example
from tests import tolerance
from tests.encoders import KINDS, PADDING, encoder, with_types

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-3, schedule="cosine")
STEPS = 8
LOGITS = tolerance.rounding(torch.float32, tolerance.DEMO_OPERATIONS)
"""These models are smaller than the demo's."""
kinds = pytest.mark.parametrize("kind", KINDS)

New = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def new(demo: JobConfig, tokenizer: Any) -> New:
    """Make an encoder afresh, the same every time."""
    return lambda kind, dropout=0.0: encoder(KINDS[kind], demo, tokenizer, dropout)


@pytest.fixture(scope="module")
def head(demo: JobConfig, tokenizer: Any, examples: list[Example]) -> ClassificationHead:
    return ClassificationHead(tokenizer, demo.prompt, 128, examples)


@pytest.fixture(scope="module")
def plain_rows(head: ClassificationHead, examples: list[Example]) -> list[Encoded]:
    """Rows of several lengths, one of which holds RoBERTa's padding token."""
    rows = head.encode("train", examples)[:13]
    rows[1].features["input_ids"][2] = PADDING
    return rows


def rows_for(kind: str, rows: list[Encoded]) -> list[Encoded]:
    return with_types(rows) if KINDS[kind].has_types else rows


@torch.no_grad()
def plain_logits(loaded: LoadedModel, head: ClassificationHead, rows: Sequence[Encoded]) -> Tensor:
    loaded.model.eval()
    return head.logits(loaded.model, head.collate(rows, CPU))


def attention_of(loaded: LoadedModel) -> list[nn.Module]:
    """The dropout of attention's weights."""
    return [m.dropout for m in loaded.model.modules() if hasattr(m, "is_causal")]


@kinds
def test_logits_of_packed_rows_equal_the_librarys_own(
    new: New, head: ClassificationHead, plain_rows: list[Encoded], kind: str
) -> None:
    loaded, rows = new(kind), rows_for(kind, plain_rows)[:6]
    expected = plain_logits(loaded, head, rows)
    assert expected.std(0).min() > 0.01 * expected.abs().max()  # each row has its own answer
    got = FastModel(loaded, head, True).score_rows(rows)
    assert tolerance.distance(got, expected) < LOGITS


@kinds
def test_training_takes_the_plain_loops_steps(
    new: New, head: ClassificationHead, plain_rows: list[Encoded], kind: str
) -> None:
    plain, other, rows = new(kind), new(kind), rows_for(kind, plain_rows)
    schedule = TrainingSchedule(CONFIG, rows)
    reference = PlainTrainer(plain, head, schedule)
    fast = FastTrainer(other, FastModel(other, head, True), schedule, None)
    for epoch in (1, 2):
        for one, step in zip(reference.epoch(epoch), fast.epoch(epoch), strict=True):
            assert step.loss == pytest.approx(one.loss, rel=tolerance.training(STEPS))
            assert step.grad_norm == pytest.approx(one.grad_norm, rel=tolerance.UPDATES)


def test_token_types_have_a_part_in_a_packed_rows_answer(
    new: New, head: ClassificationHead, plain_rows: list[Encoded]
) -> None:
    fast = FastModel(new("BERT"), head, True)
    with_them, without = (
        fast.score_rows(rows[:4]) for rows in (with_types(plain_rows), plain_rows)
    )
    assert tolerance.distance(without, with_them) > 0.01


@pytest.mark.parametrize("kind", ["BERT", "ModernBERT, mean"])
def test_filling_and_missing_rows_have_no_part_in_an_answer(
    new: New, head: ClassificationHead, plain_rows: list[Encoded], kind: str
) -> None:
    fast, rows = FastModel(new(kind), head, True), rows_for(kind, plain_rows)[:3]
    smallest = fast.shape_of(rows)
    larger = dataclasses.replace(smallest, tokens=smallest.tokens + 48, rows=5)

    def logits(shape: PackShape) -> Tensor:
        with torch.no_grad():
            return fast.logits(view(fast.to_device(rows, shape, 3), shape), shape)

    got = logits(larger)
    assert got.isfinite().all()  # a loss of 0 times infinity would not be a number
    assert tolerance.distance(got[:3], logits(smallest)) < LOGITS


def test_rows_of_an_encoder_share_no_prefix(
    demo: JobConfig, new: New, tokenizer: Any, examples: list[Example]
) -> None:
    task = "A text is given and a claim is made. Say whether the text shows the claim to be true."
    prompt = dataclasses.replace(demo.prompt, template=f"{task}{demo.prompt.template}")
    head = ClassificationHead(tokenizer, prompt, 128, examples)
    rows = head.encode("train", examples[:8])
    assert shape_of(rows).prefix > 20
    loaded = new("BERT")
    fast = FastModel(loaded, head, True)
    assert fast.shape_of(rows).prefix == 0
    assert FastTrainer(loaded, fast, TrainingSchedule(CONFIG, rows), None).prefix == 0
    assert tolerance.distance(fast.score_rows(rows), plain_logits(loaded, head, rows)) < LOGITS


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_engine_packs_an_encoder_and_predicts_as_the_plain_loop(
    demo: JobConfig,
    new: New,
    head: ClassificationHead,
    plain_rows: list[Encoded],
    dropout: float,
) -> None:
    rows, found = with_types(plain_rows), []
    for speed in ("plain", "auto"):
        train = dataclasses.replace(demo.train, speed=speed)
        engine = Engine(new("BERT", dropout), head, dataclasses.replace(demo, train=train), rows)
        plan = engine.plan()
        assert (plan.way, plan.refused) == ({"plain": "plain", "auto": "packed"}[speed], ())
        found.append(score(engine.forward(), head, "train", rows, 4, lambda done: None))
    (plain, expected), (packed, got) = found
    assert packed.correct == plain.correct
    for one, other in zip(got, expected, strict=True):
        assert one.predicted == other.predicted
        assert one.probabilities == pytest.approx(other.probabilities, abs=LOGITS)


def test_dropout_of_attention_follows_from_the_seed_and_differs_between_steps(
    new: New, head: ClassificationHead, plain_rows: list[Encoded]
) -> None:
    loaded, rows = new("BERT", 0.3), with_types(plain_rows)[:4]
    fast = FastModel(loaded, head, True)
    for module in loaded.model.modules():
        if isinstance(module, nn.Dropout) and module not in attention_of(loaded):
            module.p = 0.0
    loaded.model.train()
    torch.manual_seed(1)
    first, second = fast.score_rows(rows), fast.score_rows(rows)
    torch.manual_seed(1)
    assert torch.equal(fast.score_rows(rows), first)
    assert tolerance.distance(second, first) > 0.01
