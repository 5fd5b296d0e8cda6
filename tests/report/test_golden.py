"""The page of a synthetic run compared with golden files, so that a diff shows every change.

UPDATE_GOLDEN=1 rewrites the golden files. Style, script and charts have tests of their own and are
left out.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.records.outcome import Results
from nlijob.report.render import report_html
from nlijob.report.sections import Outcome
from nlijob.report.summary_markdown import summary_markdown
from nlijob.report.view.page import build_page
from nlijob.rundir import RunDir
from tests.synthetic import Spec, build_run
from tests.trainings import with_trainings

KEPT = Path(__file__).parent / "golden"
SPEC = Spec(rows=14, train_rows=40, epochs=3, resumed=False, further=True)
SEVERAL = Spec(rows=14, train_rows=40, epochs=3, word_importance=False, few_shot=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return build_run(tmp_path_factory.mktemp("golden"), SPEC)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Results]:
    """A run with three trainings."""
    run = build_run(tmp_path_factory.mktemp("several"), SEVERAL)
    return run, with_trainings(build_results(run), run)


def check(name: str, text: str) -> None:
    kept = KEPT / name
    if os.environ.get("UPDATE_GOLDEN"):
        kept.parent.mkdir(exist_ok=True, parents=True)
        kept.write_text(text, encoding="utf-8")
    assert text == kept.read_text(encoding="utf-8"), "if this is meant: UPDATE_GOLDEN=1 make test"


def view_model(results: Results) -> str:
    page = build_page(Outcome(results))
    return json.dumps(page, indent=1, ensure_ascii=False, default=vars) + "\n"


def markup(results: Results, run: RunDir) -> str:
    html = report_html(results, run)
    html = re.sub(r"<(style|script)>.*?</\1>", r"<\1></\1>", html, flags=re.DOTALL)
    html = re.sub(r"<svg .*?</svg>", "<svg></svg>", html, flags=re.DOTALL)
    return re.sub(r"sha256-[\w+/=]+", "sha256-", html)


def test_the_view_model_matches_its_golden_file(run: RunDir) -> None:
    check("page.json", view_model(build_results(run)))


def test_the_page_matches_its_golden_file(run: RunDir) -> None:
    check("report.html", markup(build_results(run), run))


def test_the_summary_matches_its_golden_file(run: RunDir) -> None:
    check("summary.md", summary_markdown(build_results(run)))


def test_the_pages_of_several_trainings_match_their_golden_files(
    several: tuple[RunDir, Results],
) -> None:
    run, results = several
    check("several/page.json", view_model(results))
    check("several/report.html", markup(results, run))
    check("several/summary.md", summary_markdown(results))
