"""What `doctor` tries on the GPU side: 4-bit weights are tested, and faults have their codes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch

from nlijob import records
from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import HardwareError
from nlijob.gpu import trial
from nlijob.planning.child import LOOK, TRIAL
from nlijob.planning.doctor import STEPS
from nlijob.planning.plan import write_stand_in, write_task
from nlijob.records.health import Check
from nlijob.records.planning import ModelLook
from nlijob.rundir import RunDir


def test_four_bit_weights_agree_with_the_dequantised_ones_on_this_cpu(demo: JobConfig) -> None:
    assert "computed rightly on this CPU" in trial.four_bit_test(demo)


def test_a_library_that_computes_wrongly_is_found(
    demo: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = bnb.functional.dequantize_4bit
    monkeypatch.setattr(bnb.functional, "dequantize_4bit", lambda *given: 1.1 * right(*given))
    with pytest.raises(HardwareError, match="wrong results on this CPU: they differ by"):
        trial.four_bit_test(demo)


def test_a_device_without_kernels_is_a_fault_of_the_hardware(
    demo: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(HardwareError, match=r"cannot be computed on this CPU: .*no kernel image"):
        trial.four_bit_test(demo)


def test_without_quantisation_there_is_nothing_to_test(demo: JobConfig) -> None:
    plain = dataclasses.replace(demo.model, quantization="none")
    assert "not needed" in trial.four_bit_test(dataclasses.replace(demo, model=plain))


@pytest.mark.parametrize(
    ("error", "code"),
    [(HardwareError("too old", "get another"), 5), (MemoryError(), 5), (KeyError("x"), 70)],
)
def test_a_step_that_raises_has_failed_with_the_code_of_the_job(
    error: Exception, code: int
) -> None:
    def step() -> str:
        raise error

    check = trial._checked("device", step)
    assert (check.status, check.exit_code) == ("FAIL", code)
    assert check.text


def steps_of(run: RunDir, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[Check]:
    monkeypatch.setattr(sys, "argv", ["trial", str(run.root), *arguments])
    trial._steps(run, lambda: None)
    return list(records.read_lines(Check, run.root / TRIAL))


def test_all_steps_are_done_and_the_look_is_left(
    demo: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    write_stand_in(run)
    write_task(run, "demo", demo, MODEL_DIR)
    found = steps_of(run, monkeypatch)
    assert [check.name for check in found] == list(STEPS)
    assert {check.status for check in found} == {"OK"}
    assert records.read(ModelLook, tmp_path / LOOK).label_token_texts == (" 0", " 1", " 2")


def test_without_a_device_or_a_model_only_the_libraries_are_tried(
    demo: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    write_task(run, "demo", demo, None)
    found = steps_of(run, monkeypatch, "without-device")
    assert [check.name for check in found] == ["libraries"]
