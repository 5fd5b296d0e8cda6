"""Tasks of lm-evaluation-harness, as the parent sees them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nlijob.config import ForgettingConfig, load_config
from nlijob.data.tasks import fetch_tasks, task_list, tasks_stamp
from nlijob.errors import ConfigurationError, ExitCode, JobError
from nlijob.records.forgetting import TaskList
from nlijob.rundir import write_record


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness seems to be installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.2.3")


def wanted(*names: str) -> ForgettingConfig:
    return ForgettingConfig(tasks=names)


def test_without_tasks_the_harness_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert tasks_stamp(wanted()) == ""


def test_a_harness_that_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="lm-evaluation-harness is not installed") as found:
        tasks_stamp(wanted("hellaswag"))
    assert found.value.hint == "pip install 'nlijob[lm-eval]'"
    assert found.value.exit_code == 2


@pytest.mark.usefixtures("installed")
def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml does not exist"):
        tasks_stamp(wanted(str(tmp_path / "gone.yaml")))


@pytest.mark.usefixtures("installed")
def test_the_stamp_is_of_the_version_and_of_the_files(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("task: own", encoding="utf-8")
    before = tasks_stamp(wanted("arc_easy", str(file)))
    assert before.startswith("1.2.3|")
    file.write_text("task: other", encoding="utf-8")
    assert tasks_stamp(wanted("arc_easy", str(file))) != before


def test_files_get_absolute_paths_and_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("task: own", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = task_list(ForgettingConfig(tasks=("own.yaml", "arc_easy"), documents=7))
    own = str((tmp_path / "own.yaml").resolve())
    assert found == TaskList((own, "arc_easy"), 7, str(Path.cwd()))


@pytest.mark.parametrize(
    ("code", "stdout", "expected", "said"),
    [
        (2, "a warning\nno task 'x'\n", ExitCode.CONFIGURATION, "no task 'x'"),
        (4, "no connection\n", ExitCode.NOT_AVAILABLE, "no connection"),
        (-9, "", ExitCode.NOT_AVAILABLE, "the harness ended"),
    ],
)
def test_what_the_harness_says_is_the_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    stdout: str,
    expected: ExitCode,
    said: str,
) -> None:
    done = subprocess.CompletedProcess([], code, stdout, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(JobError, match=said) as found:
        fetch_tasks(tmp_path / "tasks.json", is_offline=False)
    assert found.value.exit_code == expected


@pytest.mark.parametrize("is_offline", [True, False])
def test_data_are_fetched_only_where_the_network_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_offline: bool
) -> None:
    seen: dict[str, Any] = {}

    def run(_: Any, env: dict[str, str], **__: Any) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    write_record(tmp_path / "tasks.json", TaskList((), 0, "."))
    fetch_tasks(tmp_path / "tasks.json", is_offline)
    assert ("HF_HUB_OFFLINE" in seen) == is_offline


@pytest.mark.parametrize(
    ("names", "head", "said"),
    [
        (["a", "a"], "causal", "names must differ"),
        (["a", ""], "causal", "none may be empty"),
        (["a"], "sequence-classification", "the classification head writes no text"),
    ],
)
def test_tasks_that_cannot_be_run_are_faults_of_the_configuration(
    names: list[str], head: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_config("demo", {"forgetting.tasks": names, "model.head": head})
