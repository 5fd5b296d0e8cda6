"""Charts as inline SVG: accessible, themed by the page, independent of each other."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from nlijob.records.intervals import Interval
from nlijob.report import charts
from nlijob.report.chart_drawing import INK, MOST_POINTS
from nlijob.report.charts import Change, Curve, Difference, Line, Reliability, Span

CHANGES = [
    Change("accuracy", 0.4, 0.9, Interval(0.3, 0.5), Interval(0.8, 0.95)),
    Change("recall of $x^2$ <b>", None, 0.2),
]


def changes(name: str = "one") -> str:
    return charts.change_chart(name, "Before & after", "A <text>", CHANGES).svg


def every_chart() -> dict[str, str]:
    plots = {
        "changes": charts.change_chart("c", "t", "d", CHANGES),
        "epochs": charts.accuracy_by_epoch(
            "e",
            "t",
            "d",
            [1, 2],
            [0.5, 0.6],
            [Interval(0.4, 0.6), Interval(0.5, 0.7)],
            [0.5, None],
            0.3,
            0.4,
            2,
        ),
        "loss": charts.loss_by_epoch("l", "t", "d", [1, 2], [0.5, 0.4], [0.6, 0.7], 2),
        "steps": charts.loss_by_step("s", "t", "d", [1, 2, 3], [1, 0.5, 2], [1, 1, 1], [1.5]),
        "slices": charts.difference_chart(
            "f",
            "t",
            "d",
            [
                Difference("short texts", 0.3, Interval(0.1, 0.5), True),
                Difference("long <texts>", -0.1, Interval(-0.3, 0.1), False),
            ],
        ),
        "curves": charts.curves_by_epoch(
            "v", "t", "d", [Curve({1: 0.5, 2: 0.6}, 2, True), Curve({1: 0.4, 2: 0.3}, 1, False)], ""
        ),
        "counts": charts.counts_chart("n", "t", "d", [3, 0, 1_000], "trainings", "rows"),
        "reliability": charts.reliability(
            "b",
            "t",
            "d",
            [
                Reliability(
                    "before",
                    [0.5, 0.9],
                    [0.4, 1.0],
                    [Interval(0.2, 0.6), Interval(0.8, 1.0)],
                    INK,
                    "s",
                ),
                Reliability("after", [0.95], [0.9], [Interval(0.7, 1.0)], INK, "o"),
            ],
        ),
        "time": charts.over_time(
            "o", "t", "d", [Line("x", [0, 5], [1, None])], [Span("train", 0, 5)], "%", 100
        ),
    }
    return {name: plot.svg for name, plot in plots.items()}


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return every_chart()


def test_every_chart_is_well_formed_and_named_for_screen_readers(drawn: dict[str, str]) -> None:
    for name, chart in drawn.items():
        svg = ElementTree.fromstring(chart)
        ids = [element.get("id") for element in svg.iter()]
        assert svg.get("role") == "img", name
        assert all(one in ids for one in svg.get("aria-labelledby", "").split()), name


def test_every_colour_is_one_of_the_page(drawn: dict[str, str]) -> None:
    colours = {name: re.findall(r"#[0-9a-fA-F]{6}\b", chart) for name, chart in drawn.items()}
    assert colours == {name: [] for name in drawn}


def test_the_same_data_give_the_same_bytes(drawn: dict[str, str]) -> None:
    assert every_chart() == drawn


def test_charts_do_not_share_ids() -> None:
    first, second = (set(re.findall(r'\bid="([^"]+)"', changes(name))) for name in ("a", "b"))
    assert first
    assert not first & second


def test_every_reference_is_to_an_id_of_the_same_chart() -> None:
    svg = changes()
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= ids


def test_text_stays_text_in_the_font_of_the_page() -> None:
    svg = changes()
    assert ">accuracy</text>" in svg
    assert "font-family" not in svg


def test_a_chart_does_not_style_the_rest_of_the_page() -> None:
    assert "<style" not in changes()


def test_names_are_shown_as_they_are_and_escaped() -> None:
    assert ">recall of $x^2$ &lt;b&gt;</text>" in changes()
    assert '<desc id="one-text">A &lt;text&gt;</desc>' in changes()


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    every_chart()
    assert dict(matplotlib.rcParams) == before


def test_names_in_any_script_are_drawn_without_warning(recwarn: pytest.WarningsRecorder) -> None:
    charts.change_chart("c", "t", "d", [Change("含意 🙂 محايد", 0.1, 0.2)])
    assert not recwarn.list


def test_a_single_sample_and_a_single_step_can_be_drawn() -> None:
    charts.over_time("o", "t", "d", [Line("x", [0.0], [1.0])], [Span("", 0, 0)], "%")
    charts.loss_by_step("s", "t", "d", [1], [0.5], [0.5], [])


def test_ticks_between_whole_percents_keep_their_decimals() -> None:
    small = Interval(-0.004, 0.006)
    plot = charts.difference_chart(
        "x", "t", "c", [charts.Difference("slice", 0.001, small, is_significant=False)]
    )
    ticks = re.findall(r">([+\u2212-]?\d+(?:\.\d+)?)</text>", plot.svg)
    assert len(ticks) == len({*ticks}) > 2


@pytest.mark.parametrize("trainings", [2, 100])
def test_curves_and_counts_of_any_number_of_trainings_are_drawn(trainings: int) -> None:
    curves = [Curve({1: 0.5 + 0.001 * number}, 1, number == 0) for number in range(trainings)]
    chart = charts.curves_by_epoch("v", "t", "d", curves, "loss (nats)").svg
    assert "loss (nats)" in chart
    counts = charts.counts_chart("n", "t", "d", [13] * (trainings + 1), "trainings", "rows").svg
    assert (">13</text>" in counts) is (trainings < 12)  # counts above the bars, if they have room


def test_the_mean_of_curves_ends_with_the_shortest() -> None:
    curves = [Curve({1: 0.5, 2: 0.6}, 2, True), Curve({1: 0.7}, 1, False)]
    assert charts.mean_curve(curves) == {1: pytest.approx(0.6)}


def test_the_time_axis_of_all_charts_of_a_job_has_the_same_place() -> None:
    spans = [Span("train", 0, 5)]
    places = set()
    for top in (0.004, 12.0, 123_456.0):
        svg = charts.over_time("o", "t", "d", [Line("x", [0, 5], [0, top])], spans, "W").svg
        ticks = re.findall(r'text-anchor:middle[^>]* x="([\d.]+)" [^>]*>(\d)</text>', svg)
        places.add(tuple(ticks))
    (place,) = places
    assert len(place) > 3


def test_a_line_without_intervals_cannot_be_taken_for_one() -> None:
    whole = charts.change_chart("c", "t", "d", CHANGES[:1]).svg
    bare = charts.change_chart("c", "t", "d", [Change("recall", 0.1, 0.2)]).svg
    assert "stroke-dasharray" not in whole
    assert "stroke-dasharray" in bare


def test_a_point_has_its_whole_name_where_the_chart_has_room_for_a_part() -> None:
    name = "a" * 90
    plot = charts.change_chart("c", "t", "d", [Change(name, 0.1, 0.2)])
    for svg in (plot.svg, plot.narrow):
        assert f"<title>{name}, before: 10.0 %</title>" in svg
        assert f">{name[:43]}…</text>" in svg


def test_of_a_long_line_some_points_have_values_the_last_among_them() -> None:
    steps = [*range(1, 1001)]
    svg = charts.loss_by_step("s", "t", "d", steps, steps, steps, []).svg
    assert 20 < svg.count("<circle") <= MOST_POINTS
    assert "step 1000: " in svg


def test_a_drawing_carries_nothing_that_a_page_does_not_need(drawn: dict[str, str]) -> None:
    for name, svg in drawn.items():
        assert "<!--" not in svg, name
        assert "<g>" not in svg, name
        assert not any(re.search(r"\d\.\d{2,}", path) for path in re.findall(' d="(.*?)"', svg)), (
            name
        )
