"""Scores rows with a model: one forward pass per batch, without generating text.

Rows are sorted by length and split into batches the same way every time, so that the model sees the
same batches in the same order before and after tuning.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.analysis.wording import plural
from nlijob.config import ModelConfig
from nlijob.errors import DivergedError, NotAvailableError
from nlijob.gpu.engine import Forward
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.heads.rows import lengths_of
from nlijob.gpu.shares import split
from nlijob.records.job import Prediction, Split, SplitScore

Scored = tuple[list[int], Tensor]
"""The row numbers of a batch, and their figures [rows, labels + 2]."""
MAX_PENDING = 2
"""Batches queued on the device before the results of the first are awaited."""


def batches(rows: Sequence[Encoded], size: int) -> list[list[int]]:
    """Return the row numbers of each batch, the batch with the longest rows first.

    The others then fit into its memory, and no batch runs out of memory after hours.
    """
    order = lengths_of(rows).argsort(kind="stable").tolist()
    return [order[start : start + size] for start in range(0, len(order), size)][::-1]


@torch.no_grad()
def score(
    forward: Forward,
    head: Head,
    split: Split,
    rows: Sequence[Encoded],
    batch_size: int,
    on_batch: Callable[[int], None],
    group: Group = ALONE,
) -> tuple[SplitScore, list[Prediction]]:
    """Return the split's score and the model's predictions, in row order.

    `forward` computes the logits of a batch. `on_batch` is called after each batch with the number
    of rows scored so far. A group of processes, of which the others call `score_share`, shares the
    batches; they are the same whatever its size, and so are the predictions.
    """
    predictions: dict[int, Prediction] = {}
    started = time.monotonic()
    all_batches = batches(rows, batch_size)
    if group.is_shared:
        scored = _exchanged(forward, head, rows, all_batches, group, on_batch)
    else:
        scored = _in_turn(forward, head, rows, all_batches)
    for chosen, figures in scored:
        of_batch = _predictions(head, split, [rows[i] for i in chosen], figures)
        predictions.update(zip(chosen, of_batch, strict=True))
        on_batch(len(predictions))
    duration_s = time.monotonic() - started
    in_order = [predictions[i] for i in range(len(rows))]
    return split_score(split, in_order, duration_s), in_order


@torch.no_grad()
def score_share(
    forward: Forward, head: Head, rows: Sequence[Encoded], batch_size: int, group: Group
) -> None:
    """Score this process's share of the rows for the lead, which calls `score`."""
    for _ in _exchanged(forward, head, rows, batches(rows, batch_size), group):
        break


def _in_turn(
    forward: Forward, head: Head, rows: Sequence[Encoded], in_batches: Sequence[list[int]]
) -> Iterator[Scored]:
    """Score the batches, each a little ahead of when its figures are awaited."""
    pending: deque[Scored] = deque()
    for chosen in in_batches:
        pending.append((chosen, _figures(forward, head, [rows[i] for i in chosen])))
        if len(pending) > MAX_PENDING:
            yield pending.popleft()
    yield from pending


def _exchanged(
    forward: Forward,
    head: Head,
    rows: Sequence[Encoded],
    in_batches: Sequence[list[int]],
    group: Group,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Iterator[Scored]:
    """Score this process's batches here, and the others elsewhere; all figures at once.

    Each process has a table that is 0 where a row is not its own; their sum has every row. A column
    of ones shows that each row was scored once. `on_batch` is given about how many rows all
    processes have scored.
    """
    own: list[Scored] = []
    for chosen, figures in _in_turn(forward, head, rows, own_batches(rows, in_batches, group)):
        own.append((chosen, figures.float().cpu()))
        on_batch(sum(len(in_batch) for in_batch in in_batches[: len(own) * group.size]))
    if not own or (group.in_step and len(own) < math.ceil(len(in_batches) / group.size)):
        # the others compute one batch more; and the first batch of a process is slow, which
        # therefore comes now, while the others compute
        forward([rows[i] for i in in_batches[0]])
    columns = max(group.gather(own[0][1].shape[1] if own else 0))  # one may have no batch
    table = torch.zeros(len(rows), columns + 1)
    for chosen, figures in own:
        table[chosen] = functional.pad(figures, (0, 1), value=1.0)
    together = table.to(group.device)
    group.sum(together)
    table = together.cpu()
    if not bool((table[:, -1] == 1).all()):
        raise AssertionError("the processes of the group did not score each row once")
    yield list(range(len(rows))), table[:, :-1]


def own_batches(
    rows: Sequence[Encoded], in_batches: Sequence[list[int]], group: Group
) -> list[list[int]]:
    """The batches that this process scores, of about as many tokens as each other's.

    Where processes must make their passes together, each has a batch of every round.
    """
    if group.in_step:
        return [*in_batches[group.rank :: group.size]]
    lengths = lengths_of(rows)
    tokens = [int(lengths[batch].sum()) for batch in in_batches]
    return [in_batches[place] for place in split(tokens, group.size)[group.rank]]


def split_score(split: Split, predictions: Sequence[Prediction], duration_s: float) -> SplitScore:
    """Return the score that the predictions of a split add up to."""
    return SplitScore(
        split=split,
        rows=len(predictions),
        correct=sum(p.predicted == p.label for p in predictions),
        loss=sum(p.loss for p in predictions) / len(predictions),
        duration_s=duration_s,
    )


def _figures(forward: Forward, head: Head, rows: Sequence[Encoded]) -> Tensor:
    """Return [rows, labels + 2]: the labels' logits, their share of the probability, the loss."""
    logits = forward(rows)
    targets = head.targets(rows, logits.device)
    losses = functional.cross_entropy(logits, targets, reduction="none")
    label_logits = head.label_logits(logits)
    mass = torch.exp(label_logits.logsumexp(-1) - logits.logsumexp(-1))
    return torch.cat([label_logits, mass[:, None], losses[:, None]], dim=-1)


def _predictions(
    head: Head, split: Split, rows: Sequence[Encoded], figures: Tensor
) -> list[Prediction]:
    figures = figures.cpu()
    label_logits, mass, losses = figures[:, :-2], figures[:, -2], figures[:, -1]
    columns = zip(
        rows,
        label_logits.argmax(-1).tolist(),
        label_logits.softmax(-1).tolist(),
        mass.tolist(),
        losses.tolist(),
        strict=True,
    )
    return [
        Prediction(
            split=split,
            index=row.example.index,
            label=row.example.label,
            predicted=predicted,
            probabilities=tuple(probabilities),
            label_mass=label_mass if head.covers_vocabulary else None,
            loss=loss,
            tokens=row.length,
        )
        for row, predicted, probabilities, label_mass, loss in columns
    ]


def check_finite(stage: str, model: ModelConfig, predictions: Sequence[Prediction]) -> None:
    """Raise an error if the model's answers are not numbers.

    It is the checkpoint's fault in the baseline (NotAvailableError), and the training's later
    (DivergedError).
    """
    bad = [p for p in predictions if not math.isfinite(p.loss + sum(p.probabilities))]
    if not bad:
        return
    where = (
        f"{plural(len(bad), 'row')} of {len(predictions):,} (first: {bad[0].split} row "
        f"{bad[0].index})"
    )
    if stage == "baseline":
        raise NotAvailableError(
            f"model {model.name} gives logits that are NaN or infinite for {where}",
            "the weights are damaged, or too large for the compute dtype: try "
            "model.compute_dtype='float32'",
        )
    raise DivergedError(
        f"the tuned model gives logits that are NaN or infinite for {where}",
        "lower train.learning_rate, or compute in bfloat16 or float32 (model.compute_dtype)",
    )
