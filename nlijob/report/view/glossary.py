"""The report's terms, explained."""

from __future__ import annotations

from nlijob.report.glossary import TERMS
from nlijob.report.view.parts import View


def glossary_section() -> View:
    """All terms in alphabetical order."""
    return View(terms=tuple(sorted(TERMS, key=lambda term: term.name.casefold())))
