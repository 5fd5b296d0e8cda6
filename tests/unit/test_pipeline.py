"""Fingerprints, attempts, and which records of a run are kept."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from nlijob import hardware, launch, pipeline, processes, records
from nlijob.analysis.times import attempt_times
from nlijob.attempt import drop_torn_line, next_attempt
from nlijob.commands.run_options import default_run_id
from nlijob.config import JobConfig, MachineConfig, TransferConfig, load_config
from nlijob.console import Console
from nlijob.data.elsewhere import elsewhere_stamp
from nlijob.data.sources import source_stamp
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.errors import ConfigurationError, GateError, HardwareError, NotAvailableError
from nlijob.fingerprints import stage_inputs
from nlijob.hub import Hub
from nlijob.launch import GpuSide
from nlijob.pipeline import (
    Job,
    StageAtWork,
    continued,
    model_stamp,
)
from nlijob.records.job import FORMAT_VERSION, Manifest, Progress, RunRecord, Timing, WorkerTask
from nlijob.records.outcome import Finding, Gates
from nlijob.records.search import Winner
from nlijob.rundir import (
    RunDir,
    append_record,
    candidate_marker,
    epoch_marker,
    now,
    write_record,
    write_records,
    write_text,
)
from nlijob.stages import EVERY_STAGE, GPU_STAGES, PHASES, STAGE_NAMES, STAGES, UNREAD
from nlijob.sweep import candidate_inputs, combinations, resolved
from tests.markers import made_from

ALL = {*STAGE_NAMES}
OF_GPU = ALL - {"subset", "elsewhere"}
"""The stages that the model affects."""
CONFIG = load_config("demo")
RECORD = RunRecord("job", "demo", CONFIG, (), "today", "0.1")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def place(stage: str) -> str:
    """How a line of the console begins that is about a stage."""
    return f"[{STAGE_NAMES.index(stage) + 1}/{len(STAGE_NAMES)}] {stage:<10}"


def changed_stages(before: JobConfig, after: JobConfig, model: Path = MODEL_DIR) -> set[str]:
    old, new = stage_fingerprints(before, model), stage_fingerprints(after, model)
    return {stage for stage in old if old[stage] != new[stage]}


def stage_fingerprints(config: JobConfig, model: Path = MODEL_DIR) -> dict[str, str]:
    inputs = stage_inputs(config, stamps_of(config, model))
    return {stage: one.fingerprint for stage, one in inputs.items()}


def stamps_of(config: JobConfig, model: Path = MODEL_DIR) -> dict[str, str]:
    """What identifies the files outside the run."""
    return {
        "data": source_stamp(config.data),
        "model": model_stamp(model),
        "elsewhere": elsewhere_stamp(config),
    }


# ---------------------------------------------------------------- fingerprints


def test_stages_run_in_the_order_of_the_interface() -> None:
    order = "subset elsewhere baseline train select evaluate explain report"
    assert " ".join(STAGE_NAMES) == order


def test_every_stage_comes_after_the_stages_it_follows() -> None:
    for number, stage in enumerate(STAGES):
        assert set(stage.follows) <= set(STAGE_NAMES[:number])


def test_every_phase_has_its_own_name_and_words() -> None:
    names, words = {phase.name for phase in PHASES}, {phase.words for phase in PHASES}
    assert len(names) == len(words) == len(PHASES)


def test_fingerprints_are_the_same_for_the_same_inputs() -> None:
    assert changed_stages(CONFIG, load_config("demo")) == set()


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("data.train_size", 9, ALL),
        ("data.label_map", {"x": 0}, ALL),
        ("model.compute_dtype", "bfloat16", OF_GPU),
        ("model.device", "cpu", OF_GPU),
        ("prompt.verbalizers", [" a", " b", " c"], OF_GPU),
        ("train.seed", 7, OF_GPU),
        ("eval.batch_size", 3, OF_GPU),
        ("lora.r", 4, {"train", "select", "evaluate", "explain", "report"}),
        ("train.epochs", 9, {"train", "select", "evaluate", "explain", "report"}),
        ("eval.test_each_epoch", False, {"train", "select", "evaluate", "explain", "report"}),
        ("eval.cases", 7, {"explain", "report"}),
        ("eval.generate_tokens", 0, {"explain", "report"}),
        ("report.title", "Nightly", {"report"}),
        ("report.min_accuracy", 0.5, {"report"}),
    ],
)
def test_a_changed_value_invalidates_the_stages_that_read_it_and_later_ones(
    key: str, value: Any, stages: set[str]
) -> None:
    assert changed_stages(CONFIG, load_config("demo", {key: value})) == stages


def test_the_description_is_read_by_the_report_alone() -> None:
    assert changed_stages(CONFIG, replace(CONFIG, description="other")) == {"report"}


def test_every_value_of_the_configuration_but_the_machine_is_read_by_a_stage() -> None:
    sections = {key.partition(".")[0] for stage in EVERY_STAGE for key in stage.reads}
    assert sections == set(vars(CONFIG)) - {*UNREAD}


def test_other_gpus_invalidate_no_stage() -> None:
    other = load_config("demo", {"machine.gpus": 4, "machine.share": "steps"})
    assert changed_stages(CONFIG, other) == set()


def test_changed_rows_invalidate_every_stage(tmp_path: Path) -> None:
    data = shutil.copytree(DATA_DIR, tmp_path / "data")
    config = load_config("demo", {"data.dataset": str(data)})
    before = stage_fingerprints(config)
    change_one_byte(data / "test.jsonl")
    after = stage_fingerprints(config)
    assert {stage for stage in before if before[stage] != after[stage]} == ALL


def test_a_changed_local_model_invalidates_all_stages_but_the_subset(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL_DIR, tmp_path / "model")
    before = stage_fingerprints(CONFIG, model)
    change_one_byte(model / "model.safetensors")
    after = stage_fingerprints(CONFIG, model)
    assert {stage for stage in before if before[stage] != after[stage]} == OF_GPU


def test_copies_on_another_machine_invalidate_nothing(tmp_path: Path) -> None:
    def fingerprints(machine: str) -> dict[str, str]:
        for source, name in ((MODEL_DIR, "model"), (DATA_DIR, "data")):
            shutil.copytree(source, tmp_path / machine / name, copy_function=shutil.copyfile)
        link = tmp_path / "data"  # the recipe names the same path on both
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / machine / "data")
        config = load_config("demo", {"data.dataset": str(link)})
        return stage_fingerprints(config, tmp_path / machine / "model")

    assert fingerprints("one") == fingerprints("two")


def change_one_byte(file: Path) -> None:
    """Change a byte in the middle of a file but neither its size nor its times."""
    state = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_hub_model_is_identified_by_its_commit_wherever_the_cache_is(tmp_path: Path) -> None:
    def fingerprint(cache: str, commit: str) -> str:
        snapshot = tmp_path / cache / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / "config.json").write_text(cache, encoding="utf-8")
        return stage_fingerprints(CONFIG, snapshot)["baseline"]

    assert fingerprint("one", "a" * 40) == fingerprint("two", "a" * 40)
    assert fingerprint("one", "a" * 40) != fingerprint("one", "b" * 40)


def test_a_new_record_format_invalidates_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage_fingerprints(CONFIG)
    monkeypatch.setattr("nlijob.records.job.FORMAT_VERSION", FORMAT_VERSION + 1)
    after = stage_fingerprints(CONFIG)
    assert all(before[stage] != after[stage] for stage in ALL)


# ---------------------------------------------------------------- attempts and logs


def test_attempts_count_from_one(run: RunDir) -> None:
    assert next_attempt(run) == 1
    run.root.mkdir(parents=True)
    run.timings.touch()
    assert next_attempt(run) == 1


def test_an_attempt_comes_after_the_highest_so_far(run: RunDir) -> None:
    for attempt in (1, 3, 2):
        append_record(run.timings, Timing(attempt, "train", "", 0.0, 1.0))
    assert next_attempt(run) == 4


@pytest.mark.parametrize(
    ("before", "after"), [("a\nb\nc", "a\nb\n"), ("a\nb\n", "a\nb\n"), ("abc", ""), ("", "")]
)
def test_an_incomplete_last_line_is_removed(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(before, encoding="utf-8")
    drop_torn_line(path)
    assert path.read_text(encoding="utf-8") == after


def test_a_missing_log_is_not_created(tmp_path: Path) -> None:
    drop_torn_line(tmp_path / "log.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_record_can_be_appended_after_an_incomplete_line(run: RunDir) -> None:
    timing = Timing(1, "train", "", 0.0, 1.0)
    append_record(run.timings, timing)
    run.timings.write_text(records.dump_line(timing) + '{"attempt": 2, "st', encoding="utf-8")
    drop_torn_line(run.timings)
    append_record(run.timings, timing)
    assert list(records.read_lines(Timing, run.timings)) == [timing, timing]


def test_a_resumed_run_keeps_the_time_of_its_first_attempt(run: RunDir) -> None:
    write_record(run.config, replace(RECORD, created_at="2026-01-02T03:04:05+00:00"))
    assert continued(RECORD, run).created_at == "2026-01-02T03:04:05+00:00"


def test_a_run_that_is_resumed_with_other_gpus_keeps_the_time_of_its_first_attempt(
    run: RunDir,
) -> None:
    two = replace(CONFIG, machine=MachineConfig(gpus=2))
    write_record(run.config, replace(RECORD, config=two, created_at="2026-01-02T03:04:05+00:00"))
    assert continued(RECORD, run) == replace(RECORD, created_at="2026-01-02T03:04:05+00:00")


def test_a_damaged_time_of_the_first_attempt_is_not_kept(run: RunDir) -> None:
    write_record(run.config, replace(RECORD, created_at="2026-18-02T03:04:05+00:00"))
    assert continued(RECORD, run) == RECORD


def test_a_run_of_another_configuration_is_a_new_one(run: RunDir) -> None:
    other = replace(RECORD, config=replace(CONFIG, description="other"), created_at=now())
    write_record(run.config, other)
    assert continued(RECORD, run) == RECORD


def test_a_damaged_record_of_an_earlier_attempt_is_ignored(run: RunDir) -> None:
    write_text(run.config, "{")
    assert continued(RECORD, run) == RECORD


# ---------------------------------------------------------------- a job whose GPU side fails


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def job(run: RunDir, out: io.StringIO, **overrides: Any) -> Job:
    config = load_config("demo", {key.replace("__", "."): v for key, v in overrides.items()})
    console = Console(out)
    return Job(run, replace(RECORD, config=config), Hub(True, console.line), console)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The complete stages at each start of the GPU side, which is replaced by a stub."""
    markers: list[str] = []

    class NoGpuSide(GpuSide):
        def start(self) -> None:
            markers.append(",".join(sorted(p.stem for p in self._run.root.glob("markers/*"))))

        def give(self, task: WorkerTask) -> None:
            write_record(self._run.worker_task, task)

        def follow(self, on_progress: Callable[[Progress], None]) -> None:
            on_progress(Progress("train", "", 0, 0, "", "epoch 1: loss 0.7"))
            on_progress(Progress("load", "", 0, 0, "", "2.1 GB in memory"))
            raise HardwareError("no memory")

    monkeypatch.setattr(pipeline, "GpuSide", NoGpuSide)
    return markers


def work(run: RunDir, out: io.StringIO, **overrides: Any) -> None:
    with pytest.raises(HardwareError):
        job(run, out, **overrides).work()


@pytest.mark.usefixtures("started")
def test_the_subset_is_built_and_marked_before_the_gpu_side_starts(
    run: RunDir, out: io.StringIO
) -> None:
    work(run, out)
    manifest = records.read(Manifest, run.manifest)
    assert f"{manifest.splits['train'].rows:,} train" in out.getvalue()
    task = records.read(WorkerTask, run.worker_task)
    assert run.is_complete("subset", task.inputs["subset"].fingerprint)
    assert Path(task.model_dir) == MODEL_DIR


@pytest.mark.usefixtures("started")
def test_a_complete_subset_is_not_built_again(run: RunDir, out: io.StringIO) -> None:
    work(run, out)
    before = run.manifest.stat().st_mtime_ns
    work(run, out, train__epochs=3)
    assert f"{place('subset')}complete, skipped" in out.getvalue()
    assert run.manifest.stat().st_mtime_ns == before


@pytest.mark.usefixtures("started")
def test_slices_by_a_column_that_is_not_there_are_refused_before_the_gpu_side_works(
    run: RunDir, out: io.StringIO
) -> None:
    for _ in ("rows that are chosen now", "rows that were chosen before"):
        with pytest.raises(ConfigurationError, match="the test rows keep no column genre"):
            job(run, out, report__slice_columns=("genre",)).work()


@pytest.mark.usefixtures("started")
def test_a_subset_of_other_rows_is_built_again(run: RunDir, out: io.StringIO) -> None:
    work(run, out)
    work(run, out, data__train_size=9)
    assert records.read(Manifest, run.manifest).splits["train"].rows == 9


@pytest.mark.usefixtures("started")
def test_a_subset_that_cannot_be_rebuilt_is_no_longer_complete(
    run: RunDir, out: io.StringIO, tmp_path: Path
) -> None:
    work(run, out)
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(NotAvailableError):
        job(run, out, data__dataset=str(data)).work()
    assert not run.marker("subset").exists()


@pytest.mark.usefixtures("started")
def test_later_attempts_keep_the_timings_of_earlier_ones(run: RunDir, out: io.StringIO) -> None:
    work(run, out)
    work(run, out)
    timings = list(records.read_lines(Timing, run.timings))
    assert [t.attempt for t in timings if (t.stage, t.kind) == ("job", "stage")] == [1, 2]


@pytest.mark.usefixtures("started")
def test_timings_of_other_inputs_are_dropped(run: RunDir, out: io.StringIO) -> None:
    work(run, out)
    work(run, out, data__train_size=9)
    assert {t.attempt for t in records.read_lines(Timing, run.timings)} == {1}


@pytest.mark.usefixtures("started")
def test_messages_of_the_gpu_side_are_shown_by_stage(run: RunDir, out: io.StringIO) -> None:
    work(run, out)
    assert f"{place('train')}epoch 1: loss 0.7\n" in out.getvalue()
    assert "      2.1 GB in memory\n" in out.getvalue()


@pytest.mark.usefixtures("started")
def test_a_failed_stage_is_timed_too(run: RunDir, out: io.StringIO) -> None:
    work(run, out)
    stages = [t.stage for t in records.read_lines(Timing, run.timings)]
    assert stages == ["job", "fetch", "subset", "elsewhere", "job"]


def test_the_gpu_side_starts_before_anything_is_read(
    run: RunDir, out: io.StringIO, started: list[str]
) -> None:
    work(run, out)
    assert started[0] == ""


def test_no_gpu_side_starts_for_a_local_model_that_needs_code_of_its_own(
    run: RunDir, out: io.StringIO, started: list[str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(MODEL_DIR, tmp_path / "own"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    own = {"model_type": "of-my-own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}), "utf-8")
    with pytest.raises(NotAvailableError, match="code of its own"):
        job(run, out, model__name=str(folder)).work()
    assert started == []


def test_the_gpu_side_starts_at_once_where_one_of_its_stages_has_no_marker(
    run: RunDir, out: io.StringIO, started: list[str]
) -> None:
    for stage in GPU_STAGES[:-1]:
        run.mark_complete(stage, made_from("other inputs"), [])
    work(run, out)
    assert "subset" not in started[0]


def test_inputs_are_read_first_where_all_gpu_stages_have_a_marker(
    run: RunDir, out: io.StringIO, started: list[str]
) -> None:
    for stage in GPU_STAGES:
        run.mark_complete(stage, made_from("other inputs"), [])
    work(run, out)
    assert "subset" in started[0]


def test_no_gpu_side_starts_for_the_report_alone(
    run: RunDir, out: io.StringIO, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = stage_inputs(CONFIG, stamps_of(CONFIG))
    for stage in GPU_STAGES:
        run.mark_complete(stage, inputs[stage], [])
    for epoch in range(1, CONFIG.train.epochs + 1):
        run.mark_complete(epoch_marker(epoch), inputs["train"], [])

    def rendered(_: RunDir) -> None:
        raise GateError("rendered")

    monkeypatch.setattr("nlijob.report.render.render", rendered)
    with pytest.raises(GateError, match="rendered"):
        job(run, out).work()
    assert started == []


# ---------------------------------------------------------------- trackers


@pytest.mark.parametrize(("fails", "pages"), [(True, 1), (False, 0)])
def test_the_page_is_written_again_where_a_tracker_fails_after_it_was_written(
    fails: bool, pages: int, run: RunDir, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[RunDir] = []
    monkeypatch.setattr("nlijob.report.render.render", rendered.append)
    tracked = job(run, out, report__track=["mlflow", "wandb"])
    monkeypatch.setattr(tracked.tracking, "finish", lambda: fails)
    tracked._finish_tracking()
    assert len(rendered) == pages
    assert "sending outcome and page to MLflow and Weights & Biases" in out.getvalue()


def test_a_complete_run_is_rendered_and_sent_where_a_tracker_lacks_it(
    finished: RunDir, out: io.StringIO, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def rendered(_: RunDir) -> None:
        done.append("rendered")
        raise GateError("rendered")

    monkeypatch.setattr("nlijob.report.render.render", rendered)
    monkeypatch.setattr("nlijob.pipeline.Tracking.start", lambda _: done.append("started"))
    with pytest.raises(GateError, match="rendered"):
        job(finished, out, report__track=["mlflow"]).work()
    assert done == ["started", "rendered"]
    assert started == []


# ---------------------------------------------------------------- labels of the data


@pytest.fixture
def two_labels(tmp_path: Path) -> Path:
    """A data set with two labels of a known set, and with training rows alone."""
    rows = (
        {"premise": f"a {i}", "hypothesis": "b", "label": ("entails", "not_entailment")[i % 2]}
        for i in range(40)
    )
    folder = tmp_path / "two"
    folder.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.usefixtures("started")
def test_the_names_of_two_labels_are_those_of_the_data_also_when_it_is_resumed(
    run: RunDir, out: io.StringIO, two_labels: Path
) -> None:
    settings = {"model__head": "sequence-classification", "prompt__verbalizers": []}
    work(run, out, data__dataset=str(two_labels), **settings)
    names = ("entailment", "not_entailment")
    assert records.read(RunRecord, run.config).config.data.label_names == names
    assert records.read(Manifest, run.manifest).label_names == names
    assert "the labels of the data are entailment and not_entailment" in out.getvalue()
    assert "test: taken from the training rows, as there is no test split" in out.getvalue()
    again = io.StringIO()
    work(run, again, data__dataset=str(two_labels), **settings)
    assert "subset    complete, skipped" in again.getvalue()
    assert records.read(RunRecord, run.config).config.data.label_names == names


@pytest.mark.usefixtures("started")
def test_a_prompt_that_does_not_fit_the_labels_of_the_data_is_refused(
    run: RunDir, out: io.StringIO, two_labels: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        job(run, out, data__dataset=str(two_labels), prompt__verbalizers=[" 0", " 1", " 2"]).work()
    assert "prompt.verbalizers: 3 given for 2 labels" in caught.value.message
    assert "the labels of the data are entailment and not_entailment" in caught.value.hint


# ---------------------------------------------------------------- a folder that holds a run


@pytest.fixture
def finished(run: RunDir) -> RunDir:
    """A run in which every stage is marked as done with the demo's own settings."""
    inputs = stage_inputs(CONFIG, stamps_of(CONFIG))
    write_text(run.results, "the figures")
    for stage in STAGE_NAMES:
        run.mark_complete(stage, inputs[stage], [run.results] if stage == "report" else [])
    for epoch in range(1, CONFIG.train.epochs + 1):
        weights = run.epoch(epoch) / "adapter_model.safetensors"
        write_text(weights, "the weights")
        run.mark_complete(epoch_marker(epoch), inputs["train"], [weights])
    return run


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_count", lambda: 4)
    monkeypatch.setattr(processes, "gpu_count", lambda: 4)


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"train__learning_rate": 0.003}, f"{place('train')}done again: train.learning_rate is 0."),
        (
            {"train__seed": 7},
            f"{place('baseline')}done again: train.seed is 42 in the folder and 7",
        ),
        ({"data__train_size": 9}, f"{place('subset')}done again: data.train_size is "),
    ],
)
def test_a_finished_run_of_other_settings_is_kept_beside_the_new_one(
    finished: RunDir, out: io.StringIO, settings: dict[str, Any], reason: str
) -> None:
    work(finished, out, **settings)
    assert reason in out.getvalue()
    note = "held a finished run of other settings; it is kept as "
    assert f"{note}{finished.previous}\n" in out.getvalue()
    previous = RunDir(finished.previous)
    assert previous.results.read_text("utf-8") == "the figures"
    assert {*STAGE_NAMES} <= {*previous.marked()}
    assert "train" not in finished.marked()


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"train__learning_rate": 0.003}, ["subset", "elsewhere", "baseline"]),
        ({"train__seed": 7}, ["subset", "elsewhere"]),
        ({"data__train_size": 9}, []),
    ],
)
def test_rows_and_base_scores_that_stay_the_same_are_taken_over(
    finished: RunDir, out: io.StringIO, settings: dict[str, Any], kept: list[str]
) -> None:
    write_text(finished.baseline_result, "the scores")
    inputs = stage_inputs(CONFIG, stamps_of(CONFIG))
    finished.mark_complete("baseline", inputs["baseline"], [finished.baseline_result])
    work(finished, out, **settings)
    same = [
        stage
        for stage in ("subset", "elsewhere", "baseline")
        if finished.marker(stage).exists()
        and finished.marker(stage).read_bytes()
        == RunDir(finished.previous).marker(stage).read_bytes()
    ]
    assert same == kept
    assert finished.baseline_result.exists() == ("baseline" in kept)


@pytest.mark.usefixtures("started")
def test_an_older_kept_run_is_replaced_and_that_is_said(finished: RunDir, out: io.StringIO) -> None:
    write_text(finished.previous / "results.json", "older figures")
    work(finished, out, train__seed=7)
    assert "the run that was kept there before is deleted" in out.getvalue()
    assert (finished.previous / "results.json").read_text("utf-8") == "the figures"


@pytest.mark.usefixtures("started")
def test_with_replace_nothing_is_kept(finished: RunDir, out: io.StringIO) -> None:
    one = job(finished, out, train__seed=7)
    one.replace = True
    with pytest.raises(HardwareError):
        one.work()
    assert not finished.previous.exists()
    assert "Note: this replaces the finished run of other settings" in out.getvalue()


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("setting", ["eval__cases", "eval__generate_tokens"])
def test_other_settings_of_the_evaluation_go_on_in_place(
    finished: RunDir, out: io.StringIO, setting: str
) -> None:
    work(finished, out, **{setting: 5})
    key = setting.replace("__", ".")
    assert f"{place('explain')}done again: {key} is " in out.getvalue()
    assert not finished.previous.exists()
    assert {"baseline", "train", "select"} <= {*finished.marked()}


@pytest.mark.usefixtures("started")
def test_a_finished_run_that_is_asked_for_more_trainings_goes_on_in_place(
    finished: RunDir, out: io.StringIO
) -> None:
    work(finished, out, train__seeds=3)
    assert not finished.previous.exists()
    assert "done again" not in out.getvalue()
    assert "train" not in finished.marked()
    assert {"subset", "baseline"} <= {*finished.marked()}
    first = finished.view("trials/seed-42").marked()
    assert {"train", "select", "evaluate", "train-epoch-1"} <= {*first}


@pytest.mark.usefixtures("started")
def test_more_trainings_with_other_settings_are_another_run(
    finished: RunDir, out: io.StringIO
) -> None:
    work(finished, out, train__seeds=3, train__learning_rate=0.003)
    assert {*STAGE_NAMES} <= {*RunDir(finished.previous).marked()}
    assert not finished.trials.exists()


def test_a_run_with_more_trainings_has_the_same_name() -> None:
    more: list[dict[str, Any]] = [
        {},
        {"train.seeds": 3},
        {"train.seeds": [42, 50], "train.keep": "all"},
    ]
    one, *several = (
        default_run_id("demo", load_config("demo", {"lora.r": 4, **changes})) for changes in more
    )
    assert several == [one, one]
    assert default_run_id("demo", load_config("demo", {"train.seeds": 2})) == "demo"


@pytest.mark.parametrize("settings", [{}, {"lora.r": 4}])
def test_a_run_on_other_gpus_has_the_same_name(settings: dict[str, Any]) -> None:
    one, other = (
        default_run_id("demo", load_config("demo", {**settings, "machine.gpus": gpus}))
        for gpus in ("auto", 4)
    )
    assert one == other


@pytest.mark.usefixtures("started")
def test_a_further_test_set_is_added_to_a_finished_run_without_a_new_training(
    finished: RunDir, out: io.StringIO
) -> None:
    write_records(finished.subset("train"), [])
    sets = (TransferConfig("near", "demo", size=9),)
    one = job(finished, out)
    one.record = replace(RECORD, config=replace(CONFIG, transfer=sets))
    with pytest.raises(HardwareError):
        one.work()
    assert not finished.previous.exists()
    assert f"{place('elsewhere')}done again: transfer is " in out.getvalue()
    assert f"{place('elsewhere')}near: 9 rows, entailment, " in out.getvalue()
    prints = {stage: inputs.fingerprint for stage, inputs in one.inputs.items()}
    again = {stage for stage in STAGE_NAMES if not finished.is_complete(stage, prints[stage])}
    assert again == {"baseline", "evaluate", "explain", "report"}


@pytest.mark.usefixtures("started")
def test_nothing_is_kept_of_a_run_that_was_not_finished(finished: RunDir, out: io.StringIO) -> None:
    finished.unmark("report")
    work(finished, out, train__seed=7)
    assert not finished.previous.exists()


@pytest.mark.usefixtures("started")
def test_a_finished_run_of_an_older_version_is_kept(finished: RunDir, out: io.StringIO) -> None:
    for stage in (*STAGE_NAMES, epoch_marker(1)):
        older = {"stage": stage, "fingerprint": "x", "finished_at": "then", "sizes": {}}
        finished.marker(stage).write_text(json.dumps({**older, "format_version": 3}), "utf-8")
    work(finished, out)
    assert "done again: it was done by another version (record format 3)" in out.getvalue()
    assert RunDir(finished.previous).results.read_text("utf-8") == "the figures"


def test_a_complete_run_gets_its_configuration_back(finished: RunDir, out: io.StringIO) -> None:
    write_text(finished.config, "{ torn")
    with pytest.raises(ValueError, match="Expecting value"):  # the figures here are none
        job(finished, out).work()
    assert records.read(RunRecord, finished.config).config == CONFIG


@pytest.mark.usefixtures("four_gpus")
def test_a_complete_run_that_is_asked_for_on_other_gpus_stays_as_it_is(
    finished: RunDir, out: io.StringIO
) -> None:
    write_record(finished.config, RECORD)
    one = job(finished, out)
    one.record = replace(RECORD, config=replace(CONFIG, machine=MachineConfig(gpus=4)))
    with pytest.raises(ValueError, match="Expecting value"):  # the figures here are none
        one.work()
    assert f"{place('train')}complete, skipped" in out.getvalue()
    assert records.read(RunRecord, finished.config) == RECORD


@pytest.mark.usefixtures("started", "four_gpus")
def test_an_unfinished_run_goes_on_with_other_gpus(finished: RunDir, out: io.StringIO) -> None:
    finished.unmark("evaluate")
    work(finished, out, machine__gpus=4)
    assert not finished.previous.exists()
    assert "done again" not in out.getvalue()
    assert {"baseline", "train", "select"} <= {*finished.marked()}
    assert records.read(RunRecord, finished.config).config.machine.gpus == 4


@pytest.mark.usefixtures("started", "four_gpus")
def test_the_gpu_side_has_as_many_processes_as_pay_and_is_told_why(
    run: RunDir, out: io.StringIO
) -> None:
    one = job(run, out, model__device="cuda", train__seeds=3)
    with pytest.raises(HardwareError):
        one.work()
    reason = "3 trainings can be done side by side"
    assert f"(accelerate launch) on 3 of 4 GPUs: {reason}\n" in out.getvalue()
    assert records.read(WorkerTask, run.worker_task).processes_reason == reason


def test_the_stage_of_trainings_side_by_side_is_the_earliest_that_one_is_in() -> None:
    at_work = StageAtWork()
    told = [
        *(("baseline", 0), ("train", 0), ("train", 1), ("evaluate", 1), ("train", 0)),
        *(("evaluate", 0), ("train", 1), ("evaluate", 1), ("explain", 0)),
    ]
    assert [at_work.after(Progress(name, "", 0, 0, "", process=n)) for name, n in told] == [
        *("baseline", "train", "train", "train", "train"),
        *("evaluate", "train", "evaluate", "explain"),
    ]


@pytest.mark.usefixtures("started")
def test_nothing_is_said_of_a_single_gpu(run: RunDir, out: io.StringIO) -> None:
    work(run, out)
    assert "(accelerate launch)\n" in out.getvalue()
    assert records.read(WorkerTask, run.worker_task).processes_reason == ""


# ---------------------------------------------------------------- the GPU side's start and end


def test_an_error_while_the_gpu_side_starts_ends_it(
    run: RunDir, out: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [sys.executable, "-c", "import signal; signal.pause()"]  # until it is ended
    monkeypatch.setattr(launch, "launch_command", lambda *_: argv)
    monkeypatch.setattr(launch, "STOP_GRACE_S", math.inf)
    with pytest.raises(NotAvailableError):
        job(run, out, model__name=str(tmp_path / "nowhere")).work()
    assert [p for p in psutil.Process().children() if p.cmdline() == argv] == []


def test_a_model_with_code_of_its_own_is_told_to_the_gpu_side(
    run: RunDir, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def make(*_: Any, trusts_code: bool, **__: Any) -> GpuSide:
        told.append(trusts_code)
        raise HardwareError("none")

    monkeypatch.setattr(pipeline, "GpuSide", make)
    for trusts_code in (True, False):
        work(run, out, model__trust_remote_code=trusts_code)
    assert told == [True, False]


def test_a_missed_gate_raises() -> None:
    failures = tuple(Finding("", {}, text) for text in ("one", "two"))
    results = type("Results", (), {"gates": Gates(False, failures)})()
    with pytest.raises(GateError, match="one; two"):
        pipeline.check_gates(results)


def test_a_gate_that_is_met_does_not_raise() -> None:
    results = type("Results", (), {"gates": Gates(True, ())})()
    pipeline.check_gates(results)


# ---------------------------------------------------------------- attempts and their time


def test_an_attempt_that_ends_before_any_stage_records_its_time(
    run: RunDir, out: io.StringIO, started: list[str], tmp_path: Path
) -> None:
    with pytest.raises(NotAvailableError):
        job(run, out, model__name=str(tmp_path / "nowhere")).work()
    assert [one.is_least for one in attempt_times(list(read_timings(run))).values()] == [False]


def test_writing_the_report_alone_is_no_attempt(
    run: RunDir, out: io.StringIO, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = stage_inputs(CONFIG, stamps_of(CONFIG))
    for stage in STAGE_NAMES[:-1]:
        run.mark_complete(stage, inputs[stage], [])
    for epoch in range(1, CONFIG.train.epochs + 1):
        run.mark_complete(epoch_marker(epoch), inputs["train"], [])
    append_record(run.timings, Timing(1, "job", "", 0.0, 9.0))

    def rendered(_: RunDir) -> None:
        raise GateError("rendered")

    monkeypatch.setattr("nlijob.report.render.render", rendered)
    with pytest.raises(GateError, match="rendered"):
        job(run, out).work()
    assert len(list(read_timings(run))) == 1
    assert not run.hardware.exists()
    assert records.read(RunRecord, run.config).run_id == RECORD.run_id


def read_timings(run: RunDir) -> Iterator[Timing]:
    return records.read_lines(Timing, run.timings)


# ---------------------------------------------------------------- a search


SPACE = {"lora.r": [4, 8]}
BEST = Winner("candidate-2", {"lora.r": 8}, "the rule", 2)


@pytest.fixture
def searched(run: RunDir) -> RunDir:
    """A run whose search and training are complete, and which is not evaluated."""
    config = load_config("demo", {"sweep.space": SPACE})
    found = resolved(config, BEST)
    inputs = stage_inputs(found, stamps_of(config))
    write_record(run.winner, BEST)
    for stage in ("subset", "elsewhere", "baseline", "train", "select"):
        run.mark_complete(stage, inputs[stage], [])
    run.mark_complete("search", inputs["search"], [run.winner])
    for one in combinations(config):
        made = candidate_inputs(one, config.sweep, stamps_of(config))
        run.mark_complete(candidate_marker(one.name), made, [])
    for epoch in range(1, config.train.epochs + 1):
        run.mark_complete(epoch_marker(epoch), inputs["train"], [])
    return run


@pytest.mark.usefixtures("started")
def test_a_run_that_is_resumed_has_the_settings_that_its_search_found(
    searched: RunDir, out: io.StringIO
) -> None:
    work(searched, out, sweep__space=SPACE)
    task = records.read(WorkerTask, searched.worker_task)
    assert task.inputs["train"].settings["lora.r"] == 8
    assert task.stamps == stamps_of(CONFIG)
    assert records.read(RunRecord, searched.config).config.lora.r == 8
    assert "train" in searched.marked()
    assert "[1/9] subset    complete, skipped" in out.getvalue()


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("lost", ["marker", "winner"])
def test_a_search_that_has_to_be_repeated_undoes_nothing_else(
    searched: RunDir, out: io.StringIO, lost: str
) -> None:
    if lost == "marker":
        searched.unmark("search")
    else:
        searched.winner.write_text("{", encoding="utf-8")
    write_text(searched.results, "the figures")
    searched.mark_complete("report", made_from("an earlier report"), [])
    work(searched, out, sweep__space=SPACE)
    assert not searched.previous.exists()
    assert {"baseline", "train", "select", "search/candidate-1"} <= {*searched.marked()}


@pytest.mark.usefixtures("started")
def test_a_finished_run_without_a_search_is_kept_beside_one_with_a_search(
    finished: RunDir, out: io.StringIO
) -> None:
    work(finished, out, sweep__space=SPACE)
    assert finished.previous.exists()
    assert "train" not in finished.marked()


@pytest.mark.usefixtures("started")
def test_another_search_does_not_take_on_what_was_found_before(
    searched: RunDir, out: io.StringIO
) -> None:
    work(searched, out, sweep__space={"lora.r": [4, 8, 16]})
    assert "[4/9] search    done again: sweep.space is " in out.getvalue()
    assert records.read(RunRecord, searched.config).config.lora.r == 16
