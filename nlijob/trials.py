"""The trials of a run: its trainings, which share the base model, the rows and the baseline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nlijob.config import JobConfig, seeds_of
from nlijob.stages import STAGES, Stage


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    """Such as "seed-43"; also the name of its folder where there are several."""
    config: JobConfig
    """The configuration of a run that does this training alone."""
    folder: str
    """Its folder below the run's, such as "trials/seed-43"; "" is the run's own."""

    def key(self, stage: str) -> str:
        """The name of one of its stages within the run, such as "trials/seed-43/train"."""
        return f"{self.folder}/{stage}" if self.folder else stage


def trials_of(config: JobConfig) -> tuple[Trial, ...]:
    """The trials of a run, in order. A single one is kept in the run's own folder."""
    seeds = seeds_of(config.train)
    return tuple(_trial(config, seed, is_single=len(seeds) == 1) for seed in seeds)


def _trial(config: JobConfig, seed: int, is_single: bool) -> Trial:
    name = f"seed-{seed}"
    train = dataclasses.replace(config.train, seed=seed, seeds=1)
    own = dataclasses.replace(config, train=train)
    return Trial(name, own, "" if is_single else f"trials/{name}")


@dataclass(frozen=True)
class Step:
    """A stage as the job does it: once, or for one training."""

    stage: Stage
    trial: Trial | None
    """None for a stage of the run as a whole."""

    @property
    def key(self) -> str:
        """Its name within the run (see `Trial.key`)."""
        return self.trial.key(self.stage.name) if self.trial else self.stage.name


def steps_of(config: JobConfig) -> tuple[Step, ...]:
    """All that the job does, in order: one training after the other, each to its end."""
    trials = trials_of(config)
    of_trials = [stage for stage in STAGES if stage.of == "trial"]
    before = STAGES[: STAGES.index(of_trials[0])]
    after = STAGES[STAGES.index(of_trials[-1]) + 1 :]
    return (
        *(Step(stage, None) for stage in before),
        *(Step(stage, trial) for trial in trials for stage in of_trials),
        *(Step(stage, None) for stage in after),
    )
