"""The trials of a run: its trainings, which share the base model, the rows and the baseline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nlijob.config import JobConfig, seeds_of


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    """Such as "seed-43"; also the name of its folder where there are several."""
    config: JobConfig
    """The configuration of a run that does this training alone."""
    folder: str
    """Its folder below the run's, such as "trials/seed-43"; "" is the run's own."""


def trials_of(config: JobConfig) -> tuple[Trial, ...]:
    """The trials of a run, in order. A single one is kept in the run's own folder."""
    seeds = seeds_of(config.train)
    return tuple(_trial(config, seed, is_single=len(seeds) == 1) for seed in seeds)


def _trial(config: JobConfig, seed: int, is_single: bool) -> Trial:
    name = f"seed-{seed}"
    train = dataclasses.replace(config.train, seed=seed, seeds=1)
    own = dataclasses.replace(config, train=train)
    return Trial(name, own, "" if is_single else f"trials/{name}")
