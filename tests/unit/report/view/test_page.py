"""The page as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from nlijob.report.sections import SECTIONS, Outcome
from nlijob.report.templates import render_page
from nlijob.report.view.page import build_page
from nlijob.report.view.usage import usage_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, searched, several_trainings


def texts(value: Any) -> Iterator[str]:
    """Every text in a view."""
    if isinstance(value, str):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from texts(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)


def test_no_text_of_a_hostile_run_holds_a_control_character() -> None:
    for text in texts(build_page(Outcome(outcome(Spec(hostile=True))))):
        assert not [c for c in text if ord(c) < 32 and c not in "\n\t"]


def test_a_classification_head_gets_the_code_that_loads_one() -> None:
    usage = usage_section(outcome(Spec(head="sequence-classification")))
    assert "AutoModelForSequenceClassification" in usage.snippet


def test_every_section_has_a_template_that_carries_its_anchor() -> None:
    of_all = dataclasses.replace(several_trainings(), search=searched().search)
    page = build_page(Outcome(of_all))
    html = render_page("report.html.j2", page=page, plots={})
    anchors = [f'<section id="{section.id}"' for section in SECTIONS[1:]]
    places = [html.index(anchor) for anchor in ['<header id="summary"', *anchors]]
    assert places == sorted(places)
    for section in SECTIONS:
        assert f'<a href="#{section.id}">{section.title}</a>' in html


def test_a_section_that_has_nothing_to_show_is_left_out_of_page_and_contents() -> None:
    page = build_page(Outcome(outcome(Spec())))
    html = render_page("report.html.j2", page=page, plots={})
    assert "trainings" not in dict(page.contents)
    assert 'id="trainings"' not in html
    assert "#trainings" not in html


def test_the_code_to_use_the_adapter_names_the_training_that_is_kept() -> None:
    assert "It is the adapter of seed-43." in usage_section(several_trainings()).note
    assert "seed-" not in usage_section(outcome(Spec())).note


@pytest.mark.parametrize("damaged", ["2026-18-02T03:04:05+00:00", ""])
def test_a_time_that_cannot_be_read_is_said_to_be_unknown(damaged: str) -> None:
    page = build_page(Outcome(outcome(Spec(created_at=damaged))))
    assert [fact.value for fact in page.run_facts if fact.name == "started"] == ["not known"]
