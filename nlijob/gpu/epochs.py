"""The result of an epoch, from the steps that were done and the scores after them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nlijob.gpu.environment import memory
from nlijob.records.job import EpochResult, SplitScore, TrainStep


def epoch_result(
    epoch: int,
    steps: Sequence[TrainStep],
    validation: SplitScore,
    test: SplitScore | None,
    device: torch.device,
) -> EpochResult:
    """What an epoch of these steps came to. The loss is the mean over its examples."""
    examples = sum(step.examples for step in steps)
    return EpochResult(
        epoch=epoch,
        steps=len(steps),
        examples=examples,
        train_loss=sum(step.loss * step.examples for step in steps) / examples,
        duration_s=sum(step.duration_s for step in steps),
        validation=validation,
        test=test,
        memory=memory(device),
    )
