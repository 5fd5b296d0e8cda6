"""A run, and a remote folder for it whose errors a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlijob.rundir import RunDir
from nlijob.storage import mirror, resume
from nlijob.storage.place import Place
from tests.faulty_place import URL, FaultyFileSystem


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "job")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty remote folder; all pauses are short."""
    FaultyFileSystem.reset()
    monkeypatch.setattr(mirror, "POLL_S", 0.01)
    for module in (mirror, resume):
        monkeypatch.setattr(module, "FIRST_WAIT_S", 0.001)
    yield Place("--upload", URL, "job")
    for thread in threading.enumerate():  # all tests share the folder
        if thread.name in ("upload", "waited for"):
            thread.join(20)
