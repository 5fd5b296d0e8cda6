"""The pages on several runs: complete, escaped, linked, and never overwriting other files."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from nlijob.errors import ConfigurationError, DiskError, NotAvailableError
from nlijob.report.comparison import MOST_RUNS, write_comparison
from nlijob.report.index import write_index
from nlijob.report.pages import relative_link
from nlijob.report.view.text import as_name
from nlijob.rundir import RunDir, write_records
from tests.html_reader import Reader
from tests.synthetic import Spec, build_run, finish, mark_stages

ODD = 'a "quoted" <b>&amp; #1 ?x=%41 \u202eabc é.html:'
"""A folder's name, and a run's id."""
LONG = "W" * 10_000


def finished(folder: Path, **spec: object) -> Path:
    """A finished run; its own page, which takes a second to draw, holds nothing."""
    run = build_run(folder, Spec(**{"run_id": folder.name, **spec}))  # type: ignore[arg-type]
    finish(run)
    run.report.touch()
    return folder


def with_long_rows(folder: Path) -> Path:
    """Every premise far longer than any that is worth reading."""
    run = build_run(folder, Spec(hostile=True, rows=12, training_seed=4, tuned_skill=0.4))
    lines = run.subset("test").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["premise"] += LONG
    text = "".join(json.dumps(row) + "\n" for row in rows)
    run.subset("test").write_text(text, encoding="utf-8")
    mark_stages(run)
    finish(run)
    return folder


def test_a_run_whose_times_are_lost_counts_in_no_figure_of_time(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    finished(runs / "kept")
    lost = RunDir(finished(runs / "lost", created_at="2026-01-03T00:00:00+00:00"))
    write_records(lost.timings, [])
    finish(lost)
    page, _ = write_index(runs, tmp_path / "index.html")
    assert "over 1 of 2 runs" in "".join(Reader(page.read_text(encoding="utf-8")).text)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    finished(root / "first")
    finished(root / "second", training_seed=1, created_at="2026-01-03T00:00:00+00:00")
    finished(root / "worse", training_seed=2, tuned_skill=0.5, created_at="2026-01-04T00:00:00Z")
    finished(root / "cpu", gpu=False, demo=True, seed=12)
    finished(root / ODD, recipe="<script>throw 1</script>", lora_r=64)
    build_run(root / "unfinished")
    return root


@pytest.fixture(scope="module")
def pages(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = with_long_rows(folder / "hostile")
    mild = build_run(folder / "mild", Spec(hostile=True, rows=12, training_seed=5, tuned_skill=9))
    mild.subset("test").write_bytes(RunDir(hostile).subset("test").read_bytes())
    mark_stages(mild)
    finish(mild)
    out = {
        "two": write_comparison([runs / "first", runs / "second"], folder / "two.html"),
        "many": write_comparison(
            [runs / name for name in ("first", "worse", "cpu", ODD)], folder / "many.html"
        ),
        "hostile": write_comparison([mild.root, hostile], folder / "hostile.html"),
        "index": write_index(runs, folder / "index.html"),
    }
    return {name: page.read_text(encoding="utf-8") for name, (page, _) in out.items()}


NAMES = ("two", "many", "hostile", "index")


@pytest.mark.parametrize("name", NAMES)
def test_elements_are_nested_and_ids_are_unique(pages: dict[str, str], name: str) -> None:
    ids = [a["id"] for _, a in Reader(pages[name]).elements if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_of_a_table_has_a_label(pages: dict[str, str], name: str) -> None:
    elements = Reader(pages[name]).elements
    frames = [a for _, a in elements if a.get("class") == "scroll" and "tabindex" in a]
    assert frames
    assert all(frame.get("aria-label") for frame in frames)
    regions = [a.get("aria-label") for a in frames if a.get("role") == "region"]
    assert len(regions) == len(set(regions))  # landmarks must be told apart


@pytest.mark.parametrize("name", NAMES)
def test_every_link_within_the_page_leads_to_a_place_in_it(
    pages: dict[str, str], name: str
) -> None:
    elements = Reader(pages[name]).elements
    ids = {f"#{a.get('id')}" for _, a in elements}
    links = [str(a["href"]) for tag, a in elements if tag == "a"]
    assert {link for link in links if link.startswith("#")} <= ids


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_loaded_and_all_links_are_relative(pages: dict[str, str], name: str) -> None:
    for tag, attributes in Reader(pages[name]).elements:
        assert "src" not in attributes
        assert tag not in {"iframe", "object", "embed", "img"}
        assert not any(key.startswith("on") for key in attributes)
        href = attributes.get("href") or "#"
        assert href.startswith(("#", "data:", "./")), href


@pytest.mark.parametrize("name", NAMES)
def test_no_python_value_leaks_into_the_page(pages: dict[str, str], name: str) -> None:
    text = "".join(Reader(pages[name]).text)
    assert not re.search(r"\bNone\b(?! of)|\bnan\b|\binf\b|Undefined|Markup\(|array\(", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_page_has_the_policy_of_the_report(pages: dict[str, str], name: str) -> None:
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
    report = (Path(__file__).parents[3] / "templates" / "base.html.j2").read_text("utf-8")
    (found,), (expected,) = policy.findall(pages[name]), policy.findall(report)
    assert re.sub(r"'sha256-[^']+'", "'HASH'", found) == re.sub(
        r"'\{\{.*?\}\}'", "'HASH'", expected
    )


def test_hostile_rows_names_and_recipes_are_rendered_as_text(pages: dict[str, str]) -> None:
    for name, written in (
        ("hostile", LONG),
        ("many", as_name(ODD)),
        ("index", "<script>throw 1</script>"),
    ):
        reader = Reader(pages[name])
        assert written in "".join(reader.text)
        assert [tag for tag, _ in reader.elements].count("script") == 1
    assert '<dd dir="auto">الرجل نائم 🙂👩‍👩‍👧</dd>' in pages["hostile"]


def test_every_run_of_the_folder_is_on_the_index(runs: Path, pages: dict[str, str]) -> None:
    text = "".join(Reader(pages["index"]).text)
    for folder in runs.iterdir():
        if folder.is_dir():
            assert as_name(folder.name) in text
    assert "no results.json; complete so far: subset" in text
    assert "is significantly below the run before it" in text.replace("\u00a0", " ")


def test_links_lead_to_the_reports(runs: Path, tmp_path: Path) -> None:
    page, _ = write_index(runs, tmp_path / "elsewhere" / "index.html")
    html = page.read_text(encoding="utf-8")
    links = [str(a["href"]) for tag, a in Reader(html).elements if tag == "a"]
    reports = [page.parent / unquote(link) for link in links if link.endswith("report.html")]
    assert len(reports) == 5
    assert all(report.is_file() for report in reports)


def test_a_run_in_a_subfolder_is_listed_and_linked(runs: Path, tmp_path: Path) -> None:
    deep = tmp_path / "runs" / "my team" / "2026" / "run"
    shutil.copytree(runs / "first", deep)
    page, document = write_index(tmp_path / "runs", tmp_path / "index.html")
    links = {a.get("href") for tag, a in Reader(page.read_text("utf-8")).elements if tag == "a"}
    assert {
        f"./runs/my%20team/2026/run/{name}" for name in ("report.html", "results.json")
    } <= links
    (found,) = json.loads(document.read_text("utf-8"))["runs"]
    assert found["folder"] == "my team/2026/run"


def test_a_run_itself_is_no_folder_of_runs(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match="is a run itself"):
        write_index(runs / "first", tmp_path / "index.html")


@pytest.mark.parametrize(
    ("folder", "link"),
    [
        ("demo", "./demo/report.html"),
        ("javascript:alert(1)", "./javascript%3Aalert%281%29/report.html"),
        ("a b#c?d%e", "./a%20b%23c%3Fd%25e/report.html"),
    ],
)
def test_a_link_is_never_read_as_a_scheme_or_host(tmp_path: Path, folder: str, link: str) -> None:
    report = tmp_path / "runs" / folder / "report.html"
    assert relative_link(report, tmp_path / "runs" / "index.html") == link
    assert relative_link(report, tmp_path / "x" / "index.html") == f"./../runs/{link[2:]}"


def test_a_name_that_is_not_unicode_is_shown_and_linked(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/runs/\xff\xfe"))
    try:
        folder.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system takes no such name")
    finished(folder, run_id="x")
    page, _ = write_index(folder.parent, tmp_path / "index.html")
    assert 'href="./runs/%FF%FE/report.html"' in page.read_text(encoding="utf-8")


# ---------------------------------------------------------------- the JSON beside it


def test_the_comparison_is_written_as_json_too(runs: Path, tmp_path: Path) -> None:
    _, document = write_comparison([runs / "first", runs / "worse"], tmp_path / "x.html")
    assert document == tmp_path / "x.json"
    found = json.loads(document.read_text(encoding="utf-8"))
    (against,) = found["against"]
    assert [run["name"] for run in found["runs"]] == ["first", "worse"]
    assert against["common_rows"] == 98
    assert len(against["only_reference_right"]) == against["tuned"]["lost"]
    assert found["configuration"] == []


def test_the_index_is_written_as_json_too(runs: Path, tmp_path: Path) -> None:
    _, document = write_index(runs, tmp_path / "x.html")
    found = json.loads(document.read_text(encoding="utf-8"))
    states = {run["folder"]: run["state"] for run in found["runs"]}
    assert states["unfinished"] == "unfinished"
    assert states["first"] == "finished"
    assert [one["runs"] for one in found["series"] if len(one["runs"]) > 1] == [
        ["first", "second", "worse"]
    ]


def test_writing_again_gives_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    def written() -> list[bytes]:
        found = write_comparison([runs / "first", runs / "worse"], tmp_path / "a.html")
        return [path.read_bytes() for path in (*found, *write_index(runs, tmp_path / "b.html"))]

    assert written() == written()


# ---------------------------------------------------------------- files that stand in the way


@pytest.mark.parametrize("name", ["mine.html", "mine.json"])
def test_a_file_not_written_by_the_command_is_left_unchanged(
    runs: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigurationError, match="left unchanged"):
        write_comparison([runs / "first", runs / "second"], tmp_path / "mine.html")
    with pytest.raises(ConfigurationError, match="left unchanged"):
        write_index(runs, tmp_path / "mine.html")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_records_of_a_run_are_never_written_over(runs: Path) -> None:
    results = RunDir(runs / "first").results
    before = results.read_bytes()
    with pytest.raises(ConfigurationError, match="left unchanged"):
        write_index(runs, results.with_suffix(".html"))
    assert results.read_bytes() == before


@pytest.mark.parametrize("name", ["page", "page.json", "page.txt"])
def test_a_page_that_does_not_end_in_html_is_refused(runs: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ends in \.html"):
        write_index(runs, tmp_path / name)


def test_a_page_that_cannot_be_written_is_an_error_with_advice(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="there is a file where a folder is needed"):
        write_index(runs, tmp_path / "file" / "index.html")


# ---------------------------------------------------------------- runs that cannot be compared


def test_more_runs_than_a_page_can_hold_are_refused(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(MOST_RUNS + 1)]
    with pytest.raises(ConfigurationError, match="at most 10 runs, and 11 were named"):
        write_comparison(folders, tmp_path / "x.html")


def test_the_same_run_twice_is_refused(runs: Path, tmp_path: Path) -> None:
    again = runs / "cpu" / ".." / "first"
    with pytest.raises(ConfigurationError, match="are the same run"):
        write_comparison([runs / "first", again], tmp_path / "x.html")


def test_all_faulty_folders_are_named_at_once(runs: Path, tmp_path: Path) -> None:
    folders = [runs / "nowhere", runs / "first", runs / "unfinished"]
    with pytest.raises(NotAvailableError) as raised:
        write_comparison(folders, tmp_path / "x.html")
    assert "nowhere: no such folder" in raised.value.message
    assert "unfinished holds no finished run to compare (unfinished)" in raised.value.message
    assert list(tmp_path.iterdir()) == []


def lost_predictions(run: RunDir) -> None:
    run.evaluate_predictions.unlink()


def other_version(run: RunDir) -> None:
    text = run.results.read_text(encoding="utf-8")
    run.results.write_text(text.replace('"base_validation"', '"base_dev"'), encoding="utf-8")


def emptied(run: RunDir) -> None:
    write_records(run.subset("test"), [])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lost_predictions, "evaluate/predictions.jsonl is missing or has changed"),
        (other_version, "written by another version"),
        (emptied, "subset/test.jsonl is missing or has changed"),
    ],
)
def test_a_run_that_lacks_what_a_comparison_needs_is_an_error(
    runs: Path, tmp_path: Path, change: Callable[[RunDir], None], text: str
) -> None:
    other = finished(tmp_path / "other")
    change(RunDir(other))
    with pytest.raises(NotAvailableError, match=re.escape(text)):
        write_comparison([runs / "first", other], tmp_path / "x.html")


def test_runs_with_the_same_id_are_named_by_their_folders(runs: Path, tmp_path: Path) -> None:
    other = finished(tmp_path / "other", run_id="first")
    _, document = write_comparison([runs / "first", other], tmp_path / "x.html")
    names = [run["name"] for run in json.loads(document.read_text("utf-8"))["runs"]]
    assert names == [str(runs / "first"), str(other)]


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotAvailableError):
            write_index(folder, tmp_path / "index.html")
