"""Training: AdamW on the adapter, cross-entropy at the label position only.

`PlainTrainer` is the loop as one would write it down: the reference for every faster way.
`nlijob.gpu.fast.trainer` does the same steps on packed rows, on a GPU as CUDA graphs.

What a step does never depends on how much of the batch is held in memory at once: the loss is the
mean over the effective batch, whatever the micro-batch. An epoch depends only on the state at its
start and on (seed, epoch), so a resumed training goes the way an unbroken one would have gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional

from nlijob.config import TrainConfig
from nlijob.errors import DivergedError, JobError
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.records import TrainStep

SMALLEST_LOSS_SCALE = 1.0


class Trainer(Protocol):
    """Trains the adapter of a loaded model, an epoch at a time."""

    def epoch(self, epoch: int) -> Iterator[TrainStep]:
        """Train one epoch (counted from 1), giving each optimizer step when it is known.

        Raises DivergedError where loss or gradient is no number.
        """

    def state(self) -> dict[str, Any]:
        """What resuming after this epoch needs beside the adapter, whichever trainer resumes."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`; the adapter is loaded apart."""


class Course:
    """What the steps of a training are: their rows, their learning rates, their seeds."""

    def __init__(self, config: TrainConfig, rows: Sequence[Encoded]) -> None:
        self.config = config
        self.rows = rows

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; the last may have fewer rows."""
        return math.ceil(len(self.rows) / self.config.batch_size)

    def batches(self, epoch: int) -> Iterator[list[Encoded]]:
        """The rows of each step of an epoch."""
        generator = torch.Generator().manual_seed(self.seed(epoch))
        order = torch.randperm(len(self.rows), generator=generator).tolist()
        for start in range(0, len(order), self.config.batch_size):
            yield [self.rows[i] for i in order[start : start + self.config.batch_size]]

    def micro_batches(self, rows: Sequence[Encoded], size: int | None) -> Iterator[list[Encoded]]:
        """A step's rows, `size` at a time; None takes them at once."""
        size = size or len(rows)
        for start in range(0, len(rows), size):
            yield list(rows[start : start + size])

    def seed(self, epoch: int) -> int:
        """What order and dropout of an epoch are drawn from."""
        return self.config.seed * 1_000_003 + epoch

    def rate(self, step: int) -> float:
        """The learning rate of a step (from 0 over the whole training)."""
        return self.config.learning_rate * self.rate_share(step)

    def rate_share(self, step: int) -> float:
        """The learning rate of a step as a share of the peak."""
        total = self.steps_per_epoch * self.config.epochs
        warmup = round(total * self.config.warmup_ratio)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        return {
            "constant": 1.0,
            "linear": max(0.0, 1 - done),
            "cosine": 0.5 * (1 + math.cos(math.pi * min(1.0, done))),
        }[self.config.schedule]


def check_step(epoch: int, step: int, loss: float, norm: float, skipped: bool = False) -> None:
    """Refuse what no training can go on from; steps are counted from 1.

    `skipped`: loss scaling passed over the step, as it does to find its scale. Raises
    DivergedError, or JobError where nothing reaches the adapter.
    """
    if not math.isfinite(loss) or not (math.isfinite(norm) or skipped):
        raise DivergedError(
            f"training diverged in epoch {epoch}, step {step}: loss {loss}, gradient norm {norm}",
            "lower train.learning_rate, or compute in bfloat16 or float32 (model.compute_dtype)",
        )
    if step == 1 and norm == 0:
        raise JobError("no gradient reaches the adapter", "gradient checkpointing may cut it")


class PlainTrainer:
    """One operation after the other, by the libraries' own layers."""

    def __init__(self, loaded: LoadedModel, head: Head, course: Course) -> None:
        self._loaded = loaded
        self._head = head
        self._course = course
        self._config = course.config
        self._parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            weight_decay=self._config.weight_decay,
            fused=loaded.device.type == "cuda",
        )
        # float16 gradients underflow unless the loss is scaled up; elsewhere this does nothing.
        self._scaler = torch.amp.GradScaler(
            loaded.device.type, enabled=loaded.compute_dtype is torch.float16
        )
        self._step = 0

    def epoch(self, epoch: int) -> Iterator[TrainStep]:
        """See `Trainer`."""
        self._loaded.model.train()
        torch.manual_seed(self._course.seed(epoch))  # dropout
        for rows in self._course.batches(epoch):
            started = time.monotonic()
            rate = self._course.rate(self._step)
            loss, norm = self._optimize(rows, rate)
            self._step += 1
            skipped = self._scaler.is_enabled() and self._scaler.get_scale() > SMALLEST_LOSS_SCALE
            check_step(epoch, self._step, loss, norm, skipped)
            grad_norm = norm if math.isfinite(norm) else None
            duration_s = time.monotonic() - started
            yield TrainStep(epoch, self._step, loss, grad_norm, rate, len(rows), duration_s)

    def state(self) -> dict[str, Any]:
        """See `Trainer`."""
        return {
            "optimizer": self._optimizer.state_dict()["state"],
            "scaler": self._scaler.state_dict(),
            "step": self._step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Trainer`."""
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self._scaler.load_state_dict(state["scaler"])
        self._step = state["step"]

    # ------------------------------------------------------------ detail

    def _optimize(self, rows: Sequence[Encoded], rate: float) -> tuple[float, float]:
        """One optimizer step; returns mean loss of the rows and gradient norm before clipping."""
        self._optimizer.zero_grad(set_to_none=True)
        self._optimizer.param_groups[0]["lr"] = rate
        loss = sum(
            self._backward(part, len(rows))
            for part in self._course.micro_batches(rows, self._config.micro_batch_size)
        )
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return float(loss), float(norm)

    def _backward(self, rows: Sequence[Encoded], of: int) -> float:
        """Add the gradient of a micro-batch; returns its share of the batch's mean loss."""
        batch = self._head.collate(rows, self._loaded.device)
        logits = self._head.logits(self._loaded.model, batch)
        loss = functional.cross_entropy(logits, self._head.targets(batch), reduction="sum") / of
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())
