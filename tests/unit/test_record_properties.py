"""Whatever a file of a run holds, reading it gives a whole record or a ValueError."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nlijob import records
from nlijob.records.job import EpochResult, Manifest, Marker, Prediction, Timing, TrainStep
from nlijob.records.outcome import Results
from tests.unit.test_records import filled

CLASSES = (Marker, Manifest, Prediction, Timing, TrainStep, EpochResult, Results)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("cls", CLASSES)
@given(value=VALUES)
def test_any_value_is_a_record_or_refused(cls: type[Any], value: Any) -> None:
    assert_record_or_refused(cls, value)


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_a_record_with_one_other_value_is_read_as_it_stands_or_refused(
    cls: type[Any], data: st.DataObject
) -> None:
    value = copy.deepcopy(json.loads(records.dump(filled(cls, True))))
    place, key = data.draw(st.sampled_from(places(value)))
    if data.draw(st.booleans()):
        place[key] = data.draw(VALUES)
    else:
        del place[key]
    assert_record_or_refused(cls, value)


@given(data=st.data())
def test_a_file_with_any_damage_is_a_record_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(records.dump(filled(Marker, True)).encode())
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    content[start:end] = data.draw(st.binary(max_size=8))
    path = tmp_path_factory.mktemp("damaged") / "marker.json"
    path.write_bytes(content)
    try:
        found = records.read(Marker, path)
    except ValueError:
        return
    assert isinstance(found, Marker)


@given(lines=st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=4))
def test_whole_lines_of_a_log_are_read_whatever_stands_between_them(
    lines: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.mktemp("log") / "timings.jsonl"
    whole = records.dump_log_line(filled(Timing, False)).encode()
    path.write_bytes(b"".join(whole + line + b"\n" for line in lines))
    log = records.read_log(Timing, path)
    assert (len(log.records), log.unreadable) == (len(lines), len(lines))


@given(data=st.data())
def test_a_changed_byte_of_a_log_changes_no_figure(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.mktemp("log") / "timings.jsonl"
    timing = filled(Timing, False)
    line = bytearray(records.dump_log_line(timing).encode())
    at = data.draw(st.integers(0, len(line) - 2))
    line[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
    path.write_bytes(line)
    assert {*records.read_log(Timing, path).records} <= {timing}


def test_lines_of_earlier_versions_have_no_checksum(tmp_path: Path) -> None:
    timing = filled(Timing, False)
    (tmp_path / "timings.jsonl").write_text(records.dump_line(timing))
    assert records.read_log(Timing, tmp_path / "timings.jsonl").records == [timing]


def assert_record_or_refused(cls: type[Any], value: Any) -> None:
    try:
        record = records.from_json(cls, value)
    except ValueError:
        return
    assert records.from_json(cls, json.loads(records.dump(record))) == record


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    keys = range(len(value)) if isinstance(value, list) else value
    found: list[tuple[Any, Any]] = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], list | dict):
            found += places(value[key])
    return found
