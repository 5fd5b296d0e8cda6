"""Readers of made-up input."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest

from nlijob.use.rows import Columns, Format, Lines, RowReader, row_reader

Reads = Callable[..., RowReader]


def find(names: Sequence[str]) -> Columns | None:
    pairs = (Columns("premise", "hypothesis"), Columns("sentence1", "sentence2"))
    return next((p for p in pairs if p.premise in names and p.hypothesis in names), None)


@pytest.fixture
def reads() -> Reads:
    """Make an opened reader of a text, whose name is "input"."""

    def made(kind: Format, text: str | bytes) -> RowReader:
        content = text if isinstance(text, bytes) else text.encode()
        lines = Lines(io.BytesIO(content), "input")
        reader = row_reader(kind, lines, Columns("premise", "hypothesis"), find)
        reader.open()
        return reader

    return made
