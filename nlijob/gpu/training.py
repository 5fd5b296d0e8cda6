"""Training: AdamW on the adapter, with cross-entropy at the label position only.

`PlainTrainer` is the straightforward loop, and the reference for every faster execution mode.
`nlijob.gpu.fast.trainer` does the same steps on packed rows, and on a GPU as CUDA graphs.

A step never depends on how much of the batch is in memory at once: the loss is the mean over the
effective batch, whatever the micro-batch. In a group of processes each computes some of its rows,
and gradients are added up, so that weights stay the same in all. Steps depend only on the trainer's
state and weights before them and on (seed, epoch), so a resumed training takes the same steps as an
uninterrupted one.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from nlijob.config import TrainConfig
from nlijob.errors import ConfigurationError, DivergedError, HardwareError, JobError
from nlijob.gpu.drawing import DrawnForRows
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import Batch, Encoded, Head
from nlijob.gpu.heads.base import new_batch
from nlijob.gpu.heads.rows import lengths_of
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.out_of_memory import free_memory
from nlijob.gpu.pausing import Pauses
from nlijob.gpu.randomness import random_state, restore_random_state
from nlijob.gpu.recompute import PLAIN, keep, recompute, repeated_layers
from nlijob.gpu.shares import Share, shares_within
from nlijob.memory import is_out_of_memory
from nlijob.records.job import TrainStep

SMALLEST_LOSS_SCALE = 1.0
FIRST_LOSS_SCALE = 2.0**12
"""With torch's default of 2^16, an adapter's first gradients come close to float16's maximum or
exceed it, and the first training steps are skipped."""


def never() -> bool:
    """Train an epoch without a pause."""
    return False


class Trainer(Protocol):
    """Trains the adapter of a loaded model, one epoch at a time.

    In a group of processes, each has a trainer, and all make the same calls in the same order.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""

    def epoch(
        self, epoch: int, done: int = 0, pause: Callable[[], bool] = never
    ) -> Iterator[TrainStep]:
        """Train one epoch (counted from 1); yields each optimizer step once its figures are known.

        `done`: steps of this epoch that were done before, by this trainer or by the one whose state
        it restored. `pause` is called between steps. Once it returns True, the iterator ends after
        all steps that have begun; weights and `state` are then those after the last step yielded.
        In a group only the lead's `pause` counts, and all end some steps later.
        Raises DivergedError where the loss or the gradient is not finite.
        """

    def state(self) -> dict[str, Any]:
        """What a resume needs besides the weights; any trainer can resume from it.

        It may only be taken before, between or after calls of `epoch`.
        """

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state()`; the weights are loaded separately."""


class TrainingSchedule:
    """The rows, learning rates and seeds of all steps of a training."""

    def __init__(self, config: TrainConfig, rows: Sequence[Encoded]) -> None:
        self.config = config
        self.rows = rows

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch; the last may have fewer rows."""
        return math.ceil(len(self.rows) / self.config.batch_size)

    def batches(self, epoch: int, done: int = 0) -> Iterator[list[Encoded]]:
        """The rows of each optimizer step of an epoch, after the first `done` steps."""
        order = self._order(epoch).tolist()
        for start in range(done * self.config.batch_size, len(order), self.config.batch_size):
            yield [self.rows[i] for i in order[start : start + self.config.batch_size]]

    def lengths(self, epoch: int) -> NDArray[np.int64]:
        """[steps, batch size]: tokens of the rows of an epoch's steps; 0 where a row is missing."""
        lengths = np.zeros((self.steps_per_epoch, self.config.batch_size), np.int64)
        lengths.reshape(-1)[: len(self.rows)] = lengths_of(self.rows)[self._order(epoch).numpy()]
        return lengths

    def _order(self, epoch: int) -> torch.Tensor:
        """The numbers of the rows in the order in which an epoch takes them."""
        generator = torch.Generator().manual_seed(self.seed(epoch))
        return torch.randperm(len(self.rows), generator=generator)

    def micro_batches(self, rows: Sequence[Encoded], size: int) -> Iterator[list[Encoded]]:
        """The micro-batches of a step: its rows, `size` at a time."""
        for start in range(0, len(rows), size):
            yield list(rows[start : start + size])

    def seed(self, epoch: int) -> int:
        """The seed of an epoch's row order and dropout."""
        return self.config.seed * 1_000_003 + epoch

    def rate(self, step: int) -> float:
        """The learning rate of a step; steps count from 0 over the whole training."""
        return self.config.learning_rate * self.rate_share(step)

    def rate_share(self, step: int) -> float:
        """The learning rate of a step as a fraction of the peak rate."""
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
    """Raise where training cannot continue after this step; steps count from 1.

    `skipped`: loss scaling skipped the step, as it does until it has found its scale. Raises
    DivergedError, or JobError where no gradient reaches the adapter.
    """
    if not math.isfinite(loss) or not (math.isfinite(norm) or skipped):
        raise DivergedError(
            f"training diverged in epoch {epoch}, step {step}: loss {loss}, gradient norm {norm}",
            "lower train.learning_rate, or compute in bfloat16 or float32 (model.compute_dtype)",
        )
    if step == 1 and norm == 0:
        raise JobError(
            "no gradient reaches the adapter", "gradient checkpointing may have cut it off"
        )


def loss_scaler(loaded: LoadedModel) -> torch.amp.GradScaler:
    """A scaler of the loss that keeps float16 gradients from underflowing.

    Steps that overflow are skipped. For other dtypes it does nothing.
    """
    return torch.amp.GradScaler(
        loaded.device.type,
        init_scale=FIRST_LOSS_SCALE,
        enabled=loaded.compute_dtype is torch.float16,
    )


class MemoryBudget:
    """How much the plain loop holds in memory at once.

    `shrink` reduces it and never changes the result of a step.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        """Raises ConfigurationError where the model cannot do train.gradient_checkpointing."""
        self.rows = config.micro_batch_size or config.batch_size
        self.recomputes = config.gradient_checkpointing
        self.refused: list[str] = []
        """The settings that needed too much memory, each with its error."""
        self.drawing: AbstractContextManager[Any] = contextlib.nullcontext()
        """The context that a layer's activations are computed in, and computed again."""
        self._layers = repeated_layers(model)
        if self.recomputes and not self._layers:
            raise ConfigurationError(
                "train.gradient_checkpointing: the model has no layers that support it",
                "train.micro_batch_size=1 reduces memory as well",
            )

    def apply(self) -> None:
        """Set up the model's layers accordingly."""
        if self.recomputes:
            for layer in self._layers:
                recompute(layer, self._checkpoint)

    def _checkpoint(self, layer: Callable[..., Any], *inputs: Any) -> Any:
        """Recompute a layer in the context of its forward pass, which has ended by then."""
        return PLAIN(layer, *inputs, context_fn=lambda: (contextlib.nullcontext(), self.drawing))

    def undo(self) -> None:
        """Let the model's layers keep their activations again."""
        for layer in self._layers:
            keep(layer)

    def shrink(self, why: str) -> None:
        """Hold less: first turn on gradient checkpointing, then halve the micro-batch.

        `why`: the error of the memory that ran out. Raises HardwareError where the micro-batch is a
        single row already.
        """
        name = execution_name("plain loop", self.recomputes, self.rows)
        self.refused.append(f"{name}: {why}")
        if self._layers and not self.recomputes:
            self.recomputes = True
            self.apply()
        elif self.rows > 1:
            self.rows = math.ceil(self.rows / 2)
        else:
            raise HardwareError(
                f"out of memory with one row at a time: {why}",
                "stop other programs on the GPU, or use shorter prompts, a smaller model or a "
                "larger GPU",
            )


def execution_name(mode: str, recomputes: bool, rows: int) -> str:
    """An execution mode with its memory use, as plan and report show it."""
    checkpointing = ", gradient checkpointing" if recomputes else ""
    return f"{mode}{checkpointing}, micro-batch of {rows}"


def reason(error: Exception) -> str:
    """An error's message in one line.

    When torch runs out of memory, only the first two sentences are kept: the others differ from
    run to run.
    """
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ". ".join(line.split(". ")[:2]) if isinstance(error, torch.OutOfMemoryError) else line


class PlainTrainer:
    """Runs the libraries' own layers, one operation after the other."""

    def __init__(
        self,
        loaded: LoadedModel,
        head: Head,
        schedule: TrainingSchedule,
        budget: MemoryBudget | None = None,
        group: Group = ALONE,
    ) -> None:
        """`budget`: how much to hold in memory at once; by default, what the configuration says.

        `group`: the processes that share each step; by default, this one alone.
        """
        self._loaded = loaded
        self._head = head
        self._schedule = schedule
        self._config = schedule.config
        self._budget = budget or MemoryBudget(loaded.model, schedule.config)
        self._budget.apply()
        self._parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            weight_decay=self._config.weight_decay,
            fused=loaded.device.type == "cuda",
        )
        self._scaler = loss_scaler(loaded)
        self._group = group
        self._sum = GradientSum(self._parameters, self._group) if self._group.is_shared else None
        self._step = 0

    @property
    def steps_per_epoch(self) -> int:
        """See `Trainer`."""
        return self._schedule.steps_per_epoch

    def epoch(
        self, epoch: int, done: int = 0, pause: Callable[[], bool] = never
    ) -> Iterator[TrainStep]:
        """See `Trainer`."""
        self._loaded.model.train()
        if done == 0:
            torch.manual_seed(self._schedule.seed(epoch))  # dropout
        pauses = Pauses(pause, self._group)
        for number, rows in enumerate(self._schedule.batches(epoch, done), done + 1):
            started = time.monotonic()
            rate = self._schedule.rate(self._step)
            loss, norm = self._optimize(rows, rate)
            self._step += 1
            skipped = self._scaler.is_enabled() and self._scaler.get_scale() > SMALLEST_LOSS_SCALE
            check_step(epoch, self._step, loss, norm, skipped)
            grad_norm = norm if math.isfinite(norm) else None
            duration_s = time.monotonic() - started
            yield TrainStep(epoch, self._step, loss, grad_norm, rate, len(rows), duration_s)
            if pauses.due_after(number):
                return

    def state(self) -> dict[str, Any]:
        """See `Trainer`."""
        return {
            "optimizer": self._optimizer.state_dict()["state"],
            "scaler": self._scaler.state_dict(),
            "step": self._step,
            "random": random_state(self._loaded.device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Trainer`."""
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        if state["scaler"]:  # empty where the run began on a GPU that needed no scaling
            self._scaler.load_state_dict(state["scaler"])
        self._step = state["step"]
        restore_random_state(state["random"], self._loaded.device)

    # ------------------------------------------------------------ detail

    def _optimize(self, rows: Sequence[Encoded], rate: float) -> tuple[float, float]:
        """Do one optimizer step; returns the mean loss and the gradient norm before clipping."""
        self._optimizer.param_groups[0]["lr"] = rate
        loss = self._gradient(rows)
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss, float(norm)

    def _gradient(self, rows: Sequence[Encoded]) -> float:
        """Compute the gradient of the rows' mean loss, and return the loss.

        Where memory runs out, in any process, start over with a smaller memory budget.
        """
        generator = _dropout_generator(self._loaded.device)
        before = generator.get_state()
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            loss, lack = self._own_gradient(rows)
            if self._sum:
                loss, lack = self._sum.over_all(loss, lack)
            if not lack:
                return loss
            self._budget.shrink(lack)
            free_memory()
            generator.set_state(before)

    def _own_gradient(self, rows: Sequence[Encoded]) -> tuple[float, str]:
        """The part of the loss whose gradient is computed here, and how memory ran out, or ""."""
        micro_batches = self._schedule.micro_batches(rows, self._budget.rows)
        shares = shares_within(micro_batches, self._group)
        try:
            return sum(self._backward(share, len(rows)) for share in shares), ""
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return 0.0, reason(error)

    def _backward(self, share: Share, of: int) -> float:
        """Add the gradient of a micro-batch's share; returns its part of the loss.

        `of`: rows that the loss is the mean of. Where the share is empty, dropout draws what it
        draws in the other processes.
        """
        computed = share if share.places else Share(share.rows, [0])
        if self._group.is_shared:
            self._budget.drawing = DrawnForRows(computed, self._loaded.device)
        with self._budget.drawing, torch.set_grad_enabled(bool(share.places)):
            logits = self._head.logits(self._loaded.model, self._batch(computed))
        if not share.places:
            return 0.0
        targets = self._head.targets(share.own, self._loaded.device)
        loss = functional.cross_entropy(logits, targets, reduction="sum") / of
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _batch(self, share: Share) -> Batch:
        """The share's rows, as wide as the micro-batch: one process draws for its padding too."""
        device = self._loaded.device
        batch = self._head.collate(share.rows, device)
        if not self._group.is_shared:
            return batch
        places = torch.tensor(share.places, device=device)
        own = {name: values[places] for name, values in batch.inputs.items()}
        return new_batch(own, share.own, device)


class GradientSum:
    """Adds up the processes' gradients and losses with one exchange of one buffer."""

    def __init__(self, parameters: Sequence[nn.Parameter], group: Group) -> None:
        self._parameters = parameters
        self._group = group
        self._sizes = [parameter.numel() for parameter in parameters]
        dtypes = [parameter.dtype for parameter in parameters]
        count = sum(self._sizes) + len(parameters) + 2
        self._buffer = torch.zeros(
            count,
            dtype=functools.reduce(torch.promote_types, dtypes, torch.float32),
            device=parameters[0].device,
        )
        """Gradients; for each parameter how many processes have one; loss; how many lack memory."""

    @torch.no_grad()
    def over_all(self, loss: float, lack: str) -> tuple[float, str]:
        """Replace gradients by their sums; returns the sum of losses, and who lacks memory, or "".

        A parameter without a gradient in any process has none afterwards. `lack`: how memory ran
        out in this process, or "".
        """
        sizes = [*self._sizes, len(self._sizes), 2]
        *gradients, found, rest = torch.split(self._buffer, sizes)
        self._buffer.zero_()
        for parameter, gradient, has_one in zip(self._parameters, gradients, found, strict=True):
            if parameter.grad is not None and not lack:
                gradient.copy_(parameter.grad.flatten())
                has_one.fill_(1)
        rest.copy_(torch.tensor([loss, bool(lack)]))
        self._group.sum(self._buffer)
        total, lacks = rest.tolist()
        if lacks:
            return 0.0, self._first_lack(lack)
        for parameter, gradient, has_one in zip(
            self._parameters, gradients, found.tolist(), strict=True
        ):
            own = gradient.view_as(parameter).to(parameter.dtype)
            parameter.grad = own if has_one else None
        return total, ""

    def _first_lack(self, lack: str) -> str:
        """What the first process that lacks memory says."""
        lacks = self._group.gather(lack)
        process = next(i for i, text in enumerate(lacks) if text)
        return f"process {process}: {lacks[process]}"


def _dropout_generator(device: torch.device) -> torch.Generator:
    """The generator that dropout draws from on this device."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index]
    return torch.default_generator
