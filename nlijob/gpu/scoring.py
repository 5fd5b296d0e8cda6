"""Scores rows with a model: one forward pass per batch, without generating text.

Rows are sorted by length and split into batches the same way every time, so that the model sees the
same batches in the same order before and after tuning.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.engine import Forward
from nlijob.gpu.heads import Encoded, Head
from nlijob.records.job import Prediction, Split, SplitScore

MAX_PENDING = 2
"""Batches queued on the device before the results of the first are awaited."""


def batches(rows: Sequence[Encoded], size: int) -> list[list[int]]:
    """Return the row numbers of each batch."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].length)
    return [order[start : start + size] for start in range(0, len(order), size)]


@torch.no_grad()
def score(
    forward: Forward,
    head: Head,
    split: Split,
    rows: Sequence[Encoded],
    batch_size: int,
    on_batch: Callable[[int], None],
) -> tuple[SplitScore, list[Prediction]]:
    """Return the split's score and the model's predictions, in row order.

    `forward` computes the logits of a batch. `on_batch` is called after each batch with the number
    of rows scored so far.
    """
    predictions: dict[int, Prediction] = {}
    pending: deque[tuple[list[int], Tensor]] = deque()

    def finish() -> None:
        chosen, figures = pending.popleft()
        scored = _predictions(head, split, [rows[i] for i in chosen], figures)
        predictions.update(zip(chosen, scored, strict=True))
        on_batch(len(predictions))

    started = time.monotonic()
    for chosen in batches(rows, batch_size):
        pending.append((chosen, _figures(forward, head, [rows[i] for i in chosen])))
        if len(pending) > MAX_PENDING:
            finish()
    while pending:
        finish()
    duration_s = time.monotonic() - started
    in_order = [predictions[i] for i in range(len(rows))]
    return split_score(split, in_order, duration_s), in_order


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
