"""A head made here: an entry in each table is all that it takes to train and score with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
import torch
import transformers
from torch import Tensor

from nlijob.config import JobConfig, check
from nlijob.gpu.engine import Engine
from nlijob.gpu.heads import HEAD_CLASSES, Batch, Encoded, Head, head_class
from nlijob.gpu.heads.base import new_batch
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.scoring import score
from nlijob.heads import HEADS, HeadDescription, HeadName
from nlijob.records.job import Example
from nlijob.report.sections import Outcome
from nlijob.report.view.page import build_page
from nlijob.report.view.prompt import prompt_section
from nlijob.report.view.usage import usage_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome

NAME = cast(HeadName, "last-state")
FAULT = "train.epochs: the last-state head needs one epoch"


class LastStateHead(Head):
    """The first vocabulary entries, one per label, at the last token."""

    auto_class = transformers.AutoModelForCausalLM
    peft_task_type = "CAUSAL_LM"
    trains_head = False
    covers_vocabulary = False

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        features = [row.features for row in rows]
        inputs = self._tokenizer.pad(features, padding_side="right", return_tensors="pt")
        return new_batch(inputs, rows, device)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        logits: Tensor = model(**batch.inputs, use_cache=False).logits
        rows = torch.arange(len(batch.position_of_row))
        return logits[rows, batch.positions[batch.position_of_row], :3].float()

    def target_class(self, label: int) -> int:
        return label

    def label_logits(self, logits: Tensor) -> Tensor:
        return logits


def faults(config: JobConfig) -> Iterator[str]:
    if config.train.epochs > 1:
        yield FAULT


@pytest.fixture
def config(demo: JobConfig, monkeypatch: pytest.MonkeyPatch) -> JobConfig:
    """The demo's job with the third head, which is entered in both tables."""
    described = HeadDescription(
        title="last-state head",
        task="with the last state read off",
        reading="The last state is the answer.",
        snippet="MODEL = {model!r}",
        faults=faults,
        writes_text=False,
        takes_few_shot=False,
    )
    monkeypatch.setitem(HEADS, NAME, described)
    monkeypatch.setitem(HEAD_CLASSES, NAME, LastStateHead)
    return dataclasses.replace(demo, model=dataclasses.replace(demo.model, head=NAME))


def test_it_encodes_scores_and_trains(
    config: JobConfig,
    tokenizer: Any,
    examples: list[Example],
    new_model: Callable[[JobConfig], LoadedModel],
) -> None:
    loaded = new_model(config)
    head = head_class(config.model.head)(tokenizer, config.prompt, loaded.max_length, examples)
    rows = head.encode("train", examples)
    engine = Engine(loaded, head, config, rows)
    before, predictions = score(engine.forward(), head, "train", rows, 8, lambda done: None)
    step = next(engine.trainer().epoch(1))
    after, _ = score(engine.forward(), head, "train", rows, 8, lambda done: None)
    assert all(len(p.probabilities) == 3 and p.label_mass is None for p in predictions)
    assert step.grad_norm
    assert after.loss != before.loss


def test_without_packed_logits_it_is_computed_by_the_plain_loop_and_the_plan_says_why(
    config: JobConfig,
    tokenizer: Any,
    examples: list[Example],
    new_model: Callable[[JobConfig], LoadedModel],
) -> None:
    head = LastStateHead(tokenizer, config.prompt, 128, examples)
    plan = Engine(new_model(config), head, config, head.encode("train", examples)).plan()
    assert plan.way == "plain"
    assert any("LastStateHead cannot read packed rows" in reason for reason in plan.refused)


def test_its_requirements_are_checked_with_the_configuration(config: JobConfig) -> None:
    assert check(config) == [FAULT]


def test_its_words_stand_on_the_page(config: JobConfig) -> None:
    results = outcome(Spec(head="sequence-classification"))
    job = dataclasses.replace(results.run.config, model=config.model)
    changed = dataclasses.replace(results, run=dataclasses.replace(results.run, config=job))
    assert "with the last state read off" in build_page(Outcome(changed)).subtitle
    assert prompt_section(changed).lead.startswith("The last state is the answer.")
    assert usage_section(changed).snippet.startswith("MODEL = ")
