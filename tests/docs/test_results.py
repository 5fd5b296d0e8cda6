"""docs/results.md has every file of a run and every code of a finding."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from nlijob.rundir import RunDir
from tests import markdown
from tests.docs.pages import DOCS
from tests.jobs import ROOT

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


def test_every_file_of_a_run_is_listed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    run = RunDir(Path("run"))
    paths = [path for path in vars(run).values() if isinstance(path, Path) and path != run.root]
    folders = tuple(re.findall(r"`([\w-]+/)`", text))  # these are listed as a whole
    names = [str(path.relative_to(run.root)) for path in paths]
    listed = (f"`{name}`" in text or f"`{name}/" in text for name in names)
    missing = [n for n, is_listed in zip(names, listed, strict=True) if not is_listed]
    assert all(name.startswith(folders) for name in missing), missing
