"""JSON Lines: what is read, and what is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nlijob.data.sources import read_file
from nlijob.data.table import Table
from nlijob.errors import NotAvailableError

ROW = '{"premise": "a", "hypothesis": "b", "label": 0}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.jsonl"


def read(file: Path, text: str) -> Table:
    file.write_bytes(text.encode())
    return read_file(file)


def refusal(file: Path, text: str) -> NotAvailableError:
    with pytest.raises(NotAvailableError) as caught:
        read(file, text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "blank", "lines"),
    [
        (f"{ROW}\n{ROW}\n", 0, [1, 2]),
        (f"{ROW}\r\n{ROW}", 0, [1, 2]),
        (f"{ROW}\n\n  \n{ROW}\n\n", 3, [1, 4]),
        (f"\n{ROW}\n{ROW}\n", 1, [2, 3]),
    ],
)
def test_blank_lines_are_skipped_and_counted(
    file: Path, text: str, blank: int, lines: list[int]
) -> None:
    table = read(file, text)
    assert (len(table.rows), table.blank_lines, table.lines) == (2, blank, lines)


def test_separators_of_unicode_do_not_end_a_line(file: Path) -> None:
    row = {"premise": "a\u2028b\u0085c", "hypothesis": "\x0c", "label": 1}
    assert list(read(file, json.dumps(row, ensure_ascii=False)).rows) == [row]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "not JSON"),
        (ROW + ROW, "not JSON: Extra data at character"),
        (ROW + ",", "not JSON"),
        ("3", "not an object with columns"),
        ("null", "not an object with columns"),
        ('["a", "b", 0]', "not an object with columns"),
        ('{"label": 0, "premise": "a", "label": 2}', "the key 'label' occurs twice"),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' occurs twice"),
        (f'{{"label": {"1" * 5000}}}', "a number has too many digits"),
        ('{"premise": ' + "[" * 100_000 + "}", "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
    ],
)
def test_a_malformed_line_is_named(file: Path, line: str, fault: str) -> None:
    message = refusal(file, f"{ROW}\n\n{line}\n{ROW}\n").message
    assert "test.jsonl cannot be read: 1 malformed line: line 3: " in message
    assert fault in message
    assert len(message) < 400


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["test.jsonl", "test.json"])
def test_a_file_that_is_one_array_is_read(file: Path, name: str, indent: int | None) -> None:
    rows = [{**json.loads(ROW), "label": label} for label in range(3)]
    table = read(file.with_name(name), "\n" + json.dumps(rows, indent=indent))
    assert table.rows == rows
    assert table.lines == ([2, 2, 2] if indent is None else [3, 8, 13])
    assert table.blank_lines == 0


def test_an_array_may_be_longer_than_what_is_read_at_once(file: Path) -> None:
    rows = [{**json.loads(ROW), "premise": "long " * length} for length in (1, 99_999, 3)] * 5
    assert read(file, json.dumps(rows)).rows == rows


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"[{ROW},\n{ROW}", "line 2: not JSON: ',' is missing"),
        (f"[{ROW},\n{ROW[:20]}", "line 2: not JSON: "),
        (f"[{ROW},\n3]", "line 2: an element is not an object with columns"),
        (f"[{ROW}\n{ROW}]", "line 2: not JSON: ',' is missing"),
        (f"[{ROW}]\n{ROW}", "line 2: something follows the end of the array"),
        ('[{"a": 1, "a": 2}]', "line 1: not usable: the key 'a' occurs twice"),
        ('[{"a": ' + "[" * 100_000, "line 1: not usable: lists or objects are nested too deeply"),
    ],
)
def test_the_first_fault_of_an_array_is_named(file: Path, text: str, fault: str) -> None:
    assert f"test.jsonl cannot be read: {fault}" in refusal(file, text).message


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_that_is_one_object_of_rows_is_told_with_the_way_out(
    file: Path, indent: int | None
) -> None:
    value = {"version": 1, "data": [json.loads(ROW)] * 3}
    error = refusal(file, json.dumps(value, indent=indent))
    assert "the file is one JSON object ('version', 'data')" in error.message
    assert """jq -c '.["data"][]' test.jsonl""" in error.hint


@pytest.mark.parametrize("column", [["a", "b"], {"0": "a", "1": "b"}])
def test_a_file_of_columns_is_one_object_too(file: Path, column: Any) -> None:
    value = {"premise": column, "hypothesis": column, "label": column}
    assert "the file is one JSON object" in refusal(file, json.dumps(value)).message


def test_a_single_row_may_hold_lists_in_other_columns(file: Path) -> None:
    row = {**json.loads(ROW), "annotator_labels": ["neutral", "entailment"]}
    assert list(read(file, json.dumps(row)).rows) == [row]


def test_a_byte_of_an_array_that_is_not_utf_8_is_told_with_its_line(file: Path) -> None:
    file.write_bytes(f"[{ROW},\n".encode() + ROW.replace("a", "\xe9", 1).encode("latin-1") + b"]")
    with pytest.raises(NotAvailableError, match="line 2, byte "):
        read_file(file)
