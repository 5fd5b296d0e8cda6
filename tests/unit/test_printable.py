"""Text from outside steers no terminal, and is shown as it is otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.config import ReportConfig
from nlijob.printable import UNSAFE, printable
from nlijob.report.model_card import model_card
from nlijob.report.render import render
from nlijob.report.summary_markdown import summary_markdown
from tests.synthetic import Spec, build_run
from tests.unit.report.view.outcomes import outcome

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202ecod\u2028"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 中文 😀\ttab\nline", "naïve 中文 😀\ttab\nline"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("one\rtwo\x08\x00", r"one\rtwo\x08\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_files_for_people_have_no_control_characters(tmp_path: Path) -> None:
    run = build_run(tmp_path, Spec(run_id=f"id{ESCAPES}", report=ReportConfig(title=ESCAPES)))
    page = render(run).read_text(encoding="utf-8")
    for text in (page, run.summary.read_text(encoding="utf-8")):
        assert r"\x1b]0;title\x07" in text.replace("\\\\", "\\").replace(r"\]", "]")
        assert not UNSAFE.search(text)


def test_a_model_card_and_a_summary_have_none_of_a_hostile_name() -> None:
    results = outcome(Spec())
    config = results.run.config
    names = replace(
        config,
        model=replace(config.model, name=ESCAPES),
        data=replace(config.data, dataset=ESCAPES),
    )
    hostile = replace(results, run=replace(results.run, config=names))
    for text in (model_card(hostile), summary_markdown(hostile)):
        assert not UNSAFE.search(text)
