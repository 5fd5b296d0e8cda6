"""Settings that must stand before torch is imported, the order of tests, and what was counted."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

pytest.register_assert_rewrite(  # modules that are no tests and yet assert
    *("tests.deploy.files", "tests.faults.tiny", "tests.faulty_hub", "tests.faulty_place"),
    *("tests.html_reader", "tests.jobs", "tests.markdown", "tests.synthetic"),
)

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
# No test leaves a 4-bit copy of a model where another test, or a user's job, would read it.
os.environ["HF_ASSETS_CACHE"] = f"{os.devnull}/none"
# The libraries' imports make millions of objects and almost no garbage; looking for it among them
# takes a third of the time of the collection.
gc.disable()

LONGEST = ("tests/e2e/", "tests/unit/gpu/fast/", "tests/unit/gpu/", "tests/report/")
"""Folders whose files take longest."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: a test process that has none left takes some of another's, and
    near the end these should be short. Within a folder the order stays random."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in LONGEST])


def pytest_collection_finish() -> None:
    """Look for garbage again, but not among what the imports made."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults the tests of faults have made: `record_property("faults: ...", 3)`."""
    counted: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                properties = dict(report.user_properties)
                counted.update({k: v for k, v in properties.items() if k.startswith("faults: ")})
    if counted:
        terminalreporter.section("faults")
        for name, number in sorted(counted.items()):
            terminalreporter.line(f"{number:6} {name.removeprefix('faults: ')}")
