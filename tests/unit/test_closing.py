"""What a job prints at its end: the verdict, and commands that fit the outcome."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.closing import next_steps, own_program, verdict_of
from nlijob.records.outcome import Results
from nlijob.terminal import Style
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, several_trainings


def commands(results: Results, *command: str) -> list[str]:
    """The commands that are proposed after this one."""
    results = replace(results, run=replace(results.run, command=command))
    return [step.command for step in next_steps(results, Path("runs/my run"), ["nlijob"])]


def unclear() -> Results:
    return replace(outcome(Spec()), mcnemar_p=0.2)


def test_the_verdict_is_that_of_the_first_screen_in_its_colour() -> None:
    verdict = verdict_of(outcome(Spec()))
    assert verdict.text.startswith("Tuning raised test accuracy from ")
    assert "\N{NO-BREAK SPACE}" not in verdict.text
    assert verdict.style == Style.GOOD
    assert verdict_of(unclear()).style == Style.CAUTION


def test_a_better_model_can_be_used_and_trained_several_times() -> None:
    assert commands(outcome(Spec()), "run", "--recipe", "demo") == [
        "nlijob predict 'runs/my run' rows.jsonl",
        "nlijob export 'runs/my run' 'my run-merged'",
        "nlijob run --recipe demo --seeds 3",
    ]


def test_an_unclear_change_is_scored_and_trained_on_more_rows_under_another_name() -> None:
    command = ("--recipe", "demo", "--run-id=try", "--test-size", "98", "--train-stride=5")
    assert commands(unclear(), *command) == [
        "nlijob --recipe demo --train-stride=5 --test-size 0",
        "nlijob --recipe demo --test-size 98 --train-size 0",
        "nlijob --recipe demo --run-id=try --test-size 98 --train-stride=5 --seeds 3",
    ]


def test_rows_that_are_not_there_are_not_proposed() -> None:
    results = unclear()
    splits = {
        name: replace(split, selected=split.source_rows)
        for name, split in results.manifest.splits.items()
    }
    results = replace(results, manifest=replace(results.manifest, splits=splits))
    assert commands(results, "--recipe", "demo") == ["nlijob --recipe demo --seeds 3"]


def test_several_trainings_need_no_further_ones() -> None:
    assert not any("--seeds" in command for command in commands(several_trainings(), "run"))


def test_a_command_whose_addresses_were_cut_is_not_proposed_again() -> None:
    cut = commands(outcome(Spec()), "run", "--upload", "s3://...")
    assert [command.split()[1] for command in cut] == ["predict", "export"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("entrypoint.py", ["bin/python", "entrypoint.py"]),
        ("nlijob/__main__.py", ["bin/python", "-m", "nlijob"]),
        ("bin/nlijob", ["nlijob"]),
        ("other/nlijob", ["other/nlijob"]),
    ],
)
def test_the_program_is_named_as_it_can_be_started_again(
    script: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("bin", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "nlijob").touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert own_program() == words
