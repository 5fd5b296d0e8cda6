"""One browser tab for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.report.browser import Tab, find_chromium, open_tab


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine; name one with CHROMIUM=/path/to/it")
    with open_tab(program) as tab:
        yield tab
