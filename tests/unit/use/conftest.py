"""Readers of made-up input."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from nlijob.use.rows import Columns, Format, Lines, RowReader, row_reader

Reads = Callable[..., RowReader]


@pytest.fixture
def reads() -> Reads:
    """Make an opened reader of a text, whose name is "input"."""

    def made(kind: Format, text: str | bytes, *choices: Columns) -> RowReader:
        content = text if isinstance(text, bytes) else text.encode()
        reader = row_reader(
            kind,
            Lines(io.BytesIO(content), "input"),
            choices or (Columns("premise", "hypothesis"), Columns("sentence1", "sentence2")),
        )
        reader.open()
        return reader

    return made
