"""CSV is read strictly: a malformed line is named, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlijob.data.sources import read_file
from nlijob.data.table import Lines, Table
from nlijob.errors import NotAvailableError

HEADER = "premise,hypothesis,label\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.csv"


def read(file: Path, text: str) -> Table:
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return read_file(file)


def refusal(file: Path, text: str) -> NotAvailableError:
    with pytest.raises(NotAvailableError) as caught:
        read(file, text)
    return caught.value


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('"a,b,0', "a quoted field that is never closed"),
        ('a,"b,0', "a quoted field that is never closed"),
        ('a"b,c,0', "a quote within a field that is not in quotes"),
        ('a, "b",0', "a quote within a field that is not in quotes"),
        ('"a"b,c,0', "text after the closing quote of a field"),
        ('"a" ,c,0', "text after the closing quote of a field"),
        ("a,b,c,0", "4 fields, but the header has 3"),
        ("a,b,0,", "4 fields, but the header has 3"),
        ("a,b", "2 fields, but the header has 3"),
        ("a", "1 field, but the header has 3"),
        ('"a,b",0', "2 fields, but the header has 3"),
        ("a,b\0,0", "a NUL character"),
        ("a,b\rc,0", "a carriage return without a line feed"),
        ('"a"\rb,c,0', "text after the closing quote of a field"),
        ('a\r,"b",0', "a carriage return without a line feed"),
    ],
)
def test_a_malformed_line_is_named_with_its_fault(file: Path, line: str, fault: str) -> None:
    message = refusal(file, f"{HEADER}x,y,0\n\n{line}\nx,y,1\n").message
    assert f"test.csv cannot be read: 1 malformed line: line 4: {fault}" in message


def test_a_stray_quote_is_named_where_it_stands_and_where_its_field_ends(file: Path) -> None:
    message = refusal(file, f'{HEADER}x,y,0\n"x,y,0\nx,y,0\nsay "x",y,0\nx,y,2\n').message
    assert "line 3: text after the closing quote of a field, in line 5" in message
    assert "line 5: a quote within a field" in message


def test_the_first_five_malformed_lines_are_named_and_the_others_counted(file: Path) -> None:
    message = refusal(file, HEADER + "a,b\n" * 7).message
    assert "7 malformed lines: line 2: 2 fields" in message
    assert "line 6: 2 fields, but the header has 3; and 2 more" in message
    assert "line 7" not in message


def test_quoted_fields_may_hold_commas_quotes_and_line_breaks(file: Path) -> None:
    table = read(file, f'{HEADER}"a, ""b""","c\r\n\nd",0\r\n"",,1')
    assert [list(row.values()) for row in table.rows] == [
        ['a, "b"', "c\r\n\nd", "0"],
        ["", "", "1"],
    ]
    assert table.lines == [2, 5]


def test_fields_that_span_lines_are_counted_with_their_rows(file: Path) -> None:
    table = read(file, f'{HEADER}a,b,0\n"a\nb","c\nd",1\na,b,0\n"e\nf",g,2\n')
    assert table.fields_over_lines == Lines(3, (3, 3, 7))
    assert table.perhaps_joined == Lines()


def test_lines_that_all_look_like_rows_within_a_field_are_noted(file: Path) -> None:
    table = read(file, f'{HEADER}a,b,0\n"Tis,b,1\nc,d,0\nHello",b,2\n')
    assert len(table.rows) == 2
    assert table.perhaps_joined == Lines(1, (3,))


def test_blank_lines_are_skipped_and_counted(file: Path) -> None:
    table = read(file, f"\n{HEADER}\n  \na,b,0\r\n\r\na,b,1\n\n")
    assert (len(table.rows), table.blank_lines, table.lines) == (2, 5, [5, 7])


def test_line_ends_may_be_those_of_windows_and_the_last_may_lack_one(file: Path) -> None:
    table = read(file, "premise,hypothesis,label\r\na,b,0\r\nc,d,1")
    assert [row["label"] for row in table.rows] == ["0", "1"]


def test_a_field_may_be_longer_than_the_csv_module_allows(file: Path) -> None:
    long = "word " * 60_000
    assert read(file, f"{HEADER}{long},b,0\n").rows[0]["premise"] == long


def test_a_column_without_a_name_is_no_fault(file: Path) -> None:
    assert read(file, ",premise,hypothesis,label,\n0,a,b,1,\n").rows[0]["premise"] == "a"


def test_a_column_that_stands_twice_in_the_header_is_refused(file: Path) -> None:
    message = refusal(file, "premise,hypothesis,label,label\na,b,0,1\n").message
    assert "several columns are named 'label'" in message


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("|", "vertical bars")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_another_separator_is_named(file: Path, separator: str, name: str, quote: str) -> None:
    columns = [f"{quote}{column}{quote}" for column in ("premise", "hypothesis", "label")]
    message = refusal(file, separator.join(columns) + "\na, b;c,0\n").message
    assert f"its columns are separated by {name}, not commas" in message


@pytest.mark.parametrize("text", ["", "\n\n", HEADER, HEADER.strip()])
def test_a_file_without_rows_has_no_rows(file: Path, text: str) -> None:
    assert list(read(file, text).rows) == []


def test_a_malformed_header_is_named(file: Path) -> None:
    assert "line 1: a quote within" in refusal(file, 'premise,"hyp",la"bel\na,b,0\n').message


# ---------------------------------------------------------------- separated by tabs

TABS = "gold_label\tsentence1\tsentence2\n"


def read_tabs(file: Path, text: str, columns: tuple[str, ...] = ()) -> list[dict[str, str]]:
    path = file.with_suffix(".tsv")
    path.write_bytes(text.encode())
    return [dict(row) for row in read_file(path, columns).rows]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_quote_is_a_character_like_others_where_none_must_be_quoting(
    file: Path, line_end: str
) -> None:
    text = TABS + 'neutral\t"Yes."\tsay "no\nneutral\t"a\tb"\n'
    assert [list(row.values()) for row in read_tabs(file, text.replace("\n", line_end))] == [
        ["neutral", '"Yes."', 'say "no'],
        ["neutral", '"a', 'b"'],
    ]


@pytest.mark.parametrize("evidence", ['"say ""no"""', '"a\tb"', '"a\nb"'])
def test_fields_are_unquoted_where_only_quoting_explains_one(file: Path, evidence: str) -> None:
    rows = read_tabs(file, f'{TABS}neutral\t"Yes."\tb\nneutral\t{evidence}\tb\n')
    assert rows[0]["sentence1"] == "Yes."
    assert rows[1]["sentence1"] == evidence[1:-1].replace('""', '"')


def test_fields_are_unquoted_where_the_names_of_all_columns_are_quoted(file: Path) -> None:
    header = "\t".join(f'"{name}"' for name in TABS.split())
    assert read_tabs(file, f'{header}\n"neutral"\t"a"\t"b"\n') == [
        {"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}
    ]


def test_labels_of_annotators_may_be_left_out_at_the_end_of_a_line(file: Path) -> None:
    header = TABS.replace("\n", "\tlabel1\tlabel2\n")
    rows = read_tabs(file, f"{header}neutral\ta\tb\tneutral\nneutral\ta\tb\n")
    assert [(row["label1"], row["label2"]) for row in rows] == [("neutral", ""), ("", "")]


@pytest.mark.parametrize("line", ["neutral\ta", "neutral\ta\tb\tc"])
def test_other_lines_need_a_field_for_each_column(file: Path, line: str) -> None:
    with pytest.raises(NotAvailableError, match=r"line 2: \d fields, but the header has 3"):
        read_tabs(file, f"{TABS}{line}\n")


def test_a_csv_file_may_be_separated_by_tabs(file: Path) -> None:
    table = read(file, 'premise\thypothesis\tlabel\na, b\tc "d"\te\n')
    assert [list(row.values()) for row in table.rows] == [["a, b", 'c "d"', "e"]]


def test_a_tsv_file_with_commas_is_refused(file: Path) -> None:
    with pytest.raises(NotAvailableError, match="separated by commas, not tabs"):
        read_tabs(file, HEADER + "a,b,0\n")


@pytest.mark.parametrize("label", ["entails", "neutral", "Contradiction"])
def test_a_first_line_that_is_a_row_names_no_columns(file: Path, label: str) -> None:
    rows = read_tabs(file, f"a\tb\t{label}\n\nc\td\tneutral\n")
    assert [list(row) for row in rows] == [["premise", "hypothesis", "label"]] * 2
    assert rows[0]["label"] == label


def test_columns_may_be_named_by_the_configuration(file: Path) -> None:
    columns = ("label", "premise", "hypothesis")
    assert read_tabs(file, "0\ta\tb\n", columns) == [
        {"label": "0", "premise": "a", "hypothesis": "b"}
    ]
    with pytest.raises(NotAvailableError, match="3 fields, but the configured columns are 2"):
        read_tabs(file, "0\ta\tb\n", columns[:2])
