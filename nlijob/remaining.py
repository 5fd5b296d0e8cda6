"""What a job still has to do, and how long that takes at the speed measured so far.

The parts of the work are known once the rows are selected; their speed is not before they begin. So
the time left is told from the first seconds of training on, at the speed measured in this attempt.
It covers the rows to train on and to score, which take nearly all of a job's time. Tasks of
lm-evaluation-harness may take long too, and nothing is known of their speed: with these, the time
is told as a lower bound.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from nlijob import records
from nlijob.analysis.wording import roughly
from nlijob.config import JobConfig
from nlijob.records.job import Example, Manifest, Progress
from nlijob.records.transfer import Elsewhere
from nlijob.rundir import RunDir
from nlijob.stages import SEARCH, TRIAL_STAGES
from nlijob.trials import Step, steps_of

Kind = Literal["train", "score"]
EFFORT: dict[Kind, float] = {"train": 3.0, "score": 1.0}
"""How much a row counts in the share of the work done: training computes a forward pass, and a
backward pass that takes about twice as much."""
LEAST_MEASURED_S = 3.0
"""Time over which a speed must have been measured before anything is told of it."""
SAMPLED_ROWS = 200
"""Test rows from which the mean number of words is estimated."""
KINDS_OF_CASES = 3


class Outlook(NamedTuple):
    """How far the job is."""

    share: float
    """Of the work of this attempt, 0 to 1, with rows weighted as in `EFFORT`."""
    left: str
    """Time that the job still takes, such as "about 3 min 20 s left"; "" if it is not known."""


@dataclass
class Unit:
    """A part of the work, as progress names it."""

    trial: str
    """Name of the training that it belongs to; "" for the run's own."""
    stage: str
    part: str
    kind: Kind
    left: int
    """Rows still to do."""

    @property
    def effort(self) -> float:
        """What is left to do, with rows weighted as in `EFFORT`."""
        return EFFORT[self.kind] * self.left


@dataclass
class _Speed:
    """Rows and the seconds that they took."""

    rows: int = 0
    duration_s: float = 0.0

    @property
    def per_s(self) -> float | None:
        """Rows a second; None before enough was measured."""
        return self.rows / self.duration_s if self.duration_s >= LEAST_MEASURED_S else None


class _Seen(NamedTuple):
    """What a process last reported."""

    part: str
    done: int
    at_s: float


@dataclass
class Remaining:
    """Follows a job's progress."""

    units: list[Unit]
    """All parts of the work, in order."""
    has_unmeasured: bool
    """Whether there is other work to do that may take long."""
    _whole: float = field(init=False)
    _share: float = field(init=False, default=0.0)
    _speeds: dict[tuple[Kind, int], _Speed] = field(init=False, default_factory=dict)
    """(kind, number of the process) -> its speed."""
    _seen: dict[int, _Seen] = field(init=False, default_factory=dict)
    _at: dict[int, Unit] = field(init=False, default_factory=dict)
    """Number of a process -> the part that it is at."""

    def __post_init__(self) -> None:
        self._whole = sum(unit.effort for unit in self.units)

    def after(self, progress: Progress) -> Outlook | None:
        """How far the job is as of this progress; None where that is not known."""
        unit = self._find(progress)
        if unit is not None and progress.unit == "rows":
            self._measure(unit.kind, progress)
            self._skip_to(unit)
            unit.left = max(0, progress.total - progress.done)
            self._at[progress.process] = unit
        if not self._whole:
            return None
        done = 1 - sum(one.effort for one in self.units) / self._whole
        self._share = max(self._share, done)  # a part may turn out longer than was estimated
        return Outlook(self._share, self._left())

    def _find(self, progress: Progress) -> Unit | None:
        names = {unit.trial for unit in self.units} - {""}
        trial = next((name for name in names if progress.part.startswith(f"{name}: ")), "")
        part = progress.part.removeprefix(f"{trial}: ")
        part = re.sub(r" from step \d+$", "", part)
        wanted = trial, progress.stage, part
        return next((u for u in self.units if (u.trial, u.stage, u.part) == wanted), None)

    def _measure(self, kind: Kind, progress: Progress) -> None:
        now = time.monotonic()
        last = self._seen.get(progress.process)
        self._seen[progress.process] = _Seen(progress.part, progress.done, now)
        if last and last.part == progress.part and not progress.part.startswith("few-shot"):
            speed = self._speeds.setdefault((kind, progress.process), _Speed())
            speed.rows += progress.done - last.done
            speed.duration_s += now - last.at_s

    def _skip_to(self, unit: Unit) -> None:
        """Count what comes before a part as done: some of it may have been skipped."""
        for earlier in itertools.takewhile(lambda one: one is not unit, self.units):
            if earlier.trial in ("", unit.trial) or not unit.trial:
                earlier.left = 0

    def _left(self) -> str:
        """The time left in words, from the rows left and the speeds measured."""
        to_train, to_score = self._rows_left("train"), self._rows_left("score")
        training, scoring = self._speed("train"), self._speed("score")
        if to_train and not training:
            return ""
        if not to_train and not scoring:
            return ""
        left_s = to_train / training if training else 0.0
        left_s += to_score / scoring if scoring else 0.0
        left_s = max([left_s, *self._longest()])
        is_least = self.has_unmeasured or bool(to_score and not scoring)
        return f"{'at least' if is_least else 'about'} {roughly(left_s)} left"

    def _rows_left(self, kind: Kind) -> int:
        return sum(unit.left for unit in self.units if unit.kind == kind)

    def _speed(self, kind: Kind) -> float | None:
        """Rows a second of all processes together, as far as they are at such work."""
        known = [one.per_s for (of, _), one in self._speeds.items() if of == kind]
        return sum(speed for speed in known if speed) or None

    def _longest(self) -> Iterator[float]:
        """Seconds that each training in hand still takes: nobody shares it where several are."""
        for process, at in self._at.items():
            speed = self._speeds.get(("train", process))
            if at.trial and speed and speed.per_s:
                same = [u for u in self.units if u.trial == at.trial and u.kind == "train"]
                yield sum(unit.left for unit in same) / speed.per_s


def remaining_work(run: RunDir, config: JobConfig, missing: Iterable[str]) -> Remaining | None:
    """What the GPU side has to do, once the rows are selected.

    `missing`: the stages that are not complete, by `Step.key`. None where a search comes first: it
    may stop candidates early, and settles how long the trainings are. None also where the records
    cannot be read, which the stages will tell.
    """
    missing = set(missing)
    if SEARCH in missing:
        return None
    try:
        manifest = records.read(Manifest, run.manifest)
        further = records.read(Elsewhere, run.elsewhere_manifest)
        rows = {split: one.rows for split, one in manifest.splits.items()}
        rows |= {f"further set {one.name}": one.rows.rows for one in further.transfer}
        steps = [step for step in steps_of(config) if step.key in missing]
        units = [unit for step in steps for unit in _units_of(step, run, config, rows)]
    except (OSError, ValueError):
        return None
    return Remaining(units, has_unmeasured=bool(further.tasks))


def _units_of(
    step: Step, run: RunDir, config: JobConfig, rows: Mapping[str, int]
) -> Iterable[Unit]:
    """The parts of a step; `rows`: of each split, and of each further test set by its part."""
    trial = step.trial.name if step.trial and step.trial.folder else ""
    stage = step.stage.name
    scored = [(part, number) for part, number in rows.items() if part != "train"]
    if stage == "baseline":
        shots = [("few-shot test", rows["test"])] if config.eval.few_shot else []
        return _scored(trial, stage, [*scored[:2], *shots, *scored[2:]])
    if stage == "train" and step.trial:
        done = run.of_trial(step.trial).count_marked_epochs()
        return _epochs(trial, config, rows, done)
    if stage == "evaluate":
        return _scored(trial, stage, scored)
    if stage == "explain":
        return _scored(trial, stage, list(_examined(run, config, rows["test"])))
    return []


def _scored(trial: str, stage: str, parts: Sequence[tuple[str, int]]) -> list[Unit]:
    return [Unit(trial, stage, part, "score", rows) for part, rows in parts]


def _epochs(trial: str, config: JobConfig, rows: Mapping[str, int], done: int) -> list[Unit]:
    """The epochs after the first `done`."""
    splits = ["validation", *(["test"] if config.eval.test_each_epoch else [])]
    units: list[Unit] = []
    for epoch in range(done + 1, config.train.epochs + 1):
        units.append(Unit(trial, TRIAL_STAGES[0], f"epoch {epoch}", "train", rows["train"]))
        parts = [(f"epoch {epoch} {split}", rows[split]) for split in splits]
        units += _scored(trial, TRIAL_STAGES[0], parts)
    return units


def _examined(run: RunDir, config: JobConfig, test_rows: int) -> Iterator[tuple[str, int]]:
    """What is scored to examine the answers; how many cases there will be is an upper estimate."""
    if config.eval.blank_premise:
        yield "premise blanked", test_rows
    if config.eval.word_importance:
        cases = min(KINDS_OF_CASES * config.eval.cases, test_rows)
        first = itertools.islice(records.read_lines(Example, run.subset("test")), SAMPLED_ROWS)
        words = [len(f"{row.premise} {row.hypothesis}".split()) for row in first]
        estimate = cases * sum(words) // max(1, len(words))
        yield "word importance, tuned", estimate
        yield "word importance, base", estimate
