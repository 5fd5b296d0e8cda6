"""The logs of a run: measured times, hardware samples and machines, as far as they can be read."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.analysis.wording import listed, plural
from nlijob.records.job import HardwareSample, Machine, Timing
from nlijob.records.outcome import Finding
from nlijob.records.serialization import read_log
from nlijob.rundir import RunDir


@dataclass(frozen=True)
class Logs:
    """What was measured while a run was at work."""

    timings: list[Timing]
    samples: list[HardwareSample]
    machines: list[Machine]
    unreadable: dict[str, int]
    """Log -> number of its lines that cannot be read, where there are any."""

    def warnings(self) -> tuple[Finding, ...]:
        """A finding if lines are left out, as figures made from the others are incomplete."""
        if not self.unreadable:
            return ()
        lines = [f"{plural(number, 'line')} of {name}" for name, number in self.unreadable.items()]
        text = (
            f"{listed(lines)} cannot be read and {'is' if len(lines) == 1 else 'are'} left out: "
            "times, cost and figures of the hardware are incomplete."
        )
        return (Finding("incomplete-logs", {**self.unreadable}, text),)


def read_logs(run: RunDir) -> Logs:
    """The logs of a run; damaged lines are left out and counted."""
    timings = read_log(Timing, run.timings)
    samples = read_log(HardwareSample, run.hardware)
    machines = read_log(Machine, run.machines)
    counts = {
        run.name(run.timings): timings.unreadable,
        run.name(run.hardware): samples.unreadable,
        run.name(run.machines): machines.unreadable,
    }
    unreadable = {name: number for name, number in counts.items() if number}
    return Logs(timings.records, samples.records, machines.records, unreadable)
