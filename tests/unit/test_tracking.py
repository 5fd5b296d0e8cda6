"""What trackers are told about a run, once each, and what happens where one fails."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from nlijob import records
from nlijob.cli import cli
from nlijob.commands.run_options import default_run_id
from nlijob.config import JobConfig, ReportConfig, TrackerName, load_config
from nlijob.errors import ConfigurationError
from nlijob.records.job import RunRecord, TrainResult, TrainStep
from nlijob.records.tracking import TrackerState
from nlijob.rundir import RunDir, write_record, write_records
from nlijob.tracking import side
from nlijob.tracking.__main__ import follow
from nlijob.tracking.packages import check_trackers
from nlijob.tracking.series import Point
from nlijob.tracking.side import Tracking, tracker_environment
from nlijob.tracking.states import read_state, write_state
from nlijob.tracking.trackers import OPENERS, Setting
from nlijob.trials import trials_of
from tests.several import build_several
from tests.synthetic import Spec, build_run, finish, mark_stages

EPOCHS, STEPS = 2, 100
SPEC = Spec(rows=24, train_rows=400, epochs=EPOCHS, few_shot=0)


def with_epochs(run: RunDir) -> None:
    """Write each epoch's figures beside its checkpoint, as a job does."""
    for result in records.read(TrainResult, run.train_result).epochs:
        write_record(run.epoch_result(result.epoch), result)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run of 2 epochs and 100 optimizer steps."""
    run = build_run(tmp_path_factory.mktemp("runs") / "run", SPEC)
    with_epochs(run)
    mark_stages(run)
    finish(run)
    run.report.write_text("<p>the page</p>", encoding="utf-8")
    run.summary.write_text("### the summary", encoding="utf-8")
    return run


@pytest.fixture
def run(made: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(made.root, tmp_path / "run")))


def config_of(run: RunDir) -> JobConfig:
    return records.read(RunRecord, run.config).config


class Fake:
    """A tracker that keeps what it is told."""

    def __init__(self, run: str = "", fails_at: str = "") -> None:
        self._run = run
        self._fails_at = fails_at
        self.settings_sent: list[Mapping[str, Setting]] = []
        self.points: list[Point] = []
        self.sent_files: list[str] = []
        self.succeeded: bool | None = None

    @property
    def run(self) -> str:
        return self._run or "abc"

    def settings(self, values: Mapping[str, Setting]) -> None:
        self.settings_sent.append(values)

    def log(self, points: Sequence[Point]) -> None:
        if self._fails_at == "log":
            raise ConnectionError(
                "no answer from https://me:hunter2@host.example, key sesame42, password hunter2"
            )
        self.points += points

    def files(self, files: list[Path]) -> None:
        self.sent_files += [file.name for file in files]

    def finish(self, succeeded: bool) -> None:
        self.succeeded = succeeded


def tell(
    run: RunDir, tracker: Fake, ends: Iterable[bool | None] = (True,), name: TrackerName = "mlflow"
) -> TrackerState:
    """Follow a run; `ends`: what is known of the job's end at each look."""
    looks = iter(ends)

    def opened(_: TrackerName, __: RunDir, known: str) -> Fake:
        tracker._run = tracker._run or known
        return tracker

    follow(name, run, config_of(run), lambda: next(looks), opened)
    return read_state(run, name)


def named(tracker: Fake, name: str) -> list[tuple[int, float]]:
    """Steps and values of a figure."""
    return [(p.step, p.values[name]) for p in tracker.points if name in p.values]


# ---------------------------------------------------------------- what is sent


def test_steps_epochs_outcome_settings_and_page_are_sent(run: RunDir) -> None:
    fake = Fake()
    state = tell(run, fake)
    log = list(records.read_lines(TrainStep, run.train_log))
    assert named(fake, "train/loss") == [(step.step, step.loss) for step in log]
    assert [step for step, _ in named(fake, "validation/accuracy")] == [STEPS // 2, STEPS]
    assert [step for step, _ in named(fake, "base/test/accuracy")] == [0]
    figures = json.loads(run.results.read_text("utf-8"))
    assert named(fake, "outcome/gain") == [(STEPS, figures["gain"])]
    assert fake.settings_sent[0]["train.epochs"] == EPOCHS
    assert fake.sent_files == ["report.html", "results.json", "summary.md"]
    assert fake.succeeded is True
    assert state.is_finished
    assert state.run == "abc"


def test_steps_are_sent_while_the_job_goes_on(run: RunDir) -> None:
    log = list(records.read_lines(TrainStep, run.train_log))
    write_records(run.train_log, log[:10])
    fake = Fake()
    seen: list[int] = []

    def ends() -> Iterable[bool | None]:
        yield None
        seen.append(len(named(fake, "train/loss")))
        write_records(run.train_log, log)
        yield None
        seen.append(len(named(fake, "train/loss")))
        yield True

    tell(run, fake, ends())
    assert seen == [10, STEPS]


def test_a_resumed_job_goes_on_in_the_same_run_and_repeats_no_step(run: RunDir) -> None:
    log = list(records.read_lines(TrainStep, run.train_log))
    write_records(run.train_log, log[:60])
    first, second = Fake("first"), Fake()
    state = tell(run, first, [False])
    assert not state.is_finished
    assert first.succeeded is False
    assert first.sent_files == []
    write_records(run.train_log, log[:40])  # the checkpoint from which the training goes on

    def ends() -> Iterable[bool | None]:
        yield None
        write_records(run.train_log, log)
        yield True

    tell(run, second, ends())
    assert second.run == "first"
    assert second.settings_sent == []
    assert [step for step, _ in named(second, "train/loss")] == [*range(61, STEPS + 1)]


def test_a_line_that_is_being_written_is_read_once_it_is_whole(run: RunDir) -> None:
    whole = run.train_log.read_bytes()
    run.train_log.write_bytes(whole[: len(whole) - 20])
    fake = Fake()

    def ends() -> Iterable[bool | None]:
        yield None
        run.train_log.write_bytes(whole)
        yield True

    tell(run, fake, ends())
    assert [step for step, _ in named(fake, "train/loss")] == [*range(1, STEPS + 1)]


def test_the_figures_of_several_trainings_have_names_of_their_own(tmp_path: Path) -> None:
    run = build_several(tmp_path / "run", SPEC, (42, 43))
    for trial in trials_of(config_of(run)):
        with_epochs(run.of_trial(trial))
    fake = Fake()
    tell(run, fake, [False])
    for seed in (42, 43):
        assert len(named(fake, f"seed-{seed}/train/loss")) == STEPS
        assert len(named(fake, f"seed-{seed}/validation/loss")) == EPOCHS


# ---------------------------------------------------------------- faults


def test_a_tracker_that_fails_is_recorded_without_secrets(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "sesame42")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@host.example")
    state = tell(run, Fake(fails_at="log"))
    assert state.fault == "ConnectionError: no answer from ..., key ..., password ..."
    assert not state.is_finished


def test_a_missing_package_is_told_with_the_extra_that_has_it() -> None:
    missing = ReportConfig(track=("mlflow", "trackio"))
    with pytest.raises(ConfigurationError) as caught:
        check_trackers(missing)
    assert "MLflow is asked for, and the package mlflow is not installed" in caught.value.message
    assert caught.value.hint == "pip install 'nlijob[mlflow,trackio]'"


@pytest.fixture(autouse=True)
def no_services(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """MLflow and trackio are not installed, whatever is here; returns the function replaced."""
    find = importlib.util.find_spec

    def found(name: str) -> object:
        return None if name in ("mlflow", "trackio") else find(name)

    monkeypatch.setattr("importlib.util.find_spec", found)
    return find


def test_a_folder_of_the_packages_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigurationError, match="wandb is not installed"):
        check_trackers(ReportConfig(track=("wandb",)))


def test_a_job_with_a_missing_package_ends_before_anything_is_done(tmp_path: Path) -> None:
    command = ["run", "--recipe", "demo", "--runs-dir", str(tmp_path / "runs"), "--track", "mlflow"]
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    assert isinstance(done.exception, ConfigurationError)
    assert not (tmp_path / "runs").exists()


def test_trackers_do_not_change_the_name_of_a_run() -> None:
    tracked = load_config("demo", {"report.track": ["tensorboard"]})
    assert default_run_id("demo", tracked) == "demo"


def test_a_tracker_is_named_once() -> None:
    with pytest.raises(ConfigurationError, match="trackers must differ"):
        load_config("demo", {"report.track": ["wandb", "wandb"]})


# ---------------------------------------------------------------- its process


def processes(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have trackers' processes run this code; `sys.argv` has the tracker and the run's folder."""
    monkeypatch.setattr(
        side, "command_of", lambda name, run: [sys.executable, "-c", code, name, str(run.root)]
    )


def sent(run: RunDir) -> tuple[bool, list[str]]:
    """Whether finishing brought a fault, and what was told."""
    told: list[str] = []
    with Tracking(run, ("mlflow",), told.append) as tracking:
        tracking.start()
        fault = tracking.finish()
    return fault, told


def test_a_process_that_ends_well_leaves_nothing_to_tell(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes(monkeypatch, "import sys; sys.exit(sys.stdin.read() != '\\n')")
    assert sent(run) == (False, [])


def test_a_process_that_dies_is_told_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, "import sys; sys.exit(3)")
    note = "Note: tracking with MLflow failed: its process ended with status 3"
    assert sent(run) == (True, [note])
    assert read_state(run, "mlflow").fault == "its process ended with status 3"


def test_a_process_that_hangs_is_ended(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "FINISH_S", 0.2)
    processes(monkeypatch, "import time; time.sleep(600)")
    told = ["Note: tracking with MLflow failed: it did not end within 0 s"]
    assert sent(run) == (True, told)


def test_a_job_that_is_stopped_says_nothing_of_its_trackers(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side, "STOP_S", 0.2)
    processes(monkeypatch, "import time; time.sleep(600)")
    told: list[str] = []
    with Tracking(run, ("mlflow",), told.append) as tracking:
        tracking.start()
    assert told == []
    assert read_state(run, "mlflow").fault == ""


def test_an_earlier_fault_is_forgotten_at_the_start(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(run, TrackerState("mlflow", run="abc", steps={"seed-42": 5}, fault="no answer"))
    processes(monkeypatch, "")
    assert sent(run) == (False, [])
    assert read_state(run, "mlflow").steps == {"seed-42": 5}


def test_a_trackers_process_has_the_network_and_its_key_but_no_gpu() -> None:
    own = {"WANDB_API_KEY": "sesame42", "RANK": "3", "PATH": "/bin"}
    found = tracker_environment(own)
    assert found["WANDB_API_KEY"] == "sesame42"
    assert found["HF_HUB_OFFLINE"] == "0"
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert "RANK" not in found
    assert tracker_environment({**own, "HF_HUB_OFFLINE": "1"})["HF_HUB_OFFLINE"] == "1"


# ---------------------------------------------------------------- with the trackers themselves


def really_tell(run: RunDir, name: TrackerName) -> TrackerState:
    """Follow a finished run with the tracker's own library."""
    pytest.importorskip(name)
    ends = iter([True])
    follow(
        name,
        run,
        config_of(run),
        lambda: next(ends),
        lambda asked, of, known: OPENERS[asked](of, known),
    )
    state = read_state(run, name)
    assert state.fault == ""
    assert state.is_finished
    return state


def test_tensorboard_reads_back_what_was_sent(run: RunDir) -> None:
    really_tell(run, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.tracking / "tensorboard"))
    events.Reload()
    log = list(records.read_lines(TrainStep, run.train_log))
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [step.step for step in log]
    assert [event.value for event in losses] == pytest.approx([step.loss for step in log])
    assert [event.step for event in events.Scalars("validation/accuracy")] == [STEPS // 2, STEPS]
    (page,) = events.Tensors("report/text_summary")
    text = page.tensor_proto.string_val[0].decode()
    assert "### the summary" in text
    assert str(run.report.absolute()) in text


def test_mlflows_local_store_has_what_was_sent(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "")
    pytest.importorskip("sqlalchemy")
    state = really_tell(run, "mlflow")
    again = really_tell(run, "mlflow")
    assert again.run == state.run
    with sqlite3.connect(run.tracking / "mlflow.db") as store:
        steps = store.execute("SELECT step FROM metrics WHERE key = 'train/loss' ORDER BY step")
        assert [step for (step,) in steps] == [*range(1, STEPS + 1)]
        assert [*store.execute("SELECT name, status FROM runs")] == [("run", "FINISHED")]
    files = {file.name for file in (run.tracking / "mlflow" / state.run).rglob("*.*")}
    assert files == {"report.html", "results.json", "summary.md"}
