"""General texts: those that come with nlijob, and files of the user's."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from nlijob.config import OWN_TEXTS
from nlijob.data.texts import MOST_TEXTS, read_texts, texts_stamp
from nlijob.errors import NotAvailableError
from nlijob.records.forgetting import GeneralText


def written(path: Path, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", OWN_TEXTS)
def test_own_texts_are_60_different_ones(name: str) -> None:
    texts = read_texts(name)
    assert [one.text for one in texts] == list(range(1, 61))
    assert len({one.content for one in texts}) == 60
    assert all(150 <= len(one.content) <= 1200 for one in texts)


def test_own_general_texts_are_of_many_kinds() -> None:
    kinds = Counter(one.kind for one in read_texts("general"))
    assert len(kinds) >= 8
    assert max(kinds.values()) <= 10


def test_no_texts_are_wanted() -> None:
    assert read_texts("") == []
    assert texts_stamp("") == ""


@pytest.mark.parametrize("name", ["notes.txt", "notes.md", "notes", "notes.txt.gz"])
def test_the_paragraphs_of_plain_text_are_texts(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, "\ufeff\n\nOne line,\r\nanother.\n \t\n\nSecond.\n\n\nThird.")
    assert read_texts(file) == [
        GeneralText(1, "One line,\nanother."),
        GeneralText(2, "Second."),
        GeneralText(3, "Third."),
    ]


ROWS = {
    "texts.jsonl": '{"text": "One."}\n\n{"text": "Two.", "kind": "news", "id": 7}\n',
    "texts.json": '[{"text": "One."}, {"text": "Two.", "kind": "news"}]',
    "texts.ndjson.gz": '{"text": "One.", "kind": null}\n{"text": "Two.", "kind": "news"}\n',
    "texts.csv": "text,kind\nOne.,\nTwo.,news\n",
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_have_their_text_in_a_column(tmp_path: Path, name: str) -> None:
    texts = read_texts(written(tmp_path / name, ROWS[name]))
    assert texts == [GeneralText(1, "One."), GeneralText(2, "Two.", "news")]


def test_of_many_texts_evenly_spaced_ones_are_taken(tmp_path: Path) -> None:
    many = "\n\n".join(f"Text {number}." for number in range(1, 4 * MOST_TEXTS + 1))
    texts = read_texts(written(tmp_path / "many.txt", many))
    assert len(texts) == MOST_TEXTS
    assert [one.text for one in texts[:3]] == [1, 5, 9]
    assert texts[1].content == "Text 5."


FAULTS: dict[str, tuple[str | bytes, str]] = {
    "empty.txt": ("", "has no text in it"),
    "blank.txt": ("\n \n\t\n", "has no text in it"),
    "latin.txt": ("Größe".encode("latin-1"), "line 1, byte 3 .* is not UTF-8"),
    "wide.txt": ("Hello".encode("utf-16"), "byte order mark says UTF-16"),
    "empty.jsonl": ("", "has no text in it"),
    "broken.jsonl": ('{"text": "a"}\n{"text": \n', "line 2: not JSON"),
    "number.jsonl": ('{"text": "a"}\n{"text": 7}\n', "row 1, line 2: text is 7, not a text"),
    "lacks.jsonl": ('{"text": "a"}\n{"txt": "b"}\n', "row 1, line 2: text is None"),
    "blank.jsonl": ('{"text": "a"}\n{"text": " "}\n', "row 1, line 2: text is blank"),
    "half.jsonl": ('{"text": "a"}\n{"text": "\\ud800"}\n', "row 1, line 2: .* half of a character"),
    "other.jsonl": ('{"content": "a"}\n', "has no column text; it has 'content'"),
    "other.csv": ("a,b\n1,2\n", "has no column text; it has 'a', 'b'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_what_where_and_how_to_mend_it(tmp_path: Path, name: str) -> None:
    content, what = FAULTS[name]
    with pytest.raises(NotAvailableError, match=what) as caught:
        read_texts(written(tmp_path / name, content))
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["gone.txt", "", "\0", "x" * 5000, "~nobody-of-this-name/a"],
    ids=["missing", "folder", "zero byte", "too long", "no such user"],
)
def test_a_file_that_is_not_there_is_a_fault_of_the_setting(tmp_path: Path, name: str) -> None:
    wanted = name if name.startswith("~") else str(tmp_path / name)
    for call in (read_texts, texts_stamp):
        with pytest.raises(NotAvailableError, match=r"forgetting\.texts: .*(exist|a folder)"):
            call(wanted)


def test_the_stamp_changes_with_the_content_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    files = [written(folder / "t[1].txt", "Some text.") for folder in (first, second)]
    stamps = [texts_stamp(file) for file in files]
    assert stamps[0] == stamps[1] != ""
    written(second / "t[1].txt", "Some other text.")
    assert texts_stamp(files[1]) != stamps[0]
    assert json.dumps(stamps[0])
