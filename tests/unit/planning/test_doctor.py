"""The doctor: every check ends in time, says what to do, and the exit code is the job's."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from nlijob import hardware, records
from nlijob.config import load_config
from nlijob.errors import ExitCode, NotAvailableError
from nlijob.hardware.driver import start
from nlijob.hub import Glance, Hub
from nlijob.hub_cache import HubFile
from nlijob.planning import doctor
from nlijob.planning.child import LOOK, TRIAL
from nlijob.planning.doctor import Patient, examine, gpu_check
from nlijob.planning.words import check_lines
from nlijob.records.health import Check, Health
from nlijob.rundir import RunDir, append_record, write_record
from tests.unit.planning.test_durations import model

STEPS = ("libraries", "device", "4-bit test", "prompt")
NO_GPU = Check("GPU", "FAIL", "no GPU", "get one", ExitCode.HARDWARE)
NOT_NEEDED = Check("GPU", "OK", "not needed")


class FakeChild:
    """Stands for the child process: it has done some steps, and then ended, died or hangs."""

    def __init__(self, *steps: Check | str, end: int | None = 0) -> None:
        self._steps = [Check(s, "OK", "fine") if isinstance(s, str) else s for s in steps]
        self._end = end

    @contextlib.contextmanager
    def __call__(self, *_: str, output: Path) -> Iterator[Any]:
        root = output.parent.parent
        output.parent.mkdir(parents=True)
        output.write_text("Segmentation fault\n", encoding="utf-8")
        for step in self._steps:
            append_record(root / TRIAL, step)
        if any(step.name == "prompt" for step in self._steps):
            write_record(root / LOOK, model(device_name="CPU", free_memory_bytes=2**36))
        yield SimpleNamespace(stdin=(output.parent / "pipe").open("wb"), poll=lambda: self._end)


def examined(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    child: FakeChild,
    gpu: Check = NOT_NEEDED,
    offline: bool = False,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> Health:
    monkeypatch.setattr(doctor, "child", child)
    config = load_config("demo", {"model.device": "cpu", **values})
    run = folder / "runs" / "job"
    return examine(Patient("demo", config, gpu, run, offline, time.monotonic()))


def check(health: Health, name: str) -> Check:
    (found,) = [check for check in health.checks if check.name == name]
    return found


def test_a_machine_without_faults_ends_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS))
    assert health.exit_code == 0
    assert {check.status for check in health.checks} == {"OK"}
    names = [check.name for check in health.checks]
    assert names == [
        *("GPU", "run folder", "cache", "temporary files", "model", "data set"),
        *STEPS,
        *("memory", "disk space"),
    ]
    assert list(tmp_path.iterdir()) == []


def test_each_check_is_one_line_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Check("prompt", "FAIL", "2 faults:\n  - one\n  - two", "mend them", 2)
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS[:3], faulty))
    lines = list(check_lines(health))
    assert len(lines) == len(health.checks)
    assert lines[9].startswith("FAIL  prompt")
    assert lines[9].endswith("2 faults: - one - two; mend them")
    assert health.exit_code == 2


def test_checks_can_be_read_back_from_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS))
    assert records.from_json(Health, json.loads(records.dump(health))) == health


def test_a_missing_gpu_comes_first_and_its_device_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = examined(
        tmp_path,
        monkeypatch,
        FakeChild("libraries", "prompt"),
        NO_GPU,
        values={"model.name": "./no"},
    )
    assert health.exit_code == ExitCode.HARDWARE
    assert check(health, "model").exit_code == ExitCode.NOT_AVAILABLE
    assert not {"device", "4-bit test"} & {check.name for check in health.checks}


def test_the_sizes_of_gpus_that_have_room_for_the_job_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = {"model.device": "cuda"}
    health = examined(
        tmp_path, monkeypatch, FakeChild("libraries", "prompt"), NO_GPU, values=on_gpu
    )
    sizes = check(health, "GPU sizes")
    assert sizes.status == "OK"
    assert sizes.text == "16, 24, 48, 80 and 141 GB: dequantised weights"


@pytest.mark.parametrize(
    ("done", "hangs_at", "status", "code"),
    [
        ((), "libraries", "WARN", 0),
        (STEPS[:1], "device", "FAIL", 5),
        (STEPS[:2], "4-bit test", "FAIL", 5),
        (STEPS[:3], "prompt", "WARN", 0),
    ],
)
def test_a_step_that_hangs_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    done: tuple[str, ...],
    hangs_at: str,
    status: str,
    code: int,
) -> None:
    monkeypatch.setattr(doctor, "WHOLE_S", 0.5)
    health = examined(tmp_path, monkeypatch, FakeChild(*done, end=None))
    assert check(health, hangs_at).status == status
    assert health.exit_code == code


def test_a_step_that_crashes_is_told_with_the_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS[:2], end=-11))
    assert "died: Segmentation fault" in check(health, "4-bit test").text
    assert health.exit_code == ExitCode.HARDWARE


def test_a_device_that_cannot_be_used_fails_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Check("device", "FAIL", "compute capability 6.1, torch is built for 7.5", "another", 5)
    health = examined(tmp_path, monkeypatch, FakeChild("libraries", old, "prompt"))
    assert [check.name for check in health.checks if check.status == "FAIL"] == ["device"]
    assert health.exit_code == ExitCode.HARDWARE


def test_too_little_memory_is_a_fault_of_the_hardware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor, "model_look", lambda _: model(device_name="CPU", free_memory_bytes=2**30)
    )
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS))
    assert check(health, "memory").status == "FAIL"
    assert health.exit_code == ExitCode.HARDWARE


# ---------------------------------------------------------------- places


def test_a_place_that_cannot_be_written_to_ends_with_74(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS))
    assert check(health, "run folder").text.startswith(f"{tmp_path}: the disk is full; ")
    assert health.exit_code == ExitCode.DISK


def test_a_file_in_the_way_of_a_folder_ends_with_74(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").write_text("", encoding="utf-8")
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS))
    found = check(health, "run folder")
    assert found.text == f"{tmp_path / 'runs'}: there is a file where a folder is needed"
    assert health.exit_code == ExitCode.DISK


def test_without_a_folder_for_temporary_files_the_other_checks_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", fail)
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS))
    assert check(health, "run folder").status == "OK"
    assert check(health, "temporary files").status == "FAIL"
    assert health.exit_code == ExitCode.DISK


def test_a_limit_on_the_size_of_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(27, os.strerror(27))

    monkeypatch.setattr(doctor, "write_stand_in", fail)
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS))
    assert "see `ulimit -f`" in check(health, "libraries").text
    assert health.exit_code == ExitCode.DISK


def test_a_folder_that_never_answers_is_given_up() -> None:
    never = threading.Event()
    answer = start(lambda: Check("cache", "OK", str(never.wait())))
    found = doctor._answer(answer, "cache", 0.01, sys.float_info.max, ExitCode.DISK)
    never.set()
    assert found.status == "FAIL"
    assert found.exit_code == ExitCode.DISK
    assert "no answer within" in found.text


# ---------------------------------------------------------------- hub


def lacking(self: Hub, kind: str, *_: object) -> Glance:
    file = HubFile("model.safetensors", "e", 5_000_000)
    return Glance(Path("a" * 40), (file,), (file,))


def test_a_hub_that_answers_is_well_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "look", lacking)
    monkeypatch.setattr(Hub, "ask", lambda *_: None)
    health = examined(tmp_path, monkeypatch, FakeChild(*STEPS), values={"model.name": "acme/model"})
    assert check(health, "model").text == "acme/model: the hub answers, 5.0 MB to fetch"


def test_a_hub_that_does_not_answer_ends_with_4_if_files_are_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> None:
        raise NotAvailableError("no answer within 4 s", "check the network")

    monkeypatch.setattr(Hub, "look", lacking)
    monkeypatch.setattr(Hub, "ask", ask)
    health = examined(
        tmp_path, monkeypatch, FakeChild(*STEPS), values={"data.dataset": "acme/data"}
    )
    assert check(health, "data set").status == "FAIL"
    assert health.exit_code == ExitCode.NOT_AVAILABLE


def test_offline_a_data_set_that_is_not_whole_ends_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "look", lacking)
    health = examined(
        tmp_path, monkeypatch, FakeChild(*STEPS), offline=True, values={"data.dataset": "acme/data"}
    )
    assert "not whole in the cache" in check(health, "data set").text
    assert health.exit_code == ExitCode.NOT_AVAILABLE


def test_the_limits_fit_into_half_a_minute() -> None:
    assert doctor.SOURCES_S < doctor.WHOLE_S
    assert doctor.PLACES_S < doctor.WHOLE_S
    limits = doctor.HUB_LIMITS
    assert limits.attempts == 1
    assert limits.connect_s + limits.answer_s < doctor.SOURCES_S
    assert doctor.WHOLE_S + 2 < 30


def test_the_gpus_that_would_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "gpu_count", lambda: 4)
    monkeypatch.setattr(hardware, "driver_version", lambda: "580.65.06")
    config = load_config("phi2", {"model.device": "cuda", "train.seeds": 3})
    found = gpu_check(config, RunDir(tmp_path))
    reason = "3 of 4 visible in use: 3 trainings can be done side by side"
    assert found == Check("GPU", "OK", f"NVIDIA driver 580.65.06; {reason}")
