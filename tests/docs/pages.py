"""The pages that the tests of this folder read."""

from __future__ import annotations

from tests.jobs import ROOT

DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "results" / "README.md",
    ROOT / "nlijob" / "demo" / "README.md",
    *sorted(DOCS.glob("*.md")),
]
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
