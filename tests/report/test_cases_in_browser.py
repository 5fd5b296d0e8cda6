"""The failure cases in a real browser: their filter, their downloads, and the printed page."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.records.outcome import Results
from nlijob.report.render import report_html
from nlijob.rundir import RunDir
from tests.report.browser import Tab
from tests.synthetic import Spec, build_run
from tests.trainings import with_trainings

pytestmark = pytest.mark.browser
SPECS = {
    "gpu": Spec(further=True, epochs=1, few_shot=0, samples=False, word_importance=False),
    "hostile": Spec(hostile=True, rows=40, epochs=1, few_shot=0, word_importance=False),
}
SET = """(() => {
    for (const [name, value] of Object.entries(%s)) {
        const control = document.getElementById("case-" + name);
        control.value = value;
        control.dispatchEvent(new Event("input"));
    }
})()"""
SHOWN = """(() => {
    const shown = (all) => [...document.querySelectorAll(all)].filter((one) => !one.hidden);
    return {
        address: location.hash,
        whole: document.querySelectorAll("table.rows tbody tr").length,
        rows: shown("table.rows tbody tr").map((row) => [
            row.className, ...[...row.cells].map((cell) => cell.textContent.trim())]),
        cases: shown(".case").map((one) => ({ ...one.dataset })),
        says: document.querySelector(".filtered").hidden
            ? "" : document.getElementById("case-count").textContent,
        open: document.querySelector(".list").open,
    };
})()"""
ROW, GOLD, BEFORE, AFTER, TAGS, RIGHT = 1, 4, 5, 6, 8, 9
"""Places of a row's columns in `SHOWN`; its kind comes first."""
SAVE = """(async () => {
    let saved;
    const make = URL.createObjectURL;
    URL.createObjectURL = (blob) => ((saved = blob), make(blob));
    HTMLAnchorElement.prototype.click = function () { this.dispatchEvent(new Event("saved")); };
    document.querySelector("#row-downloads [value=%s]").click();
    return [saved.type, await saved.text()];
})()"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RunDir, Results]]:
    folder = tmp_path_factory.mktemp("runs")
    runs = {name: build_run(folder / name, spec) for name, spec in SPECS.items()}
    found = {name: (run, build_results(run)) for name, run in runs.items()}
    run, one = found["gpu"]
    return found | {"several": (run, with_trainings(one, run))}


@pytest.fixture(scope="module")
def urls(results: dict[str, tuple[RunDir, Results]]) -> dict[str, str]:
    pages = {}
    for name, (run, found) in results.items():
        page = run.root / f"{name}.html"
        page.write_text(report_html(found, run), encoding="utf-8")
        pages[name] = page.as_uri()
    return pages


def shown(tab: Tab) -> dict[str, Any]:
    found: dict[str, Any] = tab.evaluate(SHOWN)
    return found


def choose(tab: Tab, **values: str) -> dict[str, Any]:
    tab.evaluate(SET % json.dumps(values))
    return shown(tab)


def test_the_cases_and_the_list_are_filtered_alike(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["gpu"])
    whole = shown(tab)
    assert len(whole["rows"]) == whole["whole"] > 50
    assert whole["says"] == ""
    broken = choose(tab, kind="n")
    assert {row[0] for row in broken["rows"]} == {one["kind"] for one in broken["cases"]} == {"n"}
    labels = choose(tab, kind="", gold="con", before="neu")
    assert {(row[GOLD], row[BEFORE]) for row in labels["rows"]} == {("con", "neu")}
    assert {(one["gold"], one["before"]) for one in labels["cases"]} == {("con", "neu")}
    tagged = choose(tab, gold="", before="", tag="neg")
    assert tagged["rows"]
    assert all("neg" in row[TAGS].split() for row in tagged["rows"])
    assert all("neg" in one["tag"].split() for one in tagged["cases"])
    found = choose(tab, tag="", text="Old GUITARIST")
    assert 0 < len(found["rows"]) < found["whole"]
    assert all("old guitarist" in f"{row[2]} {row[3]}".lower() for row in found["rows"])
    assert {one["row"] for one in found["cases"]} <= {row[ROW] for row in found["rows"]}
    assert found["says"].startswith(
        f"Only text: “Old GUITARIST”. {len(found['rows'])} of {found['whole']} rows in the list, "
    )


def test_a_cell_of_a_confusion_matrix_filters_the_cases(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["gpu"])
    number = tab.evaluate(
        """(() => {
            const link = "a[data-cases='gold=con&before=neu']";
            const cell = document.querySelector(`.matrix.before ${link}`);
            cell.click();
            return Number(cell.querySelector("b").textContent);
        })()"""
    )
    found = shown(tab)
    assert found["address"] == "#cases?gold=con&before=neu"
    assert len(found["rows"]) == number > 0
    assert {(row[GOLD], row[BEFORE]) for row in found["rows"]} == {("con", "neu")}
    assert found["says"].startswith(
        f"Only gold label: contradiction; base model: neutral. {number} of "
    )
    assert found["open"]


def test_the_filter_is_cleared_and_undone(tab: Tab, urls: dict[str, str]) -> None:
    tab.open("about:blank")
    tab.open(f"{urls['gpu']}#cases?gold=con&after=con")
    assert {row[AFTER] for row in shown(tab)["rows"]} == {"con"}
    tab.evaluate("document.querySelector('.matrix.after td.wrong a').click()")
    assert {row[AFTER] for row in shown(tab)["rows"]} != {"con"}
    tab.evaluate(
        """new Promise((done) => {
            addEventListener("hashchange", () => done(1), { once: true });
            history.back();
        })"""
    )
    assert {row[AFTER] for row in shown(tab)["rows"]} == {"con"}
    tab.evaluate("document.getElementById('case-clear').click()")
    cleared = shown(tab)
    assert len(cleared["rows"]) == cleared["whole"]
    assert (cleared["says"], cleared["address"]) == ("", "#cases")


def test_the_name_of_a_slice_filters_the_cases(
    tab: Tab, urls: dict[str, str], results: dict[str, tuple[RunDir, Results]]
) -> None:
    tab.open(urls["gpu"])
    for one in results["gpu"][1].slices:
        if one.family not in ("length", "column", "annotators") or not one.wrong_rows:
            continue
        tab.evaluate(
            """((wanted) => [...document.querySelectorAll("a[data-cases]")].find((link) =>
                new URLSearchParams(link.dataset.cases).get("slice") === wanted).click()
            )"""
            f"({json.dumps(f'{one.family}: {one.key}')})"
        )
        found = shown(tab)
        assert {int(row[ROW]) for row in found["rows"]} == {*one.wrong_rows}
        assert found["says"].startswith(f"Only {one.family}: {one.key}. ")
        assert {int(case["row"]) for case in found["cases"]} <= {*one.wrong_rows}


def test_the_rows_are_filtered_by_the_number_of_trainings(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["several"])
    some = choose(tab, right="2")
    assert 0 < len(some["rows"]) < some["whole"]
    assert {row[RIGHT] for row in some["rows"]} == {"2"}
    both = choose(tab, kind="s", right="0")
    assert {(row[0], row[RIGHT]) for row in both["rows"]} == {("s", "0")}


def test_a_link_to_a_row_opens_the_list_and_shows_the_row(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["gpu"])
    assert not shown(tab)["open"]
    row = tab.evaluate("document.querySelector('table.rows tbody tr:last-child').id")
    choose(tab, text="no row has this")
    tab.evaluate(
        f"""new Promise((done) => {{
            addEventListener("hashchange", () => done(1), {{ once: true }});
            location.hash = "{row}";
        }})"""
    )
    found = shown(tab)
    assert found["open"]
    assert found["rows"][-1][ROW] == row.removeprefix("r")


def test_links_to_cases_lead_to_their_section_without_scripts(
    tab: Tab, urls: dict[str, str]
) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.load(urls["gpu"])
        targets = tab.evaluate(
            "[...document.querySelectorAll('a[data-cases]')].map((link) => link.hash)"
        )
        files = tab.evaluate("document.querySelector('#case-list').innerText")
        hidden = tab.evaluate("document.getElementById('row-downloads').hidden")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert set(targets) == {"#cases"}
    assert hidden
    for name in ("results.json", "baseline/predictions.jsonl", "evaluate/predictions.jsonl"):
        assert name in files


def test_wrong_rows_are_saved_as_json(
    tab: Tab, urls: dict[str, str], results: dict[str, tuple[RunDir, Results]]
) -> None:
    tab.open(urls["gpu"])
    kind, text = tab.evaluate(SAVE % "json")
    saved = json.loads(text)
    _, found = results["gpu"]
    cases, names = found.cases, found.manifest.label_names
    rows = (*cases.rows_newly_broken, *cases.rows_still_wrong, *cases.rows_corrected)
    assert kind == "application/json"
    assert [one["row"] for one in saved] == [row.index for row in rows]
    assert {one["kind"] for one in saved} == {"newly broken", "still wrong", "corrected"}
    for one, row in zip(saved, rows, strict=True):
        assert (one["premise"], one["hypothesis"]) == (row.premise, row.hypothesis)
        assert (one["gold_label"], one["base_answer"], one["tuned_answer"]) == (
            *(names[label] for label in (row.label, row.base_predicted, row.tuned_predicted)),
        )
        assert one["base_gold_probability"] == pytest.approx(row.base_gold_probability, abs=5e-4)
        assert one["tuned_gold_probability"] == pytest.approx(row.tuned_gold_probability, abs=5e-4)
        assert one["margin"] == pytest.approx(row.margin, abs=5e-4)
        assert len(one["tags"]) == len(row.tags)
    assert tab.complaints() == []
    assert len([url for url in tab.requests() if not url.startswith(("data:", "blob:"))]) == 1


def test_only_the_rows_that_pass_the_filter_are_saved(tab: Tab, urls: dict[str, str]) -> None:
    tab.open(urls["several"])
    wanted = [int(row[ROW]) for row in choose(tab, gold="con", kind="c")["rows"]]
    assert "rows that pass the filter" in tab.evaluate(
        "document.getElementById('row-downloads').textContent"
    )
    _, text = tab.evaluate(SAVE % "json")
    saved = json.loads(text)
    assert [one["row"] for one in saved] == wanted
    assert {one["trainings_correct"] for one in saved} <= {1, 2, 3}


def test_a_spreadsheet_reads_hostile_rows_as_text(
    tab: Tab, urls: dict[str, str], tmp_path: Path
) -> None:
    tab.open(urls["hostile"])
    tab.evaluate(
        """(([first, second]) => {
            first.cells[1].textContent = '=HYPERLINK("x")\\n, and "more"';
            second.cells[1].textContent = "-1 and @a";
        })(document.querySelectorAll("table.rows tbody tr"))"""
    )
    _, text = tab.evaluate(SAVE % "json")
    rows = json.loads(text)
    kind, text = tab.evaluate(SAVE % "csv")
    assert kind == "text/csv"
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8", newline="")
    with (tmp_path / "rows.csv").open(encoding="utf-8-sig", newline="") as file:
        table = [*csv.DictReader(file)]
    assert [int(one["row"]) for one in table] == [one["row"] for one in rows]
    assert table[0]["premise"] == '\'=HYPERLINK("x")\n, and "more"'
    assert rows[0]["premise"] == '=HYPERLINK("x")\n, and "more"'
    assert table[1]["premise"] == "'-1 and @a"
    for one, row in zip(table[2:], rows[2:], strict=True):
        assert one["premise"].removeprefix("'") == row["premise"].removeprefix("'")
        assert float(one["margin"]) == row["margin"]
        assert one["tags"].split("; ") == (row["tags"] or [""])


A4 = {"paperWidth": 8.27, "paperHeight": 11.69}
"""In inches."""
HEADING = re.compile(rb"/Title \([^\n]*\)\n/Dest \[\d+ 0 R /XYZ [\d.]+ ([\d.]+)")
"""An entry of a PDF's outline, with the height of its heading on the page, in points."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with as many rows as the demo."""
    rows = Spec(gpu=False, demo=True, rows=491, train_rows=1964, epochs=3, tuned_skill=2.0)
    run = build_run(tmp_path_factory.mktemp("demo"), rows)
    run.report.write_text(report_html(build_results(run), run), encoding="utf-8")
    return run.report.as_uri()


def test_a_page_of_the_demos_size_is_printed_on_20_sheets(tab: Tab, demo: str) -> None:
    tab.open(demo)
    pdf = tab.print(**A4, generateDocumentOutline=True, generateTaggedPDF=True)
    assert len(re.findall(rb"/Type /Page\n", pdf)) <= 20
    heights = [float(height) for height in HEADING.findall(pdf)]
    assert len(heights) > 20
    margin, heading, lines = 28.8, 14, 36  # in points
    assert min(heights) > margin + heading + lines, "a heading is alone at the end of a page"


def test_printed_cases_stand_in_two_columns_and_say_how_they_were_filtered(
    tab: Tab, urls: dict[str, str]
) -> None:
    tab.open("about:blank")
    tab.open(f"{urls['gpu']}#cases?kind=c")
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        lefts = tab.evaluate(
            """[...document.querySelectorAll("#corrected .case")].map(
                (one) => one.getBoundingClientRect().left)"""
        )
        said = tab.evaluate("document.querySelector('.filtered').innerText.trim()")
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    assert len({*lefts}) == 2
    assert said.startswith("Only kind: corrected. ")
    assert "Clear" not in said
