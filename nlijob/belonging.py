"""Whether the stages in a run's folder belong together, so that a report may be made of them.

Each stage must be complete, made with the settings in config.json and from the stages that are
there. Otherwise a report would show the settings of one job beside the predictions of another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nlijob import records
from nlijob.analysis.wording import listed
from nlijob.config import JobConfig
from nlijob.errors import NotAvailableError
from nlijob.fingerprints import followed, settings_of
from nlijob.records.job import FORMAT_VERSION, Inputs, Marker, RunRecord
from nlijob.records.outcome import Results
from nlijob.rundir import EPOCH_MARKER, RunDir, epoch_marker, is_of_adapter
from nlijob.stages import STAGES, TRIAL_STAGES
from nlijob.trials import Step, steps_of, trials_of

ADDED = ("elsewhere", "explain")
"""The stages that runs of formats 2 and 3 do not have; the second was part of evaluate."""
SHOWN_KEYS = 5
SHOWN_REASONS = 10
"""Most reasons that an error lists."""
LONGEST_VALUE = 60
"""Longest value of a setting that a message quotes, in characters."""


@dataclass(frozen=True)
class Doubt:
    """A reason why a run cannot be reported on."""

    kind: Literal["unfinished", "damaged"]
    """unfinished: a stage is missing, or of other inputs. damaged: a file is missing or changed."""
    text: str
    """What is wrong, naming the stage and the file or the settings."""


def doubts(run: RunDir, with_report: bool = False) -> list[Doubt]:
    """Why the run's stages do not belong together, from config.json and the markers alone.

    The stages are all but the report, or all of them `with_report`. Files that the markers list are
    not read; see `changed_files`.
    """
    try:
        config = records.read(RunRecord, run.config).config
    except (OSError, ValueError) as error:
        return [Doubt("damaged", f"config.json cannot be read: {_why(error)}")]
    steps = [step for step in steps_of(config) if with_report or step.key != "report"]
    found = {step.key: _marker_of(run, step.key) for step in steps}
    markers = {key: marker for key, marker in found.items() if marker is not None}
    older = [m for m in markers.values() if m.stage != "report" and m.inputs is None]
    missing = [key for key in found if key not in markers and not (older and key in ADDED)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return [Doubt("unfinished", f"{listed(missing)} {verb} not complete")]
    mixed = _of_older_format(run, config, markers) if older else _mixed(steps, config, markers)
    texts = list(mixed) or [
        text
        for trial in trials_of(config)
        for text in _epochs(run.of_trial(trial), config, markers[trial.key("train")])
    ]
    return [Doubt("unfinished", text) for text in texts]


def changed_files(run: RunDir) -> list[Doubt]:
    """Files that the markers of stages list, and that are missing or changed.

    Of the epochs only the predictions are checked, which the report reads.
    """
    changed = []
    reported = [stage.name for stage in STAGES if stage.name != "report"]
    for key in run.marked():
        view, name = run.at(key)
        marker = view.read_marker(name)
        if marker is None or (name not in reported and not name.startswith(EPOCH_MARKER)):
            continue
        files = {n: stamp for n, stamp in marker.files.items() if _is_read(n, marker)}
        changed += [
            Doubt("damaged", f"{key}: {file} is missing or has changed since it was written")
            for file in run.changed(files)
        ]
    return changed


def check_whole(run: RunDir, purpose: str) -> None:
    """Raise NotAvailableError unless the run's stages are complete, whole and belong together.

    `purpose` completes "RUN cannot be ...". The report is no such stage.
    """
    if found := doubts(run) or changed_files(run):
        raise unsound(run, [doubt.text for doubt in found], purpose)


def unsound(run: RunDir, reasons: Sequence[str], purpose: str) -> NotAvailableError:
    """The error for a run that cannot be used for a purpose, as in `check_whole`."""
    shown = "".join(f"\n  - {reason}" for reason in reasons[:SHOWN_REASONS])
    more = len(reasons) - SHOWN_REASONS
    return NotAvailableError(
        f"{run.root} cannot be {purpose}:{shown}" + (f"\n  - and {more} more" * (more > 0)),
        "`run` with the options of that run goes on from what is complete, and does again what "
        "is missing, damaged or of other settings",
    )


def differences(made_from: Inputs, now: Inputs, where: tuple[str, str]) -> Iterator[str]:
    """How the inputs of a stage differ, in words. `where`: what to call the two."""
    before, after = where
    for key in sorted({*made_from.settings, *now.settings}):
        old, new = made_from.settings.get(key), now.settings.get(key)
        if old != new:
            yield f"{key} is {_value(old)} {before} and {_value(new)} {after}"
    if made_from.stamp != now.stamp:
        yield "the files outside the run that it reads have changed"


# ---------------------------------------------------------------- detail


def _marker_of(run: RunDir, key: str) -> Marker | None:
    view, stage = run.at(key)
    return view.read_marker(stage)


def _mixed(
    steps: Iterable[Step], config: JobConfig, markers: Mapping[str, Marker]
) -> Iterator[str]:
    trials = trials_of(config)
    stamps: dict[str, str] = {}
    for step in steps:
        key, stage, trial = step.key, step.stage, step.trial
        made_from = markers[key].inputs
        if made_from is None:
            yield f"{key}: its marker was written by another version"
            continue
        known = settings_of(trial.config if trial else config, stage)
        stamp = stamps.setdefault(stage.stamp, made_from.stamp)
        now = Inputs({k: known.get(k) for k in made_from.settings}, {}, stamp)
        differing = list(differences(made_from, now, ("in its marker", "in config.json")))
        if differing:
            yield f"{key}: {shortened(differing)}"
        for name in stage.follows if trial else followed(stage, trials):
            other = trial.key(name) if trial and name in TRIAL_STAGES else name
            if made_from.follows.get(name) != markers[other].fingerprint:
                yield f"{key} was made from another {other} than the one in the folder"


def _of_older_format(
    run: RunDir, config: JobConfig, markers: Mapping[str, Marker]
) -> Iterator[str]:
    """Contradictions in a run of format 2 or 3, whose markers do not hold their inputs."""
    task = _fingerprints_of_task(run)
    for stage in STAGES:
        marker = markers.get(stage.name)
        if marker is None or stage.name == "report":
            continue
        if marker.inputs is not None:
            yield f"{stage.name} was made by another version than the other stages"
        elif task.get(stage.name, marker.fingerprint) != marker.fingerprint:
            yield f"{stage.name}: of other inputs than those of the last attempt"
        for name in stage.follows:
            other = markers.get(name)
            if other and other.finished_at > marker.finished_at:
                yield f"{stage.name} was made before the {name} in the folder"
    yield from _settings_of_outcome(run, config)


def _settings_of_outcome(run: RunDir, config: JobConfig) -> Iterator[str]:
    """Settings in config.json that are not those of results.json, where that can be read."""
    try:
        outcome = records.read(Results, run.results).run.config
    except (OSError, ValueError):
        return
    for stage in STAGES:
        then, now = (Inputs(settings_of(c, stage), {}, "") for c in (outcome, config))
        where = ("in results.json", "in config.json")
        differing = list(differences(then, now, where)) if stage.name != "report" else []
        if differing:
            yield f"{stage.name}: {shortened(differing)}"


def _fingerprints_of_task(run: RunDir) -> dict[str, Any]:
    """Stage -> fingerprint in the last task of a run of format 2 or 3; empty where unknown."""
    try:
        value = records.parse(run.worker_task.read_bytes())
    except (OSError, ValueError):
        return {}
    fingerprints = value.get("fingerprints") if isinstance(value, dict) else None
    return fingerprints if isinstance(fingerprints, dict) else {}


def _epochs(run: RunDir, config: JobConfig, train: Marker) -> Iterator[str]:
    """Epochs that are missing, or not of the training in the folder."""
    for epoch in range(1, config.train.epochs + 1):
        marker = run.read_marker(epoch_marker(epoch))
        if marker is None:
            yield f"epoch {epoch} of train is not complete"
        elif marker.fingerprint != train.fingerprint:
            yield f"epoch {epoch} is of another training"


def _is_read(name: str, marker: Marker) -> bool:
    """Whether the report is made from a file, or describes it."""
    if marker.format_version != FORMAT_VERSION:  # such runs may be kept without their weights
        return not name.endswith((".safetensors", "adapter_config.json"))
    return marker.stage in {stage.name for stage in STAGES} or not is_of_adapter(name)


def shortened(differing: list[str]) -> str:
    """The first few of a list of differences, in a line."""
    shown, more = differing[:SHOWN_KEYS], len(differing) - SHOWN_KEYS
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _value(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).partition("\n")[0]
