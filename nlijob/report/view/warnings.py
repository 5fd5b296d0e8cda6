"""The warnings of the first screen: the most severe are shown, the others are a click away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from nlijob.analysis.severity import WORDS, by_severity, severity_of
from nlijob.analysis.wording import count, listed, plural, which
from nlijob.records.outcome import Finding, Severity
from nlijob.report.view.text import unbroken, visible

SHOWN = 3
"""Warnings that are shown at once."""


@dataclass(frozen=True)
class WarningGroup:
    """Warnings of one severity."""

    severity: Severity
    title: str
    warnings: tuple[tuple[str, str], ...]
    """Code and sentence of each."""


@dataclass(frozen=True)
class Warnings:
    """All warnings, in two parts."""

    shown: tuple[WarningGroup, ...]
    more: tuple[WarningGroup, ...]
    """Those that a click opens."""
    more_title: str
    """Says how many there are of each severity."""

    @property
    def worst(self) -> Severity:
        """Severity of the first warning. Raises IndexError where there is none."""
        return self.shown[0].severity


def warnings_view(findings: Sequence[Finding]) -> Warnings:
    """The warnings of a run, the most severe first."""
    ranked = by_severity(findings)
    return Warnings(
        shown=_groups(ranked[:SHOWN]),
        more=_groups(ranked[SHOWN:]),
        more_title=_more(ranked[SHOWN:]),
    )


def _groups(ranked: Sequence[Finding]) -> tuple[WarningGroup, ...]:
    return tuple(
        WarningGroup(severity, WORDS[severity], tuple((one.code, _sentence(one)) for one in group))
        for severity, group in groupby(ranked, severity_of)
    )


def _more(ranked: Sequence[Finding]) -> str:
    """Such as "5 more warnings: 2 limit the result, 3 are worth knowing"; "" without any."""
    if not ranked:
        return ""
    numbers = Counter(severity_of(one) for one in ranked)
    parts = [_words(severity, numbers[severity]) for severity in WORDS if numbers[severity]]
    if len(parts) == 1:
        whose = _words(next(iter(numbers)), len(ranked)).partition(" ")[2]
        of_which = which(len(ranked), "which", "all of which")
        return f"{plural(len(ranked), 'more warning')}, {of_which} {whose}"
    return f"{plural(len(ranked), 'more warning')}: {listed(parts)}"


def _words(severity: Severity, number: int) -> str:
    one, several = {
        "against": ("speaks against the result", "speak against the result"),
        "limits": ("limits the result", "limit the result"),
        "note": ("is worth knowing", "are worth knowing"),
    }[severity]
    return f"{count(number)} {one if number == 1 else several}"


def _sentence(finding: Finding) -> str:
    return unbroken(visible(finding.text))
