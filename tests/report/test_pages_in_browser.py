"""`compare` and `index` in a real browser: no complaints, no requests."""

from __future__ import annotations

import csv
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pytest

from nlijob.report.comparison import write_comparison
from nlijob.report.index import write_index
from nlijob.report.render import render
from tests.report.browser import RULES_OF_LOOKS, Tab, axe_faults
from tests.report.one_page import saved
from tests.synthetic import Spec, build_run, finish

pytestmark = pytest.mark.browser
ODD = "W" * 120 + " <b>#1?%41\u202eabc"
PAGES = ("two", "many", "hostile", "index")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in runs/, and each page beside them."""
    root = tmp_path_factory.mktemp("pages")
    specs = {
        "first": Spec(),
        "second": Spec(training_seed=1, created_at="2026-01-03T00:00:00+00:00"),
        "worse": Spec(training_seed=2, tuned_skill=0.5, created_at="2026-01-04T00:00:00+00:00"),
        "cpu": Spec(gpu=False, demo=True, seed=12),
        ODD: Spec(recipe="<img src=x>" + "V" * 300, lora_r=64),
        "hostile": Spec(hostile=True, rows=30, training_seed=3, tuned_skill=0.6),
        "hostile-2": Spec(hostile=True, rows=30, training_seed=4, tuned_skill=1.5),
    }
    runs = {name: build_run(root / "runs" / name, spec) for name, spec in specs.items()}
    for run in runs.values():  # a page of its own for each would take most of the time
        finish(run)
    drawn = render(runs["first"]).read_bytes()
    for run in runs.values():
        run.report.write_bytes(drawn)
    build_run(root / "runs" / "unfinished")
    of = {
        "two": ("first", "worse"),
        "many": ("first", "second", "cpu", ODD),
        "hostile": ("hostile", "hostile-2"),
    }
    for title, names in of.items():
        write_comparison([runs[name].root for name in names], root / f"{title}.html")
    write_index(root / "runs", root / "runs" / "index.html")
    return root


@pytest.fixture(scope="module")
def urls(folder: Path) -> dict[str, str]:
    files = {name: folder / f"{name}.html" for name in PAGES}
    files["index"] = folder / "runs" / "index.html"
    return {name: path.as_uri() for name, path in files.items()}


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    """The folder of runs behind a plain web server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder / "runs"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_silent_and_asks_for_nothing(tab: Tab, urls: dict[str, str], name: str) -> None:
    tab.show_as("dark" if name == "many" else "light")
    tab.open(urls[name])
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith("data:")] == [urls[name]]


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(tab: Tab, urls: dict[str, str], name: str) -> None:
    tab.show_as("light")
    tab.open(urls[name])
    assert axe_faults(tab) == []
    tab.show_as("dark", width=390)
    assert axe_faults(tab, *RULES_OF_LOOKS) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_prints_completely_without_complaints(
    tab: Tab, urls: dict[str, str], name: str
) -> None:
    tab.show_as("dark")
    tab.open(urls[name])
    assert tab.print().startswith(b"%PDF")
    assert tab.complaints() == []
    assert len([url for url in tab.requests() if not url.startswith("data:")]) == 1


@pytest.mark.parametrize("name", PAGES)
def test_printed_page_is_light_and_cuts_no_table_off(
    tab: Tab, urls: dict[str, str], name: str
) -> None:
    tab.show_as("dark", 760)  # the width of a sheet
    tab.open(urls[name])
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        wide = """[...document.querySelectorAll("main table")]
            .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
            .map((one) => one.className)"""
        assert tab.evaluate(wide) == []
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("name", PAGES)
def test_page_never_scrolls_sideways(tab: Tab, urls: dict[str, str], name: str) -> None:
    tab.show_as("light", 360)
    tab.open(urls[name])
    for width in (360, 768, 1280):
        tab.show_as("light", width)
        assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [
            width,
            True,
        ]


def test_dark_and_light_have_their_own_colours(tab: Tab, urls: dict[str, str]) -> None:
    colours = []
    for scheme in ("light", "dark"):
        tab.show_as(scheme)
        tab.open(urls["index"])
        colours.append(
            tab.evaluate(
                "[document.body, document.querySelector('.trend .line')]"
                ".map((one) => getComputedStyle(one)).map((one) => one.color + one.stroke).join()"
            )
        )
    assert colours[0] != colours[1]


def test_hostile_text_makes_no_elements(tab: Tab, urls: dict[str, str]) -> None:
    for name in ("hostile", "many", "index"):
        tab.open(urls[name])
        assert tab.evaluate("document.querySelectorAll('main :is(script, img, style)').length") == 0


def test_filter_shows_the_rows_that_match(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["two"])
    shown = tab.evaluate(
        """(() => {
            const filter = document.getElementById("flip-filter");
            filter.value = "gold label neutral";
            filter.dispatchEvent(new Event("input"));
            const rows = [...document.querySelectorAll(".case")];
            return rows.map((one) => [one.hidden, one.textContent.includes("gold label neutral")]);
        })()"""
    )
    assert any(hidden for hidden, _ in shown)
    assert all(hidden is not matching for hidden, matching in shown)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_complete_with_scripts_off(tab: Tab, urls: dict[str, str], name: str) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.load(urls[name])
        shown = tab.evaluate("document.querySelector('main').innerText")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    if name == "index":
        headings: tuple[str, ...] = (
            "Runs that fell behind",
            "All runs",
            "Series 1",
            "no results.json",
        )
    else:
        headings = ("Side by side", "Only “", "Configuration", "Environment")
    for heading in headings:
        assert heading in shown


# ---------------------------------------------------------------- flipped rows


def flips(ending: str) -> str:
    """The first button that saves flipped rows as such a file."""
    return f"document.querySelector('.save-flips button[value={ending}]')"


def test_flipped_rows_are_saved_as_csv_without_a_request(
    tab: Tab, urls: dict[str, str], tmp_path: Path
) -> None:
    tab.open(urls["hostile"])
    file = saved(tab, flips("csv"), tmp_path)
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text))
    compared = json.loads(Path(unquote(urls["hostile"][7:-4] + "json")).read_text("utf-8"))
    (against,) = compared["against"]
    flipped = [*against["only_other_right"], *against["only_reference_right"]]
    assert file.name == "flipped-rows-1.csv"
    assert [int(one["row"]) for one in rows] == [one["index"] for one in flipped]
    assert [one["hypothesis"].removeprefix("'") for one in rows] == [
        one["hypothesis"].removeprefix("'") for one in flipped
    ]
    assert {one["only_right"] for one in rows} <= {against["reference"], against["other"]}
    assert [url for url in tab.requests() if url.startswith("http")] == []


def test_flipped_rows_are_saved_as_json(tab: Tab, urls: dict[str, str], tmp_path: Path) -> None:
    tab.open(urls["two"])
    (first, *_) = json.loads(saved(tab, flips("json"), tmp_path).read_text("utf-8"))
    assert list(first) == [
        *("row", "premise", "hypothesis", "gold_label", "only_right", "reference"),
        *("reference_answer", "other", "other_answer", "gold_probability_difference"),
    ]
    answer = "other_answer" if first["only_right"] == first["other"] else "reference_answer"
    assert first[answer] == first["gold_label"]


def test_a_matrix_shows_each_run_beside_each(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["many"])
    cells = tab.evaluate(
        "[...document.querySelectorAll('.duels tbody tr')].map((row) => row.cells.length)"
    )
    assert cells == [5] * 4


# ---------------------------------------------------------------- the list of runs

SHOWN = """[...document.querySelectorAll(".all-runs tbody tr")].filter((row) => !row.hidden)
    .map((row) => row.querySelector("bdi").textContent)"""
HEADS = """[...document.querySelectorAll(".all-runs thead th")].filter((head) => !head.hidden)
    .map((head) => head.textContent.trim())"""


def search_runs(tab: Tab, text: str) -> None:
    tab.evaluate(
        f"""(() => {{
            const field = document.getElementById("run-search");
            field.value = {text!r};
            field.dispatchEvent(new Event("input"));
        }})()"""
    )


def choose_column(tab: Tab, name: str) -> None:
    tab.evaluate(f"""document.querySelector('#run-columns input[value="{name}"]').click()""")


def test_search_shows_the_runs_that_match(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["index"])
    search_runs(tab, "FELL behind")
    assert tab.evaluate(SHOWN) == ["worse"]
    assert tab.evaluate("document.getElementById('run-count').textContent") == "1 of 8"
    search_runs(tab, "")
    assert len(tab.evaluate(SHOWN)) == 8


def test_chosen_columns_are_shown_in_every_row(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["index"])
    usual = tab.evaluate(HEADS)
    assert "gain" in usual
    assert "training rows" not in usual
    choose_column(tab, "gain")
    choose_column(tab, "training rows")
    heads = tab.evaluate(HEADS)
    assert {"gain", "training rows"} & {*heads} == {"training rows"}
    widths = tab.evaluate(
        """[...document.querySelectorAll(".all-runs tbody tr")].map((row) =>
            [...row.cells].filter((cell) => !cell.hidden)
            .reduce((sum, cell) => sum + cell.colSpan, 0))"""
    )
    assert set(widths) == {len(heads)}


def test_the_address_remembers_search_and_columns(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["index"])
    search_runs(tab, "worse")
    choose_column(tab, "gain")
    address = tab.evaluate("location.href")
    heads = tab.evaluate(HEADS)
    tab.load("about:blank")
    tab.open(address)
    assert tab.evaluate(SHOWN) == ["worse"]
    assert tab.evaluate(HEADS) == heads
    assert tab.complaints() == []


def sort_by(tab: Tab, name: str) -> None:
    tab.evaluate(
        f"""[...document.querySelectorAll(".all-runs thead button")]
            .find((one) => one.textContent.trim() === "{name}").click()"""
    )


def test_runs_are_sorted_by_a_figure_and_those_without_it_come_last(
    tab: Tab, urls: dict[str, str]
) -> None:
    tab.open(urls["index"])
    values = """[...document.querySelectorAll(".all-runs tbody tr")]
        .map((row) => row.cells.length > 3 ? parseFloat(row.cells[3].textContent) : null)"""
    sort_by(tab, "accuracy after")
    upwards = tab.evaluate(values)
    assert upwards[-1] is None
    assert upwards[:-1] == sorted(upwards[:-1])
    sort_by(tab, "accuracy after")
    downwards = tab.evaluate(values)
    assert downwards[-1] is None
    assert downwards[:-1] == upwards[-2::-1]


def test_the_address_remembers_the_order(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["index"])
    sort_by(tab, "gain")
    sort_by(tab, "gain")
    address, order = tab.evaluate(f"[location.href, {SHOWN}]")
    tab.load("about:blank")
    tab.open(address)
    assert tab.evaluate(SHOWN) == order
    assert tab.evaluate("document.querySelector('[aria-sort=descending]').innerText") == "gain"


def test_a_link_leads_to_a_run_that_the_search_had_hidden(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["index"])
    search_runs(tab, "unfinished")
    tab.evaluate(
        """new Promise((done) => {
            addEventListener("hashchange", done, { once: true });
            document.querySelector(".warnings li a").click();
        }).then(() => 0)"""
    )
    assert "worse" in tab.evaluate(SHOWN)


def test_every_finished_run_has_its_json_a_click_away(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["index"])
    links = tab.evaluate("[...document.querySelectorAll('.all-runs a.json')].map((a) => a.href)")
    assert len(links) == 7
    for link in links:
        tab.open(link)
        assert '"run_id"' in tab.evaluate("document.body.textContent.slice(0, 200)")


def test_the_trend_of_a_series_fits_a_phone_and_names_each_run(
    tab: Tab, urls: dict[str, str]
) -> None:
    tab.show_as("light", 390)
    tab.open(urls["index"])
    right, notes = tab.evaluate(
        """[Math.max(...[...document.querySelectorAll(".trend svg")]
            .map((one) => one.getBoundingClientRect().right)),
            [...document.querySelectorAll("#series-1 .trend:first-child title")]
            .map((one) => one.textContent.split(",")[0])]"""
    )
    assert right <= 390
    assert notes == ["first", "second", "worse"]


FOLLOW = "[...document.querySelectorAll('.all-runs a[href$=\"report.html\"]')].map((a) => a.href)"


def test_links_lead_to_reports_from_disk(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["index"])
    links = tab.evaluate(FOLLOW)
    assert len(links) == 7
    for link in links:
        tab.open(link)
        assert tab.evaluate("document.querySelector('.brand').textContent") == "nlijob report"


def test_links_lead_to_reports_behind_a_plain_web_server(tab: Tab, served: str) -> None:
    tab.open(served)  # index.html is what a server shows of a folder
    links = tab.evaluate(FOLLOW)
    assert len(links) == 7
    for link in links:
        tab.open(link)
        assert tab.evaluate("document.querySelector('.brand').textContent") == "nlijob report"
