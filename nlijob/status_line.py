"""The one line at the bottom of a terminal that says how far a job is."""

from __future__ import annotations

import math
import unicodedata
from typing import NamedTuple

FULL, EMPTY = "\N{FULL BLOCK}", "\N{LIGHT SHADE}"
WIDE_COLUMNS = 100
"""Width of a terminal from which on the bar is long."""
LONG_BAR, SHORT_BAR = 20, 8


class Status(NamedTuple):
    """How far a job is."""

    share: float | None
    """How much of it is done, 0 to 1; None where that is not known."""
    left: str
    """The time that it still takes, in words; "" where that is not known."""
    doing: str
    """What it is at."""


def status_line(status: Status, columns: int, in_unicode: bool = True) -> str:
    """The status in at most `columns` - 1 columns: a full line would wrap in some terminals.

    What matters most comes first: the bar, the time left, what the job is at.
    """
    bar = _bar(status.share, LONG_BAR if columns >= WIDE_COLUMNS else SHORT_BAR, in_unicode)
    texts = [text for text in (status.left, status.doing) if text]
    return shortened("  ".join(filter(None, (bar, "; ".join(texts)))), columns - 1, in_unicode)


def shortened(text: str, columns: int, in_unicode: bool = True) -> str:
    """The text in at most so many columns, with a sign where something was cut."""
    if width(text) <= columns:
        return text
    sign = "\N{HORIZONTAL ELLIPSIS}" if in_unicode else "..."
    while text and width(text) + len(sign) > columns:
        text = text[:-1]
    return (text.rstrip() + sign)[: max(0, columns)]


def _bar(share: float | None, length: int, in_unicode: bool) -> str:
    if share is None:
        return ""
    percent = math.floor(100 * share)  # 100 % only where all is done
    full = math.floor(length * share)
    if in_unicode:
        return f"{percent:3d} % {FULL * full}{EMPTY * (length - full)}"
    return f"{percent:3d} % [{'#' * full}{'.' * (length - full)}]"


def width(text: str) -> int:
    """Columns of a text: characters of East Asian scripts take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
