"""Readers of the deployment files, and a parser for the command lines in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from nlijob import commands
from nlijob.cli import cli
from nlijob.errors import ExitCode

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"

RETRY = (ExitCode.STOPPED,)
FAIL_AT_ONCE = (
    ExitCode.CONFIGURATION,
    ExitCode.GATE_FAILED,
    ExitCode.NOT_AVAILABLE,
    ExitCode.DIVERGED,
    ExitCode.DISK,
)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_yaml(path: Path) -> list[Any]:
    """The file's documents."""
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def job_variables() -> set[str]:
    """The environment variables that are options of a run."""
    variables = {option.envvar for option in commands.load("run").params}
    return {variable for variable in variables if isinstance(variable, str)}


def parse(
    arguments: list[str], environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The options of `run` as the job reads them; raises click's error if it would refuse them."""
    for name in job_variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command, *rest = arguments
    assert command == "run"
    parent = cli.make_context("nlijob", list(arguments))  # from which the names of --help come
    context: click.Context = commands.load("run").make_context("run", rest, parent=parent)
    return context.params


def action(job: dict[str, Any], exit_code: int, disrupted: bool = False) -> str:
    """What a Kubernetes job does about a pod that failed: the action of the first matching rule.

    Without one, the failure counts (backoffLimit).
    """
    for rule in job["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["operator"] == "In"
            matches = exit_code in rule["onExitCodes"]["values"]
        else:
            assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
            matches = disrupted
        if matches:
            return str(rule["action"])
    return "Count"
