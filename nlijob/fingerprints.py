"""What each stage is made from: settings, the stages it follows, and files outside the run.

The fingerprint is a hash of these inputs. A stage is complete if its marker carries the fingerprint
of the present inputs. The marker keeps the inputs themselves too, so that a difference can be
explained by the name of a setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nlijob.config import JobConfig
from nlijob.records.job import Inputs
from nlijob.stages import STAGES, Stage


def stage_inputs(config: JobConfig, stamps: Mapping[str, str]) -> dict[str, Inputs]:
    """Stage -> its inputs. `stamps` identifies the files outside the run, see `Stage.stamp`."""
    inputs: dict[str, Inputs] = {}
    for stage in STAGES:
        follows = {name: inputs[name].fingerprint for name in stage.follows}
        stamp = stamps.get(stage.stamp, "")
        inputs[stage.name] = Inputs(settings_of(config, stage), follows, stamp)
    return inputs


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
