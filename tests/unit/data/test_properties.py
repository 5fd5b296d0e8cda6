"""Whatever the texts are: what was written is read back, and a damaged line is named."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nlijob import records
from nlijob.config import DataConfig
from nlijob.data.sources import read_file
from nlijob.data.subset import build_subset, chosen_indices
from nlijob.data.table import Row
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Example
from nlijob.rundir import RunDir

COLUMNS = ("premise", "hypothesis", "label")
Rows = Sequence[Mapping[str, str]]

plain_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
awkward_texts = st.text(st.sampled_from("ab ,;\"'\t\n\r\\é猫😀\u2028\ufeff[]{}")).map(str)
texts = plain_texts | awkward_texts


def tables(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    row = st.fixed_dictionaries(
        {"premise": text, "hypothesis": text, "label": st.sampled_from("012")}
    )
    return st.lists(row, min_size=1, max_size=8)


def as_csv(rows: Rows, line_end: str = "\r\n") -> str:
    """Rows as the csv module writes them. With other line ends than its own, older versions of it
    do not quote a carriage return within a text, so then all is quoted."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text,
        COLUMNS,
        lineterminator=line_end,
        quoting=csv.QUOTE_MINIMAL if line_end == "\r\n" else csv.QUOTE_ALL,
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json_lines(rows: Rows, ensure_ascii: bool = False) -> str:
    return "".join(json.dumps(row, ensure_ascii=ensure_ascii) + "\n" for row in rows)


class Read(NamedTuple):
    """What was read of a file that is gone."""

    rows: list[Row]
    lines: list[int]
    over_lines: tuple[int, ...]


def read(text: str, suffix: str) -> Read:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"test{suffix}"
        path.write_bytes(text.encode())
        table = read_file(path)
        return Read(table.rows, table.lines, table.fields_over_lines.first)


@given(tables(texts), st.sampled_from(["\n", "\r\n"]))
def test_what_the_csv_module_writes_is_read_back(rows: Rows, line_end: str) -> None:
    assert list(read(as_csv(rows, line_end), ".csv").rows) == rows


@given(tables(texts))
def test_what_the_csv_module_writes_with_tabs_is_read_back(rows: Rows) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    needs_quotes = any(set(value) & set('"\t\r\n') for row in rows for value in row.values())
    assume(needs_quotes)
    assert read(text.getvalue(), ".tsv").rows == rows


@given(tables(texts), st.sampled_from([None, 1]), st.booleans())
def test_an_array_of_the_json_module_is_read_back(
    rows: Rows, indent: int | None, ensure_ascii: bool
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ensure_ascii)
    assert read(text, ".json").rows == rows


@given(tables(texts), st.booleans())
def test_what_the_json_module_writes_is_read_back(rows: Rows, ensure_ascii: bool) -> None:
    assert list(read(as_json_lines(rows, ensure_ascii), ".jsonl").rows) == rows


@given(tables(texts))
def test_what_pyarrow_writes_is_read_back(rows: Rows) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        assert list(read_file(path).rows) == rows


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@settings(max_examples=20)  # each writes and syncs a run's files
@given(rows=tables(texts), size=st.integers(1, 9))
def test_the_subset_holds_exactly_the_chosen_rows(suffix: str, rows: Rows, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for split in SPLITS:
            path = Path(folder) / f"{split}{suffix}"
            if suffix == ".parquet":
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
            else:
                write = as_csv if suffix == ".csv" else as_json_lines
                path.write_bytes(write(rows).encode())
        data = DataConfig(folder, train_size=size, validation_size=size, test_size=size)
        run = RunDir(Path(folder) / "run")
        build_subset(data, run, Hub(True, print))
        taken = list(records.read_lines(Example, run.subset("test")))
    assert taken == [
        Example(i, rows[i]["premise"], rows[i]["hypothesis"], int(rows[i]["label"]))
        for i in chosen_indices(len(rows), data.split_size("test"))
    ]


# ---------------------------------------------------------------- damage to a line

one_line = st.text(st.sampled_from('abc ,"é')).filter(lambda text: "\n" not in text)
DAMAGE: dict[str, Callable[[str], str]] = {
    "a quote more at the start": lambda line: '"' + line,
    "a quote more at the end": lambda line: line + '"',
    "the first quote gone": lambda line: line.replace('"', "", 1),
    "the last quote gone": lambda line: "".join(line.rsplit('"', 1)),
    "a comma more": lambda line: line + ",",
    "the last comma gone": lambda line: "".join(line.rsplit(",", 1)),
    "a NUL": lambda line: line + "\0",
    "cut in half": lambda line: line[: len(line) // 2],
    "doubled": lambda line: line + line,
}


@pytest.mark.parametrize("damage", DAMAGE)
@given(rows=tables(one_line), data=st.data())
def test_a_damaged_csv_line_is_named_or_every_other_row_is_unharmed(
    damage: str, rows: Rows, data: Any
) -> None:
    lines = as_csv(rows).splitlines()
    at = data.draw(st.integers(1, len(rows)))
    damaged = DAMAGE[damage](lines[at])
    assume(damaged != lines[at])
    refused, table = read_or_refusal("\n".join([*lines[:at], damaged, *lines[at + 1 :], ""]))
    if table is None:
        assert re.search(rf"malformed lines?: line {at + 1}:", refused)
    elif table.over_lines:  # the quote met another one: legal, counted, and told
        assert table.over_lines[0] == at + 1
    else:
        kept = dict(zip(table.lines, table.rows, strict=True))
        others = {line: row for line, row in enumerate(rows, start=2) if line != at + 1}
        assert {line: kept[line] for line in others} == others


def read_or_refusal(text: str) -> tuple[str, Read | None]:
    try:
        return "", read(text, ".csv")
    except NotAvailableError as error:
        return error.message, None


@given(tables(one_line), st.data())
def test_a_json_line_cut_anywhere_is_named(rows: Rows, data: Any) -> None:
    lines = as_json_lines(rows).splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = lines[at][: data.draw(st.integers(1, len(lines[at]) - 1))]
    with pytest.raises(NotAvailableError) as caught:
        read("\n".join(lines), ".jsonl")
    assert f"1 malformed line: line {at + 1}: not JSON" in caught.value.message


# ---------------------------------------------------------------- any bytes

SUFFIXES = [".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet", ".arrow", ".csv.gz", ".json.zst"]
bytes_of_text = st.lists(
    st.sampled_from([b"a", b",", b'"', b"\n", b"\r", b"{", b"}", b":", b"[", b"1", b"\xc3", b"\0"])
).map(b"".join)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=st.binary() | bytes_of_text)
def test_any_bytes_are_read_or_refused(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"test{suffix}"
        path.write_bytes(content)
        with contextlib.suppress(NotAvailableError):
            table = read_file(path)
            assert len(table.rows) == len(table)


@given(st.data())
def test_a_flipped_byte_in_a_parquet_file_with_checksums_changes_no_row(data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.parquet"
        rows = [{"premise": f"a{i}", "hypothesis": "b", "label": i % 3} for i in range(9)]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, path, write_page_checksum=True)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with contextlib.suppress(NotAvailableError):
            kept = list(read_file(path).rows)
            # in the schema it may rename a column or change its type, which is refused later
            types = {name: type(value) for name, value in kept[0].items()}
            assert kept == rows or types != {"premise": str, "hypothesis": str, "label": int}
