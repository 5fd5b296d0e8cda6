"""The GPU side's part of `benchmarks.large`: rows, schedule, and the steps without a GPU."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.large import RECIPE, Watch, run_in
from nlijob import records
from nlijob.config import load_config
from nlijob.gpu.fast import trainer as fast_trainer
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import PackShape
from nlijob.gpu.heads import CausalHead
from nlijob.gpu.heads.rows import lengths_of
from nlijob.gpu.model import quiet_libraries, read_tokenizer
from nlijob.gpu.reporting import Reporter, optimizer_steps
from nlijob.gpu.shares import Share
from nlijob.gpu.training import TrainingSchedule
from nlijob.records.job import Example, TrainStep
from nlijob.rundir import append_record

MAX_LENGTH, VOCABULARY = 2048, 51200
CPU = torch.device("cpu")


class Packs(FastModel):
    """Packs rows as a fast model does, and computes nothing."""

    def __init__(self, head: CausalHead) -> None:
        nothing: Any = SimpleNamespace(device=CPU, model=torch.nn.Identity(), refresh=lambda: None)
        self._loaded = self.adapter = nothing
        self._head, self.kind, self.drawing = head, "none", contextlib.nullcontext()

    def __getattr__(self, name: str) -> Any:
        """None for all else that a model may have beside the library's layers."""
        return None


class _Steps:
    """Takes the calls of `nlijob.gpu.fast.steps.Steps` as on a GPU, and only packs rows."""

    captures = True

    def __init__(
        self, _: Any, fast: Packs, schedule: TrainingSchedule, rows: int, prefix: int, *__: Any
    ) -> None:
        self._fast = fast
        self._longest = int(lengths_of(schedule.rows).max())
        self._rows, self._prefix = rows, prefix
        self._figures = torch.ones(3)
        self._packs: dict[int, PackShape] = {}

    def capture(self, sizes: Sequence[int], *_: Any) -> None:
        self._packs = {n: PackShape(n, self._rows, self._longest, self._prefix) for n in sizes}

    def capture_update(self) -> None:
        pass

    def pack_size(self, tokens: int) -> int:
        return min(size for size in self._packs if size >= tokens)

    def add(self, share: Share, size: int, batch_rows: int) -> None:
        self._fast.to_device(share.own, self._packs[size], batch_rows, share.places)

    def update(self, rate: float) -> Tensor:
        return self._figures.clone()

    def event(self) -> Any:
        return SimpleNamespace(
            query=lambda: True, synchronize=lambda: None, elapsed_time=lambda later: 1.0
        )


def main() -> None:
    """Measure with the model in a folder, and the rows of the run in another."""
    quiet_libraries()
    print(json.dumps(measured(*map(Path, sys.argv[1:]))))


def measured(model: Path, folder: Path) -> dict[str, float]:
    """Figures of one epoch, whose steps are in the run's log afterwards."""
    watch, config, run = Watch(), load_config(RECIPE), run_in(folder)
    with watch.part("read"):
        examples = list(records.read_lines(Example, run.subset("train")))
    tokenizer, names = read_tokenizer(config, model), config.data.label_names
    head = CausalHead(tokenizer, config.prompt, MAX_LENGTH, examples, VOCABULARY, names)
    with watch.part("encode"):
        rows = head.encode("train", examples)
    nothing: Any = SimpleNamespace(device=CPU, model=torch.nn.Identity())
    with watch.part("schedule"), mock.patch.object(fast_trainer, "Steps", _Steps):
        schedule = TrainingSchedule(config.train, rows)
        trainer = fast_trainer.FastTrainer(nothing, Packs(head), schedule, None)
    show = Reporter(run, 1).counter("train", optimizer_steps(1), len(rows), "rows")
    steps: list[TrainStep] = []
    began = time.monotonic()
    with watch.part("steps"):
        for step in trainer.epoch(1):  # as the train stage does
            append_record(run.train_log, step)
            steps.append(step)
            show(len(steps) * config.train.batch_size)
    with watch.part("steps_for_checkpoint"):
        records.dump_lines(steps)
    watch.figures |= {
        "step_ms": round((time.monotonic() - began) * 1000 / len(steps), 3),
        "steps": len(steps),
        "mean_tokens": round(float(lengths_of(rows).mean()), 1),
        "shared_prefix": trainer.prefix,
        "pack_sizes": len(trainer.token_counts),
    }
    return watch.figures


if __name__ == "__main__":
    main()
