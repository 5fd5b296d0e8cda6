"""Training: AdamW on the adapter, cross-entropy at the label position only.

`PlainTrainer` is the loop as one would write it down: the reference for every faster way.
`nlijob.gpu.fast.trainer` does the same steps on packed rows, on a GPU as CUDA graphs.

What a step does never depends on how much of the batch is held in memory at once: the loss is the
mean over the effective batch, whatever the micro-batch. An epoch depends only on the state at its
start and on (seed, epoch), so a resumed training goes the way an unbroken one would have gone.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlijob.config import TrainConfig
from nlijob.errors import ConfigurationError, DivergedError, HardwareError, JobError
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.recompute import recompute, repeated_layers
from nlijob.records import TrainStep

SMALLEST_LOSS_SCALE = 1.0
FIRST_LOSS_SCALE = 2.0**12
"""With torch's own, 2^16, an adapter's first gradients come close to float16's end or pass it, and
the first steps of training are lost."""


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

    def micro_batches(self, rows: Sequence[Encoded], size: int) -> Iterator[list[Encoded]]:
        """A step's rows, `size` at a time."""
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


def loss_scaler(loaded: LoadedModel) -> torch.amp.GradScaler:
    """What keeps float16 gradients from underflowing: the loss is scaled up, and steps that
    overflow are passed over. For other dtypes it does nothing."""
    return torch.amp.GradScaler(
        loaded.device.type,
        init_scale=FIRST_LOSS_SCALE,
        enabled=loaded.compute_dtype is torch.float16,
    )


class Footprint:
    """What the plain loop holds in memory at once; `shrink` makes it less, and never changes what
    a step does."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        """Raises ConfigurationError where train.gradient_checkpointing cannot be had."""
        self.rows = config.micro_batch_size or config.batch_size
        self.recomputes = config.gradient_checkpointing
        self.refused: list[str] = []
        """What was too large, each with the error it met."""
        self._layers = repeated_layers(model)
        if self.recomputes and not self._layers:
            raise ConfigurationError(
                "train.gradient_checkpointing: the model has no layers that can be computed again",
                "train.micro_batch_size=1 takes less memory too",
            )

    def begin(self) -> None:
        """Bring the model's layers to it."""
        if self.recomputes:
            for layer in self._layers:
                recompute(layer)

    def shrink(self, error: Exception) -> None:
        """Hold less: first each layer is computed again for its gradient, then rows are halved.

        Raises HardwareError where nothing is left to be done.
        """
        self.refused.append(f"{self._name}: {reason(error)}")
        if self._layers and not self.recomputes:
            self.recomputes = True
            self.begin()
        elif self.rows > 1:
            self.rows = math.ceil(self.rows / 2)
        else:
            raise HardwareError(
                f"out of memory with one row at a time: {reason(error)}",
                "end what else uses the GPU, or take shorter prompts, a smaller model or a larger "
                "GPU",
            )

    @property
    def _name(self) -> str:
        return f"plain{', layers computed again' if self.recomputes else ''}, {self.rows} at once"


def reason(error: Exception) -> str:
    """An error in a line; of torch's on memory, what is not about that moment alone."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ". ".join(line.split(". ")[:2]) if isinstance(error, torch.OutOfMemoryError) else line


class PlainTrainer:
    """One operation after the other, by the libraries' own layers."""

    def __init__(
        self, loaded: LoadedModel, head: Head, course: Course, footprint: Footprint | None = None
    ) -> None:
        """`footprint`: what to hold in memory at once; by default, what the configuration says."""
        self._loaded = loaded
        self._head = head
        self._course = course
        self._config = course.config
        self._footprint = footprint or Footprint(loaded.model, course.config)
        self._footprint.begin()
        self._parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            weight_decay=self._config.weight_decay,
            fused=loaded.device.type == "cuda",
        )
        self._scaler = loss_scaler(loaded)
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
        if state["scaler"]:  # none where the run began on a GPU that needed no scaling
            self._scaler.load_state_dict(state["scaler"])
        self._step = state["step"]

    # ------------------------------------------------------------ detail

    def _optimize(self, rows: Sequence[Encoded], rate: float) -> tuple[float, float]:
        """One optimizer step; returns mean loss of the rows and gradient norm before clipping."""
        self._optimizer.param_groups[0]["lr"] = rate
        loss = self._gradient(rows)
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss, float(norm)

    def _gradient(self, rows: Sequence[Encoded]) -> float:
        """Take the gradient of the rows' mean loss, and return that.

        Where memory runs out, that is begun again with less held at once.
        """
        drawn = _random_state(self._loaded.device)
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            try:
                parts = self._course.micro_batches(rows, self._footprint.rows)
                return sum(self._backward(part, len(rows)) for part in parts)
            except torch.OutOfMemoryError as error:
                self._footprint.shrink(error)
            # not before the error is gone, and with it the memory it holds
            gc.collect()
            if self._loaded.device.type == "cuda":
                torch.cuda.empty_cache()
            _set_random_state(self._loaded.device, drawn)

    def _backward(self, rows: Sequence[Encoded], of: int) -> float:
        """Add the gradient of a micro-batch; returns its share of the batch's mean loss."""
        batch = self._head.collate(rows, self._loaded.device)
        logits = self._head.logits(self._loaded.model, batch)
        loss = functional.cross_entropy(logits, self._head.targets(batch), reduction="sum") / of
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


def _random_state(device: torch.device) -> Tensor:
    """Where the generator of a device is, as dropout draws from it."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
