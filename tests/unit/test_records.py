"""Records survive the round trip through JSON, and wrong ones are refused."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nlijob import records
from nlijob.config import load_config
from nlijob.recipe import recipe_names
from nlijob.records import job, older, outcome
from nlijob.records.job import (
    FORMAT_VERSION,
    Example,
    FileStamp,
    Marker,
    Prediction,
    RunRecord,
    SplitScore,
    Timing,
    WorkerTask,
)
from nlijob.records.outcome import Results

CLASSES = [
    value
    for module in (job, outcome)
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and value.__module__ == module.__name__
]
EXAMPLE = Example(3, "Ein Mann\u2028liest.\r\n", 'Er "liest".', 1)
PREDICTION = Prediction("test", 3, 1, 0, (0.5, 0.25, 0.25), None, 1.5, 9)


def filled(hint: Any, optional: bool) -> Any:
    """A value of a type; the last arm of a union with `optional`, else the first."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return filled(arguments[-1 if optional else 0], optional)
    if hint is Prediction:
        return PREDICTION  # not any values are one
    if hint is Any:
        return [1, None, "é"]
    if origin is typing.Literal:
        return arguments[-1]
    if origin is tuple:
        return (filled(arguments[0], optional),) * 2
    if origin is dict:
        return {"k": filled(arguments[1], optional)}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{f.name: filled(hints[f.name], optional) for f in dataclasses.fields(hint)})
    return {type(None): None, int: 7, float: 0.1, str: "é\n", bool: True}[hint]


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_every_record_survives_the_round_trip_through_json(cls: type[Any], optional: bool) -> None:
    record = filled(cls, optional)
    assert records.from_json(cls, json.loads(records.dump(record))) == record
    assert records.from_json(cls, json.loads(records.dump_line(record))) == record


@pytest.mark.parametrize("cls", CLASSES)
def test_a_record_is_written_as_a_copy_of_all_its_values_would_be(cls: type[Any]) -> None:
    record = filled(cls, False)
    as_json = records.to_json(record)
    assert records.dump_line(record) == json.dumps(as_json, ensure_ascii=False) + "\n"
    assert records.dump(record) == json.dumps(as_json, ensure_ascii=False, indent=1) + "\n"


def test_a_value_that_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError, match="type PosixPath has no form"):
        records.dump_line(replace(PREDICTION, split=cast(Any, Path("x"))))


def test_all_records_are_tried() -> None:
    assert {Results, Marker, WorkerTask, RunRecord} <= set(CLASSES)


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_whole_configuration_survives_the_round_trip(recipe: str, tmp_path: Path) -> None:
    record = RunRecord("id", recipe, load_config(recipe), ("--epochs", "3"), "today", "0.1")
    path = tmp_path / "config.json"
    path.write_text(records.dump(record), encoding="utf-8")
    assert records.read(RunRecord, path) == record


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_not_written(value: float) -> None:
    with pytest.raises(ValueError, match=r"Prediction\.loss is -?(nan|inf)"):
        records.dump(replace(PREDICTION, loss=value))


def test_nan_is_found_at_any_depth() -> None:
    with pytest.raises(ValueError, match=r"probabilities\[1\] is nan"):
        records.dump_line(replace(PREDICTION, probabilities=(0.5, math.nan)))


def test_nan_is_not_read() -> None:
    text = records.dump(PREDICTION).replace('"loss": 1.5', '"loss": NaN')
    with pytest.raises(ValueError, match="loss: expected a number, got nan"):
        records.from_json(Prediction, json.loads(text))


def test_every_wrong_key_is_named() -> None:
    with pytest.raises(ValueError, match="not a Example") as caught:
        records.from_json(Example, {"index": "3", "premise": "", "label": 0, "lable": 1})
    for text in ("index: expected a whole number", "hypothesis: missing", "lable: unknown key"):
        assert text in str(caught.value)


def test_a_record_is_a_single_line_whatever_characters_its_texts_hold() -> None:
    line = records.dump_line(EXAMPLE)
    assert line.endswith("\n")
    assert len(line.encode().splitlines()) == 1


def test_json_lines_come_back_in_order(tmp_path: Path) -> None:
    examples = [replace(EXAMPLE, index=index) for index in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text(records.dump_lines(examples), encoding="utf-8")
    assert list(records.read_lines(Example, path)) == examples


@pytest.mark.parametrize("lost", [1, 2, 20])
def test_an_incomplete_last_line_is_ignored(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "rows.jsonl"
    text = records.dump_line(EXAMPLE) + records.dump_line(EXAMPLE)
    path.write_bytes(text.encode()[:-lost])
    assert list(records.read_lines(Example, path)) == [EXAMPLE]


def test_a_last_line_cut_within_a_character_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    line = records.dump_line(EXAMPLE).encode()
    path.write_bytes(line + '{"index": 4, "premise": "é'.encode()[:-1])
    assert list(records.read_lines(Example, path)) == [EXAMPLE]


def test_a_damaged_line_before_the_last_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"index": 1\n' + records.dump_line(EXAMPLE), encoding="utf-8")
    with pytest.raises(ValueError, match="delimiter"):
        list(records.read_lines(Example, path))


def test_a_missing_field_gets_its_default() -> None:
    data = {"attempt": 1, "stage": "train", "part": "", "started_at_s": 0, "duration_s": 2}
    assert records.from_json(Timing, {**data, "kind": "stage"}) == Timing(1, "train", "", 0.0, 2.0)


def test_scores_have_accuracy_and_speed() -> None:
    score = SplitScore("test", rows=8, correct=6, loss=0.5, duration_s=2.0)
    assert (score.accuracy, score.examples_per_s) == (0.75, 4.0)


# ---------------------------------------------------------------- record format 2


def test_older_records_are_upgraded_to_the_present_format() -> None:
    assert older.READABLE[-1] == FORMAT_VERSION


@pytest.mark.parametrize(
    ("part", "kind", "epoch", "split"),
    [
        ("", "stage", None, None),
        ("epoch 12", "optimizer steps", 12, "train"),
        ("epoch 1 validation", "scoring", 1, "validation"),
        ("epoch 1 test", "scoring", 1, "test"),
        ("epoch 2 checkpoint", "checkpoint", 2, None),
        ("test", "scoring", None, "test"),
        ("few-shot test", "other", None, None),
        ("warm-up", "other", None, None),
    ],
)
def test_a_timing_of_format_2_gets_its_kind_from_its_part(
    part: str, kind: Any, epoch: int | None, split: Any
) -> None:
    data = {"attempt": 1, "stage": "train", "part": part, "started_at_s": 0.0, "duration_s": 2.0}
    read = records.from_json(Timing, {**data, "examples": 4})
    assert read == Timing(1, "train", part, 0.0, 2.0, 4, kind, epoch, split)


def test_a_configuration_of_format_2_is_read_as_one_of_the_present_format() -> None:
    record = RunRecord("id", "demo", load_config("demo"), (), "today", "0.1.0", 2)
    read = records.from_json(RunRecord, json.loads(records.dump(record)))
    assert read == replace(record, format_version=FORMAT_VERSION)


def test_a_marker_of_format_2_keeps_its_format() -> None:
    text = """{"stage": "train", "fingerprint": "x", "finished_at": "today",
               "sizes": {"train/result.json": 9}, "format_version": 2}"""
    files = {"train/result.json": FileStamp(9, None)}
    marker = Marker("train", "x", "today", files, format_version=2)
    assert records.from_json(Marker, json.loads(text)) == marker


@pytest.mark.parametrize(
    "value",
    [
        {"format_version": 2, "warnings": 3, "gates": [], "stages": {"a": 1}, "run": None},
        {"format_version": 2, "warnings": [3], "gates": {"failures": 1}, "stages": [{"parts": 1}]},
        [],
    ],
)
def test_a_damaged_outcome_of_format_2_is_refused_with_its_faults(value: Any) -> None:
    with pytest.raises(ValueError, match="not a Results"):
        records.from_json(Results, value)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"predicted": 1}, "predicted is not the label of the highest probability"),
        ({"predicted": 3}, "is not the number of one of the probabilities"),
        ({"predicted": -1}, "is not the number of one of the probabilities"),
        ({"label": 3}, "is not the number of one of the probabilities"),
        ({"probabilities": (0.9, 0.25, 0.25)}, "the probabilities do not sum to 1"),
        ({"probabilities": (1.5, -0.25, -0.25)}, "a probability is not between 0 and 1"),
        ({"probabilities": ()}, "is not the number of one of the probabilities"),
    ],
)
def test_a_prediction_that_cannot_be_is_refused(changes: dict[str, Any], fault: str) -> None:
    text = records.dump(replace(PREDICTION, **changes))
    with pytest.raises(ValueError, match=fault):
        records.from_json(Prediction, json.loads(text))


@pytest.mark.parametrize("predicted", [0, 1])
def test_either_of_two_equal_probabilities_may_be_predicted(predicted: int) -> None:
    prediction = replace(PREDICTION, probabilities=(0.4, 0.4, 0.2), predicted=predicted)
    text = records.dump(prediction)
    assert records.from_json(Prediction, json.loads(text)) == prediction


def test_probabilities_rounded_to_float32_are_accepted() -> None:
    third = 0.3333333432674408
    prediction = replace(PREDICTION, probabilities=(third, third, third))
    text = records.dump(prediction)
    assert records.from_json(Prediction, json.loads(text)) == prediction


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"\0" * 20, b"[" * 100_000, b'{"index":' * 5_000, b"9" * 5_000, b"1e999"],
)
def test_damage_of_any_kind_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        records.read(Example, path)


def test_damaged_lines_of_a_log_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    line = records.dump_line(EXAMPLE).encode()
    damage = [line[:9] + b"\n", b"\0" * 20 + b"\n", b"\xff\n", b"[" * 100_000 + b"\n", b"\n"]
    path.write_bytes(line + b"".join(damage) + line + line[:9])
    assert records.read_log(Example, path) == ([EXAMPLE, EXAMPLE], len(damage))


def test_a_log_that_is_a_folder_counts_as_a_damaged_line(tmp_path: Path) -> None:
    assert records.read_log(Example, tmp_path) == ([], 1)
    assert records.read_log(Example, tmp_path / "nowhere") == ([], 0)
