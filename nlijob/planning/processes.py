"""How many processes the GPU side has: one for each GPU that is expected to save time.

A further process costs some seconds of start. It pays where it has a training of its own, or enough
rows: an H200 scores some 3,000 rows a second with phi-2, and trains on some 800. The GPU side
starts before any row is read, so what is not known yet is assumed to be large, and to pay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nlijob import hardware, records
from nlijob.analysis.wording import count, listed, plural, which
from nlijob.config import JobConfig, SplitSize, with_settings
from nlijob.planning.durations import scored_rows
from nlijob.records.job import SPLITS, Manifest, Split
from nlijob.records.planning import PlannedProcesses
from nlijob.rundir import RunDir, candidate_marker
from nlijob.stages import SEARCH
from nlijob.sweep import (
    are_independent,
    candidate_name,
    count_candidates,
    most_epochs,
    search_epochs,
)
from nlijob.trials import trials_of

ROWS_EACH = 30_000
"""Rows to score for each GPU, some ten seconds of work, from which on it is worth its start."""
TRAINED = 4
"""Training on a row takes about as long as scoring this many."""
ROWS_OF_STEP = 8
"""Fewest rows of an optimizer step for each GPU: with fewer, exchanging gradients takes longer than
is saved."""
SOURCE_ROWS: dict[Split, int] = {"train": 550_000, "validation": 10_000, "test": 10_000}
"""Rows of a data set of which nothing is known yet: those of SNLI."""
DEMO_ROWS: dict[Split, int] = {"train": 2_000, "validation": 250, "test": 500}
"""Rows of the data set that comes with the job."""


@dataclass(frozen=True)
class Work:
    """What is left for the GPU side to do."""

    trainings: int
    """Trainings and candidates of a search that need not wait for each other."""
    trained_rows: int
    """Rows of all epochs of all of them."""
    scored_rows: int
    batch_size: int
    """Rows of an optimizer step."""


def chosen_processes(config: JobConfig, run: RunDir) -> PlannedProcesses:
    """How many processes the job has on this machine, to go on with a run or to begin it."""
    gpus = hardware.gpu_count() if config.model.device == "cuda" else 0
    return plan_processes(config, gpus, work_left(config, run))


def plan_processes(config: JobConfig, gpus: int, work: Work) -> PlannedProcesses:
    """How many processes a job has where `gpus` GPUs are visible.

    A number in the configuration is taken as it is.
    """
    asked = config.machine.gpus
    if asked != "auto":
        too_many = (
            ", more than are visible" if asked > gpus and config.model.device == "cuda" else ""
        )
        return PlannedProcesses(asked, gpus, f"machine.gpus is {asked}{too_many}")
    if config.model.device == "cpu":
        return PlannedProcesses(1, 0, "a single process uses all cores of the CPU")
    if gpus <= 1:
        return PlannedProcesses(1, gpus, "no other GPU is visible" if gpus else "no GPU is visible")
    if config.machine.accelerate_config:
        return PlannedProcesses(gpus, gpus, "the weights are divided between all visible GPUs")
    number, reason = max(_uses(config.machine.share, work), key=lambda use: min(use[0], gpus))
    if number <= 1:
        return PlannedProcesses(1, gpus, _too_small(work))
    return PlannedProcesses(min(number, gpus), gpus, reason)


def work_left(config: JobConfig, run: RunDir) -> Work:
    """What is left to do in a run, as far as its markers and the configuration tell."""
    trials = trials_of(config)
    left = [one for one in trials if not run.of_trial(one).marker("evaluate").exists()]
    trainings = len(left) or len(trials)  # all is marked, but may have to be done again
    candidates = _candidates_left(config, run)
    train, validation, test = (_rows(config, run, split) for split in SPLITS)
    elsewhere = sum(_taken(SplitSize(one.stride, one.size), "test") for one in config.transfer)
    searched = search_epochs(config) * candidates // max(1, count_candidates(config))
    several = with_settings(config, {"train.seeds": trainings})
    return Work(
        trainings=max(trainings, candidates if are_independent(config.sweep) else 0),
        trained_rows=train * (most_epochs(config) * trainings + searched),
        scored_rows=scored_rows(several, validation, test) + (1 + trainings) * elsewhere,
        batch_size=config.train.batch_size,
    )


# ---------------------------------------------------------------- detail


def _uses(share: str, work: Work) -> list[tuple[int, str]]:
    """What GPUs are good for: how many, and why so many; the first of equals counts."""
    uses = [
        (
            work.scored_rows // ROWS_EACH,
            f"about {plural(work.scored_rows, 'row')} {which(work.scored_rows, 'is', 'are')} "
            f"scored, and a GPU pays from "
            f"{count(ROWS_EACH)} on",
        )
    ]
    if share in ("auto", "steps"):
        steps = min(work.batch_size // ROWS_OF_STEP, _all_rows(work) // ROWS_EACH)
        text = (
            f"steps of {plural(work.batch_size, 'row')} can be shared, at least {ROWS_OF_STEP} each"
        )
        uses.insert(0, (steps, text))
    if share in ("auto", "trials"):
        text = f"{plural(work.trainings, 'training')} can be done side by side"
        uses.insert(0, (work.trainings, text))
    return uses


def _all_rows(work: Work) -> int:
    """The whole work, in rows to score."""
    return work.scored_rows + TRAINED * work.trained_rows


def _too_small(work: Work) -> str:
    parts = [
        f"about {plural(work.trained_rows, 'row')} to train on, {count(work.batch_size)} a step",
        f"{count(work.scored_rows)} to score",
    ]
    return f"a second GPU would not be worth its start: {listed(parts)}"


def _candidates_left(config: JobConfig, run: RunDir) -> int:
    """Candidates of the search that are not complete; 0 without a search."""
    if run.marker(SEARCH).exists():
        return 0
    names = map(candidate_name, range(1, count_candidates(config) + 1))
    return sum(not run.marker(candidate_marker(name)).exists() for name in names)


def _rows(config: JobConfig, run: RunDir, split: Split) -> int:
    """The rows of a split: those in the run's folder, or else what the configuration says."""
    try:
        return records.read(Manifest, run.manifest).splits[split].rows
    except (OSError, ValueError, KeyError):
        known = DEMO_ROWS if config.data.dataset == "demo" else SOURCE_ROWS
        return _taken(config.data.split_size(split), split, known)


def _taken(wanted: SplitSize, split: Split, source: dict[Split, int] = SOURCE_ROWS) -> int:
    if wanted.stride:
        return math.ceil(source[split] / wanted.stride)
    return wanted.size or source[split]
