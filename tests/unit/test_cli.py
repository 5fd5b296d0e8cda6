"""The command line: exit codes, run ids, environment variables, completion and time to answer."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from click.shell_completion import ShellComplete

from nlijob import __version__, cli, commands, hardware, host_serving, notify, records
from nlijob.commands.options import OPTIONS
from nlijob.console import Console
from nlijob.errors import DivergedError
from nlijob.hosts import Hosts
from nlijob.pipeline import Job
from nlijob.recipe import recipe_names
from nlijob.records.forgetting import TaskList
from nlijob.records.health import Check, Health
from nlijob.records.outcome import Finding, Gates
from nlijob.records.planning import Obstacle
from nlijob.rundir import RunDir
from nlijob.stopping import Stopped
from nlijob.storage import mirror
from tests import jobs
from tests.faulty_place import FaultyFileSystem, complete
from tests.markers import made_from


class Shown(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


class Caller:
    """Calls the command line in this process, without doing the job itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.started: list[Job] = []
        self.outcome: Any = SimpleNamespace(
            gates=Gates(True, ()),
            base=SimpleNamespace(accuracy=0.3),
            tuned=SimpleNamespace(accuracy=0.6, rows=10),
            selection=SimpleNamespace(epoch=1),
            trials=None,
        )
        """What the job returns, or raises."""

    def __call__(self, *arguments: str | Path, **environment: str) -> Shown:
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["entrypoint.py", *map(str, arguments)])
            patch.setattr(Job, "work", self._work_of())
            for name, value in environment.items():
                patch.setenv(name, value)
            code = cli.main()
        return Shown(code, *self._capsys.readouterr())

    def job(self, *arguments: str | Path, **environment: str) -> Job:
        """The job that a command line starts."""
        shown = self(*arguments, **environment)
        assert shown.code == 0, shown.err
        return self.started[-1]

    def _work_of(self) -> Any:
        def work(job: Job) -> Any:
            self.started.append(job)
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return work


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Caller]:
    """The command line on a machine without a GPU, in an empty folder."""
    for name in os.environ:
        if name.startswith("NLIJOB_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "gpu_count", lambda: 0)
    monkeypatch.setattr(hardware, "wake_driver", lambda: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Caller(monkeypatch, capsys)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_help_is_given_whatever_variables_are_set(call: Caller) -> None:
    assert call("prefetch", "--help", NLIJOB_EPOCS="3").code == 0
    assert call("--help", NLIJOB_EPOCS="3").code == 0


@pytest.mark.parametrize(("options", "times"), [([], 1), (["--device", "cpu"], 0)])
def test_a_job_that_may_use_a_gpu_begins_to_load_the_driver_first(
    call: Caller, monkeypatch: pytest.MonkeyPatch, options: list[str], times: int
) -> None:
    woken: list[bool] = []
    monkeypatch.setattr(hardware, "wake_driver", lambda: woken.append(True))
    assert call("run", "--recipe", "no-such-recipe", *options).code == 2
    assert len(woken) == times


# ---------------------------------------------------------------- plan and doctor


def plan_with(monkeypatch: pytest.MonkeyPatch, *obstacles: Obstacle) -> dict[str, Any]:
    """Have `plan` find these obstacles; returns what it is asked for."""
    asked: dict[str, Any] = {}

    def make(wanted: Any, known: list[Any]) -> Any:
        asked.update(wanted=wanted, known=known)
        return Obstacles(obstacles)

    monkeypatch.setattr("nlijob.planning.plan.make_plan", make)
    monkeypatch.setattr("nlijob.planning.words.plan_lines", lambda *_: ["the plan"])
    return asked


@dataclasses.dataclass(frozen=True)
class Obstacles:
    """All of a plan that the command itself reads."""

    obstacles: tuple[Obstacle, ...]


def test_plan_takes_the_options_of_run_and_writes_nothing(
    call: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = plan_with(monkeypatch)
    options = ("--recipe", "demo", "--epochs", "2", "--run-id", "x", "--upload", "file:///a")
    shown = call("plan", *options, "--replace", "--verbose")
    assert (shown.code, shown.out) == (0, "the plan\n")
    assert asked["wanted"].config.train.epochs == 2
    assert asked["wanted"].run.root == Path("runs/x")
    assert list(tmp_path.iterdir()) == []


def test_plan_goes_on_without_the_gpu_that_the_job_needs(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plan_with(monkeypatch, Obstacle(5, "no GPU", "get one"))
    assert call("plan").code == 0
    assert [error.exit_code for error in asked["known"]] == [5]
    assert asked["wanted"].config.model.device == "cuda"


def test_plan_ends_with_the_code_of_a_fault_in_the_model(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_with(monkeypatch, Obstacle(74, "full", ""), Obstacle(4, "no weights", "get some"))
    shown = call("plan", "--recipe", "demo")
    assert (shown.code, shown.out) == (4, "the plan\n")
    assert "error: no weights\nhint: get some\n" in shown.err


def test_plan_as_json_is_the_record(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_with(monkeypatch, Obstacle(5, "no GPU", "get one"))
    shown = call("plan", "--json")
    assert json.loads(shown.out)["obstacles"][0]["exit_code"] == 5


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_plan_and_doctor_refuse_what_run_refuses(call: Caller, command: str) -> None:
    assert call(command, "--recipe", "dmo").code == 2
    assert call(command, "--recipe", "demo", "--run-id", "a/b").code == 2
    assert call(command, NLIJOB_EPOCS="3").code == 2


@pytest.mark.parametrize("code", [0, 5, 74])
def test_doctor_ends_with_the_code_of_its_checks(
    call: Caller, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    check = Check("cache", "FAIL" if code else "OK", "text", "advice", code)
    monkeypatch.setattr("nlijob.planning.doctor.examine", lambda _: Health((check,), code))
    shown = call("doctor", "--recipe", "demo")
    assert shown.code == code
    assert shown.out == f"{check.status:<6}cache  text; advice\n"
    assert json.loads(call("doctor", "--recipe", "demo", "--json").out)["exit_code"] == code


def test_doctor_looks_on_without_the_gpu_that_the_job_needs(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = []

    def examine(patient: Any) -> Health:
        patients.append(patient)
        return Health((patient.gpu_check,), 5)

    monkeypatch.setattr("nlijob.planning.doctor.examine", examine)
    assert call("doctor").code == 5
    assert patients[0].config.model.device == "cuda"
    assert patients[0].gpu_check.status == "FAIL"


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "--recipe", "dmo"), "did you mean 'demo'?"),
        (("run", "--recipe", "nowhere.toml"), "'nowhere.toml' does not exist"),
        (("run", "--recipe", "demo", "--set", "lora.rank=3"), "lora.rank: unknown key"),
        (("run", "--recipe", "demo", "--set", "lora.r"), "expected section.key=value"),
        (("run", "--recipe", "demo", "--epochs", "0"), "train.epochs: 0 is below 1"),
        (("run", "--recipe", "demo", "--learning-rate", "nan"), "expected a number, got nan"),
        (("run", "--epoch", "3"), "No such option"),
        (("run", "--epochs", "three"), "'three' is not a valid integer"),
        (("run", "--train-stride", "0"), "0 is not in the range"),
        (("run", "--device", "tpu"), "'tpu' is not one of"),
        (("--epoch", "3"), "No such option"),
        (("train",), "No such command"),
        (("report",), "Missing argument"),
        (("prefetch", "--recipe", "dmo"), "did you mean 'demo'?"),
    ],
)
def test_an_invalid_command_line_ends_with_2(
    call: Caller, arguments: tuple[str, ...], text: str
) -> None:
    shown = call(*arguments)
    assert shown.code == 2
    assert text in shown.err
    assert "Traceback" not in shown.err
    assert call.started == []


def test_all_faults_of_a_command_line_are_reported_together(call: Caller) -> None:
    shown = call("run", "--recipe", "demo", "--epochs", "0", "--set", "lora.rank=3")
    assert "train.epochs: 0 is below 1" in shown.err
    assert "lora.rank: unknown key" in shown.err


@pytest.mark.parametrize("command", ["run", "plan", "doctor"])
def test_faults_of_the_hosts_and_of_the_configuration_are_named_together(
    call: Caller, command: str
) -> None:
    shown = call(command, "--recipe", "demo", "--epochs", "0", "--hosts", "2", "--host-rank", "2")
    assert shown.code == 2
    assert "train.epochs" in shown.err
    assert "--host-rank 2: with --hosts 2 it is one of 0 to 1" in shown.err
    assert "--rendezvous is missing" in shown.err


def test_another_host_serves_host_0_and_makes_no_run_and_posts_no_notice(
    call: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[Hosts] = []
    posted: list[object] = []
    monkeypatch.setattr(host_serving, "serve", lambda hosts, *_: served.append(hosts))
    monkeypatch.setattr(notify, "_post", lambda *content: posted.append(content))
    variables = {"NLIJOB_HOSTS": "2", "NLIJOB_HOST_RANK": "1", "NLIJOB_RENDEZVOUS": "node0:1234"}
    assert call("run", "--recipe", "demo", "--notify-url", "http://x/y", **variables).code == 0
    assert served == [Hosts(2, 1, "node0", 1234)]
    assert not call.started
    assert not posted
    assert not list(tmp_path.iterdir())


def test_variables_of_a_launcher_around_the_job_make_no_other_host_of_it(call: Caller) -> None:
    variables = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}
    assert call.job("run", "--recipe", "demo", **variables).link is None


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_size_and_stride_of_a_split_exclude_each_other(call: Caller, split: str) -> None:
    shown = call("run", "--recipe", "demo", f"--{split}-size", "3", f"--{split}-stride", "3")
    assert shown.code == 2
    assert f"--{split}-size and --{split}-stride: give only one of the two" in shown.err


def test_a_missed_gate_ends_with_3(call: Caller) -> None:
    failure = Finding("min-accuracy", {}, "accuracy 50.0 % is below 60.0 %")
    call.outcome.gates = Gates(False, (failure,))
    shown = call("run", "--recipe", "demo")
    assert shown.code == 3
    assert "error: accuracy 50.0 % is below 60.0 %\nhint:" in shown.err


def test_data_that_are_not_available_end_with_4(
    monkeypatch: pytest.MonkeyPatch, call: Caller, tmp_path: Path
) -> None:
    work = Job.work
    monkeypatch.setattr(call, "_work_of", lambda: work)
    shown = call("run", "--recipe", "demo", "--dataset", tmp_path / "nowhere")
    assert shown.code == 4
    assert "nowhere: no such folder" in shown.err


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_report_on_an_unfinished_run_ends_with_4(call: Caller, folder: str) -> None:
    shown = call("report", folder)
    assert shown.code == 4
    assert "holds no run to report on" in shown.err


@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "demo"])
def test_a_recipe_made_for_a_gpu_ends_with_5_where_there_is_none(call: Caller, name: str) -> None:
    shown = call("run", "--recipe", name)
    assert shown.code == 5
    assert "made for a GPU" in shown.err
    assert "--device cpu" in shown.err
    assert call.started == []


def test_device_cuda_without_a_gpu_ends_with_5(call: Caller) -> None:
    assert call("run", "--recipe", "demo", "--device", "cuda").code == 5


def test_an_error_of_the_job_ends_with_its_code_message_and_hint(call: Caller) -> None:
    call.outcome = DivergedError("loss is nan", "lower the rate")
    shown = call("run", "--recipe", "demo")
    assert shown.code == 6
    assert shown.err.endswith("error: loss is nan\nhint: lower the rate\n")


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(errno.ENOSPC, "No space left on device"), 74), (MemoryError(), 5)]
)
def test_a_fault_of_the_machine_is_no_bug(call: Caller, error: Exception, code: int) -> None:
    call.outcome = error
    shown = call("run", "--recipe", "demo")
    assert shown.code == code
    assert "Traceback" not in shown.err
    assert "\nhint: " in shown.err


def test_a_bug_ends_with_70_and_its_traceback(call: Caller) -> None:
    call.outcome = RuntimeError("unforeseen")
    shown = call("run", "--recipe", "demo")
    assert shown.code == 70
    assert "RuntimeError: unforeseen" in shown.err
    assert "please report it" in shown.err


@pytest.mark.parametrize("stop", [Stopped("SIGTERM"), KeyboardInterrupt()])
def test_a_stopped_job_ends_with_75_and_says_how_to_resume(
    call: Caller, stop: BaseException
) -> None:
    call.outcome = stop
    shown = call("run", "--recipe", "demo")
    assert shown.code == 75
    assert "error: stopped" in shown.err
    assert "hint: the same command resumes from what is complete" in shown.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_job_with_75(
    monkeypatch: pytest.MonkeyPatch, call: Caller, number: signal.Signals
) -> None:
    def work(_: Job) -> None:
        os.kill(os.getpid(), number)
        pytest.fail("the signal raised nothing")

    monkeypatch.setattr(call, "_work_of", lambda: work)
    shown = call("run", "--recipe", "demo")
    assert shown.code == 75
    assert f"error: stopped ({number.name})" in shown.err


def test_a_run_that_another_job_holds_ends_with_2(call: Caller) -> None:
    with RunDir(Path("runs/demo")).lock():
        shown = call("run", "--recipe", "demo")
    assert shown.code == 2
    assert "another job is working on" in shown.err


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_the_other_processes_of_a_launcher_wait_for_the_first(
    call: Caller, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "2")
    with contextlib.ExitStack() as other:
        other.enter_context(RunDir(Path("runs/demo")).lock())
        line = Console.line

        def until_told(console: Console, text: str) -> None:
            line(console, text)
            if "waiting for its end" in text:
                other.close()

        monkeypatch.setattr(Console, "line", until_told)
        assert call("run", "--recipe", "demo").code == 0


@pytest.mark.parametrize("arguments", [("--help",), ("run", "-h"), ("--version",)])
def test_asking_for_help_ends_with_0(call: Caller, arguments: tuple[str, ...]) -> None:
    assert call(*arguments).code == 0


@pytest.mark.parametrize("arguments", [("-m", "nlijob"), ("entrypoint.py",)])
def test_files_of_the_current_folder_shadow_no_module(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """As with `python -m`, and with an entrypoint that lies among the user's own files."""
    for name in ("random", "datasets", "json", "click"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')", encoding="utf-8")
    shutil.copy(jobs.ROOT / "entrypoint.py", tmp_path)
    done = subprocess.run(
        [sys.executable, *arguments, "recipes"],
        cwd=tmp_path,
        env=jobs.environment(PYTHONPATH=f"{os.pathsep}{jobs.ROOT}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{recipe_names()[0]}\n")


def test_a_python_without_the_packages_is_told_as_such() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "entrypoint.py", "recipes"],  # without its site's packages
        cwd=jobs.ROOT,
        env=jobs.environment(PYTHONPATH=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the package click is not installed for ")
    assert "Traceback" not in done.stderr


def test_the_process_ends_with_the_exit_code() -> None:
    assert jobs.run("run", "--recipe", "dmo").returncode == 2


# ---------------------------------------------------------------- the device


def test_a_recipe_made_for_a_gpu_runs_on_a_cpu_when_told_to(call: Caller) -> None:
    assert call.job("run", "--device", "cpu").config.model.device == "cpu"


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda"), (4, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one_and_records_it(
    monkeypatch: pytest.MonkeyPatch, call: Caller, gpus: int, device: str
) -> None:
    monkeypatch.setattr(hardware, "gpu_count", lambda: gpus)
    assert call.job("run", "--recipe", "demo").config.model.device == device


def test_a_setting_that_the_device_does_not_support_is_reported(call: Caller) -> None:
    shown = call("run", "--recipe", "demo", "--set", "model.compute_dtype=float16")
    assert shown.code == 2
    assert "float16 does not train on a CPU" in shown.err


# ---------------------------------------------------------------- run ids


def run_id(call: Caller, *arguments: str | Path) -> str:
    job = call.job("run", "--device", "auto", *arguments)
    assert job.record.run_id == job.run.root.name
    return job.record.run_id


def test_a_plain_run_has_its_recipes_name(call: Caller) -> None:
    assert run_id(call, "--recipe", "demo") == "demo"


def test_a_run_of_a_recipe_file_has_the_files_name(call: Caller, tmp_path: Path) -> None:
    mine = tmp_path / "nightly.toml"
    mine.write_text('extends = "demo"\n', encoding="utf-8")
    assert run_id(call, "--recipe", mine) == "nightly"


def test_other_options_make_another_run_and_the_same_options_resume(call: Caller) -> None:
    demo = ("--recipe", "demo")
    ids = [run_id(call, *demo, "--seed", seed) for seed in ("1", "2", "1")]
    assert ids[0] == ids[2] != ids[1]
    assert all(name.startswith("demo-") and len(name) == len("demo-") + 8 for name in ids)


def test_an_option_equal_to_the_recipes_value_makes_no_other_run(call: Caller) -> None:
    assert run_id(call, "--recipe", "demo", "--train-size", "0") == "demo"


def test_a_run_may_be_named(call: Caller) -> None:
    assert run_id(call, "--recipe", "demo", "--seed", "1", "--run-id", "mine") == "mine"


@pytest.mark.parametrize("name", ["-x", "nächtlich", "a b", "x" * 255])
def test_any_other_name_of_a_folder_may_be_a_run_id(call: Caller, name: str) -> None:
    assert run_id(call, "--recipe", "demo", "--run-id", name) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a\x1b[2J", r"'a\x1b[2J': control characters"),
        ("a\nb", "control characters"),
        ("caf\udce9", "control characters"),
        ("x" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
    ],
)
def test_a_run_id_that_no_folder_should_have_is_refused(call: Caller, name: str, text: str) -> None:
    shown = call("run", "--recipe", "demo", "--run-id", name)
    assert shown.code == 2
    assert text in shown.err


def test_a_current_folder_that_was_deleted_is_told(call: Caller) -> None:
    gone = Path("gone").absolute()
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    shown = call("run", "--recipe", "demo")
    assert shown.code == 2
    assert "the current folder was deleted" in shown.err


def test_a_folder_of_runs_that_is_not_utf_8_is_refused(call: Caller) -> None:
    shown = call("run", "--recipe", "demo", "--runs-dir", "caf\udce9")
    assert shown.code == 2
    assert r"caf\udce9" in shown.err


@pytest.mark.parametrize("name", [".", "..", "a/b", "/a"])
def test_a_run_id_that_leads_elsewhere_is_refused(call: Caller, name: str) -> None:
    shown = call("run", "--recipe", "demo", "--run-id", name)
    assert shown.code == 2
    assert "give a plain folder name" in shown.err


def test_runs_are_kept_in_runs_dir(call: Caller, tmp_path: Path) -> None:
    job = call.job("run", "--recipe", "demo", "--runs-dir", tmp_path / "elsewhere")
    assert job.run.root == tmp_path / "elsewhere" / "demo"


def test_the_record_contains_the_command(call: Caller) -> None:
    record = call.job("run", "--recipe", "demo", "--seed", "3").record
    assert record.recipe == "demo"
    assert record.command == ("run", "--recipe", "demo", "--seed", "3")


def test_the_record_contains_no_secret_of_a_url(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "ATTEMPTS", 1)
    command = call.job(
        *("run", "--recipe", "demo", "--notify-url=http://127.0.0.1:9/T0KEN?t=T0KEN"),
        *("--upload", f"file://me:T0KEN@{Path.cwd()}/bucket"),
    ).record.command
    url, upload = "--notify-url=http://...", "file://..."
    assert command == ("run", "--recipe", "demo", url, "--upload", upload)


# ---------------------------------------------------------------- places and notices


def test_a_job_is_uploaded_and_resumed_from_there(call: Caller, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    run = RunDir(Path("runs/demo"))
    complete(run, "subset", "a", "subset/test.jsonl")
    shown = call("run", "--recipe", "demo", "--upload", url)
    assert shown.err.splitlines()[-1] == f"Uploaded: {url}/demo"
    shutil.rmtree(run.root)
    shown = call("run", "--recipe", "demo", NLIJOB_RESUME_FROM=url)
    assert f"Resuming from {url}/demo" in shown.err
    assert run.is_complete("subset", made_from("a").fingerprint)


def test_urls_do_not_change_what_a_run_computes(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "ATTEMPTS", 1)
    plain = call.job("run", "--recipe", "demo", "--seed", "3")
    url = f"file://{tmp_path}/bucket"
    kept = call.job(
        *("run", "--recipe", "demo", "--seed", "3", "--resume-from", url),
        NLIJOB_UPLOAD=url,
        NLIJOB_NOTIFY_URL="http://127.0.0.1:9",
    )
    assert kept.record.config == plain.record.config
    assert kept.record.run_id == plain.record.run_id


@pytest.mark.parametrize("option", ["--upload", "--resume-from"])
def test_an_unusable_url_ends_with_2(call: Caller, option: str) -> None:
    shown = call("run", "--recipe", "demo", option, "bucket/x")
    assert shown.code == 2
    assert f"{option} bucket/x" in shown.err
    assert call.started == []


def test_a_remote_copy_that_cannot_be_read_ends_with_4(call: Caller) -> None:
    FaultyFileSystem.reset()
    FaultyFileSystem.before = staticmethod(lambda operation, path: os.stat("/nowhere/at/all"))
    shown = call("run", "--recipe", "demo", "--resume-from", "faulty://bucket/x")
    assert shown.code == 4
    assert "error: --resume-from faulty://bucket/x/demo cannot be read" in shown.err
    assert call.started == []


def test_a_failed_upload_changes_no_exit_code(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(operation: str, path: str) -> None:
        raise OSError("away")

    monkeypatch.setattr(mirror, "FIRST_WAIT_S", 0.001)
    FaultyFileSystem.reset()
    FaultyFileSystem.before = staticmethod(fail)
    complete(RunDir(Path("runs/demo")), "subset", "a", "subset/test.jsonl")
    shown = call("run", "--recipe", "demo", "--upload", "faulty://bucket/x")
    assert shown.code == 0
    assert "Not uploaded to faulty://bucket/x/demo: 2 files (OSError: away)" in shown.err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [((), 0, 1), (("--epochs", "0"), 2, 1), (("--device", "cuda"), 5, 1), (("--epoch", "3"), 2, 0)],
)
def test_a_notice_is_posted_however_a_valid_command_ends(
    call: Caller, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, told: int
) -> None:
    posted: list[tuple[str, int]] = []

    def post(url: str, content: dict[str, Any], in_haste: bool) -> str:
        posted.append((url, content["exit_code"]))
        return ""

    monkeypatch.setattr(notify, "_post", post)
    url = "http://host/path"
    shown = call("run", "--recipe", "demo", "--notify-url", url, *arguments)
    assert shown.code == code
    assert posted == [(url, code)] * told


# ---------------------------------------------------------------- options and the environment

VALUES: dict[str, tuple[str, Any]] = {
    "model": ("some/model", "some/model"),
    "dataset": ("some/data", "some/data"),
    "train-size": ("3", 3),
    "train-stride": ("4", 4),
    "validation-size": ("5", 5),
    "validation-stride": ("6", 6),
    "test-size": ("7", 7),
    "test-stride": ("8", 8),
    "epochs": ("9", 9),
    "batch-size": ("10", 10),
    "learning-rate": ("0.5", 0.5),
    "seed": ("11", 11),
    "seeds": ("3", (42, 43, 44)),
    "keep": ("all", "all"),
    "device": ("cpu", "cpu"),
    "gpus": ("2", 2),
    "accelerate-config": ("fsdp", "fsdp"),
    "min-accuracy": ("0.25", 0.25),
    "min-gain": ("-0.5", -0.5),
    "tasks": ("arc_easy, own.yaml,", ("arc_easy", "own.yaml")),
    "price-per-hour": ("3.2", 3.2),
    "gate-on": ("lower", "lower"),
}
"""Option -> the value given, the value in the configuration."""


def variable(option: str) -> str:
    return "NLIJOB_" + option.upper().replace("-", "_")


def test_every_option_is_tested_here() -> None:
    assert set(VALUES) == set(OPTIONS)


@pytest.mark.parametrize("name", ["run", "prefetch"])
def test_every_option_has_an_environment_variable_of_its_name(name: str) -> None:
    for parameter in commands.load(name).params:
        option = parameter.opts[0]
        assert parameter.envvar == variable(option.removeprefix("--")), option


@pytest.mark.parametrize("option", VALUES)
def test_an_option_changes_its_key(call: Caller, option: str) -> None:
    given, value = VALUES[option]
    config = call.job("run", "--recipe", "demo", f"--{option}", given).config
    assert config.value(OPTIONS[option][0]) == value


@pytest.mark.parametrize("option", VALUES)
def test_a_variable_does_what_its_option_does_even_without_a_command(
    call: Caller, option: str
) -> None:
    given, value = VALUES[option]
    config = call.job(NLIJOB_RECIPE="demo", **{variable(option): given}).config
    assert config.value(OPTIONS[option][0]) == value


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "all", "²"])
def test_no_other_words_than_auto_stand_for_a_number_of_gpus(call: Caller, given: str) -> None:
    shown = call("run", "--recipe", "demo", "--gpus", given)
    assert shown.code == 2
    assert "neither auto nor a number from 1 on" in shown.err


def test_gpus_can_be_left_to_the_job(call: Caller) -> None:
    config = call.job("run", "--recipe", "demo", "--gpus", "auto", NLIJOB_GPUS="3").config
    assert config.machine.gpus == "auto"


def test_recipe_run_id_and_runs_dir_can_come_from_the_environment(
    call: Caller, tmp_path: Path
) -> None:
    job = call.job(
        NLIJOB_RECIPE="demo", NLIJOB_RUN_ID="mine", NLIJOB_RUNS_DIR=str(tmp_path / "elsewhere")
    )
    assert job.record.recipe == "demo"
    assert job.run.root == tmp_path / "elsewhere" / "mine"


@pytest.mark.parametrize("options", [(), ("--trust-remote-code",)])
def test_code_that_comes_with_a_model_is_allowed_by_an_option(
    call: Caller, options: tuple[str, ...]
) -> None:
    job = call.job("run", "--recipe", "demo", *options)
    assert job.config.model.trust_remote_code is bool(options)


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("0", False)])
def test_offline_can_come_from_the_environment(call: Caller, value: str, offline: bool) -> None:
    assert call.job(NLIJOB_RECIPE="demo", NLIJOB_OFFLINE=value).hub._offline is offline


def test_several_assignments_can_come_from_the_environment(call: Caller) -> None:
    text = "lora.r=3 report.title='Two words' train.seed = 5\nprompt.verbalizers=[' a', ' b', ' c']"
    config = call.job(NLIJOB_RECIPE="demo", NLIJOB_SET=text).config
    assert (config.lora.r, config.train.seed) == (3, 5)
    assert config.report.title == "Two words"
    assert config.prompt.verbalizers == (" a", " b", " c")


@pytest.mark.parametrize("is_variable", [True, False])
def test_a_search_can_be_given_by_options_and_by_variables(call: Caller, is_variable: bool) -> None:
    ranks, rates = "lora.r=8,16", "train.learning_rate = 1e-4, 3e-4"
    if is_variable:
        config = call.job(NLIJOB_RECIPE="demo", NLIJOB_SWEEP=f"{ranks} {rates}").config
    else:
        config = call.job("run", "--recipe", "demo", "--sweep", ranks, "--sweep", rates).config
    space = {"lora.r": (8, 16), "train.learning_rate": (1e-4, 3e-4)}
    assert (config.sweep.space, config.sweep.trials) == (space, None)


def test_a_number_of_trials_without_a_search_ends_with_2(call: Caller) -> None:
    shown = call("run", "--recipe", "demo", "--trials", "5")
    assert shown.code == 2
    assert "sweep.space: there is nothing to search" in shown.err


def test_an_option_wins_over_its_variable(call: Caller) -> None:
    config = call.job("run", "--recipe", "demo", "--epochs", "2", NLIJOB_EPOCHS="9").config
    assert config.train.epochs == 2


def test_an_empty_variable_counts_as_unset(call: Caller) -> None:
    job = call.job(NLIJOB_RECIPE="demo", NLIJOB_RUN_ID="", NLIJOB_EPOCHS="", NLIJOB_SET="")
    assert job.record.run_id == "demo"


def test_an_invalid_variable_ends_with_2(call: Caller) -> None:
    shown = call(NLIJOB_RECIPE="demo", NLIJOB_EPOCHS="many")
    assert shown.code == 2
    assert "'many' is not a valid integer" in shown.err


@pytest.mark.parametrize("command", ["run", "prefetch", "recipes", "report"])
def test_a_misspelt_variable_ends_a_command_before_it_does_anything(
    call: Caller, command: str
) -> None:
    folder = ["."] if command == "report" else []
    shown = call(command, *folder, NLIJOB_RECIPE="demo", NLIJOB_EPOCS="3")
    assert (shown.code, shown.out) == (2, "")
    assert "NLIJOB_EPOCS: did you mean NLIJOB_EPOCHS?" in shown.err
    assert not call.started


def test_assignments_may_be_given_several_times(call: Caller) -> None:
    sets = ("--set", "lora.r=3", "--set", "lora.alpha=5")
    lora = call.job("run", "--recipe", "demo", *sets).config.lora
    assert (lora.r, lora.alpha) == (3, 5)


def test_a_recipes_revision_applies_to_its_own_model_and_data_only(call: Caller) -> None:
    on_cpu = ("run", "--device", "cpu")
    config = call.job(*on_cpu, "--model", "a/b", "--dataset", "c/d").config
    assert (config.model.revision, config.data.revision) == (None, None)
    assert config.data.config_name is None
    config = call.job(*on_cpu, "--model", "a/b", "--set", "model.revision=abc").config
    assert config.model.revision == "abc"
    assert config.data.revision is not None


# ---------------------------------------------------------------- the other commands


def test_recipes_are_listed_with_their_main_figures(call: Caller) -> None:
    shown = call("recipes")
    assert shown.code == 0
    assert [line for line in shown.out.splitlines() if line[0] != " "] == recipe_names()
    assert (
        "microsoft/phi-2, causal; LoRA r=32 alpha=64 on q_proj, k_proj, v_proj, lm_head; "
        "5 epochs, batch 8, learning rate 2.5e-05"
    ) in shown.out


def test_prefetch_of_the_demo_needs_no_hub(call: Caller) -> None:
    shown = call("prefetch", "--recipe", "demo", "--offline")
    assert shown.code == 0
    assert "data set demo, train: " in shown.out


def test_prefetch_reads_further_test_sets_too(call: Caller, tmp_path: Path) -> None:
    recipe = tmp_path / "further.toml"
    table = '[[transfer]]\nname = "near"\ndataset = "demo"\nsplit = "validation"\nsize = 9\n'
    recipe.write_text(f'extends = "demo"\n{table}')
    shown = call("prefetch", "--recipe", str(recipe), "--offline")
    assert shown.code == 0
    assert "further set near: 250 rows, 9 taken" in shown.out


def test_prefetch_fetches_the_data_of_tasks_too(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def fetch(file: Path, is_offline: bool) -> None:
        asked.append(records.read(TaskList, file).tasks)

    monkeypatch.setattr("nlijob.data.tasks.tasks_stamp", lambda _: "")
    monkeypatch.setattr("nlijob.data.tasks.fetch_tasks", fetch)
    shown = call("prefetch", "--recipe", "demo", "--tasks", "arc_easy,piqa")
    assert shown.code == 0
    assert asked == [("arc_easy", "piqa")]
    assert "tasks: arc_easy, piqa" in shown.out


def test_prefetch_leaves_no_run_behind(call: Caller, tmp_path: Path) -> None:
    call("prefetch", "--recipe", "demo")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- quiet and verbose


def test_a_quiet_job_prints_no_progress(call: Caller) -> None:
    assert "nlijob" in call("run", "--recipe", "demo").err
    assert call("run", "--recipe", "demo", "--quiet").err == ""
    assert call("run", "--recipe", "demo", NLIJOB_QUIET="1").err == ""


def test_a_failed_upload_is_reported_even_when_quiet(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FIRST_WAIT_S", 0.001)
    FaultyFileSystem.reset()
    FaultyFileSystem.before = staticmethod(lambda operation, path: os.stat("/nowhere/at/all"))
    complete(RunDir(Path("runs/demo")), "subset", "a", "subset/test.jsonl")
    shown = call("run", "--recipe", "demo", "--quiet", "--upload", "faulty://bucket/x")
    assert "Not uploaded to faulty://bucket/x/demo" in shown.err


def test_quiet_and_verbose_exclude_each_other(call: Caller) -> None:
    shown = call("run", "--recipe", "demo", "--quiet", "--verbose")
    assert shown.code == 2
    assert "--quiet and --verbose: give only one of the two" in shown.err


def test_verbose_on_the_command_line_wins_over_quiet_in_the_environment(call: Caller) -> None:
    shown = call("run", "--recipe", "demo", "--verbose", NLIJOB_QUIET="1")
    assert shown.code == 0
    assert "nlijob" in shown.err


# ---------------------------------------------------------------- how it is found


def test_help_lists_every_command(call: Caller) -> None:
    listed = call("--help").out.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed if line] == list(commands.NAMES)
    assert all(not line.endswith("...") for line in listed), "a summary is cut off"


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ([], "", list(commands.NAMES)),
        ([], "rec", ["recipes"]),
        (["run"], "--resume", ["--resume-from"]),
        (["run", "--device"], "c", ["cpu", "cuda"]),
    ],
)
def test_a_shell_completes_commands_options_and_values(
    words: list[str], incomplete: str, offered: list[str]
) -> None:
    completion = ShellComplete(cli.cli, {}, "nlijob", "_NLIJOB_COMPLETE")
    assert [item.value for item in completion.get_completions(words, incomplete)] == offered


def test_the_script_that_a_shell_evaluates_is_printed() -> None:
    done = jobs.run(env=jobs.environment(_ENTRYPOINT_PY_COMPLETE="bash_source"))
    assert done.returncode == 0, done.stderr
    assert "complete -o nosort" in done.stdout


def test_the_package_runs_as_a_module() -> None:
    argv = [sys.executable, "-m", "nlijob", "--version"]
    done = subprocess.run(argv, cwd=jobs.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"nlijob, version {__version__}\n"


# ---------------------------------------------------------------- how soon it answers


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import json, sys; sys.argv = ['entrypoint.py', '--help']; from nlijob.cli import main\n"
        "main(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=jobs.ROOT, capture_output=True, text=True, check=True
    )
    assert "Usage: entrypoint.py" in done.stdout
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert {name for name in packages if not name.startswith("_")} == {"click", "nlijob"}
    assert len(imported) < 250  # benchmarks/page_opening.py times it


def test_options_with_no_command_are_those_of_run(call: Caller) -> None:
    job = call.job("--recipe", "demo", "--epochs", "3")
    assert job.config.train.epochs == 3


def test_a_size_on_the_command_line_wins_over_a_stride_in_the_environment(call: Caller) -> None:
    job = call.job("--recipe", "demo", "--train-size", "7", NLIJOB_TRAIN_STRIDE="5")
    assert (job.config.data.train_size, job.config.data.train_stride) == (7, None)
