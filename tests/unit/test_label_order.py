"""Labels of a checkpoint made for classification, mapped to the job's by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nlijob.config import DataConfig
from nlijob.heads.label_order import label_order

NAMES = ("entailment", "neutral", "contradiction")


def order(names: Sequence[str], **changes: object) -> tuple[int, ...]:
    data = DataConfig(dataset="demo", **{"label_names": NAMES, **changes})  # type: ignore[arg-type]
    return label_order(data, names).order


def test_the_jobs_labels_find_the_outputs_of_the_same_name() -> None:
    assert order(["contradiction", "entailment", "neutral"]) == (1, 2, 0)


def test_capitals_and_spaces_do_not_matter() -> None:
    assert order(["CONTRADICTION", " Neutral ", "Entailment"]) == (2, 1, 0)


def test_spellings_of_the_label_map_count() -> None:
    assert order(["c", "e", "n"], label_map={"e": 0, "n": 1, "C": 2}) == (1, 2, 0)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["LABEL_0", "LABEL_1", "LABEL_2"],
        ["0", "1", "2"],
        ["entailment", "not_entailment"],
        ["entailment", "neutral", "unrelated"],
        ["entailment", "neutral", "Neutral"],
        ["entailment", "neutral", "contradiction", "other"],
    ],
)
def test_other_names_or_another_number_of_labels_are_not_mapped(names: list[str]) -> None:
    assert order(names) == ()


def test_names_that_differ_in_capitals_alone_are_told_apart_exactly() -> None:
    assert order(["a", "A", "b"], label_names=("A", "a", "b")) == (1, 0, 2)


def test_a_spelling_without_a_gold_label_is_not_mapped() -> None:
    assert order(["entailment", "neutral", "x"], label_map={"x": -1}) == ()


def test_the_reason_names_the_checkpoints_labels() -> None:
    data = DataConfig(dataset="demo", label_names=NAMES)
    assert label_order(data, ["yes", "no"]).reason == "the checkpoint has other labels: yes, no"
