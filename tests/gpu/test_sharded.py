"""Weights that are divided between two GPUs: the figures are those of one, and each holds half."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob import records
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.model import quiet_libraries
from nlijob.gpu.worker import do_job
from nlijob.records.job import Plan, Prediction, TrainStep
from nlijob.rundir import RunDir
from tests.groups import on_gpus
from tests.stages import given, new_run
from tests.unit.gpu.test_sharded import SETTINGS, VARIABLES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

ON_GPU: dict[str, Any] = {
    **SETTINGS,
    "model.device": "cuda",
    "model.compute_dtype": "float32",
    "train.epochs": 2,
    "forgetting.texts": "demo",
}


def divided(group: Group, root: Path) -> None:
    """Do a job with divided weights."""
    os.environ.update(VARIABLES)
    quiet_libraries()
    do_job(RunDir(root), group)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_two_gpus_with_divided_weights_give_the_figures_of_one(
    tmp_path: Path, quantization: str
) -> None:
    one, two = (new_run(tmp_path / name) for name in ("alone", "divided"))
    for run in (one, two):
        given(run, **{**ON_GPU, "model.quantization": quantization})
    do_job(one, ALONE)
    on_gpus(2, divided, two.root)
    assert records.read(Plan, two.plan).way == "sharded"
    steps = [[*records.read_lines(TrainStep, run.train_log)] for run in (one, two)]
    losses = [[step.loss for step in of_run] for of_run in steps]
    # float32 sums in another order; 4-bit weights were quantised on the CPU and on the GPU
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    answers = [[*records.read_lines(Prediction, run.evaluate_predictions)] for run in (one, two)]
    for mine, other in zip(answers[1], answers[0], strict=True):
        assert mine.probabilities == pytest.approx(other.probabilities, abs=2e-2)
