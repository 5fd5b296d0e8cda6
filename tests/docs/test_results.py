"""docs/results.md has every file of a run and every code of a finding."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from nlijob.rundir import RunDir
from tests import markdown
from tests.docs.pages import DOCS
from tests.jobs import ROOT
from tests.synthetic import Spec, build_run, finish

PAGE = DOCS / "results.md"


def codes_of_findings() -> set[str]:
    """The codes that the analysis gives, without those of the explanation of a case."""
    calls = [
        node
        for path in (ROOT / "nlijob" / "analysis").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    codes = [call.args[0] for call in calls if getattr(call.func, "id", "") == "Finding"]
    return {str(code.value) for code in codes if isinstance(code, ast.Constant)}


def test_codes_are_those_of_the_analysis() -> None:
    rows = markdown.table(markdown.section(PAGE, "Codes of warnings and gates"))
    assert {row[0].strip("`") for row in rows[1:]} == codes_of_findings()


def test_the_line_for_pandas_makes_a_row_of_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    (code,) = [block for block in markdown.blocks(PAGE, "python") if "import pandas" in block]
    for name in ("one", "two"):
        results = finish(build_run(tmp_path / "runs" / name, Spec(rows=24, epochs=1, run_id=name)))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run.run_id", "base.accuracy", "tuned.accuracy", "gain"]
    assert sorted(row.split()[1] for row in rows) == ["one", "two"]
    assert float(rows[0].split()[3]) == pytest.approx(results.tuned.accuracy, abs=1e-5)


def test_every_file_of_a_run_is_listed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    run = RunDir(Path("run"))
    paths = [path for path in vars(run).values() if isinstance(path, Path) and path != run.root]
    folders = tuple(re.findall(r"`([\w-]+/)`", text))  # these are listed as a whole
    names = [str(path.relative_to(run.root)) for path in paths]
    listed = (f"`{name}`" in text or f"`{name}/" in text for name in names)
    missing = [n for n, is_listed in zip(names, listed, strict=True) if not is_listed]
    assert all(name.startswith(folders) for name in missing), missing
