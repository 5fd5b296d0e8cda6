"""Text made fit for a page."""

from __future__ import annotations

import re
import unicodedata

from nlijob.analysis.wording import percent

NBSP = "\u00a0"
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
DIRECTION_MARKS = dict.fromkeys(
    (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"
)
"""Invisible characters that turn the text around them."""


def visible(text: str) -> str:
    """Untrusted text as it can be shown: control characters become their pictures."""
    return text.translate(CONTROL_PICTURES)


def as_name(text: str) -> str:
    """An untrusted name as it can stand within a sentence, whose direction it must not turn."""
    plain = visible(text).translate(DIRECTION_MARKS)
    turned = any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in plain)
    return f"\u2068{plain}\u2069" if turned else plain


def unbroken(sentence: str) -> str:
    """A sentence in which a number and its unit, and p and its value, stay on one line."""
    kept = re.sub(r"(?<=\d) (?=(?:%|s|min|h|Wh|GiB)(?!\w))|(?<=[<>=]) (?=\d)", NBSP, sentence)
    return re.sub(r"\bp (?=[<=>])", f"p{NBSP}", kept)


def percent_or(share: float | None, missing: str) -> str:
    """A share (0 to 1) in percent, or the words `missing` where there is none."""
    return missing if share is None else percent(share)
