"""What a run's trackers were told, as records in the run's folder."""

from __future__ import annotations

from nlijob import records
from nlijob.records.tracking import TrackerState
from nlijob.rundir import RunDir, write_record


def read_state(run: RunDir, name: str) -> TrackerState:
    """What a tracker was told so far."""
    try:
        return records.read(TrackerState, run.tracker_state(name))
    except (OSError, ValueError):
        return TrackerState(name)


def write_state(run: RunDir, state: TrackerState) -> None:
    """Record what a tracker was told."""
    write_record(run.tracker_state(state.tracker), state)


def states_of(run: RunDir, names: tuple[str, ...]) -> tuple[TrackerState, ...]:
    """The states of the trackers that a run has, in the order of its configuration."""
    return tuple(read_state(run, name) for name in names)
