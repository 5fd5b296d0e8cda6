"""Labels and probabilities stand behind a row's own text, under names that are free."""

from __future__ import annotations

import csv
import io
import json

import pytest

from nlijob.use.output import AddedColumns, RowWriter
from nlijob.use.rows import FaultError, Format, InputRow
from tests.unit.use.conftest import Reads

NAMES = ("entailment", "not, at all")
PROBABILITIES = (0.1 + 0.2, 0.7)


def written(reads: Reads, kind: Format, text: str) -> str:
    reader = reads(kind, text)
    writer = RowWriter(kind, AddedColumns.beside(reader.names, NAMES), NAMES)
    header = [writer.header(reader.header)] if reader.header else []
    rows = [row for row in reader if isinstance(row, InputRow)]
    return "".join([*header, *(writer.row(row, 1, PROBABILITIES) for row in rows)])


def test_csv_rows_keep_their_bytes_and_get_fields(reads: Reads) -> None:
    text = 'id,premise,hypothesis\r\n"1","a\nb","c ""d"""\r\n'
    out = written(reads, "csv", text)
    header, row = csv.DictReader(io.StringIO(out, newline="")), text.splitlines(keepends=True)
    assert out.startswith(row[0].rstrip() + ",predicted_label,")
    (labelled,) = header
    assert labelled["hypothesis"] == 'c "d"'
    assert labelled["predicted_label"] == "not, at all"
    assert float(labelled["probability_entailment"]) == PROBABILITIES[0]
    assert float(labelled["probability_not, at all"]) == PROBABILITIES[1]


def test_json_rows_keep_their_bytes_and_get_keys(reads: Reads) -> None:
    row = '{"premise": "a",  "hypothesis": "\\u00e9", "n": 1.50}'
    out = written(reads, "jsonl", row)
    assert out.startswith(row[:-1] + ", ")
    assert out.endswith("}\n")
    assert json.loads(out)["probability_entailment"] == PROBABILITIES[0]


def test_tsv_rows_get_fields_without_tabs(reads: Reads) -> None:
    out = written(reads, "tsv", "premise\thypothesis\na\tb")
    assert out.splitlines()[1].split("\t")[2] == "not, at all"
    assert {line.count("\t") for line in out.splitlines()} == {4}


def test_names_that_the_input_has_get_a_number(reads: Reads) -> None:
    once = written(reads, "csv", "premise,hypothesis\na,b\n")
    twice = written(reads, "csv", once)
    assert "predicted_label_2,probability_entailment_2," in twice.splitlines()[0]


def test_a_later_json_row_that_has_such_a_key_is_a_fault(reads: Reads) -> None:
    rows = [
        '{"premise": "a", "hypothesis": "b"}',
        '{"premise":"a","hypothesis":"b","predicted\\u005flabel":1}',
    ]
    with pytest.raises(FaultError, match="predicted_label"):
        written(reads, "jsonl", "\n".join(rows))
