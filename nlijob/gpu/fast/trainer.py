"""The plain loop's steps as CUDA graphs: a launch a micro-batch, one for the update.

Nothing in a step waits for the device. Loss and gradient norm of a step come back when they are
there, a few steps late; a step that went wrong is named all the same, and ends the training.
On a CPU nothing is captured: steps are done as they come, each on a pack of its own size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import GRAPH_COST_TOKENS, PackShape, rounded, token_counts, view
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import Course, check_step
from nlijob.records import TrainStep

MOST_UNKNOWN = 32
"""Steps that may be under way before the first of them is waited for."""
STATE = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class _HostMoment:
    """What an event is on a device, where the host does the work: done at once."""

    at_s: float

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: _HostMoment) -> float:
        return (later.at_s - self.at_s) * 1000


@dataclass(frozen=True)
class _Launched:
    """A step that is under way."""

    step: int
    rate: float
    examples: int
    figures: Tensor
    """[2] in the host's memory: loss and gradient norm, once `done` has come."""
    began: Any
    done: Any


class GraphTrainer:
    """Trains a fast model; everything is captured when it is made."""

    def __init__(
        self, loaded: LoadedModel, fast: FastModel, course: Course, micro_batch_size: int | None
    ) -> None:
        """Raises torch.OutOfMemoryError, or RuntimeError where the step cannot be captured."""
        self._loaded = loaded
        self._fast = fast
        self._course = course
        self._size = micro_batch_size
        self._adapter = fast.adapter
        device = loaded.device
        self._rate = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)
        self._figures = torch.zeros(2, device=device)
        # in the model's order, as the plain loop has them: each can go on from the other's state
        self._parameters = [p for p in loaded.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=self._rate,
            weight_decay=course.config.weight_decay,
            fused=True,
            capturable=device.type == "cuda",
        )
        self._step = 0
        self.token_counts = self._token_counts()
        self._capture()

    def epoch(self, epoch: int) -> Iterator[TrainStep]:
        """See `nlijob.gpu.training.Trainer`."""
        self._loaded.model.train()
        self._adapter.refresh()
        torch.manual_seed(self._course.seed(epoch))  # dropout
        under_way: deque[_Launched] = deque()
        mark = self._mark()
        for rows in self._course.batches(epoch):
            under_way.append(self._launch(rows, mark))
            mark = under_way[-1].done
            while under_way and (len(under_way) > MOST_UNKNOWN or self._is_done(under_way[0])):
                yield self._known(epoch, under_way.popleft())
        while under_way:
            yield self._known(epoch, under_way.popleft())

    def state(self) -> dict[str, Any]:
        """See `nlijob.gpu.training.Trainer`."""
        return {
            "optimizer": self._optimizer.state_dict()["state"],
            "scaler": {},
            "step": self._step,
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """See `nlijob.gpu.training.Trainer`. In place: graphs know tensors by where they are."""
        for number, parameter in enumerate(self._parameters):
            for name in STATE:
                self._optimizer.state[parameter][name].copy_(state["optimizer"][number][name])
        self._step = state["step"]

    # ------------------------------------------------------------ capture

    def _token_counts(self) -> tuple[int, ...]:
        """The sizes of pack that the whole training is served with."""
        return token_counts(
            [
                sum(row.length for row in part)
                for epoch in range(1, self._course.config.epochs + 1)
                for rows in self._course.batches(epoch)
                for part in self._course.micro_batches(rows, self._size)
            ],
            GRAPH_COST_TOKENS if self._loaded.device.type == "cuda" else 0,
        )

    def _capture(self) -> None:
        """Capture every step; what capturing computed is undone."""
        self._loaded.model.train()
        self._update()  # makes the optimizer's state
        for state in self._optimizer.state.values():
            state["step"].zero_()
        changed = [self._adapter.master, *self._state_tensors()]
        before = [tensor.clone() for tensor in changed]
        graphs = Graphs(self._loaded.device)
        # the largest first: the others then fit into the memory that it took
        self._accumulate = {
            tokens: self._capture_accumulate(graphs, tokens)
            for tokens in reversed(self.token_counts)
        }
        self._replay_update = graphs.capture(self._update)
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
            self._adapter.gradient.zero_()
            self._loss.zero_()

    def _state_tensors(self) -> list[Tensor]:
        return [state[name] for state in self._optimizer.state.values() for name in STATE]

    def _capture_accumulate(
        self, graphs: Graphs, tokens: int
    ) -> tuple[PackShape, Tensor, Callable[[], None]]:
        rows = self._size or self._course.config.batch_size
        longest = max(row.length for row in self._course.rows)
        shape = PackShape(tokens, rows, longest)
        some = self._fast.to_device([_shortest(self._course.rows)], shape, 1)
        return shape, some, graphs.capture(lambda: self._add(some, shape))

    # ------------------------------------------------------------ what a graph does

    def _add(self, vector: Tensor, shape: PackShape) -> None:
        """Add loss and gradient of a micro-batch."""
        packed = view(vector, shape)
        logits = self._fast.logits(packed, shape.longest)
        losses = functional.cross_entropy(logits, packed.targets.long(), reduction="none")
        loss = (losses * packed.real).sum() / packed.of[0]
        self._adapter.add_gradient(loss)
        self._loss.add_(loss.detach())

    def _update(self) -> None:
        """The optimizer's step on what was added, and a clean slate for the next."""
        norm = self._adapter.clip(self._course.config.max_grad_norm)
        self._optimizer.step()
        self._adapter.refresh()
        self._figures[0].copy_(self._loss)
        self._figures[1].copy_(norm)
        self._adapter.gradient.zero_()
        self._loss.zero_()

    # ------------------------------------------------------------ steps

    def _launch(self, rows: Sequence[Encoded], began: Any) -> _Launched:
        for part in self._course.micro_batches(rows, self._size):
            tokens = sum(row.length for row in part)
            size = next(count for count in self.token_counts if count >= rounded(tokens))
            shape, static, replay = self._accumulate[size]
            static.copy_(self._fast.to_device(part, shape, len(rows)), non_blocking=True)
            replay()
        rate = self._course.rate(self._step)
        self._rate.fill_(rate)
        self._replay_update()
        self._step += 1
        figures = torch.empty(2, pin_memory=self._loaded.device.type == "cuda")
        figures.copy_(self._figures, non_blocking=True)
        return _Launched(self._step, rate, len(rows), figures, began, self._mark())

    def _mark(self) -> Any:
        """A moment of the device's time."""
        if self._loaded.device.type != "cuda":
            return _HostMoment(time.monotonic())
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _is_done(self, launched: _Launched) -> bool:
        return bool(launched.done.query())

    def _known(self, epoch: int, launched: _Launched) -> TrainStep:
        launched.done.synchronize()
        loss, norm = launched.figures.tolist()
        check_step(epoch, launched.step, loss, norm)
        duration_s = launched.began.elapsed_time(launched.done) / 1000
        return TrainStep(
            epoch, launched.step, loss, norm, launched.rate, launched.examples, duration_s
        )


def _shortest(rows: Sequence[Encoded]) -> Encoded:
    """A row that fits into every pack."""
    return min(rows, key=lambda row: row.length)
