"""What each stage is made from: settings, the stages it follows, and files outside the run.

The fingerprint is a hash of these inputs. A stage is complete if its marker carries the fingerprint
of the present inputs. The marker keeps the inputs themselves too, so that a difference can be
explained by the name of a setting.

A stage of a training has the same inputs in a run of several trainings as in a run of that one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nlijob.config import JobConfig
from nlijob.records.job import Inputs
from nlijob.stages import STAGES, TRIAL_STAGES, Stage
from nlijob.trials import Trial, trials_of


def stage_inputs(config: JobConfig, stamps: Mapping[str, str]) -> dict[str, Inputs]:
    """Stage -> its inputs; the stages of each of several trainings are named by `Trial.key`.

    `stamps` identifies the files outside the run (see `Stage.stamp`).
    """
    trials = trials_of(config)
    inputs: dict[str, Inputs] = {}
    for stage in STAGES:
        stamp = stamps.get(stage.stamp, "")
        if stage.of == "run":
            follows = {key: inputs[key].fingerprint for key in followed(stage, trials)}
            inputs[stage.name] = Inputs(settings_of(config, stage), follows, stamp)
        else:
            for trial in trials:
                own = inputs_of(inputs, trial)
                follows = {name: own[name].fingerprint for name in stage.follows}
                settings = settings_of(trial.config, stage)
                inputs[trial.key(stage.name)] = Inputs(settings, follows, stamp)
    return inputs


def followed(stage: Stage, trials: tuple[Trial, ...]) -> Iterator[str]:
    """The names of the stages that a stage of the run follows, of every training."""
    for name in stage.follows:
        if name in TRIAL_STAGES:
            yield from (trial.key(name) for trial in trials)
        else:
            yield name


def inputs_of(inputs: Mapping[str, Inputs], trial: Trial) -> dict[str, Inputs]:
    """The inputs of the run's own stages and of one training's, by the stages' plain names."""
    of_run = {name: one for name, one in inputs.items() if "/" not in name}
    own = {name: inputs[trial.key(name)] for name in TRIAL_STAGES if trial.key(name) in inputs}
    return of_run | own


def settings_of(config: JobConfig, stage: Stage) -> dict[str, Any]:
    """The settings that a stage reads, by their dotted keys, with values as JSON has them."""
    settings: dict[str, Any] = {}
    for key in stage.reads:
        value = config.value(key)
        is_section = isinstance(value, dict) and "." not in key
        if is_section:
            settings |= {f"{key}.{name}": one for name, one in value.items()}
        else:
            settings[key] = value
    kept = {key: value for key, value in settings.items() if key not in stage.ignores}
    as_json: dict[str, Any] = json.loads(json.dumps(kept))  # a marker has lists for tuples
    return as_json
