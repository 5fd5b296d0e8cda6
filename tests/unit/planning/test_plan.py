"""The plan of a job: what it resolves, what it writes, and how it ends. The look at the model is
taken in this process."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.config import TransferConfig, load_config
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.errors import ConfigurationError, HardwareError, JobError, NotAvailableError
from nlijob.gpu.look import look
from nlijob.hub import Glance, Hub
from nlijob.hub_cache import HubFile
from nlijob.planning import plan as planning
from nlijob.planning.plan import Wanted, exit_error, make_plan
from nlijob.planning.words import plan_lines
from nlijob.records.planning import JobPlan, PlannedProcesses, PlannedTime, Span
from nlijob.rundir import RunDir


@pytest.fixture(scope="module", autouse=True)
def look_here() -> Iterator[None]:
    """Look at models in this process, which takes no start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "look", look)
        yield


def wanted(folder: Path, **values: Any) -> Wanted:
    config = load_config("demo", {"model.device": "cpu", "data.train_size": 40, **values})
    return Wanted("demo", config, RunDir(folder / "runs" / "job"), Hub(False, print), print)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> JobPlan:
    """The plan of the demo with 40 training rows."""
    return make_plan(wanted(tmp_path_factory.mktemp("plan")), [])


def test_rows_and_steps_are_those_of_the_job(plan: JobPlan) -> None:
    train = plan.rows["train"]
    assert (train.source_rows, train.rows, train.is_exact) == (2000, 39, True)
    assert (plan.steps_per_epoch, plan.optimizer_steps) == (5, 25)
    assert plan.rows["test"].rows == 491


def test_answers_and_adapted_modules_are_resolved(plan: JobPlan) -> None:
    assert plan.look.label_token_texts == (" 0", " 1", " 2")
    modules = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
    assert plan.look.target_modules == dict.fromkeys(modules, 4)
    assert plan.look.trainable_parameters == 188_416


def test_the_labels_of_a_two_way_data_set_are_those_of_the_plan(tmp_path: Path) -> None:
    labels = ("entailment", "not_entailment")
    rows = (
        {"premise": f"A boat {i}.", "hypothesis": "A ship.", "label": labels[i % 2]}
        for i in range(40)
    )
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plan = make_plan(wanted(tmp_path, **{"data.dataset": str(file), "data.train_size": 0}), [])
    assert plan.config.data.label_names == labels
    assert plan.look.label_token_texts == (" 0", " 1")
    assert sum(rows.source_rows or 0 for rows in plan.rows.values()) == 40


def test_all_rows_of_a_small_data_set_are_tokenised(plan: JobPlan) -> None:
    train = plan.look.tokens["train"]
    assert train.counted == train.rows == 39
    assert plan.training_tokens == round(train.mean * 39 * 5)


def test_a_plan_can_be_read_back_from_json(plan: JobPlan) -> None:
    assert records.from_json(JobPlan, json.loads(records.dump(plan))) == plan


def test_every_line_of_the_text_has_a_figure_or_says_that_it_is_not_known(plan: JobPlan) -> None:
    text = "\n".join(plan_lines(plan))
    for words in ("39 rows", "25 optimizer steps", "q_proj (4)", '" 0" (token', "GiB in the"):
        assert words in text
    assert "None" not in text


def test_further_test_sets_are_named_with_their_rows_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "far.jsonl"
    row = {"premise": "A boat.", "hypothesis": "A ship.", "label": "non-entailment"}
    rows = [row, {**row, "label": "entailment"}, {**row, "label": "-"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    one = wanted(tmp_path)
    sets = (TransferConfig("far", str(file)),)
    one = dataclasses.replace(one, config=dataclasses.replace(one.config, transfer=sets))
    plan = make_plan(one, [])
    assert f"further set  far: {file}" in "\n".join(plan_lines(plan))
    assert "2 rows (all rows of 3); entailment and not_entailment" in "\n".join(plan_lines(plan))
    file.unlink()
    with pytest.raises(NotAvailableError, match="transfer set far: "):
        make_plan(one, [])


def test_a_price_makes_a_cost_of_the_expected_time(plan: JobPlan) -> None:
    assert "cost" not in "\n".join(plan_lines(plan))
    report = dataclasses.replace(plan.config.report, price_per_hour=4.0, currency="EUR")
    config = dataclasses.replace(plan.config, report=report)
    time = PlannedTime(Span(900.0, 1800.0), Span(1.0, 2.0), "made up")
    priced = dataclasses.replace(plan, config=config, time=time)
    assert "EUR 1.00 to EUR 2.00 at EUR 4.00 an hour" in "\n".join(plan_lines(priced))


def test_gpus_in_use_are_named_with_the_reason_and_each_costs(plan: JobPlan) -> None:
    assert "GPUs" not in "\n".join(plan_lines(plan))  # of a CPU
    report = dataclasses.replace(plan.config.report, gpu_prices_per_hour={"H200": 4.0})
    model = dataclasses.replace(plan.config.model, device="cuda")
    several = dataclasses.replace(
        plan,
        config=dataclasses.replace(plan.config, report=report, model=model),
        look=dataclasses.replace(plan.look, device_name="NVIDIA H200"),
        time=PlannedTime(Span(900.0, 1800.0), Span(1.0, 2.0), "made up"),
        processes=PlannedProcesses(3, 4, "3 trainings can be done side by side"),
    )
    text = "\n".join(plan_lines(several))
    assert "GPUs         3 of 4 visible in use: 3 trainings can be done side by side" in text
    assert "USD 3.00 to USD 6.00 at USD 12.00 an hour" in text


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    make_plan(wanted(tmp_path), [])
    assert list(tmp_path.iterdir()) == []


def test_of_many_rows_some_are_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlijob.gpu.model_look.MOST_ROWS", 10)
    counts = make_plan(wanted(tmp_path), []).look.tokens["train"]
    assert (counts.rows, counts.counted) == (39, 10)


def test_rows_that_are_too_long_are_counted_and_not_trained_on(tmp_path: Path) -> None:
    plan = make_plan(wanted(tmp_path, **{"model.too_long": "drop", "model.max_length": 30}), [])
    left_out = plan.look.tokens["train"].too_long
    assert 0 < left_out < 39
    assert plan.steps_per_epoch == -(-(39 - left_out) // 8)


# ---------------------------------------------------------------- faults


def test_missing_weights_are_the_job_s_fault_after_the_plan_is_made(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL_DIR, model, ignore=shutil.ignore_patterns("*.safetensors"))
    plan = make_plan(wanted(tmp_path, **{"model.name": str(model)}), [])
    fault = exit_error(plan)
    assert fault is not None
    assert fault.exit_code == 4
    assert "has no model.safetensors" in fault.message
    assert plan.look.trainable_parameters == 188_416


def test_a_folder_without_a_configuration_ends_the_plan_as_it_would_the_job(tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match=r"has no config\.json, model\.safetensors"):
        make_plan(wanted(tmp_path, **{"model.name": str(tmp_path)}), [])


def test_a_target_that_matches_nothing_is_refused_as_by_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no linear module of the model is named up_proj") as caught:
        make_plan(wanted(tmp_path, **{"lora.target_modules": ("up_proj",)}), [])
    assert isinstance(caught.value, ConfigurationError)


def test_slices_by_a_column_that_is_not_there_are_refused_as_by_the_job(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the test rows keep no column genre"):
        make_plan(wanted(tmp_path, **{"report.slice_columns": ["genre"]}), [])


def test_a_malformed_row_is_refused_as_by_the_job(tmp_path: Path) -> None:
    data = shutil.copytree(DATA_DIR, tmp_path / "data")
    with (data / "train.jsonl").open("a") as rows:
        rows.write("{\n")
    with pytest.raises(NotAvailableError, match=r"train\.jsonl cannot be read"):
        make_plan(wanted(tmp_path, **{"data.dataset": str(data)}), [])


def test_a_missing_gpu_is_told_and_changes_nothing(tmp_path: Path) -> None:
    planned = wanted(tmp_path, **{"model.device": "cuda"})
    plan = make_plan(planned, [HardwareError("no GPU", "buy one")])
    assert exit_error(plan) is None
    assert plan.look.compute_dtype_is_assumed
    assert plan.memory.free_bytes is None
    text = "\n".join(plan_lines(plan))
    assert "Here the job would end with exit code 5: no GPU" in text
    assert "GPU sizes    16, 24, 48, 80 and 141 GB: dequantised weights" in text
    assert "4-bit weights +" not in text
    assert "MiB 4-bit weights + " in "\n".join(plan_lines(plan, verbose=True))


class HubWithoutWeights(Hub):
    """Has the small files of a model, and lists weights that are not here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(False, print)
        self._folder = folder

    def look(self, *_: object) -> Glance:
        weights = HubFile("model.safetensors", "e", 5_000)
        return Glance(self._folder, (weights,), (weights,))


def model_on_hub(folder: Path) -> Path:
    """The demo's model without its weights, as in the cache of the hub's client."""
    here = folder / ("a" * 40)
    shutil.copytree(MODEL_DIR, here, ignore=shutil.ignore_patterns("*.safetensors"))
    return here


def test_weights_on_the_hub_are_a_download_and_no_fault(tmp_path: Path) -> None:
    hub = HubWithoutWeights(model_on_hub(tmp_path))
    planned = wanted(tmp_path, **{"model.name": "acme/model"})
    plan = make_plan(dataclasses.replace(planned, hub=hub), [])
    assert exit_error(plan) is None
    assert plan.model.download_bytes == 5_000
    assert plan.look.trainable_parameters == 188_416


def test_code_of_a_model_s_own_is_refused_before_the_weights_are_here(tmp_path: Path) -> None:
    here = model_on_hub(tmp_path)
    config = json.loads((here / "config.json").read_text("utf-8"))
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (here / "config.json").write_text(json.dumps({**config, **own}), encoding="utf-8")
    planned = wanted(tmp_path, **{"model.name": "acme/model"})
    with pytest.raises(NotAvailableError, match="computed by code of its own"):
        make_plan(dataclasses.replace(planned, hub=HubWithoutWeights(here)), [])


# ---------------------------------------------------------------- a data set that is not here


CARD = """\
---
dataset_info:
- config_name: other
  splits:
  - name: train
    num_examples: 7
- config_name: plain
  splits:
  - name: train
    num_examples: 1000
  - name: validation
    num_examples: 50
  - name: test
    num_examples: 60
---
"""


class HubWithCard(Hub):
    """Has the card of a data set, and not its rows."""

    def __init__(self, folder: Path, card: str) -> None:
        super().__init__(False, print)
        self._folder = folder / ("a" * 40)
        self._folder.mkdir()
        (self._folder / "README.md").write_text(card, encoding="utf-8")

    def look(self, *_: object) -> Glance:
        rows = HubFile("data.parquet", "e", 5_000)
        return Glance(self._folder, (rows,), (rows,))


def by_card(folder: Path, card: str, config_name: str = "plain") -> JobPlan:
    changes = {"data.dataset": "acme/data", "data.config_name": config_name}
    hub = HubWithCard(folder, card)
    return make_plan(dataclasses.replace(wanted(folder, **changes), hub=hub), [])


def test_the_card_tells_the_rows_of_a_data_set_that_is_not_here(tmp_path: Path) -> None:
    plan = by_card(tmp_path, CARD)
    assert [plan.rows[split].rows for split in ("train", "validation", "test")] == [40, 50, 60]
    assert not plan.rows["train"].is_exact
    assert plan.optimizer_steps == 25
    assert plan.dataset.download_bytes == 5_000


def test_tokens_and_time_are_not_known_before_the_rows_are_here(tmp_path: Path) -> None:
    plan = by_card(tmp_path, CARD)
    assert plan.look.tokens == {}
    assert plan.training_tokens is None
    assert plan.time.job is None
    assert "tokens not known before the download" in "\n".join(plan_lines(plan))


@pytest.mark.parametrize("card", ["", "---\ndataset_info: 3\n---\n", "---\n: [\n---\n"])
def test_without_a_usable_card_the_rows_are_not_known(tmp_path: Path, card: str) -> None:
    plan = by_card(tmp_path, card)
    assert plan.rows["train"].rows is None
    assert plan.optimizer_steps is None
    assert "number of steps not known before the download" in "\n".join(plan_lines(plan))


def test_a_search_is_planned_with_its_candidates_and_epochs(tmp_path: Path) -> None:
    space = {"lora.r": [4, 8], "train.learning_rate": [1e-4, 3e-4, 1e-3]}
    found = make_plan(wanted(tmp_path, **{"sweep.space": space, "train.epochs": 2}), [])
    assert (found.candidates, found.search_epochs) == (6, 12)
    text = "\n".join(plan_lines(found))
    assert "6 candidates (all combinations, seed 1042), 12 epochs in all" in text
    assert "lora.r 4 and 8; train.learning_rate 0.0001, 0.0003 and 0.001" in text
    assert "(before the search for lora.r)" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"forgetting.texts": "gone.txt"}, r"forgetting\.texts: gone\.txt does not exist"),
        ({"forgetting.tasks": ["gone.yaml"]}, r"forgetting\.tasks: gone\.yaml does not exist"),
    ],
)
def test_texts_and_tasks_that_are_not_there_end_the_plan_as_they_end_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(JobError, match=said):
        make_plan(wanted(tmp_path, **settings), [])
