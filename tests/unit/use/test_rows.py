"""Rows are read one by one: each keeps its text, and a malformed one is named with its line."""

from __future__ import annotations

import json

import pytest

from nlijob.errors import NotAvailableError
from nlijob.use import rows
from nlijob.use.rows import BadRow, Format, InputRow
from tests.unit.use.conftest import Reads

WHOLE = '{"premise": "a", "hypothesis": "b"}'


def texts(reader: rows.RowReader) -> list[tuple[str, str]]:
    return [(row.premise, row.hypothesis) for row in reader if isinstance(row, InputRow)]


def faults(reader: rows.RowReader) -> list[tuple[int, str]]:
    return [(row.line, row.fault) for row in reader if isinstance(row, BadRow)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("jsonl", f'{{"premise": "a, b", "hypothesis": "c"}}\n{WHOLE}'),
        ("csv", 'premise,hypothesis\n"a, b",c\na,b\n'),
        ("csv", 'id,"hypothesis",premise\r\n7,c,"a, b"\r\n8,b,a\r\n'),
        ("tsv", "premise\thypothesis\na, b\tc\na\tb"),
        ("csv", '\ufeffpremise,hypothesis\n\n"a, b",c\n  \na,b\n'),
        ("tsv", "sentence2\tgold_label\tsentence1\nc\t-\ta, b\nb\t-\ta\n"),
    ],
)
def test_both_texts_are_found_in_each_format(reads: Reads, kind: Format, text: str) -> None:
    assert texts(reads(kind, text)) == [("a, b", "c"), ("a", "b")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("jsonl", ['{"premise":"é\\u00e9",  "hypothesis":"b", "x": 1.50}']),
        ("csv", ["premise,hypothesis", '"a ""so""","b\nc"', " a , b "]),
        ("tsv", ["premise\thypothesis", 'a "so"\t b']),
    ],
)
def test_a_row_keeps_its_own_text_and_line_end(
    reads: Reads, kind: Format, lines: list[str], end: str
) -> None:
    reader = reads(kind, end.join(lines) + end)
    found = [row for row in (reader.header, *reader) if isinstance(row, InputRow)]
    assert [row.text for row in found] == lines
    assert {row.end for row in found} == {end}


@pytest.mark.parametrize(
    ("kind", "bad", "fault"),
    [
        ("jsonl", '{"premise": "a"', "not JSON: Expecting ',' delimiter at character 16"),
        ("jsonl", "[1]", "not a JSON object with a key for each column"),
        ("jsonl", '{"premise": "a"}', "it has no key 'hypothesis'"),
        ("jsonl", '{"premise": null, "hypothesis": "b"}', "'premise' is missing (null)"),
        ("jsonl", '{"premise": 7, "hypothesis": "b"}', "'premise' is 7, not a text"),
        ("jsonl", '{"premise": "a", "premise": "b"}', "the key 'premise' occurs twice"),
        ("jsonl", '{"premise": "\\ud800", "hypothesis": "b"}', "'premise' has half of a character"),
        ("csv", "a,b,c", "3 fields, but the header has 2"),
        ("csv", "a", "1 field, but the header has 2"),
        ("csv", '"a"b,c', "text after the closing quote of a field"),
        ("csv", 'a,the "word', "a quoted field that is never closed"),
        ("csv", 'a,the "word"', "a quote within a field that is not in quotes"),
        ("csv", "a,b\rc", "a carriage return without a line feed"),
        ("csv", "a,b\0", "a NUL character"),
        ("tsv", "a\tb\tc", "3 fields, but the header has 2"),
    ],
)
def test_a_malformed_row_is_named_and_the_rows_around_it_are_read(
    reads: Reads, kind: Format, bad: str, fault: str
) -> None:
    good = {"jsonl": WHOLE, "csv": "a,b", "tsv": "a\tb"}[kind]
    header = (
        []
        if kind == "jsonl"
        else [{"csv": "premise,hypothesis", "tsv": "premise\thypothesis"}[kind]]
    )
    lines = [*header, good, bad, good, good]
    (found,) = faults(reads(kind, "\n".join(lines)))
    assert found[0] == len(header) + 2
    assert found[1].startswith(fault)
    assert texts(reads(kind, "\n".join(lines))) == [("a", "b")] * 3


def test_a_byte_that_is_not_utf_8_is_a_fault_of_its_row(reads: Reads) -> None:
    reader = reads("csv", b"premise,hypothesis\na,caf\xe9\na,b\n")
    assert list(reader) == [
        BadRow(2, "byte 6 (0xe9) is not UTF-8"),
        *list(reads("csv", b"premise,hypothesis\n\na,b\n")),
    ]


def test_a_line_without_end_takes_no_memory_beyond_the_limit(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 40)
    reader = reads("jsonl", f"{'x' * 130}\n{WHOLE}\n")
    assert faults(reader) == [(1, "longer than 40 bytes")]
    assert texts(reads("jsonl", f"{'x' * 130}\n{WHOLE}\n")) == [("a", "b")]


def test_a_quote_that_is_never_closed_loses_its_own_row_only(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_LINES", 3)
    text = 'premise,hypothesis\n"a,b\n' + "a,b\n" * 6
    assert faults(reads("csv", text)) == [(2, "a quoted field that is never closed")]
    assert len(texts(reads("csv", text))) == 6


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x1f\x8b\x08\0\0", "compressed with gzip"),
        ("premise,hypothesis\n".encode("utf-16"), "UTF-16"),
        ("premise,hypothesis\n".encode("utf-16-le"), "UTF-16"),
        (b"PAR1\x15\x04", "a Parquet file"),
    ],
)
def test_a_file_of_another_kind_is_refused_as_a_whole(
    reads: Reads, content: bytes, what: str
) -> None:
    with pytest.raises(NotAvailableError, match=what):
        reads("csv", content)


def test_a_json_array_is_refused_as_a_whole(reads: Reads) -> None:
    with pytest.raises(NotAvailableError, match="one JSON array"):
        reads("jsonl", "[\n" + json.dumps({"premise": "a", "hypothesis": "b"}) + "\n]\n")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("csv", "text;claim\n"),
        ("tsv", "text\tclaim\na\tb\n"),
        ("jsonl", '{"text": "a", "claim": "b"}'),
    ],
)
def test_missing_columns_are_told_with_those_there_are(
    reads: Reads, kind: Format, text: str
) -> None:
    with pytest.raises(
        NotAvailableError, match=r"no column 'premise' and no column .*claim"
    ) as told:
        reads(kind, text)
    assert "--premise-column" in told.value.hint


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_an_empty_input_has_no_rows(reads: Reads, kind: Format) -> None:
    assert list(reads(kind, "")) == []
