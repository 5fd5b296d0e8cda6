"""`compare` and `index` on the command line: where they write, and how they end."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from nlijob import cli
from nlijob.report.render import render
from tests.synthetic import Spec, build_run


class Shown(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


class Caller(Protocol):
    """Calls the command line in this process."""

    def __call__(self, *arguments: str) -> Shown: ...


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    for number, name in enumerate(("a", "b")):
        render(build_run(folder / name, Spec(run_id=name, training_seed=number)))
    return folder


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> Caller:
    """The command line in a folder with two finished runs in runs/."""
    shutil.copytree(runs, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> Shown:
        monkeypatch.setattr(sys, "argv", ["entrypoint.py", *arguments])
        return Shown(cli.main(), *capsys.readouterr())

    return called


def test_a_comparison_is_written_to_the_current_folder(call: Caller) -> None:
    for _ in range(2):  # the second call replaces the files of the first
        shown = call("compare", "runs/a", "runs/b")
        assert (shown.code, shown.err) == (0, "")
        assert shown.out == "Comparison: compare.html (compare.json)\n"
    assert {path.name for path in Path().iterdir()} == {"compare.html", "compare.json", "runs"}


def test_an_index_is_written_beside_the_runs(call: Caller) -> None:
    for _ in range(2):
        shown = call("index", "runs")
        assert (shown.code, shown.err) == (0, "")
        assert shown.out == "Index: runs/index.html (runs/index.json)\n"
    assert 'href="./a/report.html"' in Path("runs/index.html").read_text("utf-8")


def test_both_write_to_output(call: Caller) -> None:
    assert call("compare", "runs/a", "runs/b", "--output", "out/x.html").code == 0
    assert call("index", "runs", "--output", "out/y.html").code == 0
    assert {path.name for path in Path("out").iterdir()} == {
        *("x.html", "x.json", "y.html", "y.json")
    }


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("compare",), 2, "needs at least two runs"),
        (("compare", "runs/a"), 2, "needs at least two runs"),
        (("compare", "runs/a", "runs/b/../a"), 2, "are the same run"),
        (("compare", "runs/a", "runs/b", "--output", "x.pdf"), 2, "ends in .html"),
        (("compare", "runs/a", "runs/b", "--output", "runs"), 2, "is a directory"),
        (("compare", "runs/a", "runs/b", "--output", "runs/a/report.html"), 2, "left unchanged"),
        (("compare", "runs/a", "nowhere"), 4, "nowhere: no such folder"),
        (("compare", "runs/a", "runs"), 4, "runs holds no finished run to compare"),
        (("index",), 2, "Missing argument"),
        (("index", "nowhere"), 4, "nowhere: no such folder"),
        (("index", "runs/a/subset"), 4, "holds no runs"),
        (("index", "runs", "--output", "runs/a/report.html"), 2, "left unchanged"),
    ],
)
def test_an_error_ends_with_its_code_and_a_hint(
    call: Caller, arguments: tuple[str, ...], code: int, text: str
) -> None:
    shown = call(*arguments)
    assert shown.code == code
    assert text in shown.err
    assert "Traceback" not in shown.err
    assert not Path("compare.html").exists()


def test_the_help_says_which_files_they_write_and_replace(call: Caller) -> None:
    for command, default in (("compare", "compare.html"), ("index", "RUNS_DIR/index.html")):
        text = " ".join(call(command, "--help").out.split())
        assert default in text
        assert "and no other files" in text
