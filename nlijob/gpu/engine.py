"""Decides how the job computes: the fastest way that serves the model, the machine and its memory.

    packed rows and CUDA graphs, weights dequantised once  ->  the same on 4-bit weights  ->  plain

On a CPU the same without graphs, and the plain way with its weights dequantised where they fit.

Each is tried where nothing known speaks against it, and checked against the plain way's logits
before it is used. Where one fails, the next serves, with the same effective batch.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlijob.config import JobConfig
from nlijob.errors import ConfigurationError
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.host import ease, free_bytes
from nlijob.gpu.fast.layers import dense_bytes
from nlijob.gpu.fast.model import FastModel, check_features
from nlijob.gpu.fast.trainer import GraphTrainer
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import GIB, LoadedModel
from nlijob.gpu.training import Course, PlainTrainer, Trainer
from nlijob.records import Plan

CHECKED_ROWS = 8
SERVES = "the fastest way that serves this model, this machine and its free memory"
SPARE_BYTES = 2 * GIB
"""Left free for activations and graphs when memory for dequantised weights is counted."""

Forward = Callable[[Sequence[Encoded]], Tensor]
"""Rows -> their logits [rows, classes] in float32 on the device; keeps no gradient."""


@dataclass(frozen=True)
class Way:
    """One way to compute."""

    graphs: bool
    """Steps as CUDA graphs; else launched one operation after the other."""
    dense: bool
    """Keep the base weights dequantised."""

    @property
    def name(self) -> str:
        """For the record."""
        steps = "graphs" if self.graphs else "packed rows"
        return f"{steps}, weights {'dequantised' if self.dense else 'as loaded'}"


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
        self._token_counts: tuple[int, ...] = ()
        self._fast: FastModel | None = None
        self._plain_is_dense = False
        self._reason = self._against_speed()
        graphs = loaded.device.type == "cuda"
        self._ways = [] if self._reason else [Way(graphs, dense=True), Way(graphs, dense=False)]
        self._next_way()

    def plan(self) -> Plan:
        """What was chosen, and why."""
        train = self._config.train
        dense = self._way.dense if self._fast else self._plain_is_dense
        return Plan(
            way="plain" if not self._fast else "graph" if self._way.graphs else "packed",
            reason=self._reason or SERVES,
            base_weights="dequantized" if dense else "as loaded",
            micro_batch_size=min(train.micro_batch_size or train.batch_size, len(self._rows)),
            refused=tuple(self._refused),
            logits_difference=self._difference,
            token_counts=self._token_counts,
            warm_up_s=self._warm_up_s,
        )

    def forward(self, head: Head | None = None) -> Forward:
        """The model as it is now, for scoring; `head`: for rows of another than the job's own."""
        self._loaded.model.eval()
        if self._fast:
            self._fast.adapter.refresh()
            return halving(self._fast.score_rows)
        return halving(functools.partial(self._plain_logits, head or self._head))

    def trainer(self) -> Trainer:
        """A trainer of the adapter, ready for its first step."""
        course = Course(self._config.train, self._rows)
        started = time.monotonic()
        while self._fast:
            try:
                trainer = GraphTrainer(
                    self._loaded, self._fast, course, self._config.train.micro_batch_size
                )
                self._token_counts = trainer.token_counts
                self._warm_up_s += time.monotonic() - started
                return trainer
            except (NotServed, RuntimeError) as error:  # out of memory is a RuntimeError
                self._refuse(error)
            self._next_way()  # not before the error is gone, and with it the memory it holds
        return PlainTrainer(self._loaded, self._head, course)

    # ------------------------------------------------------------ choice

    def _against_speed(self) -> str:
        """What is known to keep faster ways from serving, or ""."""
        if self._config.train.speed == "plain":
            return "train.speed asks for it"
        if self._loaded.device.type != "cuda" and self._config.train.speed == "graph":
            return self._unserved("CUDA graphs need an NVIDIA GPU")
        if self._loaded.compute_dtype is torch.float16:
            return self._unserved("float16 needs loss scaling, which finds its scale on the host")
        if self._config.train.gradient_checkpointing:
            return self._unserved("train.gradient_checkpointing asks for less memory")
        return ""

    def _next_way(self) -> None:
        """Take the first way left that serves; none takes the plain one."""
        started = time.monotonic()
        plain = torch.empty(0)
        if self._ways:
            plain = self._plain_logits(self._head, self._rows[:CHECKED_ROWS])
        while self._ways and not self._fast:
            self._way = self._ways.pop(0)
            try:
                self._take(plain)
            except (NotServed, RuntimeError, TypeError, ValueError) as error:
                self._refuse(error)
        self._warm_up_s += time.monotonic() - started
        if not self._fast and not self._reason:
            self._reason = self._unserved("no faster way serves")
            if self._loaded.device.type == "cpu":
                self._ease_plain()

    def _take(self, plain: Tensor) -> None:
        check_features(self._rows)
        if self._way.dense:
            self._check_memory()
        self._fast = FastModel(self._loaded, self._head, self._way.dense)
        self._difference = self._fast.check(self._rows[:CHECKED_ROWS], plain)

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
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._refused.append(f"{self._way.name}: {text}")
        if self._fast:
            self._fast.close()
        self._fast, self._difference = None, None
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


def halving(forward: Forward) -> Forward:
    """The same, which takes a batch in halves where it does not fit into memory."""

    def fitting(rows: Sequence[Encoded]) -> Tensor:
        try:
            return forward(rows)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        torch.cuda.empty_cache()
        middle = len(rows) // 2
        return torch.cat([fitting(rows[:middle]), fitting(rows[middle:])])

    return fitting
