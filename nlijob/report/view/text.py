"""Preparing text for a page."""

from __future__ import annotations

import re
import unicodedata

from nlijob.analysis.wording import percent

NBSP = "\u00a0"
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
DIRECTION_MARKS = dict.fromkeys(
    (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"
)
"""Invisible characters that change the direction of the text around them."""


def visible(text: str) -> str:
    """Untrusted text with control characters replaced by their visible symbols."""
    return text.translate(CONTROL_PICTURES)


def as_name(text: str) -> str:
    """An untrusted name made safe for use in a sentence: it cannot change its direction."""
    plain = visible(text).translate(DIRECTION_MARKS)
    turned = any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in plain)
    return f"\u2068{plain}\u2069" if turned else plain


def unbroken(sentence: str) -> str:
    """A sentence with no-break spaces between number and unit, and between p and its value."""
    kept = re.sub(r"(?<=\d) (?=(?:%|s|min|h|Wh|GiB)(?!\w))|(?<=[<>=]) (?=\d)", NBSP, sentence)
    return re.sub(r"\bp (?=[<=>])", f"p{NBSP}", kept)


def percent_or(share: float | None, missing: str, decimals: int = 1) -> str:
    """A share (0 to 1) in percent, or `missing` if it is None."""
    return missing if share is None else percent(share, decimals)
