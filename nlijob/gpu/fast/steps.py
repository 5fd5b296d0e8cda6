"""An optimizer step as CUDA graphs: a launch a micro-batch, one for the update.

Nothing in a step waits for the device. On a CPU nothing is captured: the work is done as it comes.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast.agreement import relative_difference
from nlijob.gpu.fast.compiled import CompiledLayers
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import PackShape, view
from nlijob.gpu.heads import Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import Course, loss_scaler, reason

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


class Steps:
    """Loss, gradient and update of a fast model; `capture` comes before the rest."""

    def __init__(
        self, loaded: LoadedModel, fast: FastModel, course: Course, rows: int, prefix: int
    ) -> None:
        """`rows`: those of a pack. `prefix`: tokens that all begin with and a pack holds once."""
        self._loaded = loaded
        self._fast = fast
        self._course = course
        self._rows = rows
        self._prefix = prefix
        self._adapter = fast.adapter
        self.captures = loaded.device.type == "cuda"
        """Whether there are graphs."""
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
            capturable=self.captures,
        )
        # captured with the rest: its scale lies on the device and is read nowhere else
        self._scaler = loss_scaler(loaded)
        self._longest = max(row.length for row in course.rows)
        self._graphs = self._new_graphs()
        self._packs: dict[int, _Captured] = {}
        self.is_compiled = False
        """Whether layers are torch's compiler's."""
        self.not_compiled = ""
        """Why they are not, where they could be."""

    def capture(self, sizes: Sequence[int], in_all: int, compiles: bool | None) -> None:
        """Capture micro-batches in packs of these sizes (tokens, rising), and the update.

        `in_all`: tokens that the whole training has. `compiles`: have layers compiled where they
        can be, or None for where that pays. Captured work has run, and none of it stays: at a rate
        of 0 and without a gradient an update changes no weight. So no copies are needed to undo it.
        Raises torch.OutOfMemoryError, or RuntimeError where the step cannot be captured.
        """
        self._loaded.model.train()
        self._scaler.scale(self._one)  # makes the scaler's state
        before = self._scaler.state_dict()
        self._update()  # makes the optimizer's state
        self._capture_packs(sizes, in_all, compiles)
        self._replay_update = self._graphs.capture(self._update)
        self._state["step"].zero_()
        self._scaler.load_state_dict(before)

    def recapture(self, sizes: Sequence[int], in_all: int, compiles: bool) -> bool:
        """Capture packs of these sizes in place of those that there are, in the same memory.

        Returns whether they are captured; where that fails, those from before are still there.
        """
        before = self._packs, self.is_compiled, self.not_compiled
        try:
            self._loaded.model.train()
            self._capture_packs(sizes, in_all, compiles)
        except (NotServed, RuntimeError):  # out of memory is a RuntimeError
            self._packs, self.is_compiled, self.not_compiled = before
        else:
            return True
        gc.collect()  # not before the error is gone, and with it the memory it holds
        self._forget_gradient()
        if self._fast.compilable:
            self._fast.compilable.undo()
            if self.is_compiled:
                self._fast.compilable.install()
        return False

    def _capture_packs(self, sizes: Sequence[int], in_all: int, compiles: bool | None) -> None:
        self._fast.seed(self._course.config.seed)  # layers computed again draw in step from here
        if self._fast.compilable:
            self._fast.compilable.undo()
        self.is_compiled, self.not_compiled = False, ""
        self._packs = {}
        # the largest first: the others then fit into the memory that it took
        largest, *others = reversed(sizes)
        self._packs[largest] = self._capture_pack(largest)
        if self._fast.compilable and (self.captures if compiles is None else compiles):
            whole = None if compiles else in_all / largest
            self._compile(self._fast.compilable, largest, whole)
        for tokens in others:
            self._packs[tokens] = self._capture_pack(tokens)
        self._forget_gradient()

    def _forget_gradient(self) -> None:
        self._adapter.gradient.zero_()
        self._loss.zero_()

    def add(self, rows: Sequence[Encoded], tokens: int, of: int) -> None:
        """Launch loss and gradient of a micro-batch that takes so many tokens.

        `of`: rows of the effective batch that it is (a part of).
        """
        size = min(size for size in self._packs if size >= tokens)
        shape, static, replay = self._packs[size]
        static.copy_(self._fast.to_device(rows, shape, of), non_blocking=True)
        replay()

    def update(self, rate: float) -> Tensor:
        """Launch the optimizer's step on what was added.

        Returns [3] in the host's memory: loss, gradient norm and loss scale, once a `mark` that is
        made behind this has come.
        """
        self._rate.fill_(rate)
        self._replay_update()
        figures = torch.empty(3, pin_memory=self.captures)
        return figures.copy_(self._figures, non_blocking=True)

    def mark(self) -> Any:
        """A moment of the device's time: an event, or what can be asked the same on a CPU."""
        if not self.captures:
            return _HostMoment(time.monotonic())
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def state(self) -> dict[str, Any]:
        """What `restore` needs; the plain loop's optimizer can go on from it, too."""
        step = self._state["step"]
        return {
            "optimizer": {n: {**of, "step": step.clone()} for n, of in self._moments().items()},
            "scaler": self._scaler.state_dict(),
            "is_compiled": self.is_compiled,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, in place: graphs know tensors by where they are."""
        with torch.no_grad():
            for number, moments in self._moments().items():
                for name, values in moments.items():
                    values.copy_(state["optimizer"][number][name])
            self._state["step"].copy_(state["optimizer"][0]["step"])
        if state["scaler"]:  # none where the run began on a GPU that needed no scaling
            self._scaler.load_state_dict(state["scaler"])

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

    def _new_graphs(self) -> Graphs:
        return Graphs(self._loaded.device, self._fast.generators)

    def _capture_pack(self, tokens: int) -> _Captured:
        shape = PackShape(tokens, self._rows, self._longest, self._prefix)
        shortest = min(self._course.rows, key=lambda row: row.length)  # fits into every pack
        some = self._fast.to_device([shortest], shape, 1)
        return shape, some, self._graphs.capture(lambda: self._add(some, shape))

    def _compile(self, layers: CompiledLayers, tokens: int, times: float | None) -> None:
        """Capture the largest pack anew with compiled layers, where that serves.

        `times`: so often the whole training computes such a pack, by which it must pay; None: it
        need not.
        """
        expected, own_s = self._gradient(tokens)
        self.not_compiled = "" if times is None else layers.speaks_against(times * own_s)
        if self.not_compiled:
            return
        try:
            layers.install()
            self._packs[tokens] = self._capture_pack(tokens)
            got, compiled_s = self._gradient(tokens)
            self._check_compiled(expected, got)
            if compiled_s > own_s and times is not None:
                raise NotServed(f"{compiled_s:.4f} s a step, and {own_s:.4f} s without")
        except Exception as error:  # there is no end to the kinds of what a compiler fails of
            # torch's compiler puts an error of its own around what it met
            self.not_compiled = reason(getattr(error, "inner_exception", error))
        else:
            layers.remember()
            self.is_compiled = True
            return
        layers.undo()
        del self._packs[tokens]
        self._graphs = self._new_graphs()
        self._packs[tokens] = self._capture_pack(tokens)

    def _check_compiled(self, expected: Tensor, got: Tensor) -> None:
        """Raise NotServed where a gradient by compiled layers is not the layers' own."""
        difference = relative_difference(got, expected)
        if not difference <= MOST_GRADIENT_DIFFERENCE[self._loaded.compute_dtype]:
            raise NotServed(f"gradients differ from the layers' own by {difference:.1%}")

    def _gradient(self, tokens: int) -> tuple[Tensor, float]:
        """The first micro-batch's gradient, in a pack of this size, and the least seconds it takes
        of a few times."""
        shape, static, replay = self._packs[tokens]
        rows = next(iter(self._course.batches(1)))
        part = next(iter(self._course.micro_batches(rows, self._rows)))
        static.copy_(self._fast.to_device(part, shape, len(part)))
        seconds = []
        for _ in range(TIMED):
            self._fast.seed(self._course.config.seed)
            self._adapter.gradient.zero_()
            began = self.mark()
            replay()
            done = self.mark()
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
