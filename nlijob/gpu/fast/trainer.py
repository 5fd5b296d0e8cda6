"""The plain loop's steps on packed rows, launched ahead of the device.

Loss and gradient norm of a step are read a few steps later. A step that diverged still ends the
training, and the error names it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlijob.gpu.fast.model import FastModel, ids_of
from nlijob.gpu.fast.packing import packed_tokens, rounded, shared_prefix, token_counts
from nlijob.gpu.fast.steps import Steps
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import SMALLEST_LOSS_SCALE, TrainingSchedule, check_step, never
from nlijob.records.job import TrainStep

MAX_STEPS_IN_FLIGHT = 32
"""Steps that may be in flight before the trainer waits for the oldest."""


@dataclass(frozen=True)
class _StepInFlight:
    """A step that the device may not have finished."""

    step: int
    rate: float
    examples: int
    figures: Tensor
    """[3] in host memory: loss, gradient norm and loss scale, valid once `done` has completed."""
    began: Any
    done: Any


class FastTrainer:
    """Trains a fast model.

    On a GPU all graphs are captured in the constructor. On a CPU there are none, and packs may have
    any size.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        fast: FastModel,
        schedule: TrainingSchedule,
        micro_batch_size: int | None,
        compiles: bool | None = None,
    ) -> None:
        """`compiles`: whether to compile layers that support it; None compiles where it pays off.

        Raises torch.OutOfMemoryError, or RuntimeError where the step cannot be captured.
        """
        self._loaded = loaded
        self._fast = fast
        self._size = micro_batch_size or schedule.config.batch_size
        self.prefix = shared_prefix([ids_of(row) for row in schedule.rows], self._size)
        """Tokens that all rows share and a pack holds once."""
        self.steps = Steps(loaded, fast, schedule, self._size, self.prefix)
        totals = self._take(schedule)
        self.token_counts = (
            token_counts(totals, cost=fast.cost)
            if self.steps.captures
            else token_counts(totals, graph_cost_tokens=0)
        )
        """Pack sizes in tokens, ascending, that the whole training uses."""
        self.steps.capture(self.token_counts, self._training_tokens, compiles)

    def begin(self, schedule: TrainingSchedule) -> None:
        """Begin another training with the same shapes; its weights are set separately.

        Graphs are used again, and one is added only if a pack does not fit. On a CPU the packs are
        those that the training would have alone, so that it rounds alike. Raises as the
        constructor does.
        """
        totals = self._take(schedule)
        if self.steps.captures:
            counts = tuple(sorted({*self.token_counts, *_missing(totals, self.token_counts)}))
        else:
            counts = token_counts(totals, graph_cost_tokens=0)
        self.steps.begin(schedule, counts)
        self.token_counts = counts

    def _take(self, schedule: TrainingSchedule) -> list[int]:
        """Start at a training's first step; returns the tokens of each of its micro-batches."""
        self._schedule = schedule
        self._step = 0
        totals = self._totals()
        self._training_tokens = sum(totals)
        self._chosen_for: dict[str, int | str] = {
            "rows": self._size,
            "prefix": self.prefix,
            "longest_row": max(row.length for row in schedule.rows),
            "largest_pack": max(totals),
            "all_tokens": self._training_tokens,
            "device": device_name(self._loaded.device),
            "layers": self._fast.kind,
        }
        """What `token_counts` depend on; in other conditions they may be too small or too large."""
        return totals

    @property
    def steps_per_epoch(self) -> int:
        """See `nlijob.gpu.training.Trainer`."""
        return self._schedule.steps_per_epoch

    def epoch(
        self, epoch: int, done: int = 0, pause: Callable[[], bool] = never
    ) -> Iterator[TrainStep]:
        """See `nlijob.gpu.training.Trainer`."""
        self._loaded.model.train()
        self._fast.adapter.refresh()
        if done == 0:
            self._fast.seed(self._schedule.seed(epoch))
        in_flight: deque[_StepInFlight] = deque()
        began = self.steps.event()
        for rows in self._schedule.batches(epoch, done):
            in_flight.append(self._launch(rows, began))
            began = in_flight[-1].done
            if pause():
                break  # the state is that of the last launched step, so all must be finished
            while in_flight and (len(in_flight) > MAX_STEPS_IN_FLIGHT or in_flight[0].done.query()):
                yield self._finished(epoch, in_flight.popleft())
        while in_flight:
            yield self._finished(epoch, in_flight.popleft())

    def state(self) -> dict[str, Any]:
        """See `nlijob.gpu.training.Trainer`."""
        return {
            **self.steps.state(),
            "step": self._step,
            "random": self._fast.random_state(),
            "token_counts": self.token_counts,
            "token_counts_chosen_for": self._chosen_for,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `nlijob.gpu.training.Trainer`.

        Pack sizes and compiled layers are restored too if they were chosen under the same
        conditions: a new choice may differ, and with it the rounding in all later steps.
        """
        if state.get("token_counts_chosen_for") == self._chosen_for:
            counts, compiles = tuple(state["token_counts"]), bool(state["is_compiled"])
            is_same = (counts, compiles) == (self.token_counts, self.steps.is_compiled)
            if not is_same and self.steps.recapture(counts, self._training_tokens, compiles):
                self.token_counts = counts
        self.steps.restore(state)
        self._step = state["step"]
        self._fast.restore_random_state(state["random"])  # last, as capturing draws numbers

    def _totals(self) -> list[int]:
        """Tokens of each micro-batch of the whole training."""
        return [
            self._tokens(part)
            for epoch in range(1, self._schedule.config.epochs + 1)
            for rows in self._schedule.batches(epoch)
            for part in self._schedule.micro_batches(rows, self._size)
        ]

    def _tokens(self, rows: Sequence[Encoded]) -> int:
        return packed_tokens([row.length for row in rows], self.prefix)

    def _launch(self, rows: Sequence[Encoded], began: Any) -> _StepInFlight:
        for part in self._schedule.micro_batches(rows, self._size):
            self.steps.add(part, rounded(self._tokens(part)), len(rows))
        rate = self._schedule.rate(self._step)
        figures = self.steps.update(rate)
        self._step += 1
        return _StepInFlight(self._step, rate, len(rows), figures, began, self.steps.event())

    def _finished(self, epoch: int, launched: _StepInFlight) -> TrainStep:
        launched.done.synchronize()
        loss, norm, scale = launched.figures.tolist()
        check_step(epoch, launched.step, loss, norm, skipped=scale > SMALLEST_LOSS_SCALE)
        grad_norm = norm if math.isfinite(norm) else None
        duration_s = launched.began.elapsed_time(launched.done) / 1000
        return TrainStep(
            epoch, launched.step, loss, grad_norm, launched.rate, launched.examples, duration_s
        )


def _missing(totals: Sequence[int], sizes: Sequence[int]) -> set[int]:
    """The size of a pack that holds the largest micro-batch, if none of these sizes does."""
    largest = rounded(max(totals))
    return {largest} if largest > max(sizes) else set()


def device_name(device: torch.device) -> str:
    """Name of the GPU model, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
