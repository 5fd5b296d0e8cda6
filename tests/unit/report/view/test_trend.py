"""A trend is drawn to scale: time goes right, more goes up."""

from __future__ import annotations

import datetime
import re

import pytest

from nlijob.records.intervals import Interval
from nlijob.report.view.parts import View
from nlijob.report.view.trend import (
    HEIGHT,
    MANY,
    MARGIN,
    WIDTH,
    Point,
    accuracy_trend,
    amount_trend,
)

DAY = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def point(day: int, value: float, before: float | None = None, half: float = 0.0) -> Point:
    interval = Interval(value - half, value + half) if half else None
    return Point(DAY + datetime.timedelta(days=day), value, f"day {day}", before, interval)


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def accuracies(*points: Point) -> View:
    return accuracy_trend(points, "accuracy", lambda value: f"{value:.2f}")


def test_accuracies_lie_between_the_axis_labels() -> None:
    found = accuracies(point(0, 0.75, 0.42), point(3, 0.9, 0.42))
    assert (found.low, found.high) == ("0.40", "0.90")
    inner = WIDTH - 2 * MARGIN
    assert places(found.after) == [(MARGIN, pytest.approx(0.3 * HEIGHT)), (MARGIN + inner, 0.0)]
    assert places(found.before)[0][1] == pytest.approx(HEIGHT * (1 - 0.02 / 0.5))


def test_runs_stand_where_their_time_is() -> None:
    found = accuracies(point(0, 0.5), point(1, 0.6), point(4, 0.7))
    across = [x for x, _ in places(found.after)]
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(0.25)


def test_runs_of_one_moment_stand_in_the_middle() -> None:
    assert {x for x, _ in places(accuracies(point(0, 0.5), point(0, 0.6)).after)} == {WIDTH / 2}


def test_the_band_goes_along_the_upper_bounds_and_back_along_the_lower() -> None:
    found = accuracies(point(0, 0.5, half=0.1), point(1, 0.6, half=0.1))
    heights = [y for _, y in places(found.band)]
    assert heights[0] > heights[1]
    assert heights[2] < heights[3]
    assert min(heights[2:]) > max(heights[:2]) - HEIGHT


def test_an_accuracy_of_one_ends_the_axis() -> None:
    assert accuracies(point(0, 1.0), point(1, 0.98)).high == "1.00"


def test_the_same_accuracy_in_all_runs_can_be_drawn() -> None:
    assert places(accuracies(point(0, 0.5), point(1, 0.5)).after)[0][1] == HEIGHT / 2


def test_an_amount_is_drawn_from_zero_to_the_largest() -> None:
    found = amount_trend([point(0, 5.0), point(1, 20.0)], "time", lambda value: f"{value:g} s")
    assert (found.low, found.high) == ("0", "20 s")
    assert [y for _, y in places(found.after)] == [0.75 * HEIGHT, 0.0]


def test_many_runs_have_small_dots() -> None:
    runs = [point(day, 0.5) for day in range(MANY)]
    assert accuracies(*runs).is_dense
    assert not accuracies(*runs[1:]).is_dense
