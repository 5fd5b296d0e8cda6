"""Version, changelog and citation agree, and the hosting platform can read its files."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from nlijob import __version__
from tests.jobs import ROOT

FORMS = ".github/ISSUE_TEMPLATE"


def test_the_changelogs_newest_release_is_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d[^ ]*) - (\S+)$", changelog, re.M)
    assert newest
    assert newest[1] == __version__
    assert f"version: {__version__}\n" in citation
    assert f"date-released: {newest[2]}\n" in citation


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ("citation-file-format", ["CITATION.cff"]),
        ("github-issue-forms", [f"{FORMS}/bug.yml", f"{FORMS}/idea.yml"]),
        ("github-issue-config", [f"{FORMS}/config.yml"]),
    ],
)
def test_files_for_the_hosting_platform_fit_their_schemas(schema: str, names: list[str]) -> None:
    pytest.importorskip("check_jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    check += ["--default-filetype", "yaml", *names]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
