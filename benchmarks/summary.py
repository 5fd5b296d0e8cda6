"""The main figures of a run's results.json: `python benchmarks/summary.py FILE`.

Everything else in a results.json (row numbers, cases, texts) stays out of the repository.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.records.forgetting import Forgetting
from nlijob.records.job import EpochResult
from nlijob.records.outcome import Metrics, Results
from nlijob.records.search import Search
from nlijob.records.trials import Trials


def summary(results: Results) -> dict[str, Any]:
    """Configuration, machine, time, memory and outcome of a run, as plain values."""
    run = results.run
    return {
        "date": run.created_at[:10],
        "command": " ".join(_without_places(run.command)),
        "environment": _environment(results),
        "config": records.to_json(run.config),
        "rows": {name: split.rows for name, split in results.manifest.splits.items()},
        "mean_tokens": results.prompt.mean_tokens,
        "parameters": records.to_json(results.parameters),
        "total_s": results.total_s,
        "attempts": results.attempts,
        "stages_s": {stage.stage: stage.duration_s for stage in results.stages},
        "training_examples_per_s": results.training_examples_per_s,
        "resources": _resources(results),
        "base": _outcome(results.base),
        "tuned": _outcome(results.tuned),
        "epochs": [_epoch(epoch) for epoch in results.epochs],
        "selected_epoch": results.selection.epoch,
        **({"trainings": _trainings(results.trials)} if results.trials else {}),
        **({"search": _search(results.search)} if results.search else {}),
        **({"forgetting": _forgetting(results.forgetting)} if results.forgetting else {}),
    }


def anonymous(text: str, results: Results) -> str:
    """The text without this machine's paths of model and data."""
    config = results.run.config
    for place, name in ((config.model.name, "DIR"), (config.data.dataset, "ROWS")):
        if Path(place).is_absolute():
            text = text.replace(place, name)
    return text


def _without_places(command: Sequence[str]) -> list[str]:
    """The command without the options that say where the run lies."""
    kept = list(command)
    for option in ("--runs-dir", "--run-id"):
        if option in kept:
            place = kept.index(option)
            del kept[place : place + 2]
    return kept


def _environment(results: Results) -> dict[str, Any]:
    """The environment without anything that identifies the machine."""
    environment: dict[str, Any] = records.to_json(results.environment)
    environment.pop("platform")
    for gpu in environment["gpus"]:
        gpu.pop("uuid")
    return environment


def _resources(results: Results) -> dict[str, Any]:
    resources: dict[str, Any] = records.to_json(results.resources)
    for gpu in resources["gpus"]:
        gpu.pop("uuid")
    return resources


def _outcome(metrics: Metrics) -> dict[str, Any]:
    return {"accuracy": metrics.accuracy, "loss": metrics.loss, "confusion": metrics.confusion}


def _epoch(epoch: EpochResult) -> dict[str, Any]:
    return {
        "train_loss": epoch.train_loss,
        "examples_per_s": epoch.examples_per_s,
        "validation_accuracy": epoch.validation.accuracy,
        "validation_loss": epoch.validation.loss,
        "peak_allocated_bytes": epoch.memory.peak_allocated_bytes,
    }


def _trainings(trials: Trials) -> dict[str, Any]:
    """What the page says of several trainings."""
    return {
        "each": {
            one.name: {
                "selected_epoch": one.selection.epoch,
                "validation_accuracy": one.selection.validation_accuracy,
                "test_accuracy": one.accuracy,
                "interval": records.to_json(one.accuracy_interval),
            }
            for one in trials.trials
        },
        "kept": trials.kept,
        "accuracy": records.to_json(trials.accuracy),
        "gain": records.to_json(trials.gain),
        "variance": records.to_json(trials.variance),
        "rows": records.to_json(trials.rows),
        "ensemble": records.to_json(trials.ensemble),
    }


def _search(search: Search) -> dict[str, Any]:
    """What each candidate of a search came to."""
    return {
        "duration_s": search.duration_s,
        "winner": search.winner,
        "not_distinguishable_from_it": search.alike,
        "importance": [records.to_json(one) for one in search.importance],
        "candidates": {
            one.name: {
                **one.settings,
                "validation": f"{one.correct} of {one.rows}" if one.correct is not None else None,
                "state": one.state,
                "duration_s": one.duration_s,
            }
            for one in search.candidates
        },
    }


def _forgetting(forgetting: Forgetting) -> dict[str, Any]:
    """The loss on general text, without the texts."""
    kept: dict[str, Any] = records.to_json(forgetting)
    kept.pop("worst")
    return kept


if __name__ == "__main__":
    of_run = records.read(Results, Path(sys.argv[1]))
    text = json.dumps(summary(of_run), indent=1, ensure_ascii=False)
    print(anonymous(text, of_run))
