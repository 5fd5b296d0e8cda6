"""Settings that must stand before torch is imported, and the order in which test files are run."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# An example takes as long as the machine lets it; a failure prints how to repeat it.
hypothesis.settings.register_profile("nlijob", deadline=None, print_blob=True, max_examples=30)
hypothesis.settings.load_profile("nlijob")

# Test processes share the cores: each computes alone, and waiting OpenMP threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes that tests start import this checkout, as pytest itself does, whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
)
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_cores = len(os.sched_getaffinity(0))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores // _workers)))

LONGEST = ("tests/e2e/", "tests/unit/gpu/fast/", "tests/unit/gpu/", "tests/report/")
"""Folders whose files take longest."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: test processes take files in turn, and would else end with one
    of them at work and the others idle. Within a folder the order stays random."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in LONGEST])
