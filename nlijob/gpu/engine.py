"""Decides how the job computes: the fastest way that serves the model, the machine and its memory.

    packed rows and CUDA graphs, weights dequantised once  ->  the same on 4-bit weights
    ->  and each layer computed again for its gradient  ->  and fewer rows at once  ->  plain

On a CPU the same without graphs, and the plain way with its weights dequantised where they fit.

Each is tried where nothing known speaks against it, and checked against the plain way's logits
before it is used. Where one fails, the next serves, with the same effective batch. The plain way
takes less memory by the same two steps, in the middle of training (`Footprint`).
train.gradient_checkpointing asks for the leanest at once.
"""

from __future__ import annotations

import functools
import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlijob.config import JobConfig, TrainConfig
from nlijob.errors import ConfigurationError
from nlijob.gpu.fast.agreement import relative_difference
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.host import ease, free_bytes
from nlijob.gpu.fast.layers import dense_bytes
from nlijob.gpu.fast.model import FastModel, check_features
from nlijob.gpu.fast.trainer import GraphTrainer
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import GIB, LoadedModel
from nlijob.gpu.shortage import in_halves, ran_out
from nlijob.gpu.training import Course, Footprint, PlainTrainer, Trainer, reason
from nlijob.records import Plan

CHECKED_ROWS = 8
SERVES = "the fastest way that serves this model, this machine and its free memory"
MOST_DIFFERENCE = {torch.bfloat16: 3e-2, torch.float16: 1e-2, torch.float32: 1e-3}
"""Norm of the difference to the plain way's logits over their norm that is taken for rounding."""
MOST_ROUNDINGS = 2
"""So many times as much as the plain way differs from itself may it be in any case."""
SPARE_BYTES = 2 * GIB
"""Left free for activations and graphs when memory for dequantised weights is counted."""
LEAN_SCORED_TOKENS = 2048
"""Tokens scored at once where little memory is to be taken; a GPU is busy with fewer."""

Forward = Callable[[Sequence[Encoded]], Tensor]
"""Rows -> their logits [rows, classes] in float32 on the device; keeps no gradient."""


@dataclass(frozen=True)
class Way:
    """One way to compute."""

    graphs: bool
    """Steps as CUDA graphs; else launched one operation after the other."""
    rows: int
    """Rows in a pack."""
    dense: bool = False
    """Keep the base weights dequantised."""
    recomputes: bool = False
    """Compute each layer again for its gradient."""

    @property
    def name(self) -> str:
        """For the record."""
        steps = "graphs" if self.graphs else "packed rows"
        weights = "weights dequantised" if self.dense else "weights as loaded"
        again = ", layers computed again" if self.recomputes else ""
        return f"{steps}, {weights}{again}, {self.rows} at once"


class Engine:
    """Scores and trains one loaded model in the way that was chosen for it."""

    def __init__(
        self, loaded: LoadedModel, head: Head, config: JobConfig, rows: Sequence[Encoded]
    ) -> None:
        """`rows`: those of training, by which ways are chosen and checked.

        Raises ConfigurationError where train.speed asks for graphs and they do not serve.
        """
        self._loaded = loaded
        self._head = head
        self._config = config
        self._rows = rows
        self._refused: list[str] = []
        self._warm_up_s = 0.0
        self._difference: float | None = None
        self._graphs: GraphTrainer | None = None
        self._fast: FastModel | None = None
        self._plain_is_dense = False
        self._footprint = Footprint(loaded.model, config.train)
        self._reason = self._against_speed()
        graphs = loaded.device.type == "cuda"
        self._ways = [] if self._reason else list(ways(config.train, len(rows), graphs))
        self._next_way()

    def plan(self) -> Plan:
        """What was chosen, and why."""
        held = self._held
        dense = self._way.dense if self._fast else self._plain_is_dense
        return Plan(
            way="plain" if not self._fast else "graph" if self._way.graphs else "packed",
            reason=self._reason or SERVES,
            base_weights="dequantized" if dense else "as loaded",
            micro_batch_size=min(held.rows, len(self._rows)),
            refused=(*self._refused, *self._not_compiled(), *self._footprint.refused),
            logits_difference=self._difference,
            token_counts=self._graphs.token_counts if self._graphs else (),
            shared_prefix=self._graphs.prefix if self._graphs else 0,
            warm_up_s=self._warm_up_s,
            activations="recomputed" if held.recomputes else "kept",
            layers="compiled" if self._graphs and self._graphs.steps.is_compiled else "as loaded",
        )

    def forward(self, head: Head | None = None) -> Forward:
        """The model as it is now, for scoring; `head`: for rows of another than the job's own."""
        self._loaded.model.eval()
        forward: Forward = functools.partial(self._plain_logits, head or self._head)
        if self._fast:
            self._fast.adapter.refresh()
            forward = self._fast.score_rows
        lean = self._held.recomputes
        return halving(bounded(forward, LEAN_SCORED_TOKENS) if lean else forward)

    def trainer(self) -> Trainer:
        """A trainer of the adapter, ready for its first step."""
        course = Course(self._config.train, self._rows)
        started = time.monotonic()
        while self._fast:
            try:
                self._graphs = GraphTrainer(self._loaded, self._fast, course, self._way.rows)
                self._warm_up_s += time.monotonic() - started
                return self._graphs
            except (NotServed, RuntimeError) as error:  # out of memory is a RuntimeError
                self._refuse(error)
            self._next_way()  # not before the error is gone, and with it the memory it holds
        return PlainTrainer(self._loaded, self._head, course, self._footprint)

    @property
    def _held(self) -> Way | Footprint:
        """What training holds in memory at once."""
        return self._way if self._fast else self._footprint

    # ------------------------------------------------------------ choice

    def _against_speed(self) -> str:
        """What is known to keep faster ways from serving, or ""."""
        if self._config.train.speed == "plain":
            return "train.speed asks for it"
        if self._loaded.device.type != "cuda" and self._config.train.speed == "graph":
            return self._unserved("CUDA graphs need an NVIDIA GPU")
        return ""

    def _not_compiled(self) -> list[str]:
        """Why the way's layers are not compiled, where they could be."""
        why = self._graphs.steps.not_compiled if self._graphs else ""
        return [f"{self._way.name}, layers compiled: {why}"] if why else []

    def _next_way(self) -> None:
        """Take the first way left that serves; none takes the plain one."""
        started = time.monotonic()
        plain = torch.empty(0)
        checked = self._rows[:CHECKED_ROWS]
        if self._ways:
            plain = halving(functools.partial(self._plain_logits, self._head))(checked)
        while self._ways and not self._fast:
            if self._refused:
                self._release()
            self._way = self._ways.pop(0)
            try:
                self._take(plain)
            except (NotServed, RuntimeError, TypeError, ValueError) as error:
                self._refuse(error)
        self._warm_up_s += time.monotonic() - started
        if not self._fast and not self._reason:
            self._release()
            self._reason = self._unserved("no faster way serves")
            if self._loaded.device.type == "cpu":
                self._ease_plain()

    def _take(self, plain: Tensor) -> None:
        check_features(self._rows)
        if self._way.dense:
            self._check_memory()
        self._fast = self._new_fast()
        if self._fast.refused:
            self._refused.append(f"{self._way.name}, layers as one: {self._fast.refused}")
        self._loaded.model.eval()
        logits = self._fast.score_rows(self._rows[:CHECKED_ROWS])
        self._difference = relative_difference(logits, plain)
        if not self._difference <= MOST_DIFFERENCE[self._loaded.compute_dtype]:
            self._fast.close()
            self._check_rounding(self._difference, plain)
            self._fast = self._new_fast()

    def _new_fast(self) -> FastModel:
        return FastModel(self._loaded, self._head, self._way.dense, self._way.recomputes)

    def _check_rounding(self, difference: float, plain: Tensor) -> None:
        """Raise NotServed where rounding does not explain a difference to the plain way's logits.

        Deep models round more: as the plain way itself does, where each row is by itself.
        """
        alone = [self._plain_logits(self._head, [row]) for row in self._rows[: len(plain)]]
        rounding = relative_difference(torch.cat(alone), plain)
        if not difference <= MOST_ROUNDINGS * rounding:
            raise NotServed(
                f"logits differ from the plain way's by {difference:.1%}, which by itself differs "
                f"by {rounding:.1%} from rows one at a time"
            )

    def _ease_plain(self) -> None:
        """Have the plain way do without what takes a CPU longest."""
        try:
            self._check_memory()
            self._plain_is_dense = True
        except NotServed as error:
            self._refused.append(f"plain, weights dequantised: {error}")
        ease(self._loaded.model, self._plain_is_dense)

    def _check_memory(self) -> None:
        needed = dense_bytes(self._loaded.model, self._loaded.compute_dtype)
        free = free_bytes(self._loaded.device)
        if needed + SPARE_BYTES > free:
            raise NotServed(
                f"the weights take {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free"
            )

    def _refuse(self, error: Exception) -> None:
        """Give the way in use up, and remember why."""
        self._refused.append(f"{self._way.name}: {reason(error)}")
        if self._way.recomputes and not ran_out(error):
            self._ways.clear()  # the same with fewer rows would meet the same
        if self._fast:
            self._fast.close()
        self._fast, self._difference = None, None

    def _release(self) -> None:
        """Give back what a refused way held."""
        gc.collect()
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()

    def _unserved(self, reason: str) -> str:
        """The reason for the plain way; an error where the configuration rules it out."""
        if self._config.train.speed == "graph":
            raise ConfigurationError(
                f"train.speed: graph is asked for, and {'; '.join([*self._refused, reason])}",
                "train.speed='auto' takes the fastest way that serves",
            )
        return reason

    @torch.no_grad()
    def _plain_logits(self, head: Head, rows: Sequence[Encoded]) -> Tensor:
        self._loaded.model.eval()
        return head.logits(self._loaded.model, head.collate(rows, self._loaded.device))


def ways(train: TrainConfig, rows: int, graphs: bool) -> Iterator[Way]:
    """Those on packed rows, the fastest first and the leanest last; `rows`: those there are."""
    size = min(train.micro_batch_size or train.batch_size, rows)
    if not train.gradient_checkpointing:
        yield Way(graphs, size, dense=True)
        yield Way(graphs, size)
    yield Way(graphs, size, recomputes=True)
    while size > 1:
        size = math.ceil(size / 2)
        yield Way(graphs, size, recomputes=True)


def bounded(forward: Forward, tokens: int) -> Forward:
    """The same, which takes a batch in parts of no more tokens; a longer row goes alone."""

    def in_parts(rows: Sequence[Encoded]) -> Tensor:
        size = max(1, tokens // max(row.length for row in rows))
        parts = [forward(rows[i : i + size]) for i in range(0, len(rows), size)]
        return torch.cat(parts)

    return in_parts


def halving(forward: Forward) -> Forward:
    """The same, which takes a batch in halves where it does not fit into memory."""
    return lambda rows: torch.cat(in_halves(forward, rows))
