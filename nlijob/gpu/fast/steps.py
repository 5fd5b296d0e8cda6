"""An optimizer step as CUDA graphs: one launch per micro-batch and one for the update.

Nothing in a step waits for the device. On a CPU nothing is captured, and work runs at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.analysis.wording import percent
from nlijob.gpu.fast.agreement import relative_difference
from nlijob.gpu.fast.compiled import CompiledLayers
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.model import FastModel, has_types
from nlijob.gpu.fast.packing import PackShape, usual_longest, view
from nlijob.gpu.group import Group
from nlijob.gpu.heads import Encoded
from nlijob.gpu.heads.rows import lengths_of, shortest_of
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.out_of_memory import free_memory
from nlijob.gpu.shares import Share
from nlijob.gpu.training import TrainingSchedule, loss_scaler, reason
from nlijob.memory import is_out_of_memory

MOMENTS = ("exp_avg", "exp_avg_sq")
MAX_GRADIENT_DIFFERENCE = {torch.bfloat16: 0.2, torch.float16: 0.2, torch.float32: 1e-2}
"""Largest accepted relative difference of the gradient with compiled layers. Rounding causes less,
and the gradient of one missing layer more."""
TIMED = 5
"""Number of launches by which a graph is timed."""
Pack = tuple[Sequence[Encoded], int]
"""Rows, and the size in tokens of the pack that they are computed in."""
_Captured = tuple[PackShape, Tensor, Callable[[], None]]
"""A pack's shape, the tensor that it is read from, and the launch of its loss and gradient."""


@dataclass(frozen=True)
class _HostEvent:
    """The counterpart of a CUDA event on a CPU, where work is done when it returns."""

    at_s: float

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: _HostEvent) -> float:
        return (later.at_s - self.at_s) * 1000


class Steps:
    """Loss, gradient and update of a fast model.

    `capture` and then `capture_update` must be called first.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        fast: FastModel,
        schedule: TrainingSchedule,
        rows: int,
        prefix: int,
        group: Group,
    ) -> None:
        """`rows`: rows in a pack. `prefix`: tokens that all rows share and a pack holds once.

        `group`: the processes that share each step.
        """
        self._loaded = loaded
        self._fast = fast
        self._schedule = schedule
        self._rows = rows
        self._prefix = prefix
        self._group = group
        self._adapter = fast.adapter
        self.captures = loaded.device.type == "cuda"
        """Whether steps are captured as graphs."""
        device = loaded.device
        self._rate = torch.zeros((), device=device)
        self._figures = torch.zeros(3, device=device)
        self._one = torch.ones((), device=device)
        self._optimizer = torch.optim.AdamW(
            [self._adapter.flat],
            lr=self._rate,
            weight_decay=schedule.config.weight_decay,
            fused=True,
            capturable=self.captures,
        )
        # captured as well: its scale is on the device, and is read nowhere else
        self._scaler = loss_scaler(loaded)
        lengths = lengths_of(schedule.rows)
        self._longest = int(lengths.max())
        self._has_kernels = self.captures and fast.is_fused
        """Whether kernels of this project compute attention: they take longer for all rows if one
        may be long, and skip filling."""
        self._usual = usual_longest(lengths, rows) if self._has_kernels else self._longest
        """Tokens of the longest row in all packs but `_long`."""
        self._has_types = has_types(schedule.rows)
        self._graphs = self._new_graphs()
        self._packs: dict[int, _Captured] = {}
        self._long: _Captured | None = None
        """The largest pack, for micro-batches with a longer row than usual."""
        self.is_compiled = False
        """Whether layers are compiled with torch.compile."""
        self.why_not_compiled = ""
        """Why layers that could be compiled are not, or ""."""

    def capture(self, sizes: Sequence[int], training_tokens: int, compiles: bool | None) -> None:
        """Capture micro-batches in packs of these sizes (tokens, ascending).

        `training_tokens`: tokens of the whole training. `compiles`: whether to compile layers that
        support it; None compiles where it pays off. Capturing runs the work but leaves no effect.
        Nothing is exchanged with other processes, as this may fail in one of them alone.
        Raises torch.OutOfMemoryError, or RuntimeError where the step cannot be captured.
        """
        self._loaded.model.train()
        self._scaler.scale(self._one)  # creates the scaler's state
        self._first_scale = self._scaler.state_dict()
        self._update_alone()  # creates the optimizer's state
        self._capture_packs(sizes, training_tokens, compiles)

    def capture_update(self) -> None:
        """Capture the update, which all processes of the group do together. Raises as `capture`.

        This leaves no effect: at a learning rate of 0 and without a gradient, an update changes no
        weight.
        """
        self._replay_update = self._graphs.capture(self._update, exchanges=self._group.is_shared)
        self._state["step"].zero_()
        self._scaler.load_state_dict(self._first_scale)

    def begin(self, schedule: TrainingSchedule, sizes: Sequence[int]) -> None:
        """Begin another training, in packs of these sizes; those that exist are not captured again.

        `schedule` has the same rows. Tensors change in place, as graphs refer to them. Raises as
        `capture` does.
        """
        self._schedule = schedule
        self._loaded.model.train()
        self._fast.seed(schedule.config.seed)
        packs = self._packs
        if self._long and max(sizes) > max(packs):
            self._long = self._capture_pack(max(sizes), self._longest)
        self._packs = {
            size: packs.get(size) or self._capture_pack(size, self._usual) for size in sizes
        }
        self._start()

    def _start(self) -> None:
        """Be as before the first step."""
        self._clear_gradient()
        for name in (*MOMENTS, "step"):
            self._state[name].zero_()
        self._scaler.load_state_dict(self._first_scale)

    def recapture(self, sizes: Sequence[int], training_tokens: int, compiles: bool) -> bool:
        """Replace the captured packs by packs of these sizes, in the same memory pool.

        Returns whether that succeeded; if not, the packs from before remain in use.
        """
        before = self._packs, self._long, self.is_compiled, self.why_not_compiled
        try:
            self._loaded.model.train()
            self._capture_packs(sizes, training_tokens, compiles)
        except (Unsupported, RuntimeError):  # out of memory is a RuntimeError
            self._packs, self._long, self.is_compiled, self.why_not_compiled = before
        else:
            return True
        free_memory()  # only now: the error kept the memory of its frames alive
        self._clear_gradient()
        if self._fast.compilable:
            self._fast.compilable.undo()
            if self.is_compiled:
                self._fast.compilable.install()
        return False

    def _capture_packs(
        self, sizes: Sequence[int], training_tokens: int, compiles: bool | None
    ) -> None:
        # the two generators of a recomputed layer must start alike
        self._fast.seed(self._schedule.config.seed)
        if self._fast.compilable:
            self._fast.compilable.undo()
        self.is_compiled, self.why_not_compiled = False, ""
        self._packs, self._long = {}, None
        # the largest first: the others then fit into its memory
        largest, *others = reversed(sizes)
        if self._usual < self._longest:
            self._long = self._capture_pack(largest, self._longest)
        self._packs[largest] = self._capture_pack(largest, self._usual)
        if self._fast.compilable and (self.captures if compiles is None else compiles):
            whole = None if compiles else training_tokens / largest
            self._compile(self._fast.compilable, largest, whole)
        for tokens in others:
            self._packs[tokens] = self._capture_pack(tokens, self._usual)
        self._clear_gradient()

    def _clear_gradient(self) -> None:
        self._adapter.sums.zero_()

    def pack_size(self, tokens: int) -> int:
        """Tokens of the pack that holds a micro-batch of this many tokens."""
        return min(size for size in self._packs if size >= tokens)

    def add(self, share: Share, size: int, batch_rows: int) -> None:
        """Launch loss and gradient of a share in a pack of this size (see `pack_size`).

        `batch_rows`: rows in the effective batch that it belongs to.
        """
        shape, static, replay = self._pack_of(share.own, size)
        vector = self._fast.to_device(share.own, shape, batch_rows, share.places)
        static.copy_(vector, non_blocking=True)
        replay()

    def _pack_of(self, rows: Sequence[Encoded], size: int) -> _Captured:
        """The pack that computes these rows, for which one of this size is large enough."""
        is_long = self._most(rows) > self._usual
        return self._long if self._long and is_long else self._packs[size]

    def _most(self, rows: Sequence[Encoded]) -> int:
        """Tokens that rows may have in the pack that computes these."""
        return self._usual if max(row.length for row in rows) <= self._usual else self._longest

    def draw(self, rows: Sequence[Encoded], tokens: int) -> None:
        """Compute a micro-batch without any effect but that dropout has drawn for it, on a CPU."""
        shape = self._shape(tokens, self._longest)
        with torch.no_grad():
            self._fast.logits(view(self._fast.to_device(rows, shape, len(rows)), shape), shape)

    def update(self, rate: float) -> Tensor:
        """Launch the optimizer's step with the gradients added so far in all processes.

        Returns [3] in host memory: loss, gradient norm and loss scale. They are valid once an
        `event` recorded after this call has completed.
        """
        self._rate.fill_(rate)
        self._replay_update()
        figures = torch.empty(3, pin_memory=self.captures)
        return figures.copy_(self._figures, non_blocking=True)

    def event(self) -> Any:
        """Record an event on the device's stream; on a CPU, an object with the same methods."""
        if not self.captures:
            return _HostEvent(time.monotonic())
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def state(self) -> dict[str, Any]:
        """The state for `restore`; the plain loop's optimizer can continue from it too."""
        step = self._state["step"]
        return {
            "optimizer": {
                n: {**parts, "step": step.clone()} for n, parts in self._moments().items()
            },
            "scaler": self._scaler.state_dict(),
            "is_compiled": self.is_compiled,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state, changing tensors in place: graphs refer to their addresses."""
        with torch.no_grad():
            for number, moments in self._moments().items():
                for name, values in moments.items():
                    values.copy_(state["optimizer"][number][name])
            self._state["step"].copy_(state["optimizer"][0]["step"])
        if state["scaler"]:  # empty where the run began on a GPU that needed no scaling
            self._scaler.load_state_dict(state["scaler"])

    @property
    def _state(self) -> dict[str, Tensor]:
        """The optimizer's state of the one parameter that holds all weights."""
        state: dict[str, Tensor] = self._optimizer.state[self._adapter.flat]
        return state

    def _moments(self) -> dict[int, dict[str, Tensor]]:
        """The optimizer's moments by the number of the parameter in the model.

        The plain loop numbers them in the same way, so each can continue from the other's state.
        """
        parts = {name: self._adapter.parts(self._state[name]) for name in MOMENTS}
        place = {id(parameter): i for i, parameter in enumerate(self._adapter.parameters)}
        trained = [p for p in self._loaded.model.parameters() if p.requires_grad]
        return {
            number: {name: parts[name][place[id(parameter)]] for name in MOMENTS}
            for number, parameter in enumerate(trained)
        }

    # ------------------------------------------------------------ capture

    def _new_graphs(self) -> Graphs:
        return Graphs(self._loaded.device, self._fast.generators, self._group.is_shared)

    def _shape(self, tokens: int, longest: int) -> PackShape:
        kind = self._fast.is_bidirectional, self._has_types
        given = (tokens, self._rows, longest, self._prefix, *kind)
        return PackShape(*given, fills_apart=self._has_kernels)

    def _capture_pack(self, tokens: int, longest: int, graphs: Graphs | None = None) -> _Captured:
        """Capture a pack of this size, for rows of at most `longest` tokens."""
        shape = self._shape(tokens, longest)
        shortest = shortest_of(self._schedule.rows)  # fits into every pack
        example = self._fast.to_device([shortest], shape, 1)
        capture = (graphs or self._graphs).capture
        return shape, example, capture(lambda: self._add(example, shape))

    def _compile(self, layers: CompiledLayers, tokens: int, times: float | None) -> None:
        """Capture the largest pack again with compiled layers, and use them if that is faster.

        `times`: how often the whole training computes such a pack, which decides whether compiling
        pays off; None compiles in any case.
        """
        expected, own_s = self._gradient(tokens)
        self.why_not_compiled = "" if times is None else layers.why_not_worth_it(times * own_s)
        if self.why_not_compiled:
            return
        try:
            layers.install()
            self._packs[tokens] = self._capture_pack(tokens, self._longest)
            got, compiled_s = self._gradient(tokens)
            self._check_compiled(expected, got)
            if compiled_s > own_s and times is not None:
                raise Unsupported(f"a step takes {compiled_s:.4f} s, and {own_s:.4f} s without")
        except Exception as error:  # a compiler can fail with any kind of error
            # torch's compiler wraps the original error in one of its own
            self.why_not_compiled = reason(getattr(error, "inner_exception", error))
        else:
            layers.mark_cached()
            self.is_compiled = True
            return
        layers.undo()
        del self._packs[tokens]
        self._graphs = self._new_graphs()
        self._packs[tokens] = self._capture_pack(tokens, self._longest)

    def _check_compiled(self, expected: Tensor, got: Tensor) -> None:
        """Raise Unsupported where compiled layers give another gradient."""
        difference = relative_difference(got, expected)
        if not difference <= MAX_GRADIENT_DIFFERENCE[self._loaded.compute_dtype]:
            raise Unsupported(
                f"gradients differ from those of uncompiled layers by {percent(difference)}"
            )

    def _gradient(self, tokens: int) -> tuple[Tensor, float]:
        """The first micro-batch's gradient in a pack of this size, and its time in seconds.

        The time is the shortest of a few launches.
        """
        shape, static, replay = self._packs[tokens]
        rows = next(iter(self._schedule.batches(1)))
        part = next(iter(self._schedule.micro_batches(rows, self._rows)))
        static.copy_(self._fast.to_device(part, shape, len(part)))
        seconds = []
        for _ in range(TIMED):
            self._fast.seed(self._schedule.config.seed)
            self._adapter.gradient.zero_()
            began = self.event()
            replay()
            done = self.event()
            done.synchronize()
            seconds.append(began.elapsed_time(done) / 1000)
        return self._adapter.gradient.clone(), min(seconds)

    # ------------------------------------------------------------ timing

    def seconds(self, packs: Sequence[Pack]) -> float:
        """Time of a step in these packs, with the update of the whole group, in which all do this.

        It has no effect; no step may have been done yet.
        """
        captured = [self._pack_of(rows, size) for rows, size in packs]
        return self._timed(packs, captured, self._replay_update)

    def seconds_alone(self, packs: Sequence[Pack]) -> float | None:
        """Time of such a step without the other processes, or None where memory does not suffice.

        The packs are captured for this only.
        """
        try:
            graphs = self._new_graphs()
            needed = [(size, self._most(rows)) for rows, size in packs]
            made = {one: self._capture_pack(*one, graphs) for one in dict.fromkeys(needed)}
            captured = [made[one] for one in needed]
            return self._timed(packs, captured, graphs.capture(self._update_alone))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        free_memory()  # only now: the error kept the memory of its frames alive
        self._start()
        return None

    def _timed(
        self, packs: Sequence[Pack], captured: Sequence[_Captured], update: Callable[[], None]
    ) -> float:
        self._rate.zero_()  # as in `capture`
        vectors = [
            self._fast.to_device(rows, shape, len(rows))
            for (rows, _), (shape, *_) in zip(packs, captured, strict=True)
        ]
        seconds = []
        for _ in range(2):
            began = self.event()
            for _ in range(TIMED):
                for vector, (_, static, replay) in zip(vectors, captured, strict=True):
                    static.copy_(vector)
                    replay()
                self._clear_gradient()
                update()
            done = self.event()
            done.synchronize()
            seconds.append(began.elapsed_time(done) / 1000 / TIMED)
        self._start()
        return float(min(seconds))

    # ------------------------------------------------------------ captured work

    def _add(self, vector: Tensor, shape: PackShape) -> None:
        """Add a micro-batch's loss and gradient; `vector` is its pack."""
        packed = view(vector, shape)
        logits = self._fast.logits(packed, shape)
        losses = functional.cross_entropy(logits, packed.targets.long(), reduction="none")
        loss = (losses * packed.is_row).sum() / packed.batch_rows[0]
        self._adapter.add_gradient(self._scaler.scale(loss))
        self._adapter.loss.add_(loss.detach())

    def _update(self) -> None:
        """Do the optimizer's step with the gradients added so far in all processes."""
        self._group.sum(self._adapter.sums)
        self._update_alone()

    def _update_alone(self) -> None:
        """Do the optimizer's step with the gradients in the adapter's buffer, and clear them."""
        self._scaler.unscale_(self._optimizer)
        norm = self._adapter.clip(self._schedule.config.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._adapter.refresh()
        self._fast.next_step()
        self._figures[0].copy_(self._adapter.loss)
        self._figures[1].copy_(norm)
        self._figures[2].copy_(self._scaler.scale(self._one))
        self._clear_gradient()
