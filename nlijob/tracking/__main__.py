"""The process that tells one tracker about a run: `-m nlijob.tracking TRACKER RUN_DIR`.

It sends figures as they appear in the run's records. A line on its standard input says that the
report is written, and it then sends outcome and page; if the pipe closes without one, the job has
ended early. Either way it then ends. What it has sent is in the run's tracking/<tracker>.json.
"""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from nlijob import records
from nlijob.config import JobConfig, TrackerName
from nlijob.errors import first_line
from nlijob.records.job import RunRecord
from nlijob.records.tracking import TrackerState
from nlijob.rundir import RunDir
from nlijob.tracking.series import Point, Series, baseline_of, outcome_of, series_of
from nlijob.tracking.states import read_state, write_state
from nlijob.tracking.trackers import OPENERS, Setting, Tracker

INTERVAL_S = 2.0
"""Time between two looks at the records."""
SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
"""A variable with one of these in its name holds what no record may show."""
SHORTEST_SECRET = 4
LOWEST_PRIORITY = 19
"""The job's own processes come first."""


def main() -> None:
    """Follow the run to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal; the parent tells of the end
    os.nice(LOWEST_PRIORITY)
    name, run = cast("TrackerName", sys.argv[1]), RunDir(Path(sys.argv[2]))
    config = records.read(RunRecord, run.config).config
    follow(name, run, config, wait=_wait, opened=_opened)


def follow(
    name: TrackerName,
    run: RunDir,
    config: JobConfig,
    wait: Callable[[], bool | None],
    opened: Callable[[TrackerName, RunDir, str], Tracker],
) -> None:
    """Tell a tracker about a run until `wait` says how the job ended.

    `wait` waits a little and returns None while the job goes on, then whether its report is
    written. `opened` opens the tracker for the run, which it may know already by a name of its own.
    A fault of the tracker ends the telling and is recorded.
    """
    state = read_state(run, name)
    telling: _Telling | None = None
    try:
        telling = _Telling(run, config, opened(name, run, state.run), state)
        telling.begin()
        while (ended := wait()) is None:
            telling.go_on()
        telling.go_on()
        telling.end(ended)
    except Exception as error:
        state = telling.state if telling else state
        write_state(run, dataclasses.replace(state, fault=_fault(error, os.environ)))


class _Telling:
    """A tracker, and what it was told."""

    def __init__(
        self, run: RunDir, config: JobConfig, tracker: Tracker, state: TrackerState
    ) -> None:
        self._run = run
        self._config = config
        self._tracker = tracker
        self._series = series_of(run, config)
        self._has_baseline = bool(state.steps)
        self.state = dataclasses.replace(state, run=tracker.run)

    def begin(self) -> None:
        """Send the settings, unless an earlier attempt has."""
        if not self.state.has_settings:
            self._tracker.settings(settings_of(self._config))
        self._note(has_settings=True)

    def go_on(self) -> None:
        """Send what was added to the records."""
        if not self._has_baseline and (values := baseline_of(self._run)):
            self._tracker.log([Point(0, values)])
            self._has_baseline = True
        for series in self._series:
            self._send_steps(series)
            self._send_epochs(series)

    def end(self, has_report: bool) -> None:
        """Send outcome and page of a finished run, and close the tracker's run."""
        if has_report:
            last = max(self.state.steps.values(), default=0)
            self._tracker.log([Point(last, outcome_of(self._run))])
            self._tracker.files([self._run.report, self._run.results, self._run.summary])
        self._tracker.finish(has_report)
        self._note(is_finished=has_report)

    def _send_steps(self, series: Series) -> None:
        points = list(series.steps(self.state.steps.get(series.name, 0)))
        if points:
            self._tracker.log(points)
            self._note(steps={**self.state.steps, series.name: points[-1].step})

    def _send_epochs(self, series: Series) -> None:
        for epoch, point in series.epochs(self.state.epochs.get(series.name, 0)):
            self._tracker.log([point])
            self._note(epochs={**self.state.epochs, series.name: epoch})

    def _note(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)
        write_state(self._run, self.state)


def settings_of(config: JobConfig) -> dict[str, Setting]:
    """The configuration as trackers take it: "section.key" -> a plain value."""
    settings: dict[str, Setting] = {}
    for section, keys in dataclasses.asdict(config).items():
        for key, value in keys.items() if isinstance(keys, dict) else [("", keys)]:
            name = f"{section}.{key}" if key else section
            is_plain = value is None or isinstance(value, bool | int | float | str)
            settings[name] = value if is_plain else str(value)
    return settings


def _fault(error: Exception, variables: Mapping[str, str]) -> str:
    """An error in one line, without the secrets that the library may have put into it."""
    text = first_line(error)
    for secret in _secrets(variables):
        text = text.replace(secret, "...")
    return text


def _secrets(variables: Mapping[str, str]) -> Iterator[str]:
    """Values of variables that no record may show; of addresses, which may hold some, each part."""
    for name, value in variables.items():
        parts = [value] if any(part in name.upper() for part in SECRET_NAMES) else []
        if "://" in value:
            user, _, _ = value.partition("://")[2].rpartition("@")
            parts += [value, user, user.partition(":")[2]]
        yield from (part for part in parts if len(part) >= SHORTEST_SECRET)


def _opened(name: TrackerName, run: RunDir, known: str) -> Tracker:
    from accelerate import PartialState

    PartialState(cpu=True)  # accelerate's trackers ask it whether this is the main process
    return OPENERS[name](run, known)


def _wait() -> bool | None:
    """Wait for the next look at the records; see `follow`."""
    if not select.select([sys.stdin], [], [], INTERVAL_S)[0]:
        return None
    return bool(os.read(sys.stdin.fileno(), 1))


if __name__ == "__main__":
    main()
