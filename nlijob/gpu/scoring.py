"""Scores rows with a model: one forward pass a batch, no generation.

Rows are sorted by length and cut into batches the same way every time, so that models before and
after tuning see the same batches in the same order.
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
from nlijob.records import Prediction, Split, SplitScore

MOST_UNKNOWN = 2
"""Batches that may be under way on the device before the first of them is waited for."""


def batches(rows: Sequence[Encoded], size: int) -> list[list[int]]:
    """The numbers of the rows of each batch."""
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
    """The model's predictions in row order, and their sum.

    `forward` gives the logits of a batch. `on_batch` is told the number of rows done after each.
    """
    predictions: dict[int, Prediction] = {}
    under_way: deque[tuple[list[int], Tensor]] = deque()

    def finish() -> None:
        chosen, figures = under_way.popleft()
        scored = _predictions(head, split, [rows[i] for i in chosen], figures)
        predictions.update(zip(chosen, scored, strict=True))
        on_batch(len(predictions))

    started = time.monotonic()
    for chosen in batches(rows, batch_size):
        under_way.append((chosen, _figures(forward, head, [rows[i] for i in chosen])))
        if len(under_way) > MOST_UNKNOWN:
            finish()
    while under_way:
        finish()
    duration_s = time.monotonic() - started
    in_order = [predictions[i] for i in range(len(rows))]
    return summed(split, in_order, duration_s), in_order


def summed(split: Split, predictions: Sequence[Prediction], duration_s: float) -> SplitScore:
    """Predictions of one split as one score."""
    return SplitScore(
        split=split,
        rows=len(predictions),
        correct=sum(p.predicted == p.label for p in predictions),
        loss=sum(p.loss for p in predictions) / len(predictions),
        duration_s=duration_s,
    )


def _figures(forward: Forward, head: Head, rows: Sequence[Encoded]) -> Tensor:
    """[rows, labels + 2]: each label's logit, the labels' share of the whole, and the loss."""
    logits = forward(rows)
    labels = [row.example.label for row in rows]
    targets = torch.tensor([head.target_class(label) for label in labels], device=logits.device)
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
