"""Text from outside, such as names and other programs' messages, made safe to print."""

from __future__ import annotations

import re

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, which steer a terminal
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # these change the order in which text is shown
    "\u2028\u2029"  # these end a line
    "\ud800-\udfff]"  # bytes of a path that are not UTF-8
)


def printable(text: str) -> str:
    r"""The text with control characters as escapes (\x1b), except for tabs and ends of lines."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
