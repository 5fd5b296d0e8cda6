"""Tasks of lm-evaluation-harness: whether it is installed, and which of its tasks are run.

The harness imports torch, so what needs it runs in processes of their own: its data are fetched by
a child of the parent here, as the GPU side reads local files only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from nlijob.config import ForgettingConfig
from nlijob.errors import ConfigurationError, ExitCode, error_for
from nlijob.records.forgetting import TaskList
from nlijob.surroundings import gpu_side_environment

KEY = "forgetting.tasks"
MODULE = "nlijob.gpu.tasks"
ENDINGS = (".yaml", ".yml")
HINT = "names are listed by `lm-eval ls tasks`; a file that defines a task ends in .yaml"


def tasks_stamp(wanted: ForgettingConfig) -> str:
    """The identity of the tasks: the harness' version, and hashes of the files that define one.

    "" without tasks. Raises ConfigurationError where the harness or a file is missing.
    """
    if not wanted.tasks:
        return ""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigurationError(
            f"{KEY}: lm-evaluation-harness is not installed", "pip install 'nlijob[lm-eval]'"
        )
    files = [Path(task) for task in task_list(wanted).tasks if is_file(task)]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return "|".join([importlib.metadata.version("lm_eval"), *hashes])


def task_list(wanted: ForgettingConfig) -> TaskList:
    """The tasks with absolute paths. Raises ConfigurationError where a file is missing."""
    tasks = []
    for task in wanted.tasks:
        path = Path(task).expanduser() if is_file(task) else None
        if path and not path.is_file():
            raise ConfigurationError(f"{KEY}: {task} does not exist", HINT)
        tasks.append(str(path.resolve()) if path else task)
    return TaskList(tuple(tasks), wanted.documents, os.getcwd())


def is_file(task: str) -> bool:
    """Whether a task is named by the file that defines it."""
    return task.endswith(ENDINGS)


def fetch_tasks(file: Path, is_offline: bool) -> None:
    """Have the harness load the tasks of a `TaskList` file, and so fetch their data.

    Raises ConfigurationError for an unknown task, NotAvailableError where its data are missing.
    """
    environment = gpu_side_environment(os.environ)
    if not is_offline:
        del environment["HF_HUB_OFFLINE"]
    done = subprocess.run(
        [sys.executable, "-m", MODULE, str(file)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == ExitCode.DONE:
        return
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()
    code = done.returncode if done.returncode == ExitCode.CONFIGURATION else ExitCode.NOT_AVAILABLE
    raise error_for(code, f"{KEY}: {said[-1] if said else 'the harness ended'}", HINT)
