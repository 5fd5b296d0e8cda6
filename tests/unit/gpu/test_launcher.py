"""`accelerate launch` as the job calls it: in hostile surroundings, and with its child's status."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nlijob import launch
from nlijob.errors import HardwareError
from nlijob.launch import GpuSide, launch_command
from nlijob.records.job import WorkerTask
from nlijob.rundir import RunDir

TASK = WorkerTask(1, 0.0, 0.0, "model", "", {})
SERVICE = """
compute_environment: AMAZON_SAGEMAKER
distributed_type: DATA_PARALLEL
ec2_instance_type: ml.p3.2xlarge
iam_role_name: role
mixed_precision: fp16
num_machines: 4
profile: nobody
region: nowhere
"""
CHILD = """
import json, os, sys
from pathlib import Path

root = Path(sys.argv[1])
told = {"environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path}
(root / "told.json").write_text(json.dumps(told))
(root / "worker" / "outcome.json").write_text('{"exit_code": 0, "message": "", "hint": ""}')
"""
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def follow(run: RunDir, monkeypatch: pytest.MonkeyPatch, child: str, device: str) -> None:
    """Launch `child` in place of the GPU side, as the job does, and follow it to its end."""
    run.root.mkdir()
    script = run.root / "child.py"
    script.write_text(child, encoding="utf-8")

    def command(run: RunDir, device: str, *_: object) -> list[str]:
        *launcher, _, _, root = launch_command(run, device)
        return [*launcher, str(script), root]

    monkeypatch.setattr(launch, "launch_command", command)
    with GpuSide(run, device) as gpu_side:
        gpu_side.start()
        gpu_side.give(TASK)
        gpu_side.follow(lambda _: None)


def test_what_surrounds_the_job_does_not_reach_its_gpu_side(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "192.0.2.1",
        "MASTER_PORT": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "SLURM_PROCID": "1",
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_MIXED_PRECISION": "fp16",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_HOME": "cache",
        "PYTHONPATH": f"{os.pathsep}modules",
    }.items():
        monkeypatch.setenv(name, value)
    settings = tmp_path / "cache" / "accelerate" / "default_config.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(SERVICE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    follow(run, monkeypatch, CHILD, "cuda")  # with --cpu, accelerate reads no settings

    told = json.loads((run.root / "told.json").read_text(encoding="utf-8"))
    found = told["environment"]
    left = ("RANK", "WORLD_SIZE", "MASTER_", "OMPI_", "SLURM_", "ACCELERATE_USE_")
    assert {name for name in found if name.startswith(left)} == {"ACCELERATE_USE_CPU"}
    assert found["ACCELERATE_MIXED_PRECISION"] == "no"
    assert found["CUDA_VISIBLE_DEVICES"] == "0"
    assert found["HF_HOME"] == str(tmp_path / "cache")
    assert told["folder"] == str(run.worker_log.parent)
    assert str(tmp_path) not in told["path"]
    assert str(tmp_path / "modules") in told["path"]


def test_the_signal_that_ended_the_gpu_side_is_known(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HardwareError, match="killed"):
        follow(run, monkeypatch, KILLED, "cpu")
