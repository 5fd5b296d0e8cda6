"""Tasks of lm-evaluation-harness on the model in memory; skipped where it is not installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.errors import ExitCode, NotAvailableError
from nlijob.gpu import tasks
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.tasks import main, score_tasks
from nlijob.records.forgetting import TaskList
from nlijob.rundir import write_record

TASK = """\
task: own_choices
dataset_path: json
dataset_kwargs:
  data_files:
    test: documents.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}} "
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list:
  - metric: acc
    higher_is_better: true
  - metric: acc_norm
    higher_is_better: true
"""
OPTIONS = ["Yes, that is so.", "No, not at all.", "Maybe, nobody can tell."]
QUESTIONS = ["A man is asleep. A man sleeps.", "A dog runs. A dog is asleep.", "A girl reads."]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> TaskList:
    """A task that a file defines, with data in a file beside it."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.yaml").write_text(TASK, encoding="utf-8")
    rows = [
        {"question": question, "options": OPTIONS, "answer": number % 3}
        for number, question in enumerate(QUESTIONS * 4)
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "documents.jsonl").write_text(lines, encoding="utf-8")
    return TaskList((str(folder / "own.yaml"),), 0, str(folder))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness' data stay within the test's folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_each_metric_has_its_standard_error_and_the_value_of_each_document(
    new_model: Callable[..., LoadedModel], own: TaskList
) -> None:
    found = score_tasks(new_model(), own, 8)
    assert [(one.task, one.metric) for one in found] == [
        ("own_choices", "acc"),
        ("own_choices", "acc_norm"),
    ]
    for one in found:
        assert one.documents == tuple(range(12))
        assert one.value == pytest.approx(sum(one.values) / 12)
        assert one.stderr is not None
        assert one.higher_is_better


def test_a_zero_adapter_changes_no_document(
    new_model: Callable[..., LoadedModel], own: TaskList
) -> None:
    loaded = new_model()
    after = score_tasks(loaded, own, 8)
    with loaded.model.disable_adapter():
        assert score_tasks(loaded, own, 8) == after


def test_the_random_numbers_of_training_stay_and_so_does_the_tokenizer(
    new_model: Callable[..., LoadedModel], own: TaskList
) -> None:
    loaded = new_model()
    before, padding = torch.get_rng_state(), loaded.tokenizer.pad_token
    score_tasks(loaded, own, 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.tokenizer.pad_token == padding


def test_only_the_first_documents_are_taken_where_so_many_are_asked_for(
    new_model: Callable[..., LoadedModel], own: TaskList
) -> None:
    few = TaskList(own.tasks, 5, own.folder)
    assert score_tasks(new_model(), few, 8)[0].documents == (0, 1, 2, 3, 4)


def test_loading_alone_says_what_is_wrong(
    own: TaskList, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(own.folder) / "broken.yaml"
    broken.write_text(TASK.replace("documents.jsonl", "gone.jsonl"), encoding="utf-8")
    codes = []
    for task in (*own.tasks, "no-such-task.yaml", str(broken)):
        write_record(tmp_path / "tasks.json", TaskList((task,), 0, own.folder))
        codes.append(main([str(tmp_path / "tasks.json")]))
    assert codes == [ExitCode.DONE, ExitCode.CONFIGURATION, ExitCode.NOT_AVAILABLE]
    assert "no-such-task.yaml" in capsys.readouterr().out


def test_fewer_requests_are_computed_at_once_where_memory_runs_out(
    new_model: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def small(_: LoadedModel, wanted: TaskList, rows: int) -> dict[str, Any]:
        sizes.append(rows)
        if rows > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return {"samples": {}}

    monkeypatch.setattr(tasks, "_evaluate", small)
    assert score_tasks(new_model(), TaskList((), 0, "."), 9) == []
    assert sizes == [9, 4, 2]


def test_an_error_of_the_harness_is_told_as_one_of_the_tasks(
    new_model: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("answer")

    monkeypatch.setattr(tasks, "_evaluate", broken)
    with pytest.raises(NotAvailableError, match="lm-evaluation-harness failed: KeyError: 'answer'"):
        score_tasks(new_model(), TaskList((), 0, "."), 8)
