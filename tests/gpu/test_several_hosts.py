"""Two hosts with a GPU each, as two commands on one machine with two GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nlijob import records
from nlijob.records.job import Environment, Plan
from nlijob.rundir import RunDir
from tests import jobs
from tests.hosts import Host, ended, loopback

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("share", ["none", "steps"])
def test_two_hosts_with_a_gpu_each_do_the_job_together(tmp_path: Path, share: str) -> None:
    run, place = RunDir(tmp_path / "runs" / "job"), loopback()
    settings = (*jobs.SMALL_DEMO, "--device", "cuda", "--set", f"machine.share={share}")
    hosts = [
        Host(rank, place, folder, settings, CUDA_VISIBLE_DEVICES=str(rank))
        for rank, folder in enumerate((run.root.parent, tmp_path / "elsewhere"))
    ]
    with ended(hosts):
        ends = [host.end() for host in hosts]
    assert [code for code, _ in ends] == [0, 0], ends
    plan = records.read(Plan, run.plan)
    assert (plan.processes, plan.share) == (2, share)
    assert len(records.read(Environment, run.environment).gpus) == 2
