"""The border: importing a module outside the GPU side does not import the torch stack."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.jobs import ROOT

PACKAGE = ROOT / "nlijob"
TORCH_STACK = {
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets"),
    "huggingface_hub",
}
MAKES_THE_DEMO_MODEL = PACKAGE / "demo" / "pretrain.py"

IMPORT_ALL = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def parent_modules() -> list[str]:
    """Names of the modules outside nlijob/gpu."""
    files = [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if PACKAGE / "gpu" not in path.parents and path != MAKES_THE_DEMO_MODEL
    ]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in files]
    return [".".join(part for part in parts_ if part != "__init__") for parts_ in parts]


def test_no_module_of_the_parent_imports_the_torch_stack() -> None:
    modules = parent_modules()
    assert {"nlijob.cli", "nlijob.pipeline", "nlijob.launch", "nlijob.report.render"} <= {*modules}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(modules)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout))
    assert set(modules) <= imported
    assert imported & TORCH_STACK == set()


def test_what_precedes_the_launch_of_the_gpu_side_imports_no_network() -> None:
    source = "import nlijob.commands.run, nlijob.host_serving, nlijob.notify, nlijob.pipeline, sys"
    done = subprocess.run(
        [sys.executable, "-c", f"{source}; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"asyncio", "http.client", "urllib.request", "httpx2"} & {*done.stdout.split()}
