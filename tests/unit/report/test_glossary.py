"""Terms are explained where a reader first meets them, and the page says how to read it."""

from __future__ import annotations

import re

import pytest
from markupsafe import Markup

from nlijob.analysis.outcome import build_results
from nlijob.report.glossary import TERMS, FirstUses, Term
from nlijob.report.render import report_html
from tests.synthetic import Spec, build_run

LONGEST_HELP = 150
"""Characters of a help that fits beside the pointer."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = build_run(tmp_path_factory.mktemp("run"), Spec(rows=14, train_rows=40, epochs=2))
    return report_html(build_results(run), run)


def linked(text: str) -> list[str]:
    """The words that are links, with the entry that they lead to."""
    html = FirstUses().linked(text)
    return [": ".join(one) for one in re.findall(r'href="#term-([\w-]+)"[^>]*>([^<]*)<', html)]


def test_terms_are_found_in_running_text() -> None:
    text = "With LoRA rank 8, McNemar tests gave p = 0.01 (95\u00a0% interval), Holm-adjusted."
    assert linked(text) == [
        "lora-rank: LoRA rank",
        "mcnemar: McNemar tests",
        "p-value: p",
        "interval: 95\u00a0% interval",
        "holm: Holm-adjusted",
    ]


def test_only_the_first_use_on_a_page_is_a_link() -> None:
    uses = FirstUses()
    assert uses.linked("LoRA and LoRA").count("<a ") == 1
    assert uses.linked("the rank of LoRA") == "the rank of LoRA"


def test_names_of_settings_and_parts_of_words_are_left_alone() -> None:
    assert linked("lora.r 8, train.seed, token-wise, seedling, p, gold-label") == []


def test_a_loss_is_explained_where_it_is_no_opposite_of_a_gain() -> None:
    assert linked("from the largest gain to the largest loss") == []
    assert linked("the training loss fell") == ["loss: training loss"]


def test_text_is_escaped_once() -> None:
    assert FirstUses().linked("a <b> & LoRA <i>").startswith("a &lt;b&gt; &amp; <a ")
    assert FirstUses().linked(Markup("rows &amp; columns")) == "rows &amp; columns"


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.id)
def test_each_term_is_found_by_its_name_and_has_a_short_help(term: Term) -> None:
    assert linked(term.name)[0].startswith(f"{term.id}: ")
    assert term.meaning.endswith(".")
    assert len(term.short) <= LONGEST_HELP


def test_links_lead_to_entries_of_the_page(page: str) -> None:
    links = re.findall(r'class="term" href="#([\w-]+)"', page)
    assert {
        "term-mcnemar",
        "term-interval",
        "term-holm",
        "term-nf4",
        "term-lora-rank",
        "term-f1",
    } <= {*links}
    assert len(links) == len({*links})
    assert all(page.count(f'id="{link}"') == 1 for link in links)


def test_the_page_says_once_how_to_read_it_and_that_changes_are_not_of_rounded_figures(
    page: str,
) -> None:
    assert page.count("How to read this page") == 1
    assert page.count("Changes are computed from unrounded values.") == 1


def test_no_link_is_within_another_link_a_button_or_what_opens_details(page: str) -> None:
    inside = re.findall(r"<(a|button|summary)\b[^>]*>((?:(?!</\1>).)*)</\1>", page, re.DOTALL)
    assert inside
    assert not [text for _, text in inside if "<a " in text]
