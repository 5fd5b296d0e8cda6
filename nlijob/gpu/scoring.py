"""Scores rows with a model: one forward pass a batch, no generation.

Rows are sorted by length and cut into batches the same way every time, so that models before and
after tuning see the same batches in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from nlijob.gpu.heads import Encoded, Head
from nlijob.records import Prediction, Split, SplitScore


@torch.no_grad()
def score(
    model: Any,
    head: Head,
    split: Split,
    rows: Sequence[Encoded],
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[int], None],
) -> tuple[SplitScore, list[Prediction]]:
    """The model's predictions in row order, and their sum.

    `on_batch` is told the number of rows done after each batch.
    """
    model.eval()
    order = sorted(range(len(rows)), key=lambda i: rows[i].length)
    predictions: dict[int, Prediction] = {}
    started = time.monotonic()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch_rows = [rows[i] for i in chosen]
        scored = _score_batch(model, head, split, batch_rows, device)
        predictions.update(zip(chosen, scored, strict=True))
        on_batch(len(predictions))
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


def _score_batch(
    model: Any, head: Head, split: Split, rows: Sequence[Encoded], device: torch.device
) -> list[Prediction]:
    batch = head.collate(rows, device)
    logits = head.logits(model, batch)
    losses = functional.cross_entropy(logits, head.targets(batch), reduction="none")
    label_logits = head.label_logits(logits)
    mass = torch.exp(label_logits.logsumexp(-1) - logits.logsumexp(-1))
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
            label_mass=label_mass if head.label_tokens else None,
            loss=loss,
            tokens=row.length,
        )
        for row, predicted, probabilities, label_mass, loss in columns
    ]
