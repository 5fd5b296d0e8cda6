"""Runs tasks of lm-evaluation-harness on the model in memory.

`-m nlijob.gpu.tasks FILE` only loads the tasks of a `TaskList`, and so fetches their data.

The harness is an extra, so it is imported where it is used.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nlijob import records
from nlijob.data.tasks import KEY, is_file
from nlijob.errors import ExitCode, JobError, NotAvailableError, first_line
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.out_of_memory import free_memory
from nlijob.memory import is_out_of_memory
from nlijob.records.forgetting import TaskList, TaskScore

FEW_SHOT_SEED = 1234
"""The harness' own default for the choice of examples."""
BOOTSTRAP = 1000
"""Resamples of the harness for the standard errors that have no formula."""
MOST_ROWS = 32
"""Most requests of the harness in a forward pass; it keeps the logits of all tokens."""


def score_tasks(loaded: LoadedModel, wanted: TaskList, rows: int) -> list[TaskScore]:
    """What the model as it is now reaches in each task, by each metric that documents have.

    Up to `rows` requests are computed at once, or as many as fit into memory. Raises
    NotAvailableError where the harness fails.
    """
    size = min(rows, MOST_ROWS)
    while True:
        try:
            with torch.random.fork_rng([loaded.device] if loaded.device.type == "cuda" else []):
                return list(_scores(_evaluate(loaded, wanted, size)))
        except Exception as error:  # from the harness, or from a task's own code
            if isinstance(error, JobError):
                raise
            if size == 1 or not is_out_of_memory(error):
                raise NotAvailableError(
                    f"{KEY}: lm-evaluation-harness failed: {first_line(error)}",
                    "see worker/log.txt in the run; leave out the task that failed",
                ) from error
        free_memory()
        size //= 2


def load_tasks(wanted: TaskList) -> Any:
    """The harness' tasks with their data. Raises KeyError for an unknown one."""
    from lm_eval.tasks import TaskManager

    with contextlib.chdir(wanted.folder):  # files name their data from there
        manager = TaskManager(include_defaults=not all(map(is_file, wanted.tasks)))
        loaded = manager.load(list(wanted.tasks))
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    return loaded


def _evaluate(loaded: LoadedModel, wanted: TaskList, rows: int) -> Mapping[str, Any]:
    """The harness' results, with a record of each document."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    model = HFLM(
        pretrained=loaded.model,
        backend="causal",
        tokenizer=copy.deepcopy(loaded.tokenizer),  # it may set a padding token
        max_length=loaded.max_length,
        batch_size=rows,
    )
    found: Mapping[str, Any] = evaluate(
        lm=model,
        task_dict=load_tasks(wanted),
        limit=wanted.documents or None,
        bootstrap_iters=BOOTSTRAP,
        log_samples=True,
    )
    return found


def _scores(found: Mapping[str, Any]) -> Iterator[TaskScore]:
    """Every metric of every task that has a number for each document."""
    for task, samples in found["samples"].items():
        keys = {(sample["filter"], metric) for sample in samples for metric in sample["metrics"]}
        for filter_, metric in sorted(keys):
            own = [sample for sample in samples if sample["filter"] == filter_]
            values = [_number(sample.get(metric)) for sample in own]
            total = _number(found["results"][task].get(f"{metric},{filter_}"))
            if total is None or None in values:
                continue
            better = found["higher_is_better"].get(task, {}).get(metric)
            yield TaskScore(
                task=task,
                metric=metric if filter_ == "none" else f"{metric}, {filter_}",
                value=total,
                stderr=_number(found["results"][task].get(f"{metric}_stderr,{filter_}")),
                higher_is_better=better is not False,
                documents=tuple(int(sample["doc_id"]) for sample in own),
                values=tuple(value for value in values if value is not None),
            )


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):  # such as "N/A", or a pair
        return None
    return number if math.isfinite(number) else None


def main(arguments: Sequence[str]) -> int:
    """Load the tasks of a file, and so fetch their data; print what is wrong. Returns the code."""
    try:
        load_tasks(records.read(TaskList, Path(arguments[0])))
    except KeyError as error:
        print(error.args[0] if error.args else error)
        return ExitCode.CONFIGURATION
    except Exception as error:  # from the harness, the hub, or a task's own code
        print(first_line(error))
        return ExitCode.NOT_AVAILABLE
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
