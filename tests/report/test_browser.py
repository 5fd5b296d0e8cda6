"""The report in a real browser: it complains of nothing and asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nlijob.report.render import render
from tests.report.browser import Tab, find_chromium, open_tab
from tests.synthetic import Spec, build_run

pytestmark = pytest.mark.browser
SPECS = {
    "gpu": Spec(resumed=True),
    "cpu": Spec(gpu=False, demo=True),
    "classification": Spec(head="sequence-classification"),
    "hostile": Spec(hostile=True),
}


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine; name one with CHROMIUM=/path/to/it")
    with open_tab(program) as tab:
        yield tab


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: render(build_run(folder / name, spec)).as_uri() for name, spec in SPECS.items()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SPECS)
def test_page_is_silent_and_asks_for_nothing(
    tab: Tab, urls: dict[str, str], name: str, scheme: str
) -> None:
    tab.show_as(scheme)
    tab.open(urls[name])
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith("data:")] == [urls[name]]


def test_a_page_that_does_complain_and_ask_is_caught(tab: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\">"
        "<script>1</script><img src='missing.png'>"
    )
    tab.open(bad.as_uri())
    assert len(tab.complaints()) >= 2
    assert len(tab.requests()) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_prints_in_full_and_in_silence(tab: Tab, urls: dict[str, str], scheme: str) -> None:
    tab.show_as(scheme)
    tab.open(urls["gpu"])
    assert tab.print().startswith(b"%PDF")
    assert tab.complaints() == []
    assert len(tab.requests()) <= 2


def test_closed_details_are_open_while_printing(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["gpu"])
    closed = """dispatchEvent(new Event("{}")),
        document.querySelectorAll("details:not([open])").length"""
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


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("name", ["gpu", "hostile"])
def test_page_never_scrolls_sideways(tab: Tab, urls: dict[str, str], name: str, width: int) -> None:
    tab.show_as("light", width)
    tab.open(urls[name])
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_rows_make_no_elements(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["hostile"])
    made = "document.querySelectorAll('.case :is(script, img, style, b:not([class]) b)').length"
    assert tab.evaluate(made) == 0


def test_filter_shows_the_cases_that_match(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["gpu"])
    shown = tab.evaluate(
        """(() => {
            const filter = document.getElementById("case-filter");
            filter.value = "gold label contradiction";
            filter.dispatchEvent(new Event("input"));
            const cases = [...document.querySelectorAll(".case")];
            return cases.map((one) => [one.hidden, one.textContent.includes("contradiction ◆")]);
        })()"""
    )
    assert any(hidden for hidden, _ in shown)
    assert all(hidden is not matching for hidden, matching in shown)


def test_page_says_everything_with_scripts_off(tab: Tab, urls: dict[str, str]) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.load(urls["gpu"])
        shown = tab.evaluate("document.querySelector('main').innerText")
        tools_hidden = tab.evaluate("document.querySelector('.tools').hidden")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert tools_hidden
    for heading in ("Accuracy", "Newly broken", "Resources", "Use the adapter", "Environment"):
        assert heading in shown
