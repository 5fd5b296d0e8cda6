"""The GPU side's process: what it imports, and how it stops before it has a task."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from nlijob.errors import ExitCode
from nlijob.gpu.imports import HIDDEN
from nlijob.rundir import RunDir
from tests.jobs import ROOT

IMPORTED = """
import importlib, json, sys
from importlib.util import find_spec
from nlijob.gpu import launcher
from nlijob.gpu.imports import HIDDEN, imported
launcher.accelerate_launch()
launched = sorted(sys.modules)
imported(lambda: importlib.import_module("nlijob.gpu.worker"))
started = sorted(sys.modules)
import torch
torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
found = [name for name in HIDDEN if find_spec(name)]
print(json.dumps({"launched": launched, "started": started, "graphs": graphs, "found": found}))
"""


class Imported(NamedTuple):
    """What a process of the GPU side has imported, and what works afterwards."""

    launched: set[str]
    """Modules of the launcher."""
    started: set[str]
    """Those of the process that waits for its task."""
    graphs: int
    """Compiled after the start."""
    found: list[str]
    """Libraries that were hidden during the start, and can be found after it."""


@pytest.fixture(scope="module")
def modules() -> Imported:
    argv = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    return Imported(set(told["launched"]), set(told["started"]), told["graphs"], told["found"])


def test_the_launcher_imports_torch_and_none_of_what_is_above_it(modules: Imported) -> None:
    assert {"torch", "accelerate"} <= modules.launched
    above = {"transformers", "peft", "bitsandbytes", "datasets", "torch._dynamo", "sympy"}
    assert modules.launched & (above | {*HIDDEN}) == set()


def test_the_start_imports_no_library_that_texts_do_not_need(modules: Imported) -> None:
    assert {"transformers", "peft", "bitsandbytes"} <= modules.started
    unused = {"datasets", "pandas", "lm_eval", "torch._inductor.compile_fx"}
    assert modules.started & (unused | {*HIDDEN}) == set()


def test_what_was_hidden_during_the_start_is_found_after_it(modules: Imported) -> None:
    assert modules.found == [name for name in HIDDEN if find_spec(name)]


def test_imports_leave_torchs_compiler_out_and_it_works_afterwards(modules: Imported) -> None:
    assert modules.graphs == 1


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
