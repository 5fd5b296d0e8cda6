"""The demo recipe on a GPU: what only a GPU can show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nlijob import records
from nlijob.records.job import HardwareSample, Plan
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir
from tests import jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
ON_GPU = (*jobs.SMALL_DEMO, "--device", "cuda", "--set", "report.sample_interval_s=0.5")
CLASSIFICATION = (
    *("--set", "model.head='sequence-classification'", "--set", "prompt.verbalizers=[]"),
    *("--learning-rate", "1e-3", "--set", "eval.few_shot=0"),
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    job, _ = jobs.run_job(tmp_path_factory.mktemp("runs"), *ON_GPU)
    return job


@pytest.fixture(scope="module")
def outcome(job: RunDir) -> Results:
    return jobs.results(job)


def test_the_gpu_is_named_with_its_driver(outcome: Results) -> None:
    (gpu,) = outcome.environment.gpus
    assert gpu.name == torch.cuda.get_device_name(0)
    assert gpu.driver_version


def test_memory_energy_and_load_are_measured(outcome: Results) -> None:
    (gpu,) = outcome.resources.gpus
    assert outcome.resources.peak_allocated_bytes
    assert outcome.resources.peak_reserved_bytes
    assert gpu.energy_j is not None
    assert gpu.energy_j > 0
    assert gpu.mean_load is not None
    assert gpu.max_memory_used_bytes


def test_energy_covers_most_of_the_job_and_says_so(outcome: Results) -> None:
    (gpu,) = outcome.resources.gpus
    assert gpu.energy_s is not None
    assert gpu.attempts_s == outcome.total_s
    assert 0 < gpu.energy_s <= outcome.total_s


def test_both_sources_of_gpu_figures_can_be_read(job: RunDir, outcome: Results) -> None:
    assert outcome.resources.unread == ()
    samples = records.read_lines(HardwareSample, job.hardware)
    figures = [gpu for sample in samples for gpu in sample.gpus]
    assert any(None not in (gpu.load, gpu.memory_used_bytes) for gpu in figures)
    assert any(None not in (gpu.power_w, gpu.energy_j, gpu.temperature_c) for gpu in figures)


def test_auto_computes_in_bfloat16_where_the_gpu_has_it(outcome: Results) -> None:
    assert outcome.environment.compute_dtype == (
        "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"
    )


def test_training_loss_falls(outcome: Results) -> None:
    assert outcome.epochs[-1].train_loss < outcome.epochs[0].train_loss


def test_a_classification_head_trains_in_float16_with_float32_attention(tmp_path: Path) -> None:
    float16 = ("--set", "model.compute_dtype='float16'")
    job, _ = jobs.run_job(tmp_path, *ON_GPU, *CLASSIFICATION, *float16)
    outcome = jobs.results(job)
    assert outcome.parameters.head_parameters > 0
    assert outcome.environment.attention == "sdpa_float32"
    assert outcome.epochs[-1].train_loss < outcome.epochs[0].train_loss


def test_the_job_records_its_execution_mode(job: RunDir, outcome: Results, tmp_path: Path) -> None:
    plain, _ = jobs.run_job(tmp_path, *ON_GPU, "--set", "train.speed='plain'")
    plans = [records.read(Plan, one.plan) for one in (job, plain)]
    assert [plan.way for plan in plans] == ["graph", "plain"]
    # the modes draw different dropout masks, so the losses differ as those of two seeds do
    expected = jobs.results(plain).epochs[0].train_loss
    assert outcome.epochs[0].train_loss == pytest.approx(expected, rel=5e-2)


@contextlib.contextmanager
def only_free(size: int) -> Iterator[None]:
    """Leave this many bytes of the GPU's memory free."""
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - size, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del taken
        torch.cuda.empty_cache()


def test_training_on_a_nearly_full_gpu_uses_less_memory(tmp_path: Path) -> None:
    with only_free(2 * 1024**3):
        job, _ = jobs.run_job(
            tmp_path, *ON_GPU, "--train-size", "0", "--batch-size", "2048", "--epochs", "1"
        )
    plan = records.read(Plan, job.plan)
    assert any("out of memory" in way for way in plan.refused), plan.refused
    assert plan.micro_batch_size < 1965 or plan.activations == "recomputed"


def test_a_full_gpu_ends_with_the_hardware_exit_code_and_advice(tmp_path: Path) -> None:
    with only_free(32 * 1024**2):
        done = jobs.run("run", "--runs-dir", tmp_path, *ON_GPU)
    assert done.returncode == 5, done.stderr
    assert "memory" in done.stderr
    assert "hint:" in done.stderr
