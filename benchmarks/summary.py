"""The main figures of a run's results.json: `python benchmarks/summary.py FILE`.

Everything else in a results.json (row numbers, cases, texts) stays out of the repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.records.job import EpochResult
from nlijob.records.outcome import Metrics, Results


def summary(results: Results) -> dict[str, Any]:
    """Configuration, machine, time, memory and outcome of a run, as plain values."""
    run = results.run
    return {
        "date": run.created_at[:10],
        "command": " ".join(run.command),
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
    }


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


if __name__ == "__main__":
    kept = summary(records.read(Results, Path(sys.argv[1])))
    print(json.dumps(kept, indent=1, ensure_ascii=False))
