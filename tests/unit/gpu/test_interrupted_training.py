"""The GPU side resumes an interrupted training, also where files are damaged, with one outcome.

Jobs run within this process on a few rows (see `tests.stages`).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.files import remove
from nlijob.fingerprints import stage_inputs
from nlijob.gpu import checkpoints
from nlijob.records.job import (
    EpochResult,
    Plan,
    Timing,
    TrainResult,
)
from nlijob.rundir import RunDir
from nlijob.stages import GPU_STAGES
from tests.stages import (
    STEPS,
    configuration,
    interrupt,
    new_run,
    steps,
    timeless,
    work,
)

pytestmark = pytest.mark.usefixtures("written_at_once")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that nobody interrupted."""
    run = new_run(tmp_path_factory.mktemp("finished") / "job")
    work(run)
    return run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that was interrupted in its second epoch, after a checkpoint at step 3 of it."""
    run = new_run(tmp_path_factory.mktemp("stopped") / "job")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(run, STEPS + 4, patch)
    return run


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[RunDir], RunDir]:
    return lambda run: RunDir(shutil.copytree(run.root, tmp_path / "copy"))


def outcome(run: RunDir) -> list[object]:
    """All figures of a run and its adapter's bytes, without times."""
    results = records.read(TrainResult, run.train_result).epochs
    own = [records.read(EpochResult, run.epoch_result(epoch)) for epoch in (1, 2)]
    assert list(results) == own
    epochs = [
        dataclasses.replace(
            timeless(e), validation=timeless(e.validation), test=e.test and timeless(e.test)
        )
        for e in own
    ]
    files = [
        *(run.epoch_predictions(epoch) for epoch in (1, 2)),
        *(run.epoch(epoch) / "adapter_model.safetensors" for epoch in (1, 2)),
        run.selection,
        run.evaluate_predictions,
        run.adapter / "adapter_model.safetensors",
    ]
    plan = dataclasses.replace(records.read(Plan, run.plan), warm_up_s=0.0)
    return [epochs, plan, steps(run), *(file.read_bytes() for file in files)]


def left(run: RunDir) -> list[str]:
    """What training leaves in its folder."""
    return sorted(path.name for path in run.train_folder.iterdir())


def trained_in(run: RunDir, attempt: int) -> int:
    """Rows that an attempt trained."""
    timings = records.read_lines(Timing, run.timings)
    return sum(
        t.examples or 0 for t in timings if t.kind == "optimizer steps" and t.attempt == attempt
    )


# ---------------------------------------------------------------- interrupted


def test_a_checkpoint_within_an_epoch_replaces_the_one_before(stopped: RunDir) -> None:
    assert stopped.marked_steps() == [(2, 3)]
    assert left(stopped) == ["epoch-1", "log.jsonl", "state-1.pt", "state-2-3.pt"]


def test_an_interrupted_epoch_goes_on_where_it_was(
    stopped: RunDir, finished: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(stopped)
    said = work(run, 2)
    assert "epochs 1 to 1 complete, resuming at epoch 2, step 3 of 6" in said
    assert outcome(run) == outcome(finished)
    assert (
        left(run)
        == left(finished)
        == ["epoch-1", "epoch-2", "log.jsonl", "plan.json", "result.json"]
    )
    assert run.marked_steps() == []


def test_no_space_for_a_checkpoint_within_an_epoch_does_not_end_training(
    tmp_path: Path, finished: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoints.save_state

    def full(state: Any, path: Path) -> None:
        if path.name.count("-") == 2:  # state-<epoch>-<step>.pt
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(state, path)

    monkeypatch.setattr(checkpoints, "save_state", full)
    run = new_run(tmp_path / "job")
    said = work(run)
    assert any("no checkpoint within the epoch: " in line for line in said), said
    assert outcome(run) == outcome(finished)


def test_steps_of_each_attempt_are_timed_with_their_own_rows(
    stopped: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(stopped)
    work(run, 2)
    assert trained_in(run, 1) == 2 * (STEPS + 3)
    assert trained_in(run, 2) == 2 * (STEPS - 3)


@pytest.mark.parametrize("after", [1, pytest.param(2, marks=pytest.mark.slow), STEPS, STEPS + 1])
def test_an_interruption_at_any_step_leaves_the_outcome_as_it_is(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run = new_run(tmp_path / "job")
    interrupt(run, after, monkeypatch)
    work(run, 2)
    assert outcome(run) == outcome(finished)


def test_the_interval_of_checkpoints_may_change_between_attempts(
    stopped: RunDir, finished: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(stopped)
    said = work(run, 2, train__checkpoint_every_s=0)
    assert "epochs 1 to 1 complete, resuming at epoch 2, step 3 of 6" in said
    assert outcome(run) == outcome(finished)


def test_without_an_interval_checkpoints_are_written_after_epochs_only(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "job")
    interrupt(run, STEPS + 4, monkeypatch, train__checkpoint_every_s=0)
    assert left(run) == ["epoch-1", "log.jsonl", "state-1.pt"]
    assert "epochs 1 to 1 complete, resuming after them" in work(run, 2)
    assert outcome(run) == outcome(finished)


def test_a_checkpoint_within_an_epoch_of_other_inputs_is_not_used(
    stopped: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(stopped)
    said = work(run, 2, train__seed=7)
    assert not any("resuming" in line or "damaged" in line for line in said)
    assert len(steps(run)) == 2 * STEPS


# ---------------------------------------------------------------- damaged


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def torn(path: Path) -> None:
    """A line that lost its end in the middle of a file."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:20], *lines[3:]]))


def edited(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))


def foldered(path: Path) -> None:
    remove(path)
    (path / "in the way").mkdir(parents=True)


def filed(path: Path) -> None:
    """A file in the place of a folder."""
    remove(path)
    path.write_text("no folder")


WITHIN, AFTER_1, AGAIN = (
    "epochs 1 to 1 complete, resuming at epoch 2, step 3 of 6",
    "epochs 1 to 1 complete, resuming after them",
    "training starts again",
)
STATE, STEP_STATE = "train/state-1.pt", "train/state-2-3.pt"
STEP_MARKER = "markers/train-step-2-3.json"


@pytest.mark.parametrize(
    ("names", "damage", "said"),
    [
        *((["train/log.jsonl"], how, WITHIN) for how in (remove, torn, edited, foldered)),
        (
            ["train/epoch-1/plan.json"],
            edited,
            f"train/epoch-1/plan.json missing or damaged: {AGAIN}",
        ),
        *(
            ([STEP_STATE], how, f"{STEP_STATE} missing or damaged: {AFTER_1}")
            for how in (remove, cut, flipped)
        ),
        ([STEP_MARKER], foldered, f"{STEP_MARKER} cannot be read: {AFTER_1}"),
        ([STEP_MARKER], remove, AFTER_1),
        ([STATE], flipped, WITHIN),
        (
            [STEP_STATE, STATE],
            flipped,
            f"{STEP_STATE} missing or damaged; {STATE} missing or damaged: {AGAIN}",
        ),
        (
            ["train/epoch-1/result.json"],
            edited,
            f"train/epoch-1/result.json missing or damaged: {AGAIN}",
        ),
        (
            ["train/epoch-1/predictions.jsonl"],
            remove,
            f"train/epoch-1/predictions.jsonl missing or damaged: {AGAIN}",
        ),
        (
            ["train/epoch-1/adapter_model.safetensors"],
            cut,
            f"train/epoch-1/adapter_model.safetensors missing or damaged: {AGAIN}",
        ),
        (
            ["markers/train-epoch-1.json"],
            foldered,
            f"markers/train-epoch-1.json cannot be read: {AGAIN}",
        ),
        (["train/epoch-1"], filed, f"and 5 more missing or damaged: {AGAIN}"),
        (["train"], filed, f"and 5 more missing or damaged: {AGAIN}"),
    ],
)
def test_damage_costs_no_more_than_what_is_damaged_and_changes_no_figure(
    stopped: RunDir,
    finished: RunDir,
    copy_of: Callable[[RunDir], RunDir],
    names: list[str],
    damage: Callable[[Path], None],
    said: str,
) -> None:
    run = copy_of(stopped)
    for name in names:
        damage(run.root / name)
    lines = work(run, 2)
    assert any(line.endswith(said) for line in lines), lines
    assert outcome(run) == outcome(finished)


def test_leftovers_of_a_killed_attempt_are_removed(
    stopped: RunDir, finished: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(stopped)
    for leftover in ("train/.epoch-2.tmp/.tmpAbC", "train/epoch-2/adapter_model.safetensors"):
        (run.root / leftover).parent.mkdir()
        (run.root / leftover).write_text("half of it")
    (run.train_folder / ".state-2-4.pt.1.tmp").write_text("half of it")
    work(run, 2)
    assert left(run) == left(finished)
    assert outcome(run) == outcome(finished)
    files = sorted(path.name for path in run.epoch(2).iterdir())
    assert files == sorted(path.name for path in finished.epoch(2).iterdir())


def test_a_state_that_does_not_fit_is_not_used(
    stopped: RunDir, finished: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    # such as one of another version; its marker says that it is whole
    run = copy_of(stopped)
    inputs = stage_inputs(configuration(), {"data": "", "model": ""})["train"]
    run.step_state(2, 3).write_bytes(run.training_state(1).read_bytes())
    run.mark_complete("train-step-2-3", inputs, [run.step_state(2, 3)])
    lines = work(run, 2)
    assert any(f"{STEP_STATE} cannot be used" in line for line in lines)
    assert outcome(run) == outcome(finished)


# ---------------------------------------------------------------- a finished training


@pytest.mark.parametrize(
    "damages",
    [
        {"train/log.jsonl": remove},
        {"train/log.jsonl": torn},
        {"train/result.json": edited},
        {"markers/train.json": foldered, "train/plan.json": edited},
    ],
)
def test_records_of_a_whole_training_are_made_again_from_its_epochs(
    finished: RunDir,
    copy_of: Callable[[RunDir], RunDir],
    damages: dict[str, Callable[[Path], None]],
) -> None:
    run = copy_of(finished)
    for name, damage in damages.items():
        damage(run.root / name)
    work(run, 2)
    assert trained_in(run, 2) == 0
    assert outcome(run) == outcome(finished)


@pytest.mark.parametrize("damage", [flipped, remove])
def test_an_epoch_whose_adapter_is_damaged_is_trained_again_before_it_is_read(
    finished: RunDir, copy_of: Callable[[RunDir], RunDir], damage: Callable[[Path], None]
) -> None:
    run = copy_of(finished)
    run.unmark("evaluate")
    damage(run.epoch(2) / "adapter_model.safetensors")
    said = work(run, 2)
    name = "train/epoch-2/adapter_model.safetensors"
    assert f"{name} missing or damaged: {AGAIN}" in said
    assert outcome(run) == outcome(finished)


def test_what_follows_a_stage_that_is_done_again_is_done_again(
    finished: RunDir, copy_of: Callable[[RunDir], RunDir]
) -> None:
    run = copy_of(finished)
    run.baseline_predictions.unlink()
    before = {stage: run.marker(stage).stat().st_mtime_ns for stage in GPU_STAGES}
    work(run, 2)
    again = [s for s in GPU_STAGES if run.marker(s).stat().st_mtime_ns != before[s]]
    assert again == ["baseline", "evaluate", "explain"]
    assert outcome(run) == outcome(finished)
