"""How long the report of 10,000 rows takes to open in Chromium, and `--help` to answer.

`python -m benchmarks.page_opening` prints the best of some tries, in milliseconds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nlijob.report.render import render
from tests import jobs
from tests.report.browser import find_chromium, open_tab
from tests.synthetic import Spec, build_run

TRIES = 5
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def opening_ms(program: str, rows: int) -> float:
    """Time from the navigation to the end of the load event."""
    with tempfile.TemporaryDirectory() as folder, open_tab(program) as tab:
        report = render(build_run(Path(folder) / "run", Spec(rows=rows, base_habit=1.0)))
        times_ms = []
        for _ in range(TRIES):
            tab.open(report.as_uri())
            times_ms.append(float(tab.evaluate(LOADED)))
    return min(times_ms)


def help_ms() -> float:
    """Time that `--help` takes as a process of its own."""
    times_ms = []
    for _ in range(TRIES):
        started = time.perf_counter()
        subprocess.run(jobs.command("--help"), stdout=subprocess.DEVNULL, check=True)
        times_ms.append(1000 * (time.perf_counter() - started))
    return min(times_ms)


def main() -> None:
    """Print both."""
    program = find_chromium()
    if program is None:
        sys.exit("no Chromium on this machine; name one with CHROMIUM=/path/to/it")
    print(f"--help answers after {help_ms():.0f} ms")
    print(f"a report of 10,000 rows is loaded after {opening_ms(program, 10_000):.0f} ms")


if __name__ == "__main__":
    main()
