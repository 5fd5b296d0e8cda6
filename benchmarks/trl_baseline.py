"""The job's training done by TRL's SFTTrainer, for `benchmarks.bench`.

    torchrun --nproc-per-node 4 -m benchmarks.trl_baseline --model DIR --rows DIR --batch-size 64

measures it on several GPUs with DistributedDataParallel, and prints a line of JSON.

It gets from the job the 4-bit model with its LoRA adapter, the rows in the order of the job's first
epoch, the effective batch, the learning rates, the seed, and a loss on the label token only. All
else is TRL's: first its defaults, then the fastest of its documented settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from nlijob.config import load_config
from nlijob.gpu.heads import CausalHead
from nlijob.gpu.model import LoadedModel, load, read_tokenizer
from nlijob.gpu.training import TrainingSchedule

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "TRL, as it comes": {},
    "TRL, best settings": {"gradient_checkpointing": False, "bf16": False},
}
"""Name -> settings besides those that the job gives. `bf16` is autocasting; without it the model
and, because TRL casts them, the adapters are in bfloat16 as well. Data loading in processes,
packing and an 8-bit optimizer gained nothing more."""
WARM_UP_STEPS = 10
IGNORED = -100
"""Label of a token without a loss."""


@dataclass(frozen=True)
class TrlFigures:
    """Figures of a training with TRL."""

    warm_up_s: float
    """Time to make the trainer and do its first steps."""
    examples_per_s: float
    """Speed of the steps after the warm-up."""
    losses: list[float]
    """Loss of each step, mean over its rows."""


def trial(
    loaded: LoadedModel,
    head: CausalHead,
    schedule: TrainingSchedule,
    settings: Mapping[str, Any],
    steps: int,
) -> TrlFigures:
    """Train a few steps to warm up, and then time `steps` steps."""
    started = time.monotonic()
    datasets.disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)
    stopwatch = _Stopwatch(steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Trainer(
            schedule,
            model=loaded.model,
            args=SFTConfig(folder, **{**_given(loaded, schedule), **settings}),
            train_dataset=_rows(head, schedule),
            processing_class=loaded.tokenizer,
            callbacks=[stopwatch],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    examples = steps * schedule.config.batch_size
    return TrlFigures(
        stopwatch.warm_at - started,
        examples / (stopwatch.ended_at - stopwatch.warm_at),
        [float(loss) for loss in trainer.losses],
    )


def _given(loaded: LoadedModel, schedule: TrainingSchedule) -> dict[str, Any]:
    """The job's training options by TRL's names."""
    config = schedule.config
    return {
        "per_device_train_batch_size": config.batch_size // _processes(),
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "seed": config.seed,
        "train_sampling_strategy": "sequential",
        "bf16": loaded.compute_dtype is torch.bfloat16,
        "use_cpu": loaded.device.type == "cpu",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _rows(head: CausalHead, schedule: TrainingSchedule) -> datasets.Dataset:
    """Prompts with their label token, in the order of the first epoch."""

    def row(ids: list[int], label: int) -> dict[str, list[int]]:
        return {"input_ids": [*ids, label], "labels": [IGNORED] * len(ids) + [label]}

    return datasets.Dataset.from_list(
        [
            row(one.features["input_ids"], head.target_class(one.example.label))
            for batch in schedule.batches(1)
            for one in batch
        ]
    )


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the job's learning rates; it keeps the loss of each step."""

    def __init__(self, schedule: TrainingSchedule, **options: Any) -> None:
        super().__init__(**options)
        self._schedule = schedule
        self.losses: list[Tensor] = []

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Use the job's schedule: transformers' own begin with a step at a rate of 0."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, self._schedule.rate_share
        )
        return self.lr_scheduler

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        """See TRL."""
        loss = super().compute_loss(*arguments, **options)
        self.losses.append(loss.detach())
        return loss


class _Stopwatch(transformers.TrainerCallback):  # type: ignore[misc]
    """Records when the warm-up and the timed steps ended, and then stops the training."""

    warm_at: float
    ended_at: float

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See transformers."""
        if state.global_step == WARM_UP_STEPS:
            self.warm_at = _now()
        elif state.global_step == WARM_UP_STEPS + self._steps:
            self.ended_at = _now()
            control.should_training_stop = True


def _processes() -> int:
    """How many processes share a step; torchrun says it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _now() -> float:
    """The time after the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def main() -> None:
    """Measure TRL's settings in this process, and in those that torchrun started beside it."""
    from benchmarks.bench import MAX_LENGTH, spread_rows

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, required=True, help="folder with phi-2's shape")
    parser.add_argument("--rows", type=Path, required=True, help="folder with train.jsonl")
    parser.add_argument("--train-size", type=int, default=1001)
    parser.add_argument("--batch-size", type=int, default=64, help="rows of a step, on all GPUs")
    parser.add_argument("--steps", type=int, default=40, help="timed steps")
    options = parser.parse_args()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    config = load_config("phi2", {"train.batch_size": options.batch_size})
    tokenizer = read_tokenizer(config, options.model)
    examples = spread_rows(options.rows, options.train_size)
    head = CausalHead(tokenizer, config.prompt, MAX_LENGTH, examples)
    schedule = TrainingSchedule(config.train, head.encode("train", examples))
    for name, settings in SETTINGS.items():
        loaded = load(config, options.model, tokenizer, device)
        figures = trial(loaded, head, schedule, settings, options.steps)
        if device.index == 0:
            sizes = {"gpus": _processes(), "batch_size": options.batch_size, "settings": name}
            speed = {**dataclasses.asdict(figures), "losses": figures.losses[:3]}
            print(json.dumps({**sizes, **speed}), flush=True)


if __name__ == "__main__":
    main()
