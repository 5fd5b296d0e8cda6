"""Tables in a real browser: sorting, heads in view, filter, clipboard, downloads, phones."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis import wording
from nlijob.report.view.parts import Table, columns, row
from tests.report.browser import Tab
from tests.report.one_page import all_faults, saved, write_page

pytestmark = pytest.mark.browser
SLICES = Table(
    "By “kind”",
    columns("kind", "rows", "before", "after", "change", "95 % interval", "adjusted p"),
    (
        row(
            "b, 10", "1,200", "40.0 % (30.1 to 50.9 %)", "7.5 %", "−5.1 points", "−9.0 to −1.2", ""
        ),
        row(
            *("=SUM(1)", "90", "< 0.1 %", "93.0 %", "+12.0 points", "+1.0 to +23.0", "p < 0.001"),
            mark="helped",
        ),
        row("b, 9", "300", "9.0 %", "> 99.9 %", "+2.5 points", "−1.0 to +6.0", "too few rows"),
        row("“a”", "7", "12.3 %", "not measured", "0.0 points", "−3.0 to +3.0", "p = 0.012"),
    ),
)
STAGES = Table(
    "Stages",
    columns("stage", "time", "memory"),
    (
        row("whole", "2 min 5 s (125 s)", "1.20 GiB"),
        row("first part", "9.0 s", "87.0 MiB", indented=True),
        row("second part", "0.3 s", "–", indented=True),
        row("short", "0.3 s", "87.0 MiB"),
        row("long", "1 h 5 min (3,925 s)", "not measured"),
    ),
)
FIGURES = Table(
    "Figures of two units",
    columns("figure", "before", "after", "change"),
    (
        row("accuracy", "39.8 %\n30.6 to 49.8 %", "93.9 %", "+54.1 points"),
        row("loss", "1.723", "0.252", "−1.470"),
        row("recall", "8.0 %", "96.0 %", "+88.0 points"),
    ),
)
LONG = Table(
    "Many rows",
    columns("name", "place"),
    tuple(row(f"row {number}", str(number)) for number in range(60)),
)
TABLES = (SLICES, STAGES, FIGURES, LONG)

TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""After them, the page has seen that its window changed."""


def every_wording() -> list[tuple[Callable[[float], str], list[float]]]:
    """Functions that word a figure, each with figures that it words differently, ascending."""
    shares = [0.0, 0.0001, 0.004, 0.05, 0.51, 0.99, 0.9999, 1.0]
    signed = [-1.0, -0.31, -0.0001, 0.0, 0.0001, 0.02, 0.9999]
    return [
        (wording.percent, shares),
        (wording.points, signed),
        (wording.p_value, [0.0001, 0.012, 0.0496, 0.051, 0.9, 0.9999]),
        (wording.probability, [0.0, 0.001, 0.02, 0.7, 0.999]),
        (wording.loss_difference, [-2.0, -0.5, -0.0001, 0.0, 0.0001, 0.25]),
        (wording.decimal, [1e-7, 0.002, 3.0, 45.6, 1234.0, 98765.0]),
        (wording.duration, [0.0001, 0.02, 1.5, 59.0, 61.0, 3599.0, 3700.0, 90_000.0, 400_000.0]),
        (wording.gib, [2**10, 2**20, 50 * 2**20, 2**29, 2**30, 2**41]),
        (wording.energy, [100.0, 7200.0, 4e6, 9e7]),
        (lambda amount: wording.money(amount, "EUR"), [0.012, 0.5, 3.2, 1200.0]),
        (wording.rate, [0.5, 12.3, 4567.0]),
        (lambda number: wording.count(int(number)), [0, 7, 999, 1000, 2_000_000]),
    ]


@pytest.fixture(autouse=True)
def window(tab: Tab) -> None:
    """Each test begins with a wide and light window."""
    tab.show_as("light")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("tables") / "page.html", TABLES)


def sorted_by(tab: Tab, table: str, column: str, presses: int = 1) -> list[str]:
    """The texts of the first column after so many presses of a head's button."""
    found: list[str] = tab.evaluate(
        f"""(() => {{
            const heads = [...document.querySelectorAll("#{table} thead th")];
            const head = heads.find((one) => one.textContent === {json.dumps(column)});
            for (let i = 0; i < {presses}; i++) head.querySelector("button").click();
            const rows = [...document.querySelectorAll("#{table} tbody tr")];
            const names = rows.map((row) => row.cells[0].firstChild.textContent.trim());
            return [head.ariaSort, ...names];
        }})()"""
    )
    return found


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("kind", ["=SUM(1)", "“a”", "b, 9", "b, 10"]),
        ("rows", ["“a”", "=SUM(1)", "b, 9", "b, 10"]),
        ("before", ["=SUM(1)", "b, 9", "“a”", "b, 10"]),
        ("after", ["b, 10", "=SUM(1)", "b, 9", "“a”"]),
        ("change", ["b, 10", "“a”", "b, 9", "=SUM(1)"]),
        ("95 % interval", ["b, 10", "“a”", "b, 9", "=SUM(1)"]),
        ("adjusted p", ["=SUM(1)", "“a”", "b, 10", "b, 9"]),
    ],
)
def test_a_press_on_a_head_sorts_by_value_with_missing_ones_last(
    tab: Tab, url: str, column: str, order: list[str]
) -> None:
    tab.open(url)
    state, *names = sorted_by(tab, "t1", column)
    assert state == "ascending"
    if column == "kind":  # where quotation marks and signs go is the browser's business
        assert names.index("b, 9") < names.index("b, 10")
    else:
        assert names == order


def test_further_presses_turn_the_order_round_and_restore_the_first_one(tab: Tab, url: str) -> None:
    tab.open(url)
    first = [one.cells[0] for one in SLICES.rows]
    assert sorted_by(tab, "t1", "after", 2) == [
        "descending",
        *("b, 9", "=SUM(1)", "b, 10", "“a”"),
    ]
    assert sorted_by(tab, "t1", "rows", 1)[0] == "ascending"
    states = "[...document.querySelectorAll('#t1 thead th')].map((head) => head.ariaSort)"
    assert tab.evaluate(states).count("none") == len(SLICES.columns) - 1
    assert sorted_by(tab, "t1", "rows", 2) == ["none", *first]


def test_parts_stay_below_the_row_that_they_belong_to(tab: Tab, url: str) -> None:
    tab.open(url)
    parts = ["whole", "first part", "second part"]
    assert sorted_by(tab, "t2", "time")[1:] == ["short", *parts, "long"]
    assert sorted_by(tab, "t2", "memory")[1:] == ["short", *parts, "long"]


def test_figures_of_one_unit_stay_together(tab: Tab, url: str) -> None:
    tab.open(url)
    assert sorted_by(tab, "t3", "before")[1:] == ["recall", "accuracy", "loss"]


def test_every_way_to_word_a_figure_is_sorted_by_value(tab: Tab, tmp_path: Path) -> None:
    tables, orders = [], []
    for word, values in every_wording():
        texts = [word(value) for value in values]
        assert len({*texts}) == len(texts)
        mixed = [*texts, "", "not measured"]
        random.Random(1).shuffle(mixed)
        tables.append(
            Table("One", columns("name", "figure"), tuple(row(text, text) for text in mixed))
        )
        orders.append(texts)
    tab.open(write_page(tmp_path / "page.html", tables))
    for place, order in enumerate(orders, 1):
        found = tab.evaluate(
            f"""(document.querySelector("#t{place} thead .number button").click(),
            [...document.querySelectorAll("#t{place} td.number")].map((one) => one.innerText))"""
        )
        assert found[: len(order)] == order


def test_a_head_stays_in_view_and_is_hidden_by_nothing(tab: Tab, url: str) -> None:
    tab.show_as("light", 1280, 600)
    tab.open(url)
    seen = """(() => {
        const row = document.querySelector("#t4 tbody tr:nth-child(40)");
        row.scrollIntoView({ block: "center", behavior: "instant" });
        const head = document.querySelector("#t4 thead th");
        const box = head.getBoundingClientRect();
        const top = document.elementFromPoint(box.left + 4, box.top + 4);
        return [box.top >= 0 && box.bottom < innerHeight, head.contains(top)];
    })()"""
    assert tab.evaluate(seen) == [True, True]
    tab.show_as("light", 390, 600)
    tab.evaluate(TWO_FRAMES)
    assert tab.evaluate(seen) == [True, True]


def test_a_long_table_has_a_filter_and_others_have_none(tab: Tab, url: str) -> None:
    tab.open(url)
    found = tab.evaluate(
        """(() => {
            const input = document.querySelector("#t4 .sift input");
            input.value = "ROW 5";
            input.dispatchEvent(new Event("input"));
            const rows = [...document.querySelectorAll("#t4 tbody tr")];
            return [rows.filter((row) => !row.hidden).length,
                document.querySelector("#t4 .sift output").textContent,
                document.querySelectorAll(".sift").length];
        })()"""
    )
    assert found == [11, "11 of 60", 1]


COPY = """(() => {
    const [first, last] = document.querySelectorAll(%s);
    let got;
    addEventListener("copy", (event) => {
        got = ["text/plain", "text/html"].map((type) => event.clipboardData.getData(type));
    }, { once: true });
    getSelection().setBaseAndExtent(first, 0, last, last.childNodes.length);
    document.execCommand("copy");
    return got;
})()"""


def copied(tab: Tab, ends: str) -> tuple[str, str]:
    """The plain text and the HTML of a selection between two cells on the clipboard."""
    tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    answer = tab.call(
        "Runtime.evaluate",
        expression=COPY % json.dumps(ends),
        userGesture=True,
        returnByValue=True,
    )
    plain, html = answer["result"]["value"]
    return plain, html


def test_a_copied_table_arrives_as_columns(tab: Tab, url: str) -> None:
    tab.open(url)
    plain, html = copied(tab, "#t3 thead th:first-child, #t3 tbody tr:last-child td:last-child")
    assert [line.split("\t") for line in plain.splitlines()] == [
        ["figure", "before", "after", "change"],
        ["accuracy", "39.8 % (30.6 to 49.8 %)", "93.9 %", "+54.1 points"],
        ["loss", "1.723", "0.252", "-1.470"],
        ["recall", "8.0 %", "96.0 %", "+88.0 points"],
    ]
    assert html.count("<tr>") == 4
    assert html.count("<td>") == 16


def test_some_copied_rows_arrive_as_columns_in_the_order_shown(tab: Tab, url: str) -> None:
    tab.open(url)
    sorted_by(tab, "t2", "stage", 2)
    plain, _ = copied(tab, "#t2 tbody tr:first-child th, #t2 tbody tr:nth-child(4) td:nth-child(2)")
    assert plain.splitlines()[0].split("\t") == ["whole", "2 min 5 s (125 s)", "1.20 GiB"]
    assert plain.splitlines()[3].split("\t") == ["short", "0.3 s"]


def test_small_type_is_apart_and_hidden_columns_are_left_out(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.evaluate(
        """(() => {
            const rows = document.querySelectorAll("#t1 tr");
            for (const row of rows) row.cells[2].hidden = true;
            rows[4].cells[1].insertAdjacentHTML("beforeend", "<small>12 of 14</small>");
        })()"""
    )
    assert sorted_by(tab, "t1", "rows")[1] == "“a”"
    plain, _ = copied(tab, "#t1 tbody tr:first-child th, #t1 tbody tr:first-child td:nth-child(4)")
    assert plain.split("\t") == ["“a”", "7 (12 of 14)", "not measured"]


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_a_table_is_saved_as_csv_with_its_figures_as_numbers(
    tab: Tab, url: str, tmp_path: Path
) -> None:
    tab.open(url)
    press = "document.querySelector('#t1 .save button')"
    path = saved(tab, press, tmp_path / "csv")
    assert path.name == "by-kind.csv"
    head, first, second, third, last = rows_of(path)
    assert head == [
        *("kind", "rows", "before", "before: value (%)", "before: low (%)", "before: high (%)"),
        *("after", "after: value (%)", "change", "change: value (points)", "95 % interval"),
        *("95 % interval: low", "95 % interval: high", "adjusted p", "adjusted p: value", "mark"),
    ]
    by_name = dict(zip(head, first, strict=True))
    assert by_name["rows"] == "1200"
    assert [by_name[f"before: {part} (%)"] for part in ("value", "low", "high")] == [
        *("40", "30.1", "50.9")
    ]
    assert by_name["change: value (points)"] == "-5.1"
    by_name = dict(zip(head, second, strict=True))
    assert by_name["kind"] == "'=SUM(1)"  # a spreadsheet must not compute it
    assert by_name["mark"] == "helped"
    assert (by_name["before"], by_name["before: value (%)"]) == ("< 0.1 %", "")
    assert dict(zip(head, last, strict=True))["after"] == "not measured"
    assert dict(zip(head, last, strict=True))["after: value (%)"] == ""
    assert third[0] == "b, 9"


def test_times_and_sizes_are_saved_in_one_unit(tab: Tab, url: str, tmp_path: Path) -> None:
    tab.open(url)
    head, *rows = rows_of(saved(tab, "document.querySelector('#t2 .save button')", tmp_path))
    assert head[2] == "time: value (s)"
    assert [line[2] for line in rows] == ["125", "9", "0.3", "0.3", "3900"]
    assert head[4] == "memory: value (bytes)"
    assert rows[1][4] == str(87 * 2**20)
    assert rows[2][4] == rows[4][4] == ""


def test_a_table_is_saved_as_json(tab: Tab, url: str, tmp_path: Path) -> None:
    tab.open(url)
    path = saved(tab, "document.querySelectorAll('#t3 .save button')[1]", tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "figures-of-two-units.json"
    assert content["table"] == "Figures of two units"
    assert content["rows"][0]["figure"] == "accuracy"
    assert content["rows"][0]["before"] == {
        **{"text": "39.8 % (30.6 to 49.8 %)", "value": 39.8},
        **{"low": 30.6, "high": 49.8, "unit": "%"},
    }
    assert content["rows"][1]["change"] == {"text": "-1.470", "value": -1.47}


def test_each_column_of_a_saved_table_has_a_name_of_its_own(tab: Tab, tmp_path: Path) -> None:
    names = ("name", "a", "b", "c", "b", "a", "b")
    table = Table("Names", columns(*names), (row("x", "1", "2", "3", "4", "5", "6"),))
    tab.open(write_page(tmp_path / "page.html", [table]))
    head, _ = rows_of(saved(tab, "document.querySelector('.save button')", tmp_path / "saved"))
    assert head == ["name", "name: a", "a: b", "c", "c: b", "b: a", "a: b (2)"]


def test_saving_asks_the_network_for_nothing(tab: Tab, url: str, tmp_path: Path) -> None:
    tab.open(url)
    saved(tab, "document.querySelector('#t1 .save button')", tmp_path)
    assert tab.complaints() == []
    assert [one for one in tab.requests() if not one.startswith(("data:", "blob:"))] == []


def test_on_a_phone_the_change_is_seen_without_scrolling(tab: Tab, url: str) -> None:
    names = "[...document.querySelectorAll('#t1 thead th')].map((one) => one.textContent)"
    tab.show_as("light", 390)
    tab.open(url)
    assert tab.evaluate(names)[:3] == ["kind", "change", "95 % interval"]
    seen = """(() => {
        const frame = document.querySelector("#t1 .scroll");
        const cells = [...document.querySelectorAll("#t1 :is(th, td):nth-child(-n + 3)")];
        const edge = frame.getBoundingClientRect().right;
        return [frame.scrollWidth > frame.clientWidth, frame.tabIndex,
            cells.every((cell) => cell.getBoundingClientRect().right <= edge)];
    })()"""
    assert tab.evaluate(seen) == [True, 0, True]
    assert sorted_by(tab, "t1", "rows")[1] == "“a”"
    tab.show_as("light", 1280)
    tab.evaluate(TWO_FRAMES)
    assert tab.evaluate(names) == [column.name for column in SLICES.columns]


def test_a_table_that_is_cut_has_a_shadow_at_that_edge(tab: Tab, url: str) -> None:
    tab.show_as("light", 390)
    tab.open(url)
    shaded = """(() => {
        const frame = document.querySelector("#t1 .scroll");
        return getComputedStyle(frame).backgroundAttachment.split(", ").includes("local");
    })()"""
    assert tab.evaluate(shaded)
    tab.show_as("light", 1280)
    tab.evaluate(TWO_FRAMES)
    assert tab.evaluate("document.querySelector('#t1 .scroll').className") == "scroll fits"
    assert not tab.evaluate("document.querySelector('#t1 .scroll').hasAttribute('tabindex')")


def test_axe_finds_nothing_in_tables(tab: Tab, tmp_path: Path) -> None:
    fewer = replace(LONG, rows=LONG.rows[:21])  # axe looks at each element
    url = write_page(tmp_path / "page.html", (SLICES, fewer))
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        tab.show_as(scheme, width)
        tab.open(url)
        sorted_by(tab, "t1", "rows")
        assert all_faults(tab) == []


def test_with_scripts_off_a_table_has_no_control_that_does_nothing(tab: Tab, url: str) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.load(url)
        count = "document.querySelectorAll('main :is(button, input)').length"
        assert tab.evaluate(count) == 0
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_two_tables_of_one_name_are_no_fault(tab: Tab, tmp_path: Path) -> None:
    tab.open(write_page(tmp_path / "page.html", (FIGURES, FIGURES)))
    assert all_faults(tab) == []
