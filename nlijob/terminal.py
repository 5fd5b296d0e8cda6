"""What a stream's terminal can show: its width, colours, and characters.

Colours follow the usual variables: NO_COLOR turns them off, FORCE_COLOR turns them on where there
is no terminal, and TERM=dumb says that the terminal has none (https://no-color.org,
https://force-color.org).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import TextIO

USUAL_COLUMNS = 80
"""Width of a terminal that does not tell its own."""
ASCII = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{NO-BREAK SPACE}": " ",
    }
)
"""What stands in for the job's own characters where the locale has none of them."""


class Style(Enum):
    """How a piece of text stands out; the value is the terminal's code."""

    BOLD = "1"
    DIM = "2"
    GOOD = "32"
    BAD = "31"
    CAUTION = "33"


def is_capable(stream: TextIO, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream is a terminal that can write a line anew."""
    return stream.isatty() and variables.get("TERM") != "dumb"


def has_color(stream: TextIO, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether text may be coloured on the stream."""
    if variables.get("NO_COLOR"):
        return False
    return bool(variables.get("FORCE_COLOR")) or is_capable(stream, variables)


def painted(text: str, style: Style) -> str:
    """The text in this style, whatever the stream."""
    return f"\x1b[{style.value}m{text}\x1b[0m"


def columns_of(stream: TextIO) -> int:
    """The width of the stream's terminal now: somebody may change it at any time."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_COLUMNS
    except (OSError, ValueError):
        return USUAL_COLUMNS


def can_write(stream: TextIO, text: str) -> bool:
    """Whether the stream's encoding has the text's characters."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeError:
        return False
    return True


def writable(stream: TextIO, text: str) -> str:
    """The text, with plain characters for those of the job that the stream's encoding lacks."""
    return text if can_write(stream, text) else text.translate(ASCII)
