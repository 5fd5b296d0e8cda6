"""How much each warning weighs: it speaks against the result, limits it, or is worth knowing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nlijob.analysis.leakage import LEAK_MATTERS
from nlijob.records.outcome import SIGNIFICANT, Finding, Severity

WORDS: dict[Severity, str] = {
    "against": "Speaks against the result",
    "limits": "Limits the result",
    "note": "Worth knowing",
}
"""Every severity, the most severe first, with the words for a reader."""

SEVERITY: dict[str, Severity] = {
    # the gain is not there, or it is not what it looks like
    "unclear-gain": "against",
    "test-rows-in-training": "against",
    "test-rows-in-validation": "against",
    "one-label": "against",
    "no-better-than-one-label": "against",
    "no-better-than-few-shot": "against",
    "no-better-than-blank-premise": "against",
    "trainings-differ-in-direction": "against",
    "worse-elsewhere": "against",
    # the gain is there, but not everywhere, or its figures are less certain than they look
    "few-trainings": "limits",
    "training-far-off": "limits",
    "training-one-label": "limits",
    "forgotten": "limits",
    "worse-recall": "limits",
    "slices-worse": "limits",
    "gain-not-elsewhere": "limits",
    "elsewhere-in-training": "limits",
    "rows-too-long": "limits",
    "one-premise": "limits",
    "low-label-mass": "limits",
    "validation-rows-in-training": "limits",
    "test-premises-in-training": "limits",
    "repeated-rows": "limits",
    # it changes neither the result nor how far it holds
    "overfitting": "note",
    "epochs-not-distinguishable": "note",
    "unbalanced-labels": "note",
    "contradictory-rows": "note",
    "incomplete-logs": "note",
    "data": "note",
}
"""The severity of each code; `severity_of` has the exceptions, which depend on the figures."""


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The warnings with their severities, the most severe first.

    Warnings of one severity keep their order.
    """
    order = tuple(WORDS)
    weighed = (replace(one, severity=severity_of(one)) for one in findings)
    return tuple(sorted(weighed, key=lambda one: order.index(severity_of(one))))


def severity_of(finding: Finding) -> Severity:
    """How much a warning weighs; one of an older run, without a code, is worth knowing."""
    severity = SEVERITY.get(finding.code, "note")
    return _LESSER[severity] if _is_less(finding) else severity


_LESSER: dict[Severity, Severity] = {"against": "limits", "limits": "note", "note": "note"}


def _is_less(finding: Finding) -> bool:
    """Whether the figures make a warning weigh less than its code says."""
    figures = finding.figures
    match finding.code:
        case "test-rows-in-training" | "test-rows-in-validation":
            return float(figures["whole_rows"]) < LEAK_MATTERS * float(figures["rows"])
        case "one-label":
            return figures["model"] == "base"
        case "worse-recall":
            return float(figures.get("adjusted_p", 1)) >= SIGNIFICANT
    return False
