"""The page of a run with single rows, steps and epochs reads as a person would write it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.report.render import report_html
from tests.synthetic import Spec, build_run

NOUNS = (
    *("rows", "premises", "epochs", "trainings", "texts", "tokens", "words", "slices", "labels"),
    *("steps", "samples", "attempts", "cores", "modules", "points", "examples", "resamples"),
)
VERBS = ("were", "are", "have", "stand", "repeat")
PLURAL_AFTER_ONE = re.compile(rf"(?<![\d.,])1 (?:[a-z]+ )?(?:{'|'.join((*NOUNS, *VERBS))})\b")


@pytest.mark.parametrize("spec", [Spec(rows=1, train_rows=1, epochs=1), Spec(rows=3, train_rows=4)])
def test_one_is_never_followed_by_a_plural(spec: Spec, tmp_path: Path) -> None:
    run = build_run(tmp_path, spec)
    html = report_html(build_results(run), run)
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))
    assert PLURAL_AFTER_ONE.findall(text) == []
