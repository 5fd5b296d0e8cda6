"""How to load and use the adapter."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.records.outcome import Results
from nlijob.report.snippet import usage_note, usage_snippet


@dataclass(frozen=True)
class Usage:
    """A script that loads the adapter, and what to know before running it."""

    note: str
    snippet: str


def usage_section(results: Results) -> Usage:
    """The script for this run's model, prompt and labels."""
    return Usage(usage_note(results), usage_snippet(results))
