"""`make bench` runs the parts that are asked for, and records where figures come from."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.origin import command


def asked(text: str, *, has_gpu: bool = True) -> list[str]:
    """The commands for these options, without Python's and the modules' common beginning."""
    options = suite.options_of(shlex.split(text))
    found = [shlex.join(words) for words in suite.commands(options, has_gpu=has_gpu)]
    return [text.removeprefix(f"{sys.executable} -m benchmarks.") for text in found]


def test_by_default_shapes_with_trl_jobs_and_the_table_are_done() -> None:
    found = asked("")
    assert len(found) == len(suite.SETTINGS) + 2
    assert all(text.startswith("bench --shape ") for text in found[:-2])
    assert found[-2].startswith("start --empty-caches ")
    assert found[-1].startswith("table ")
    assert not any("--only-trl" in text or "unsloth" in text for text in found)


def test_trl_alone_leaves_out_the_own_modes_and_encoders() -> None:
    found = asked("--part trl")
    assert all("--only-trl" in text for text in found)
    assert {"phi-2", "llama-3b"} <= {shlex.split(text)[2] for text in found}
    assert not any(f"--shape {name} " in text for text in found for name in suite.ENCODERS)


def test_shapes_alone_leave_out_trl() -> None:
    assert all("--trl-steps 0" in text for text in asked("--part shapes"))


def test_one_shape_can_be_chosen() -> None:
    found = asked("--part shapes --part trl --shape llama-3b")
    assert len(found) == 2  # with adapters on attention, and on all linear layers
    assert all(text.startswith("bench --shape llama-3b ") for text in found)


def test_a_given_model_takes_the_place_of_random_weights() -> None:
    found = asked("--part shapes --part jobs --shape phi-2 --model phi-2=/models/phi")
    assert all("--model /models/phi " in text for text in found)
    assert "--shape" not in found[-1]


def test_another_model_is_measured_beside_the_shapes() -> None:
    found = asked("--part shapes --shape minilm --model own=/models/own")
    assert [text.partition(" --rows")[0] for text in found] == [
        "bench --shape minilm --targets attention --trl-steps 0",
        "bench --model /models/own --name own --trl-steps 0",
    ]


def test_without_a_gpu_the_demo_is_measured() -> None:
    modes, jobs, _ = asked("", has_gpu=False)
    assert modes.startswith("bench --rows ")
    assert jobs.endswith("-- --recipe demo")


def test_unsloth_runs_in_its_own_python(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked("--part unsloth --unsloth-python other/python")
    assert found
    assert all(text.startswith("other/python -m benchmarks.unsloth_baseline ") for text in found)
    with pytest.raises(SystemExit):
        asked("--part unsloth")
    assert "needs --unsloth-python" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["phi-2", "=DIR", "phi-2="])
def test_a_model_needs_a_name_and_a_folder(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.options_of(["--model", text])
    assert "is not NAME=DIR" in capsys.readouterr().err


def test_the_suite_names_shapes_that_exist() -> None:
    from benchmarks.shapes import SHAPES

    assert {setting.shape for setting in suite.SETTINGS} <= set(SHAPES)


def test_a_failure_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = [[sys.executable, "-c", f"raise SystemExit({code})"] for code in (3, 0)]
    monkeypatch.setattr(suite, "commands", lambda options, *, has_gpu: programs)
    monkeypatch.setattr(sys, "argv", ["suite"])
    with pytest.raises(SystemExit) as ended:
        suite.main()
    assert str(ended.value) == f"these failed:\n{shlex.join(programs[0])}"
    assert capsys.readouterr().out.count(sys.executable) == 2


def test_a_recorded_command_has_no_places_of_the_machine(tmp_path: Path) -> None:
    words = ["--model", str(tmp_path), "--rows", "nlijob/demo", "--targets", "all-linear"]
    assert command("benchmarks.bench", words) == (
        "python -m benchmarks.bench --model DIR --rows DIR --targets all-linear"
    )
