"""The plain loop's steps on packed rows, launched ahead of the device.

Loss and gradient norm of a step are read a few steps later. A step that diverged still ends the
training, and the error names it.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlijob.gpu.drawing import DrawnForPack
from nlijob.gpu.fast.model import FastModel, may_share_prefix
from nlijob.gpu.fast.packing import packed_tokens, prefix_of_all, rounded, token_counts
from nlijob.gpu.fast.steps import Steps
from nlijob.gpu.fast.together import all_or_none
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import Encoded
from nlijob.gpu.heads.rows import lengths_of, shortest_of
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.pausing import Pauses
from nlijob.gpu.shares import (
    Share,
    in_micro_batches,
    share_totals,
    shares_of_batch,
    shares_within,
)
from nlijob.gpu.training import SMALLEST_LOSS_SCALE, TrainingSchedule, check_step, never
from nlijob.records.job import TrainStep

MAX_STEPS_IN_FLIGHT = 32
"""Steps that may be in flight before the trainer waits for the oldest."""
STEPS_IN_FLIGHT_TOGETHER = 8
"""Steps in flight in a group. Their number is fixed, so that all processes have launched the same
steps when they find that one has diverged, and none waits on the device for another's."""


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


@dataclass(frozen=True)
class StepTimes:
    """How long the same step takes in one process and in a group."""

    alone_s: float | None
    """In the lead alone, or None where its memory does not suffice."""
    shared_s: float
    """In the slowest process of the group."""

    @property
    def pays(self) -> bool:
        """Whether the group is faster."""
        return self.alone_s is None or self.shared_s < self.alone_s


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
        group: Group = ALONE,
    ) -> None:
        """`compiles`: whether to compile layers that support it; None compiles where it pays off.

        `group`: the processes that share each step; by default, this one alone.
        Raises torch.OutOfMemoryError, or RuntimeError where the step cannot be captured; where one
        process fails, all raise (`all_or_none`).
        """
        self._loaded = loaded
        self._fast = fast
        self._group = group
        self._seed_offset = group.rank if loaded.device.type == "cuda" else 0
        """What keeps the model's own dropout in graphs from being alike in all processes."""
        self._size = micro_batch_size or schedule.config.batch_size
        self.prefix = (
            prefix_of_all(schedule.rows, self._size)
            if may_share_prefix(schedule.rows, fast.is_bidirectional)
            else 0
        )
        """Tokens that all rows share and a pack holds once."""
        with all_or_none(self._group):
            self.steps = Steps(loaded, fast, schedule, self._size, self.prefix, self._group)
            totals = self._take(schedule)
            self.token_counts = (
                token_counts(totals, cost=fast.cost)
                if self.steps.captures
                else token_counts(totals, graph_cost_tokens=0)
            )
            """Pack sizes in tokens, ascending, that this process uses in the whole training."""
            self.steps.capture(self.token_counts, self._training_tokens, compiles)
        with all_or_none(self._group):
            self.steps.capture_update()

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
        with all_or_none(self._group):
            self.steps.begin(schedule, counts)
        self.token_counts = counts

    def why_dropout_depends_on_processes(self) -> str:
        """Why a group drops other values than one process would, for the plan, or ""."""
        return self._fast.why_dropout_depends_on_processes() if self._group.is_shared else ""

    def step_times(self) -> StepTimes:
        """Time a step of median size, shared and alone; all processes of the group call this.

        It has no effect. It may only be called before the first step.
        """
        lengths = self._schedule.lengths(1)
        by_tokens = np.where(lengths, lengths - self.prefix, 0).sum(1).argsort(kind="stable")
        rows = next(self._schedule.batches(1, done=int(by_tokens[len(lengths) // 2])))
        shared = [
            (share.own, self.steps.pack_size(rounded(self._tokens(share.own))))
            for share in self._shares(rows, self._group)
            if share.places
        ]
        alone = [
            (share.own, rounded(self._tokens(share.own))) for share in self._shares(rows, ALONE)
        ]
        alone_s = self.steps.seconds_alone(alone) if self._group.is_lead else None
        times = self._group.gather((alone_s, self.steps.seconds(shared)))
        return StepTimes(times[0][0], max(shared_s for _, shared_s in times))

    def _take(self, schedule: TrainingSchedule) -> list[int]:
        """Start at a training's first step; returns the tokens of each micro-batch's share."""
        self._schedule = schedule
        self._step = 0
        totals = self._totals(self._group)
        self._all_counts: tuple[int, ...] = ()
        """The pack sizes of one process alone, where dropout draws for its packs: in a group on a
        CPU."""
        if self._group.is_shared and not self.steps.captures:
            self._all_counts = token_counts(self._totals(ALONE), graph_cost_tokens=0)
        self._training_tokens = sum(totals)
        self._chosen_for: dict[str, int | str] = {
            "rows": self._size,
            "prefix": self.prefix,
            "longest_row": int(lengths_of(schedule.rows).max()),
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
            self._fast.seed(self._schedule.seed(epoch) + self._seed_offset)
        self._fast.start_dropout_by_row(self._schedule.seed(epoch), done)
        pauses = Pauses(pause, self._group)
        in_flight: deque[_StepInFlight] = deque()
        began = self.steps.event()
        for number, rows in enumerate(self._schedule.batches(epoch, done), done + 1):
            in_flight.append(self._launch(rows, began))
            began = in_flight[-1].done
            if pauses.due_after(number):
                break  # the state is that of the last launched step, so all must be finished
            while self._waits_for(in_flight):
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
            # each process of a group has sizes of its own, which are chosen afresh
            "token_counts_chosen_for": None if self._group.is_shared else self._chosen_for,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `nlijob.gpu.training.Trainer`.

        Pack sizes and compiled layers are restored too if they were chosen under the same
        conditions: a new choice may differ, and with it the rounding in all later steps. A group
        chooses them afresh.
        """
        if not self._group.is_shared and state.get("token_counts_chosen_for") == self._chosen_for:
            counts, compiles = tuple(state["token_counts"]), bool(state["is_compiled"])
            is_same = (counts, compiles) == (self.token_counts, self.steps.is_compiled)
            if not is_same and self.steps.recapture(counts, self._training_tokens, compiles):
                self.token_counts = counts
        self.steps.restore(state)
        self._step = state["step"]
        self._fast.restore_random_state(state["random"])  # last, as capturing draws numbers
        if self._seed_offset:
            self._fast.seed(int(torch.randint(2**62, ())) + self._seed_offset)

    def _waits_for(self, in_flight: Sequence[_StepInFlight]) -> bool:
        """Whether the oldest step is read before another is launched."""
        if self._group.is_shared:
            return len(in_flight) > STEPS_IN_FLIGHT_TOGETHER
        done = bool(in_flight) and in_flight[0].done.query()
        return done or len(in_flight) > MAX_STEPS_IN_FLIGHT

    def _totals(self, group: Group) -> list[int]:
        """Tokens of each pack that this process computes in the whole training; at least one."""
        totals: list[int] = []
        for epoch in range(1, self._schedule.config.epochs + 1):
            lengths = self._schedule.lengths(epoch)
            if not self.steps.captures:
                lengths = in_micro_batches(lengths, self._size)
            totals += share_totals(lengths, self._size, group, self.prefix).tolist()
        return totals or [self._tokens([shortest_of(self._schedule.rows)])]

    def _shares(self, rows: Sequence[Encoded], group: Group) -> list[Share]:
        """What a process of a group computes of an effective batch, pack by pack.

        In graphs rows are split over the whole batch. On a CPU they are split within each of one
        process's micro-batches, for which dropout draws.
        """
        if self.steps.captures:
            return shares_of_batch(rows, self._size, group, self.prefix)
        micro_batches = self._schedule.micro_batches(rows, self._size)
        return shares_within(micro_batches, group, self.prefix)

    def _tokens(self, rows: Sequence[Encoded]) -> int:
        return packed_tokens([row.length for row in rows], self.prefix)

    def _launch(self, rows: Sequence[Encoded], began: Any) -> _StepInFlight:
        for share in self._shares(rows, self._group):
            self._add(share, len(rows))
        rate = self._schedule.rate(self._step)
        figures = self.steps.update(rate)
        self._step += 1
        return _StepInFlight(self._step, rate, len(rows), figures, began, self.steps.event())

    def _add(self, share: Share, batch_rows: int) -> None:
        """Launch loss and gradient of a share.

        Where it is empty, dropout draws what it draws in the other processes; graphs have no such
        shares.
        """
        computed = share if share.places else Share(share.rows, [0])
        tokens = rounded(self._tokens(computed.own))
        size = self.steps.pack_size(tokens) if share.places else tokens
        if self._all_counts:
            needed = self._tokens(share.rows)
            all_tokens = min(size for size in self._all_counts if size >= needed)
            self._fast.drawing = DrawnForPack(computed, self.prefix, size, all_tokens, self._size)
        if share.places:
            self.steps.add(share, size, batch_rows)
        else:
            self.steps.draw(computed.own, size)
        self._fast.drawing = contextlib.nullcontext()

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
