"""The plain loop's steps as CUDA graphs: a launch a micro-batch, one for the update.

Nothing in a step waits for the device. Loss and gradient norm of a step come back when they are
there, a few steps late; a step that went wrong is named all the same, and ends the training.
On a CPU nothing is captured: steps are done as they come, each on a pack of its own size.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast.compiled import CompiledLayers
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.model import FastModel, ids_of
from nlijob.gpu.fast.packing import (
    PackShape,
    packed_tokens,
    rounded,
    shared_prefix,
    token_counts,
    view,
)
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import SMALLEST_LOSS_SCALE, Course, check_step, loss_scaler, reason
from nlijob.records import TrainStep

MOST_UNKNOWN = 32
"""Steps that may be under way before the first of them is waited for."""
MOMENTS = ("exp_avg", "exp_avg_sq")
MOST_GRADIENT_DIFFERENCE = {torch.bfloat16: 0.2, torch.float16: 0.2, torch.float32: 1e-2}
"""Norm of the difference of compiled layers' gradient over its norm; a layer's that is missing is
more, rounding less."""
TIMED = 5
"""Times that a graph is launched to know what it takes."""
_Captured = tuple[PackShape, Tensor, Callable[[], None]]
"""A pack's shape, where it is read from, and the launch of loss and gradient."""


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
    """[3] in the host's memory: loss, gradient norm and loss scale, once `done` has come."""
    began: Any
    done: Any


class GraphTrainer:
    """Trains a fast model; everything is captured when it is made."""

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
        self._adapter = fast.adapter
        device = loaded.device
        self._rate = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)
        self._figures = torch.zeros(3, device=device)
        self._one = torch.ones((), device=device)
        self._optimizer = torch.optim.AdamW(
            [self._adapter.flat],
            lr=self._rate,
            weight_decay=course.config.weight_decay,
            fused=True,
            capturable=self._captures,
        )
        # captured with the rest: its scale lies on the device and is read nowhere else
        self._scaler = loss_scaler(loaded)
        self._step = 0
        self._longest = max(row.length for row in course.rows)
        self.prefix = shared_prefix([ids_of(row) for row in course.rows], self._size)
        """Tokens that all rows share and a pack holds once."""
        self.token_counts = self._token_counts()
        self.is_compiled = False
        """Whether layers are torch's compiler's."""
        self.not_compiled = ""
        """Why it did not, where it could have."""
        self._capture(compiles)

    def epoch(self, epoch: int) -> Iterator[TrainStep]:
        """See `nlijob.gpu.training.Trainer`."""
        self._loaded.model.train()
        self._adapter.refresh()
        self._fast.seed(self._course.seed(epoch))
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
        step = self._state["step"]
        moments = {n: {**of, "step": step.clone()} for n, of in self._moments().items()}
        return {
            "optimizer": moments,
            "scaler": self._scaler.state_dict(),
            "step": self._step,
            "token_counts": self.token_counts,
            "is_compiled": self.is_compiled,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `nlijob.gpu.training.Trainer`. In place: graphs know tensors by where they are."""
        counts = tuple(state.get("token_counts", ()))  # the plain loop has none
        compiles = bool(state.get("is_compiled"))
        before = (self.token_counts, self.is_compiled)
        if self._captures and counts and (counts, compiles) != before:
            self.token_counts = counts  # measured anew they may be others, which round otherwise
            self._capture(compiles)
        with torch.no_grad():
            for number, moments in self._moments().items():
                for name, values in moments.items():
                    values.copy_(state["optimizer"][number][name])
            self._state["step"].copy_(state["optimizer"][0]["step"])
        if state["scaler"]:  # none where the run began on a GPU that needed no scaling
            self._scaler.load_state_dict(state["scaler"])
        self._step = state["step"]

    @property
    def _state(self) -> dict[str, Tensor]:
        """The optimizer's, of all weights as one."""
        state: dict[str, Tensor] = self._optimizer.state[self._adapter.flat]
        return state

    def _moments(self) -> dict[int, dict[str, Tensor]]:
        """The optimizer's moments by the parameter's number in the model, as the plain loop has
        them: each can go on from the other's."""
        parts = {name: self._adapter.parts(self._state[name]) for name in MOMENTS}
        place = {id(parameter): i for i, parameter in enumerate(self._adapter.parameters)}
        trained = [p for p in self._loaded.model.parameters() if p.requires_grad]
        return {
            number: {name: parts[name][place[id(parameter)]] for name in MOMENTS}
            for number, parameter in enumerate(trained)
        }

    # ------------------------------------------------------------ capture

    def _token_counts(self) -> tuple[int, ...]:
        """The sizes of pack that the whole training is served with."""
        totals = [
            self._tokens(part)
            for epoch in range(1, self._course.config.epochs + 1)
            for rows in self._course.batches(epoch)
            for part in self._course.micro_batches(rows, self._size)
        ]
        self._all_tokens = sum(totals)
        if not self._captures:
            return token_counts(totals, graph_cost_tokens=0)
        return token_counts(totals, cost=self._fast.cost)

    @property
    def _captures(self) -> bool:
        return self._loaded.device.type == "cuda"

    def _tokens(self, rows: Sequence[Encoded]) -> int:
        return packed_tokens([row.length for row in rows], self.prefix)

    def _capture(self, compiles: bool | None) -> None:
        """Capture every step; `compiles` as in `__init__`.

        Captured work has run, and none of it stays: at a rate of 0 and without a gradient an update
        changes no weight. So no copies are needed to undo it.
        """
        self._loaded.model.train()
        self._fast.seed(self._course.config.seed)  # layers computed again draw in step from here
        self._scaler.scale(self._one)  # makes the scaler's state
        before = self._scaler.state_dict()
        self._update()  # makes the optimizer's state
        if self._fast.compilable:
            self._fast.compilable.undo()
        self.is_compiled, self.not_compiled = False, ""
        self._accumulate: dict[int, _Captured] = {}
        graphs = self._graphs()
        # the largest first: the others then fit into the memory that it took
        largest, *others = reversed(self.token_counts)
        self._accumulate[largest] = self._capture_accumulate(graphs, largest)
        if self._fast.compilable and (self._captures if compiles is None else compiles):
            graphs = self._compile(self._fast.compilable, graphs, largest, bool(compiles))
        for tokens in others:
            self._accumulate[tokens] = self._capture_accumulate(graphs, tokens)
        self._adapter.gradient.zero_()
        self._loss.zero_()
        self._replay_update = graphs.capture(self._update)
        self._state["step"].zero_()
        self._scaler.load_state_dict(before)

    def _graphs(self) -> Graphs:
        return Graphs(self._loaded.device, self._fast.generators)

    def _capture_accumulate(self, graphs: Graphs, tokens: int) -> _Captured:
        shape = PackShape(tokens, self._size, self._longest, self.prefix)
        some = self._fast.to_device([_shortest(self._course.rows)], shape, 1)
        return shape, some, graphs.capture(lambda: self._add(some, shape))

    def _compile(
        self, layers: CompiledLayers, graphs: Graphs, tokens: int, in_any_case: bool
    ) -> Graphs:
        """Capture the largest pack anew with compiled layers, where that serves and pays, the
        latter not asked `in_any_case`.

        Returns what the other sizes are captured by.
        """
        expected, layers_own_s = self._gradient(tokens)
        whole_s = layers_own_s * self._all_tokens / tokens
        self.not_compiled = "" if in_any_case else layers.speaks_against(whole_s)
        if self.not_compiled:
            return graphs
        try:
            layers.install()
            self._accumulate[tokens] = self._capture_accumulate(graphs, tokens)
            got, seconds = self._gradient(tokens)
            self._check_compiled(expected, got)
            if seconds > layers_own_s and not in_any_case:
                raise NotServed(f"{seconds:.4f} s a step, and {layers_own_s:.4f} s without")
        except Exception as error:  # there is no end to the kinds of what a compiler fails of
            # torch's compiler puts an error of its own around what it met
            self.not_compiled = reason(getattr(error, "inner_exception", error))
        else:
            layers.remember()
            self.is_compiled = True
            return graphs
        layers.undo()
        del self._accumulate[tokens]
        graphs = self._graphs()
        self._accumulate[tokens] = self._capture_accumulate(graphs, tokens)
        return graphs

    def _check_compiled(self, expected: Tensor, got: Tensor) -> None:
        """Raise NotServed where a gradient by compiled layers is not the layers' own."""
        difference = float((got - expected).norm() / expected.norm())
        if not difference <= MOST_GRADIENT_DIFFERENCE[self._loaded.compute_dtype]:
            raise NotServed(f"gradients differ from the layers' own by {difference:.1%}")

    def _gradient(self, tokens: int) -> tuple[Tensor, float]:
        """The first micro-batch's gradient, in a pack of this size, and the least seconds it takes
        of a few times."""
        shape, static, replay = self._accumulate[tokens]
        rows = next(iter(self._course.batches(1)))
        part = next(iter(self._course.micro_batches(rows, self._size)))
        static.copy_(self._fast.to_device(part, shape, len(part)))
        seconds = []
        for _ in range(TIMED):
            self._fast.seed(self._course.config.seed)
            self._adapter.gradient.zero_()
            began = self._mark()
            replay()
            done = self._mark()
            done.synchronize()
            seconds.append(began.elapsed_time(done) / 1000)
        return self._adapter.gradient.clone(), min(seconds)

    # ------------------------------------------------------------ what a graph does

    def _add(self, vector: Tensor, shape: PackShape) -> None:
        """Add loss and gradient of a micro-batch."""
        packed = view(vector, shape)
        logits = self._fast.logits(packed, shape)
        losses = functional.cross_entropy(logits, packed.targets.long(), reduction="none")
        loss = (losses * packed.real).sum() / packed.of[0]
        self._adapter.add_gradient(self._scaler.scale(loss))
        self._loss.add_(loss.detach())

    def _update(self) -> None:
        """The optimizer's step on what was added, and a clean slate for the next."""
        self._scaler.unscale_(self._optimizer)
        norm = self._adapter.clip(self._course.config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._adapter.refresh()
        self._figures[0].copy_(self._loss)
        self._figures[1].copy_(norm)
        self._figures[2].copy_(self._scaler.scale(self._one))
        self._adapter.gradient.zero_()
        self._loss.zero_()

    # ------------------------------------------------------------ steps

    def _launch(self, rows: Sequence[Encoded], began: Any) -> _Launched:
        for part in self._course.micro_batches(rows, self._size):
            tokens = rounded(self._tokens(part))
            size = next(count for count in self.token_counts if count >= tokens)
            shape, static, replay = self._accumulate[size]
            static.copy_(self._fast.to_device(part, shape, len(rows)), non_blocking=True)
            replay()
        rate = self._course.rate(self._step)
        self._rate.fill_(rate)
        self._replay_update()
        self._step += 1
        figures = torch.empty(3, pin_memory=self._captures)
        figures.copy_(self._figures, non_blocking=True)
        return _Launched(self._step, rate, len(rows), figures, began, self._mark())

    def _mark(self) -> Any:
        """A moment of the device's time."""
        if not self._captures:
            return _HostMoment(time.monotonic())
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _is_done(self, launched: _Launched) -> bool:
        return bool(launched.done.query())

    def _known(self, epoch: int, launched: _Launched) -> TrainStep:
        launched.done.synchronize()
        loss, norm, scale = launched.figures.tolist()
        check_step(epoch, launched.step, loss, norm, skipped=scale > SMALLEST_LOSS_SCALE)
        grad_norm = norm if math.isfinite(norm) else None
        duration_s = launched.began.elapsed_time(launched.done) / 1000
        return TrainStep(
            epoch, launched.step, loss, grad_norm, launched.rate, launched.examples, duration_s
        )


def _shortest(rows: Sequence[Encoded]) -> Encoded:
    """A row that fits into every pack."""
    return min(rows, key=lambda row: row.length)
