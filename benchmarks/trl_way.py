"""The same training by TRL's SFTTrainer, for `benchmarks.bench`.

What is the job's is given: the 4-bit model with its LoRA adapter, the rows in the order of the
job's first epoch, the effective batch, learning rates, seed, and the label token as the only one
that counts in the loss. All else is TRL's: first its defaults, then those of its documented
settings that were fastest.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import torch
import transformers
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from nlijob.gpu.heads import CausalHead
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import Course

WAYS: Mapping[str, Mapping[str, Any]] = {
    "TRL, as it comes": {},
    "TRL, best settings": {"gradient_checkpointing": False, "bf16": False},
}
"""Name -> settings beside those that the job gives. `bf16` is autocasting: the model and, by TRL's
own doing, the adapters are in bfloat16 without it. Data loading in processes, rows without padding
between them and an 8-bit optimizer gained nothing beside these."""
WARM_UP_STEPS = 10
IGNORED = -100
"""The label of a token that does not count."""


@dataclass(frozen=True)
class Trial:
    """What was measured."""

    warm_up_s: float
    """Making the trainer, and its first steps."""
    examples_per_s: float
    """Of the steps after those."""
    losses: list[float]
    """Of every step, mean over its rows."""


def trial(
    loaded: LoadedModel,
    head: CausalHead,
    course: Course,
    settings: Mapping[str, Any],
    steps: int,
) -> Trial:
    """Train a few steps to warm up and then, timed, `steps`."""
    started = time.monotonic()
    datasets.disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)
    stopwatch = _Stopwatch(steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Trainer(
            course,
            model=loaded.model,
            args=SFTConfig(folder, **{**_given(loaded, course), **settings}),
            train_dataset=_rows(head, course),
            processing_class=loaded.tokenizer,
            callbacks=[stopwatch],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    examples = steps * course.config.batch_size
    return Trial(
        stopwatch.warm_at - started,
        examples / (stopwatch.ended_at - stopwatch.warm_at),
        [float(loss) for loss in trainer.losses],
    )


def _given(loaded: LoadedModel, course: Course) -> dict[str, Any]:
    """The job's training in TRL's words."""
    config = course.config
    return {
        "per_device_train_batch_size": config.batch_size,
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


def _rows(head: CausalHead, course: Course) -> datasets.Dataset:
    """Prompts with their label token, in the order of the first epoch."""

    def row(ids: list[int], label: int) -> dict[str, list[int]]:
        return {"input_ids": [*ids, label], "labels": [IGNORED] * len(ids) + [label]}

    return datasets.Dataset.from_list(
        [
            row(one.features["input_ids"], head.target_class(one.example.label))
            for batch in course.batches(1)
            for one in batch
        ]
    )


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's, with the job's learning rates, and with each step's loss kept to be read later."""

    def __init__(self, course: Course, **options: Any) -> None:
        super().__init__(**options)
        self._course = course
        self.losses: list[Tensor] = []

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Transformers' own schedules begin a step of rate 0 later."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, self._course.rate_share
        )
        return self.lr_scheduler

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        """See TRL."""
        loss = super().compute_loss(*arguments, **options)
        self.losses.append(loss.detach())
        return loss


class _Stopwatch(transformers.TrainerCallback):  # type: ignore[misc]
    """Notes when the warm-up and the timed steps were done, and ends the training."""

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


def _now() -> float:
    """The time once the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
