"""The GPU side's process: what it imports, and how it stops before it has a task."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nlijob.errors import ExitCode
from nlijob.gpu.__main__ import NO_COMPILER, _lean_imports
from nlijob.rundir import RunDir
from tests.jobs import ROOT

IMPORTED = """
import json, sys
from nlijob.gpu.__main__ import _lean_imports
with _lean_imports():
    import nlijob.gpu.worker
imported = sorted(sys.modules)
import torch
torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
print(json.dumps({"imported": imported, "graphs": graphs}))
"""


def test_imports_leave_torchs_compiler_out_and_it_works_afterwards() -> None:
    argv = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert "bitsandbytes" in told["imported"]
    assert "torch._inductor.compile_fx" not in told["imported"]
    assert told["graphs"] == 1


@pytest.mark.parametrize("of_the_user", [None, "0"])
def test_what_holds_for_imports_ends_with_them(
    monkeypatch: pytest.MonkeyPatch, of_the_user: str | None
) -> None:
    if of_the_user is None:
        monkeypatch.delenv(NO_COMPILER, raising=False)
    else:
        monkeypatch.setenv(NO_COMPILER, of_the_user)
    with _lean_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert os.environ.get(NO_COMPILER) == of_the_user


def test_without_a_task_the_end_of_the_lifeline_ends_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    argv = [sys.executable, "-m", "nlijob.gpu", str(run.root)]
    done = subprocess.run(argv, cwd=ROOT, input=b"", capture_output=True, timeout=300, check=False)
    assert done.returncode == ExitCode.STOPPED
    assert not run.worker_outcome.exists()  # there is nobody to read it


def test_a_parent_that_has_gone_finds_no_outcome_of_an_earlier_attempt(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    argv = [sys.executable, "-m", "nlijob.gpu", str(run.root)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE) as process:
        process.communicate(b"\n", timeout=300)  # a task is given, and then the pipe closed
    assert process.returncode == ExitCode.STOPPED
    assert not run.worker_outcome.exists()
