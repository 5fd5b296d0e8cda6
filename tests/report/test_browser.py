"""The report in a real browser: no complaints, no requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.config import ReportConfig
from nlijob.report.render import render, report_html
from tests.report.browser import RULES_OF_LOOKS, Tab, axe_faults
from tests.searched import with_search
from tests.synthetic import HOSTILE_COLUMNS, Spec, build_run
from tests.trainings import with_trainings
from tests.transfer_sets import TWO, MadeSet, add_sets

pytestmark = pytest.mark.browser
SPECS = {
    "gpu": Spec(resumed=True, further=True),
    "cpu": Spec(gpu=False, demo=True),
    "classification": Spec(head="sequence-classification"),
    "hostile": Spec(hostile=True, further=True, report=ReportConfig(slice_columns=HOSTILE_COLUMNS)),
}

SETS = (
    MadeSet("hans", label_names=TWO, answers=(0, 1, 1), values=("a", "b", "c")),
    MadeSet("far", tuned=10, values=[f"v{i}" for i in range(20)]),
)
"""Further test sets of the run on a GPU."""


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    runs = {name: build_run(folder / name, spec) for name, spec in SPECS.items()}
    add_sets(runs["gpu"], *SETS)
    with_search(runs["classification"])
    several = with_trainings(build_results(runs["gpu"]), runs["gpu"])
    page = folder / "several.html"
    page.write_text(report_html(several, runs["gpu"]), encoding="utf-8")
    return {name: render(run).as_uri() for name, run in runs.items()} | {"several": page.as_uri()}


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        *(("gpu", "light"), ("gpu", "dark"), ("cpu", "dark")),
        *(("classification", "light"), ("hostile", "dark"), ("several", "light")),
    ],
)
def test_page_is_silent_and_asks_for_nothing(
    tab: Tab, urls: dict[str, str], name: str, scheme: str
) -> None:
    tab.show_as(scheme)
    tab.open(urls[name])
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith("data:")] == [urls[name]]


def test_complaints_and_requests_of_a_bad_page_are_detected(tab: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\">"
        "<script>1</script><img src='missing.png'>"
    )
    tab.open(bad.as_uri())
    assert len(tab.complaints()) >= 2
    assert len(tab.requests()) == 2


def test_page_prints_completely_without_complaints(tab: Tab, urls: dict[str, str]) -> None:
    tab.show_as("dark")  # paper is light
    tab.open(urls["gpu"])
    assert tab.print().startswith(b"%PDF")
    assert tab.complaints() == []
    assert len(tab.requests()) <= 2


def test_closed_details_are_open_while_printing(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["gpu"])
    closed = """dispatchEvent(new Event("{}")),
        document.querySelectorAll("details:not([open], .list)").length"""
    assert tab.evaluate(closed.format("beforeprint")) == 0
    assert tab.evaluate(closed.format("afterprint")) > 0


def test_dark_and_light_have_their_own_colours(tab: Tab, urls: dict[str, str]) -> None:
    colours = []
    for scheme in ("light", "dark"):
        tab.show_as(scheme)
        tab.open(urls["gpu"])
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_text_in_charts_follows_the_page(tab: Tab, urls: dict[str, str]) -> None:
    tab.show_as("dark")
    tab.open(urls["gpu"])
    assert tab.evaluate(
        "getComputedStyle(document.querySelector('svg.chart text')).fontFamily"
        " === getComputedStyle(document.body).fontFamily"
    )


@pytest.mark.parametrize("name", ["gpu", "hostile", "several", "classification"])
def test_page_never_scrolls_sideways(tab: Tab, urls: dict[str, str], name: str) -> None:
    tab.show_as("light", 360)
    tab.open(urls[name])
    for width in (360, 768, 1280):
        tab.show_as("light", width)
        assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [
            width,
            True,
        ]


def test_hostile_rows_make_no_elements(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["hostile"])
    made = "document.querySelectorAll('.case :is(script, img, style, b:not([class]) b)').length"
    assert tab.evaluate(made) == 0
    made = "document.querySelectorAll('#slices :is(script, img, style, b, i)').length"
    assert tab.evaluate(made) == 0
    assert "<b>genre</b>" in tab.evaluate("document.querySelector('#columns').innerText")


def test_the_chart_of_trainings_stays_within_the_first_screen(
    tab: Tab, urls: dict[str, str]
) -> None:
    tab.show_as("light", 360)
    tab.open(urls["several"])
    outside = """(() => {
        const screen = document.querySelector(".verdict").getBoundingClientRect();
        const parts = [...document.querySelectorAll(".spread span")];
        const boxes = parts.map((part) => part.getBoundingClientRect());
        return [parts.length, boxes.filter((box) =>
            box.left < screen.left || box.right > screen.right).length];
    })()"""
    parts, beyond = tab.evaluate(outside)
    assert parts > 10
    assert beyond == 0


def test_a_term_leads_to_its_entry_in_the_glossary(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["gpu"])
    tab.evaluate("document.documentElement.style.scrollBehavior = 'auto'")  # arrives at once
    tab.evaluate("document.querySelector('.term').click()")
    entry = "document.querySelector('.glossary > :target')"
    assert tab.evaluate(f"{entry}.id") == "term-seed"
    place = tab.evaluate(f"{entry}.getBoundingClientRect().top")
    assert 0 <= place < tab.evaluate("innerHeight")


@pytest.mark.slow
def test_ten_thousand_rows_leave_little_to_read_and_to_lay_out(tab: Tab, tmp_path: Path) -> None:
    # what makes a page slow to open; benchmarks/page_opening.py times it
    spec = Spec(rows=10_000, base_habit=1.0, epochs=1, few_shot=0, blank_premise=False)
    run = build_run(tmp_path / "big", spec)
    report = render(run)
    assert report.stat().st_size < 1_500_000
    results = with_trainings(build_results(run), run, tuple(range(42, 52)))
    assert len(report_html(results, run).encode()) < 2_000_000
    tab.open(report.as_uri())
    elements = "[...document.querySelectorAll('*')]"
    assert tab.evaluate(f"{elements}.length") < 80_000
    visible = f"{elements}.filter(element => element.checkVisibility()).length"
    assert tab.evaluate(visible) < 5_000  # the list of rows is closed
    shown = tab.evaluate("document.querySelectorAll('table.rows tbody tr').length")
    assert shown > 5_000
    assert f"{shown:,} of 6," in tab.evaluate("document.querySelector('#case-list h3').textContent")


def test_the_theme_overrides_the_system_setting(tab: Tab, urls: dict[str, str]) -> None:
    tab.show_as("dark")
    tab.open(urls["gpu"])
    press = """(document.querySelector(".theme").click(),
        [document.querySelector(".theme").textContent,
         getComputedStyle(document.body).backgroundColor])"""
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    (light, light_colour), (_, dark_again), (system, system_colour) = (
        tab.evaluate(press) for _ in range(3)
    )
    assert (light, system) == ("Theme: light", "Theme: system")
    assert light_colour != dark
    assert dark_again == system_colour == dark


@pytest.mark.parametrize("name", [pytest.param("several", marks=pytest.mark.slow), "hostile"])
def test_axe_finds_nothing(tab: Tab, tmp_path: Path, name: str) -> None:
    few = replace(
        SPECS["gpu" if name == "several" else name], rows=12
    )  # axe looks at each element, and rows have the same ones
    tab.show_as("light")
    run = build_run(tmp_path / "run", few)
    if name == "several":
        run.report.write_text(report_html(with_trainings(build_results(run), run), run), "utf-8")
    else:
        render(run)
    tab.open(run.report.as_uri())
    assert axe_faults(tab) == []
    tab.show_as("dark", width=390)
    assert axe_faults(tab, *RULES_OF_LOOKS) == []


def test_axe_detects_a_bad_page(tab: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<title>x</title><p style='color: #ccc'>pale</p><img src='data:,'>")
    tab.open(bad.as_uri())
    assert {"color-contrast", "image-alt"} <= {fault["rule"] for fault in axe_faults(tab)}


def test_page_is_complete_with_scripts_off(tab: Tab, urls: dict[str, str]) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.load(urls["gpu"])
        shown = tab.evaluate("document.querySelector('main').innerText")
        tools_hidden = tab.evaluate("document.querySelector('.tools').hidden")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert tools_hidden
    assert shown.count("The same figures are in results.json in the run's folder") == 1
    for heading in ("Accuracy", "Newly broken", "Resources", "Use the adapter", "Environment"):
        assert heading in shown
