"""The plain loop's steps launched ahead of the device, on packed rows.

Loss and gradient norm of a step come back when they are there, a few steps late; a step that went
wrong is named all the same, and ends the training.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlijob.gpu.fast.model import FastModel, ids_of
from nlijob.gpu.fast.packing import packed_tokens, rounded, shared_prefix, token_counts
from nlijob.gpu.fast.steps import Steps
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import SMALLEST_LOSS_SCALE, Course, check_step
from nlijob.records import TrainStep

MOST_UNKNOWN = 32
"""Steps that may be under way before the first of them is waited for."""


@dataclass(frozen=True)
class _Launched:
    """A step that is under way."""

    step: int
    rate: float
    examples: int
    figures: Tensor
    """[3] in the host's memory: loss, gradient norm and loss scale, once `done` has come."""
    began: Any
    done: Any


class GraphTrainer:
    """Trains a fast model; everything is captured when it is made. On a CPU nothing is, and each
    pack has a size of its own."""

    def __init__(
        self,
        loaded: LoadedModel,
        fast: FastModel,
        course: Course,
        micro_batch_size: int | None,
        compiles: bool | None = None,
    ) -> None:
        """`compiles`: have layers compiled where they can be, or None for where that pays.

        Raises torch.OutOfMemoryError, or RuntimeError where the step cannot be captured.
        """
        self._loaded = loaded
        self._fast = fast
        self._course = course
        self._size = micro_batch_size or course.config.batch_size
        self._step = 0
        self.prefix = shared_prefix([ids_of(row) for row in course.rows], self._size)
        """Tokens that all rows share and a pack holds once."""
        self.steps = Steps(loaded, fast, course, self._size, self.prefix)
        totals = self._totals()
        self._in_all = sum(totals)
        self._chosen_for: dict[str, int | str] = {
            "rows": self._size,
            "prefix": self.prefix,
            "longest_row": max(row.length for row in course.rows),
            "largest_pack": max(totals),
            "all_tokens": self._in_all,
            "device": device_name(loaded.device),
            "layers": fast.kind,
        }
        """What `token_counts` depend on; for anything else they may be too small or too large."""
        self.token_counts = (
            token_counts(totals, cost=fast.cost)
            if self.steps.captures
            else token_counts(totals, graph_cost_tokens=0)
        )
        """The sizes of pack that the whole training is served with."""
        self.steps.capture(self.token_counts, self._in_all, compiles)

    def epoch(self, epoch: int) -> Iterator[TrainStep]:
        """See `nlijob.gpu.training.Trainer`."""
        self._loaded.model.train()
        self._fast.adapter.refresh()
        self._fast.seed(self._course.seed(epoch))
        under_way: deque[_Launched] = deque()
        mark = self.steps.mark()
        for rows in self._course.batches(epoch):
            under_way.append(self._launch(rows, mark))
            mark = under_way[-1].done
            while under_way and (len(under_way) > MOST_UNKNOWN or under_way[0].done.query()):
                yield self._known(epoch, under_way.popleft())
        while under_way:
            yield self._known(epoch, under_way.popleft())

    def state(self) -> dict[str, Any]:
        """See `nlijob.gpu.training.Trainer`."""
        return {
            **self.steps.state(),
            "step": self._step,
            "token_counts": self.token_counts,
            "token_counts_chosen_for": self._chosen_for,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `nlijob.gpu.training.Trainer`.

        Pack sizes and compiled layers of the state are restored too where they were chosen for the
        same packs: chosen again they may differ, and so would the rounding of all that follows.
        """
        if state.get("token_counts_chosen_for") == self._chosen_for:
            chosen = tuple(state["token_counts"]), bool(state["is_compiled"])
            is_the_same = chosen == (self.token_counts, self.steps.is_compiled)
            if not is_the_same and self.steps.recapture(chosen[0], self._in_all, chosen[1]):
                self.token_counts = chosen[0]
        self.steps.restore(state)
        self._step = state["step"]

    def _totals(self) -> list[int]:
        """The tokens of each micro-batch of the whole training."""
        return [
            self._tokens(part)
            for epoch in range(1, self._course.config.epochs + 1)
            for rows in self._course.batches(epoch)
            for part in self._course.micro_batches(rows, self._size)
        ]

    def _tokens(self, rows: Sequence[Encoded]) -> int:
        return packed_tokens([row.length for row in rows], self.prefix)

    def _launch(self, rows: Sequence[Encoded], began: Any) -> _Launched:
        for part in self._course.micro_batches(rows, self._size):
            self.steps.add(part, rounded(self._tokens(part)), len(rows))
        rate = self._course.rate(self._step)
        figures = self.steps.update(rate)
        self._step += 1
        return _Launched(self._step, rate, len(rows), figures, began, self.steps.mark())

    def _known(self, epoch: int, launched: _Launched) -> TrainStep:
        launched.done.synchronize()
        loss, norm, scale = launched.figures.tolist()
        check_step(epoch, launched.step, loss, norm, skipped=scale > SMALLEST_LOSS_SCALE)
        grad_norm = norm if math.isfinite(norm) else None
        duration_s = launched.began.elapsed_time(launched.done) / 1000
        return TrainStep(
            epoch, launched.step, loss, grad_norm, launched.rate, launched.examples, duration_s
        )


def device_name(device: torch.device) -> str:
    """The GPU's model, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
