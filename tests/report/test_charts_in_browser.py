"""Charts in a real browser: size on phones, values by pointer and keys, downloads."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from nlijob.records.intervals import Interval
from nlijob.report import charts
from nlijob.report.chart_drawing import Plot
from nlijob.report.charts import Change, Difference, Line, Span
from tests.report.browser import Tab, axe_faults
from tests.report.one_page import saved, write_page

pytestmark = pytest.mark.browser
LONG_NAME = "a label whose name is <b>much</b> longer than any chart on a phone has room for"


def plots() -> dict[str, Plot]:
    """One chart of each form."""
    half, most = Interval(0.3, 0.5), Interval(0.8, 0.95)
    changes = [Change("accuracy", 0.4, 0.9, half, most), Change(f"recall of {LONG_NAME}", 0.1, 1)]
    slices = [
        Difference("short texts", 0.3, Interval(0.1, 0.5), True),
        Difference(LONG_NAME, -0.1, Interval(-0.3, 0.1), False),
    ]
    steps = [*range(1, 200)]
    losses = [1 / step for step in steps]
    line = Line("CPU", [0, 50, 100], [0.0, 55.0, None])
    return {
        "changes": charts.change_chart("chart-changes", "Changes", "Both sides.", changes),
        "slices": charts.difference_chart("chart-slices", "Slices", "Each slice.", slices),
        "steps": charts.loss_by_step(
            "chart-steps", "Steps", "Loss.", steps, losses, losses, [99.5]
        ),
        "epochs": charts.accuracy_by_epoch(
            *("chart-epochs", "Epochs", "Accuracy.", [1, 2], [0.5, 0.6], [half, most]),
            *([0.5, None], 0.3, 0.4, 2),
        ),
        "time": charts.over_time(
            "chart-time", "Load", "Load.", [line], [Span("train", 0, 100)], "%", 100
        ),
    }


@pytest.fixture(autouse=True)
def window(tab: Tab) -> None:
    """Each test begins with a wide and light window."""
    tab.show_as("light")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("charts") / "page.html", [], plots())


TEXTS = """(() => {
    const charts = [...document.querySelectorAll(".chart")].filter((one) => one.checkVisibility());
    return charts.map((chart) => {
        const box = chart.getBoundingClientRect();
        const scale = box.width / chart.viewBox.baseVal.width;
        const texts = [...chart.querySelectorAll("text")];
        const sizes = texts.map((one) => parseFloat(getComputedStyle(one).fontSize));
        const spans = [
            ...texts.map((one) => one.getBoundingClientRect()),
            ...[...chart.querySelectorAll("circle")].map((one) => {
                const { left, width } = one.getBoundingClientRect();
                return { left: left + width / 2, right: left + width / 2 };
            }),
        ];
        return {
            id: chart.querySelector("title").id,
            least: scale * Math.min(...sizes),
            cut: spans.filter(({ left, right }) => left < box.left || right > box.right).length,
            inside: box.left >= 0 && box.right <= innerWidth,
        };
    });
})()"""


@pytest.mark.parametrize(("width", "least"), [(390, 10), (768, 10), (1280, 12)])
def test_charts_fit_the_window_with_texts_of_a_readable_size(
    tab: Tab, url: str, width: int, least: float
) -> None:
    tab.show_as("light", width)
    tab.open(url)
    found = tab.evaluate(TEXTS)
    assert len(found) == 5
    assert [one for one in found if not one["inside"] or one["cut"]] == []
    assert [one for one in found if one["least"] < least] == []
    narrow = [one["id"] for one in found if "-narrow" in one["id"]]
    assert len(narrow) == (3 if width == 390 else 0)


def test_paper_has_the_wide_charts(tab: Tab, url: str) -> None:
    tab.show_as("light", 700)
    tab.open(url)
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        found = tab.evaluate(TEXTS)
        tips = "[...document.querySelectorAll('.plot .save')].filter((e) => e.checkVisibility())"
        assert tab.evaluate(f"{tips}.length") == 0
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    assert not [one for one in found if "-narrow" in one["id"]]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_pointer_near_a_point_shows_its_value(tab: Tab, url: str, width: int) -> None:
    tab.show_as("light", width)
    tab.open(url)
    moved = """(() => {
        const charts = document.querySelectorAll("#changes .chart");
        const chart = [...charts].find((one) => one.checkVisibility());
        const box = chart.querySelectorAll(".points circle")[1].getBoundingClientRect();
        const tip = document.querySelector("#changes .tip");
        const move = (x, y) => chart.dispatchEvent(
            new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true }));
        move(box.left + box.width / 2 + 5, box.top + box.height / 2 - 5);
        const seen = [tip.textContent, tip.getBoundingClientRect().right <= innerWidth];
        move(-500, -500);
        return [...seen, tip.textContent];
    })()"""
    assert tab.evaluate(moved) == ["accuracy, after: 90.0 % (80.0 to 95.0 %)", True, ""]


def press(tab: Tab, key: str) -> str:
    tab.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    text: str = tab.evaluate(
        "document.activeElement.closest('.plot').querySelector('.tip').innerText"
    )
    return text


def test_the_arrow_keys_show_one_value_after_the_other(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    tab.evaluate("document.querySelector('#slices .chart').focus({ focusVisible: true })")
    first, second = "short texts: +30.0 points (+10.0 to +50.0)", f"{LONG_NAME}: −10.0 points"
    assert tab.evaluate("document.querySelector('#slices .tip').textContent") == first
    assert press(tab, "ArrowRight").startswith(second)
    assert press(tab, "ArrowRight").startswith(second)  # the last one
    assert press(tab, "Home") == first
    assert press(tab, "Escape") == ""


def test_with_scripts_off_a_browser_shows_the_values_as_titles(tab: Tab, url: str) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.load(url)
        title = "document.querySelector('#time .points circle:last-child title').textContent"
        assert tab.evaluate(title) == "CPU at 50.0 s: 55.0 %"
        assert tab.evaluate("document.querySelectorAll('.save').length") == 0
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_chart_is_saved_as_an_image_of_its_own(tab: Tab, url: str, tmp_path: Path) -> None:
    tab.show_as("dark")  # the file has the colours of paper all the same
    tab.open(url)
    path = saved(tab, "document.querySelector('#epochs .save button')", tmp_path)
    assert path.name == "epochs.svg"
    text = path.read_text(encoding="utf-8")
    svg = ElementTree.fromstring(text)
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(svg.get("width", "0")) > 300
    assert "var(" not in text
    assert "class=" not in text.replace('class="points"', "")
    assert "#0072b2" in re.findall("stroke:(#[0-9a-f]{6})", text)
    titles = [one.text for one in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert "epoch 1, validation: 50.0 % (30.0 to 50.0 %)" in titles
    tab.open(path.as_uri())
    assert tab.complaints() == []
    shown = json.loads(
        tab.evaluate("JSON.stringify(document.documentElement.getBoundingClientRect())")
    )
    assert shown["width"] > 300


def test_charts_are_silent_and_axe_finds_nothing_in_them(tab: Tab, url: str) -> None:
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        tab.show_as(scheme, width)
        tab.open(url)
        assert tab.complaints() == []
        assert axe_faults(tab) == []
