"""Chooses the execution mode: the fastest that supports the model, the machine and its memory.

    packed rows and CUDA graphs, dequantised weights  ->  the same on 4-bit weights
    ->  with gradient checkpointing  ->  with a smaller micro-batch  ->  the plain loop

A CPU has the same modes without graphs, and its plain loop uses dequantised weights if they fit.

A mode is tried unless something known rules it out. Before it is used, its logits are checked
against the plain loop's, and rows must not influence each other. Where one fails, the next is
tried, with the same effective batch. The plain loop reduces its memory use by the same two steps,
even in the middle of training (`MemoryBudget`). train.gradient_checkpointing starts with the modes
that use the least memory.
"""

from __future__ import annotations

import functools
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nlijob.analysis.wording import percent
from nlijob.config import JobConfig, TrainConfig
from nlijob.errors import ConfigurationError, JobError, NotAvailableError, first_line
from nlijob.gpu.exact import in_float32
from nlijob.gpu.fast.agreement import relative_difference
from nlijob.gpu.fast.errors import NoPackedRows, Unsupported
from nlijob.gpu.fast.gradients import check_gradients
from nlijob.gpu.fast.host import free_bytes, speed_up_plain_layers
from nlijob.gpu.fast.independence import check_independence
from nlijob.gpu.fast.layers import LayerPatches, dequantized_bytes
from nlijob.gpu.fast.model import FastModel, check_features
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import Batch, Encoded, Head
from nlijob.gpu.influence import influenced, without_part
from nlijob.gpu.model import GIB, LoadedModel
from nlijob.gpu.out_of_memory import free_memory, in_halves
from nlijob.gpu.training import (
    MemoryBudget,
    PlainTrainer,
    Trainer,
    TrainingSchedule,
    execution_name,
    reason,
)
from nlijob.memory import is_out_of_memory
from nlijob.records.job import Plan

CHECKED_ROWS = 8
FASTEST = "the fastest mode that this model, this machine and its free memory support"
MAX_LOGITS_DIFFERENCE = {torch.bfloat16: 3e-2, torch.float16: 1e-2, torch.float32: 1e-3}
"""Largest relative difference to the plain loop's logits that passes as rounding."""
MAX_ROUNDING_RATIO = 1.5
"""A larger difference passes if these logits are at most this many times as far from those in
float32 as the plain loop's are."""
ROUNDING_EPSILONS = 64
"""Largest relative change of logits, in steps of the data type, that passes as a sum in another
order; some hundred sums follow each other."""
RESERVED_BYTES = 2 * GIB
"""Memory kept free for activations and graphs when the dequantised weights are placed."""
LEAST_KEPT_ROWS = 8
"""Rows of the smallest micro-batch that is tried with dequantised weights where a larger one needs
too much memory: it takes less time than computing all activations twice."""
LEAN_SCORED_TOKENS = 2048
"""Tokens scored at once where memory is to be saved; a GPU is busy with fewer."""

MIXED = "padding or other rows influence a row's answer; rows are computed one at a time"

Forward = Callable[[Sequence[Encoded]], Tensor]
"""Rows -> their logits [rows, classes] in float32 on the device, without gradients."""


@dataclass(frozen=True)
class ExecutionMode:
    """One of the faster ways to run a training step."""

    graphs: bool
    """Capture steps as CUDA graphs; otherwise run packed rows operation by operation."""
    rows: int
    """Rows in a micro-batch, which is one pack."""
    dense: bool = False
    """Keep the base weights dequantised."""
    recomputes: bool = False
    """Recompute activations in the backward pass (gradient checkpointing)."""

    @property
    def name(self) -> str:
        """The mode in words, for the plan."""
        steps = "CUDA graphs" if self.graphs else "packed rows"
        weights = "dequantised weights" if self.dense else "weights as loaded"
        return execution_name(f"{steps}, {weights}", self.recomputes, self.rows)


class Engine:
    """Scores and trains one loaded model in the execution mode chosen for it."""

    def __init__(
        self, loaded: LoadedModel, head: Head, config: JobConfig, rows: Sequence[Encoded]
    ) -> None:
        """`rows`: the training rows, which modes are chosen for and checked with.

        Raises ConfigurationError where train.speed requires graphs and they are unsupported.
        """
        self._loaded = loaded
        self._head = head
        self._config = config
        self._rows = rows
        self._refused: list[str] = []
        self._warm_up_s = 0.0
        self._difference: float | None = None
        self._trainer: FastTrainer | None = None
        self._group = ALONE
        """The processes that the trainer trains with."""
        self._fast: FastModel | None = None
        self._plain_is_dense = False
        self._plain_layers = LayerPatches()
        self._plain_mixes_rows = False
        self._budget = MemoryBudget(loaded.model, config.train)
        self._reason = self._why_not_faster()
        graphs = loaded.device.type == "cuda"
        self._modes = [] if self._reason else list(execution_modes(config.train, len(rows), graphs))
        self._next_mode()

    def close(self) -> None:
        """Restore the libraries' own layers, before the model gets another adapter.

        The engine and its trainers are void then.
        """
        self._budget.undo()
        self._plain_layers.undo()
        if self._fast:
            self._fast.close()
        self._fast, self._trainer = None, None

    def plan(self) -> Plan:
        """The chosen mode, and why it was chosen."""
        memory_use = self._memory_use
        dense = self._mode.dense if self._fast else self._plain_is_dense
        return Plan(
            way="plain" if not self._fast else "graph" if self._mode.graphs else "packed",
            reason=self._reason or FASTEST,
            base_weights="dequantized" if dense else "as loaded",
            micro_batch_size=min(memory_use.rows, len(self._rows)),
            refused=(
                *self._refused,
                *self._why_not_compiled(),
                *self._why_one_at_a_time(),
                *self._budget.refused,
            ),
            logits_difference=self._difference,
            token_counts=self._trainer.token_counts if self._trainer else (),
            shared_prefix=self._trainer.prefix if self._trainer else 0,
            warm_up_s=self._warm_up_s,
            activations="recomputed" if memory_use.recomputes else "kept",
            layers="compiled" if self._trainer and self._trainer.steps.is_compiled else "as loaded",
        )

    def forward(self, head: Head | None = None) -> Forward:
        """Scoring with the model as it is now; `head` replaces the job's own for other rows."""
        self._loaded.model.eval()
        forward: Forward = functools.partial(self._plain_logits, head or self._head)
        if self._plain_mixes_rows:
            return bounded(forward, 1)
        if self._fast:
            self._fast.adapter.refresh()
            forward = self._fast.score_rows
        lean = self._memory_use.recomputes
        return halving(bounded(forward, LEAN_SCORED_TOKENS) if lean else forward)

    def agree(self, group: Group) -> None:
        """Have all processes of a group take the same mode: the leanest that one of them needs.

        Memory may be scarce for one of them alone. All call this.
        """
        while len(left := set(group.gather(self._modes_left))) > 1:
            if self._modes_left > min(left):
                self._refuse(Unsupported("another process of the group does not support it"))
                self._next_mode()

    @property
    def _modes_left(self) -> int:
        """Number of modes that are leaner than the present one, with the plain loop."""
        return len(self._modes) + 1 if self._fast else 0

    def why_dropout_depends_on_processes(self) -> str:
        """Why processes that share steps drop other values than one process would, or ""."""
        return self._trainer.why_dropout_depends_on_processes() if self._trainer else ""

    def worth_sharing(self, trainer: Trainer, group: Group) -> tuple[Literal["steps", "none"], str]:
        """Whether the processes should share the rows of each step, and why; all call this.

        `trainer`: one that does, before its first step.
        """
        if self._loaded.device.type == "cpu":
            return "steps", "a step on a CPU takes as long as it has rows"
        if not isinstance(trainer, FastTrainer):
            return "none", "a step of the plain loop waits for its launches, not for its rows"
        times = trainer.step_times()
        if times.alone_s is None:
            return "steps", "a whole step does not fit into the memory of one GPU"
        measured = f"{times.shared_s * 1000:.1f} ms shared and {times.alone_s * 1000:.1f} ms alone"
        return "steps" if times.pays else "none", f"a step takes {measured}"

    def trainer(self, config: TrainConfig | None = None, group: Group = ALONE) -> Trainer:
        """A trainer for the adapter, before its first step.

        `config`: that of another training with the same shapes (see `nlijob.sweep.shape_of`); by
        default, the job's own. What was prepared for earlier trainings is used again, and their
        trainers are void. `group`: the processes that train together; all of them call this.
        """
        schedule = TrainingSchedule(config or self._config.train, self._rows)
        started = time.monotonic()
        while self._fast:
            try:
                if self._trainer and self._group is group:
                    self._warm_up_s = 0.0
                    self._trainer.begin(schedule)
                else:
                    self._trainer = None
                    self._trainer = self._new_trainer(self._fast, schedule, group)
                self._warm_up_s += time.monotonic() - started
                return self._trainer
            except (Unsupported, RuntimeError) as error:  # out of memory is a RuntimeError
                self._refuse(error)
            self._next_mode()  # only now: the error kept the memory of its frames alive
            self.agree(group)
        return PlainTrainer(self._loaded, self._head, schedule, self._budget, group)

    def _new_trainer(
        self, fast: FastModel, schedule: TrainingSchedule, group: Group
    ) -> FastTrainer:
        self._group = group
        return FastTrainer(self._loaded, fast, schedule, self._mode.rows, group=group)

    @property
    def _memory_use(self) -> ExecutionMode | MemoryBudget:
        """How much training holds in memory at once."""
        return self._mode if self._fast else self._budget

    # ------------------------------------------------------------ choosing

    def _why_not_faster(self) -> str:
        """What rules out every faster mode before any is tried, or ""."""
        if self._config.train.speed == "plain":
            return "train.speed=plain"
        if self._loaded.device.type != "cuda" and self._config.train.speed == "graph":
            return self._fall_back_to_plain("CUDA graphs need an NVIDIA GPU")
        return ""

    def _why_not_compiled(self) -> list[str]:
        """Why layers are not compiled, in a mode that could compile them."""
        why = self._trainer.steps.why_not_compiled if self._trainer else ""
        return [f"{self._mode.name}, compiled layers: {why}"] if why else []

    def _why_one_at_a_time(self) -> list[str]:
        """Why the plain loop computes each row alone, if it does."""
        return [f"plain loop, batches of rows: {MIXED}"] if self._plain_mixes_rows else []

    def _next_mode(self) -> None:
        """Take the next supported mode, or else the plain loop."""
        started = time.monotonic()
        plain = torch.empty(0)
        checked = self._rows[:CHECKED_ROWS]
        if self._modes:
            plain = halving(functools.partial(self._plain_logits, self._head))(checked)
        while self._modes and not self._fast:
            if self._refused:
                free_memory()
            self._mode = self._modes.pop(0)
            try:
                self._try_mode(plain)
            except JobError:
                raise
            except Exception as error:  # a model that was never tried may raise anything
                self._refuse(error)
        if not self._fast and not self._reason:
            free_memory()
            self._reason = self._fall_back_to_plain("no faster mode is supported")
            if self._loaded.device.type == "cpu":
                self._speed_up_plain()
        if not self._fast:
            self._check_adapter()
            self._check_padding()
        self._warm_up_s += time.monotonic() - started

    def _try_mode(self, plain: Tensor) -> None:
        check_features(self._rows)
        if self._mode.dense:
            self._check_dequantized_fits()
        self._fast = self._new_fast()
        if self._fast.refused:
            self._refused.append(f"{self._mode.name}, fused layers: {self._fast.refused}")
        self._loaded.model.eval()
        tolerance = MAX_LOGITS_DIFFERENCE[self._loaded.compute_dtype]
        rounding = ROUNDING_EPSILONS * torch.finfo(self._loaded.compute_dtype).eps
        check_independence(self._fast, self._rows[:CHECKED_ROWS], min(tolerance, rounding))
        self._check_training()
        logits = self._fast.score_rows(self._rows[:CHECKED_ROWS])
        self._difference = relative_difference(logits, plain)
        if not self._difference <= tolerance:
            self._fast.close()
            self._check_rounding(logits, plain)
            self._fast = self._new_fast()
        if self._fast.is_fused and self._loaded.device.type == "cuda":
            # only a GPU runs the kernels; the tests see them on few kinds of GPUs, or on none
            given = (self._loaded, self._head, self._fast, self._rows[:CHECKED_ROWS])
            check_gradients(*given, self._difference)

    def _check_training(self) -> None:
        """Raise Unsupported where the model does in training alone what packs do not support.

        Some models drop values of their attention then.
        """
        if self._fast is None:
            return
        device = self._loaded.device
        self._loaded.model.train()
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                self._fast.score_rows(self._rows[:2])  # fused layers return a token for each
        finally:
            self._loaded.model.eval()

    def _new_fast(self) -> FastModel:
        return FastModel(self._loaded, self._head, self._mode.dense, self._mode.recomputes)

    def _check_rounding(self, logits: Tensor, plain: Tensor) -> None:
        """Raise Unsupported where rounding does not explain why logits differ.

        Deep models round more. How much is seen beside the plain loop in float32.
        """
        head, model = self._head, self._loaded.model

        def exactly(rows: Sequence[Encoded]) -> Tensor:
            # not `_plain_logits`: a model that cannot do this loses this mode alone
            return head.logits(model, head.collate(rows, self._loaded.device))

        with in_float32(model):
            exact = halving(exactly)(self._rows[: len(plain)])
        own, allowed = (relative_difference(values, exact) for values in (logits, plain))
        if not own <= MAX_ROUNDING_RATIO * allowed:
            raise Unsupported(
                f"logits differ by {percent(own)} from those in float32, and the plain loop's by "
                f"{percent(allowed)}"
            )

    def _speed_up_plain(self) -> None:
        """Replace what takes the plain loop longest on a CPU."""
        try:
            self._check_dequantized_fits()
            self._plain_is_dense = True
        except Unsupported as error:
            self._refused.append(f"plain loop, dequantised weights: {error}")
        self._plain_layers = speed_up_plain_layers(self._loaded.model, self._plain_is_dense)

    def _check_dequantized_fits(self) -> None:
        needed = dequantized_bytes(self._loaded.model, self._loaded.compute_dtype)
        free = free_bytes(self._loaded.device)
        if needed + RESERVED_BYTES > free:
            raise Unsupported(
                f"the weights need {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free"
            )

    def _check_adapter(self) -> None:
        """Raise ConfigurationError if the model passes adapters by."""
        row = min(self._rows[:CHECKED_ROWS], key=lambda row: row.length)
        self._loaded.model.eval()
        batch = self._head.collate([row], self._loaded.device)
        targets = sorted(self._loaded.model.peft_config["default"].target_modules)
        unused = without_part(self._loaded.model, lambda: self._logits(self._head, batch), targets)
        if unused:
            raise ConfigurationError(
                f"lora.target_modules: the model does not call {' and '.join(unused)} as a layer, "
                "so that an adapter there has no effect",
                "leave it out of lora.target_modules",
            )

    def _check_padding(self) -> None:
        """Compute rows one at a time if padding or other rows influence a row's answer.

        That can be so in a model that mixes tokens other than by attention, or that looks ahead and
        is not told where a row ends.
        """
        row, shorter = _of_two_lengths(self._rows[:CHECKED_ROWS])
        self._loaded.model.eval()
        batch = self._head.collate([row, shorter], self._loaded.device)
        own = torch.arange(row.length) < torch.tensor([[row.length], [shorter.length]])
        is_rows = torch.eye(2, dtype=torch.bool)[:, :, None] & own
        self._plain_mixes_rows = bool(
            influenced(
                self._loaded.model.get_input_embeddings(),
                lambda: self._logits(self._head, batch),
                is_rows,
            )
        )
        if self._plain_mixes_rows:
            self._budget.rows = 1

    def _refuse(self, error: Exception) -> None:
        """Give up the mode in use, and record why."""
        self._refused.append(f"{self._mode.name}: {reason(error)}")
        is_final = self._mode.recomputes and not is_out_of_memory(error)
        if is_final or isinstance(error, NoPackedRows):
            self._modes.clear()  # the others would fail in the same way
        if self._mode.dense and not is_out_of_memory(error):
            self._modes = [mode for mode in self._modes if not mode.dense]
        if self._fast:
            self._fast.close()
        self._fast, self._difference, self._trainer = None, None, None

    def _fall_back_to_plain(self, reason: str) -> str:
        """The reason for the plain loop; an error where the configuration rules that out."""
        if self._config.train.speed == "graph":
            raise ConfigurationError(
                f"train.speed=graph: {'; '.join([*self._refused, reason])}",
                "train.speed='auto' takes the fastest mode that is supported",
            )
        return reason

    @torch.no_grad()
    def _plain_logits(self, head: Head, rows: Sequence[Encoded]) -> Tensor:
        self._loaded.model.eval()
        return self._logits(head, head.collate(rows, self._loaded.device))

    def _logits(self, head: Head, batch: Batch) -> Tensor:
        """The plain loop's logits. Raises NotAvailableError where the model cannot be computed."""
        try:
            return head.logits(self._loaded.model, batch)
        except Exception as error:  # from the model's own code
            if isinstance(error, JobError) or is_out_of_memory(error):
                raise
            traceback.print_exc()  # for the log
            four_bit = self._config.model.quantization == "nf4"
            raise NotAvailableError(
                f"model {self._config.model.name} cannot be computed"
                f"{' with weights in 4 bits' if four_bit else ''}: {first_line(error)}",
                "try --set model.quantization=none" if four_bit else "take another model",
            ) from error


def execution_modes(train: TrainConfig, rows: int, graphs: bool) -> Iterator[ExecutionMode]:
    """The modes on packed rows, from the fastest to the one that uses the least memory.

    `rows`: the number of training rows, which bounds a micro-batch.
    """
    size = min(train.micro_batch_size or train.batch_size, rows)
    if not train.gradient_checkpointing:
        for part in _halves(size, LEAST_KEPT_ROWS):
            yield ExecutionMode(graphs, part, dense=True)
        yield ExecutionMode(graphs, size)
    for part in _halves(size, 1):
        yield ExecutionMode(graphs, part, recomputes=True)


def _halves(size: int, least: int) -> Iterator[int]:
    """A size, and its halves, rounded up, as long as they are not below `least`."""
    yield size
    while size > 1 and (size := math.ceil(size / 2)) >= least:
        yield size


def _of_two_lengths(rows: Sequence[Encoded]) -> tuple[Encoded, Encoded]:
    """The two shortest rows of different lengths, the shorter one last.

    Where all are of one length, the last is half of the first, without the marks at its end.
    """
    short = min(rows, key=lambda row: row.length)
    longer = [row for row in rows if row.length > short.length]
    if longer:
        return min(longer, key=lambda row: row.length), short
    return short, short.first(math.ceil(short.length / 2))


def bounded(forward: Forward, tokens: int) -> Forward:
    """`forward` in parts of at most this many padded tokens; a longer row is a part of its own."""

    def in_parts(rows: Sequence[Encoded]) -> Tensor:
        size = max(1, tokens // max(row.length for row in rows))
        parts = [forward(rows[i : i + size]) for i in range(0, len(rows), size)]
        return torch.cat(parts)

    return in_parts


def halving(forward: Forward) -> Forward:
    """`forward` on ever smaller halves of a batch that does not fit into memory."""
    return lambda rows: torch.cat(in_halves(forward, rows))
