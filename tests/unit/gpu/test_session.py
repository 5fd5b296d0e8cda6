"""What the GPU stages share: the rows as model input, and how the prompt was resolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError
from nlijob.gpu.session import Session
from nlijob.gpu.stages.texts import measure_texts
from nlijob.gpu.words import prompt_line
from nlijob.prompts import Prompt
from nlijob.records.forgetting import GeneralText
from nlijob.records.job import SPLITS, Example, Progress, RunRecord, Timing, WorkerTask
from nlijob.records.serialization import read_lines
from nlijob.rundir import RunDir, write_record, write_records

LONG = Example(77, "a man " * 300, "a man", 0)

NewSession = Callable[..., Session]


@pytest.fixture
def new_session(tmp_path: Path, demo: JobConfig, examples: list[Example]) -> NewSession:
    """A session of a run with the demo's model, whose training and test rows hold a long one."""

    def new(**model: Any) -> Session:
        run = RunDir(tmp_path / "run")
        changed = dataclasses.replace(demo.model, max_length=128, **model)
        config = dataclasses.replace(demo, model=changed)
        write_record(run.config, RunRecord("run", "demo", config, (), "", ""))
        write_record(run.worker_task, WorkerTask(1, 0.0, 0.0, str(MODEL_DIR), "", {}))
        for split in SPLITS:
            long = [] if split == "validation" else [LONG]
            write_records(run.subset(split), [*examples[:6], *long])
        return Session(run)

    return new


def test_rows_that_are_too_long_are_left_out_counted_and_told(new_session: NewSession) -> None:
    session = new_session(too_long="drop")
    assert {split: len(rows) for split, rows in session.rows.items()} == dict.fromkeys(SPLITS, 6)
    assert LONG not in session.kept_examples("test")
    assert session.dropped == {"train": (77,), "test": (77,)}
    said = [line.note for line in read_lines(Progress, session.run.progress)]
    assert "test: 1 of 7 rows longer than 128 tokens, left out" in said


def test_rows_that_are_too_long_are_an_error_by_default(new_session: NewSession) -> None:
    with pytest.raises(NotAvailableError, match=r"train: 1 prompt longer .* row 77 "):
        _ = new_session().rows


def test_the_console_says_what_the_prompt_was_resolved_to() -> None:
    prompt = Prompt("{premise}", ("A", "B"), "letters", is_chat=True)
    assert prompt_line(prompt) == "prompt: in the model's chat template; answers 'A', 'B' (letters)"


def test_special_tokens_in_the_texts_of_rows_are_told(
    new_session: NewSession, examples: list[Example]
) -> None:
    session = new_session(too_long="drop")
    ending = session.tokenizer.eos_token
    spoilt = dataclasses.replace(examples[3], premise=f"a man {ending} walks")
    write_records(session.run.subset("validation"), [*examples[:3], spoilt])
    _ = session.rows
    said = [line.note for line in read_lines(Progress, session.run.progress)]
    assert (
        "1 of 4 validation rows write special tokens in their texts, which the model reads as "
        f"such (first: row {spoilt.index})."
    ) in said


def test_general_texts_are_measured_and_timed_where_the_model_writes_text(
    new_session: NewSession,
) -> None:
    session = new_session(too_long="drop")
    write_records(session.run.texts, [GeneralText(7, "A man is running. " * 5)])
    (found,) = measure_texts(session, "baseline")
    assert found.text == 7
    assert found.tokens > 10
    assert found.loss is not None
    timed = [(one.stage, one.part, one.examples) for one in read_lines(Timing, session.run.timings)]
    assert ("baseline", "general text", 1) in timed


def test_without_texts_or_a_language_model_no_general_text_is_measured(
    new_session: NewSession,
) -> None:
    assert measure_texts(new_session(), "baseline") == []
    classifier = new_session(head="sequence-classification")
    write_records(classifier.run.texts, [GeneralText(1, "A man is running.")])
    assert measure_texts(classifier, "baseline") == []
    assert "loaded" not in vars(classifier)
