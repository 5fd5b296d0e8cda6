"""What a report tells of several GPUs: only the driver knows which ones were in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests import jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
]
ON_GPU = (*jobs.SMALL_DEMO, "--device", "cuda", "--set", "report.sample_interval_s=0.5")


def uuid_of(number: int) -> str:
    return str(torch.cuda.get_device_properties(number).uuid)


def test_every_gpu_of_trainings_side_by_side_has_figures(tmp_path: Path) -> None:
    job, done = jobs.run_job(tmp_path, *ON_GPU, "--seeds", "2", "--set", "machine.gpus=2")
    results = jobs.results(job)
    assert [gpu.uuid for gpu in results.environment.gpus] == [uuid_of(0), uuid_of(1)]
    assert (results.plan.processes, results.plan.share) == (2, "trials")
    for gpu in results.resources.gpus:
        assert None not in (gpu.mean_load, gpu.max_memory_used_bytes, gpu.energy_j)
    assert results.resources.total_energy_j == sum(
        gpu.energy_j or 0.0 for gpu in results.resources.gpus
    )
    assert "on 2 of " in done.stderr
    assert f"{torch.cuda.get_device_name(0)}" in job.report.read_text("utf-8")


def test_figures_of_a_job_on_the_second_gpu_are_those_of_that_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")[1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", second)  # for the job; this process has read it
    job, _ = jobs.run_job(tmp_path, *ON_GPU)
    (gpu,) = jobs.results(job).resources.gpus
    assert gpu.uuid == uuid_of(1)
    assert None not in (gpu.mean_load, gpu.energy_j)
