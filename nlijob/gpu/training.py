"""The training loop: AdamW on the adapter, cross-entropy at the label position only.

What a step does never depends on how much of the batch is held in memory at once: the loss is the
mean over the effective batch, whatever the micro-batch. An epoch depends only on the state at its
start and on (seed, epoch), so a resumed training goes the way an unbroken one would have gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from nlijob.config import TrainConfig
from nlijob.errors import DivergedError, JobError
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.records import TrainStep

SMALLEST_LOSS_SCALE = 1.0


class Trainer:
    """Trains the adapter of a loaded model, an epoch at a time."""

    def __init__(
        self, loaded: LoadedModel, head: Head, config: TrainConfig, rows: Sequence[Encoded]
    ) -> None:
        self._loaded = loaded
        self._head = head
        self._config = config
        self._rows = rows
        self._parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=loaded.device.type == "cuda",
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate_share)
        # float16 gradients underflow unless the loss is scaled up; elsewhere this does nothing.
        self._scaler = torch.amp.GradScaler(
            loaded.device.type, enabled=loaded.compute_dtype is torch.float16
        )
        self._step = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; the last may have fewer rows."""
        return math.ceil(len(self._rows) / self._config.batch_size)

    def epoch(self, epoch: int) -> Iterator[TrainStep]:
        """Train one epoch (counted from 1), giving each optimizer step as it is done.

        Raises DivergedError where loss or gradient is no number.
        """
        self._loaded.model.train()
        torch.manual_seed(_epoch_seed(self._config.seed, epoch))  # dropout
        for rows in self._batches(epoch):
            started = time.monotonic()
            rate = float(self._schedule.get_last_lr()[0])
            loss, norm = self._optimize(rows)
            self._step += 1
            self._check(epoch, loss, norm)
            grad_norm = norm if math.isfinite(norm) else None
            duration_s = time.monotonic() - started
            yield TrainStep(epoch, self._step, loss, grad_norm, rate, len(rows), duration_s)

    def state(self) -> dict[str, Any]:
        """What resuming after this epoch needs beside the adapter."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self._step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state()`."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._step = state["step"]

    # ------------------------------------------------------------ detail

    def _batches(self, epoch: int) -> Iterator[list[Encoded]]:
        generator = torch.Generator().manual_seed(_epoch_seed(self._config.seed, epoch))
        order = torch.randperm(len(self._rows), generator=generator).tolist()
        for start in range(0, len(order), self._config.batch_size):
            yield [self._rows[i] for i in order[start : start + self._config.batch_size]]

    def _optimize(self, rows: Sequence[Encoded]) -> tuple[float, float]:
        """One optimizer step; returns mean loss of the rows and gradient norm before clipping."""
        self._optimizer.zero_grad(set_to_none=True)
        size = self._config.micro_batch_size or len(rows)
        loss = sum(
            self._backward(rows[start : start + size], len(rows))
            for start in range(0, len(rows), size)
        )
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        return float(loss), float(norm)

    def _backward(self, rows: Sequence[Encoded], of: int) -> float:
        """Add the gradient of a micro-batch; returns its share of the batch's mean loss."""
        batch = self._head.collate(rows, self._loaded.device)
        logits = self._head.logits(self._loaded.model, batch)
        loss = functional.cross_entropy(logits, self._head.targets(batch), reduction="sum") / of
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _check(self, epoch: int, loss: float, norm: float) -> None:
        # A gradient that overflows is how loss scaling finds its scale; it skips that step.
        skipped = self._scaler.is_enabled() and self._scaler.get_scale() > SMALLEST_LOSS_SCALE
        if not math.isfinite(loss) or not (math.isfinite(norm) or skipped):
            raise DivergedError(
                f"training diverged in epoch {epoch}, step {self._step}: loss {loss}, "
                f"gradient norm {norm}",
                "lower train.learning_rate, or compute in bfloat16 or float32 "
                "(model.compute_dtype)",
            )
        if self._step == 1 and norm == 0:
            raise JobError("no gradient reaches the adapter", "gradient checkpointing may cut it")

    def _rate_share(self, step: int) -> float:
        """The learning rate of a step (from 0) as a share of the peak."""
        total = self.steps_per_epoch * self._config.epochs
        warmup = round(total * self._config.warmup_ratio)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        return {
            "constant": 1.0,
            "linear": max(0.0, 1 - done),
            "cosine": 0.5 * (1 + math.cos(math.pi * min(1.0, done))),
        }[self._config.schedule]


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch
