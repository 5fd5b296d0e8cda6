"""How to load and use the adapter."""

from __future__ import annotations

from nlijob.records.outcome import Results
from nlijob.report.snippet import usage_note, usage_snippet
from nlijob.report.view.parts import View


def usage_section(results: Results) -> View:
    """The script for this run's model, prompt and labels."""
    return View(note=usage_note(results), snippet=usage_snippet(results))
