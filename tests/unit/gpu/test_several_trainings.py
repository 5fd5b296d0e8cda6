"""Several trainings in one run: each as it would be alone, and only what is missing is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.arrange import arrange
from nlijob.fingerprints import stage_inputs
from nlijob.records.job import Choice, Occlusion, Prediction, Selection, of_split
from nlijob.rundir import RunDir
from nlijob.trials import steps_of, trials_of
from tests.stages import STEPS, configuration, interrupt, new_run, steps, work

pytestmark = pytest.mark.usefixtures("written_at_once")

SEEDS = (42, 43, 44)
SECOND = "trials/seed-43"
STAMPS = {"data": "", "model": ""}
WEIGHTS = "adapter_model.safetensors"


def several(run: RunDir, count: int = 3, **settings: Any) -> list[str]:
    """Do the run with several trainings, all of whose weights are kept; returns what was shown."""
    return work(run, train__seeds=count, **{"train__keep": "all", **settings})


def figures(view: RunDir) -> list[object]:
    """All figures and weights of a training, without times."""
    files = [
        *(view.epoch_predictions(epoch) for epoch in (1, 2)),
        *(view.epoch(epoch) / WEIGHTS for epoch in (1, 2)),
        *(view.selection, view.evaluate_predictions),
    ]
    return [steps(view), *(file.read_bytes() for file in files)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunDir]:
    """A run of each training alone, by its seed."""
    runs = {}
    for seed in SEEDS:
        runs[seed] = new_run(tmp_path_factory.mktemp(f"alone-{seed}") / "job")
        work(runs[seed], train__seed=seed)
    return runs


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """One run with all three trainings."""
    run = new_run(tmp_path_factory.mktemp("together") / "job")
    several(run, eval__word_importance=True)
    return run


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[RunDir], RunDir]:
    return lambda run: RunDir(shutil.copytree(run.root, tmp_path / "copy"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_training_has_the_figures_of_a_run_with_its_seed_alone(
    together: RunDir, alone: dict[int, RunDir], seed: int
) -> None:
    assert figures(together.view(f"trials/seed-{seed}")) == figures(alone[seed])


def test_the_base_model_is_scored_once(together: RunDir, alone: dict[int, RunDir]) -> None:
    same = together.baseline_predictions.read_bytes() == alone[42].baseline_predictions.read_bytes()
    assert same
    assert [*together.root.glob("trials/*/baseline")] == []


def test_the_training_with_the_best_validation_accuracy_is_kept(together: RunDir) -> None:
    choice = records.read(Choice, together.choice)
    views = {f"seed-{seed}": together.view(f"trials/seed-{seed}") for seed in SEEDS}
    selections = {name: records.read(Selection, view.selection) for name, view in views.items()}
    best = max(selections.values(), key=lambda one: (one.validation_accuracy, -one.validation_loss))
    assert selections[choice.trial] == best
    epoch = views[choice.trial].epoch(best.epoch)
    assert (together.adapter / WEIGHTS).read_bytes() == (epoch / WEIGHTS).read_bytes()


def test_evidence_is_gathered_for_the_answers_of_the_training_that_is_kept(
    together: RunDir,
) -> None:
    kept = together.view(f"trials/{records.read(Choice, together.choice).trial}")
    base, tuned = (
        {row.index: row.is_right for row in of_split(records.read_lines(Prediction, file), "test")}
        for file in (together.baseline_predictions, kept.evaluate_predictions)
    )
    occluded = {one.index for one in records.read_lines(Occlusion, together.occlusion)}
    assert occluded == {index for index in base if not (base[index] and tuned[index])}


def test_the_records_of_a_single_training_lie_where_they_always_did(
    alone: dict[int, RunDir],
) -> None:
    assert not alone[42].trials.exists()
    assert not alone[42].choice.exists()
    assert alone[42].train_folder == alone[42].root / "train"


@pytest.mark.parametrize("after", [pytest.param(2, marks=pytest.mark.slow), STEPS + 4])
def test_a_run_that_was_stopped_within_a_later_training_goes_on_there(
    tmp_path: Path, alone: dict[int, RunDir], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run = new_run(tmp_path / "job")
    interrupt(run, after, monkeypatch, SECOND, train__seeds=2, train__keep="all")
    shown = several(run, 2, attempt=2)
    assert "seed-42: complete, skipped" in shown
    resumed = "seed-43: epochs 1 to 1 complete, resuming at epoch 2, step 3 of 6"
    assert resumed in shown if after > STEPS else "seed-43: resuming at epoch 1" in str(shown)
    for seed in (42, 43):
        assert figures(run.view(f"trials/seed-{seed}")) == figures(alone[seed])


def test_a_run_that_is_asked_for_more_trainings_does_those_alone(
    copy_of: Callable[[RunDir], RunDir], alone: dict[int, RunDir]
) -> None:
    run = copy_of(alone[42])
    rearranged(run, 2)
    shown = several(run, 2, attempt=2)
    assert [line for line in shown if line.startswith("seed-42")] == [
        "seed-42: complete, skipped"
    ] * 3
    assert figures(run.view(SECOND)) == figures(alone[43])
    assert figures(run.view("trials/seed-42")) == figures(alone[42])


def test_a_run_that_is_asked_for_one_training_again_does_nothing_again(
    copy_of: Callable[[RunDir], RunDir], together: RunDir, alone: dict[int, RunDir]
) -> None:
    run = copy_of(together)
    rearranged(run, 1)
    shown = work(run, attempt=2)
    assert shown[:4] == ["complete, skipped"] * 4
    assert figures(run) == figures(alone[42])
    assert (run.adapter / WEIGHTS).read_bytes() == (alone[42].adapter / WEIGHTS).read_bytes()
    assert not run.choice.exists()
    assert figures(run.view(SECOND)) == figures(alone[43])


def rearranged(run: RunDir, seeds: int) -> None:
    """Move the trainings to where a run of so many has them, as the parent does."""
    config = configuration(train__seeds=seeds)
    arrange(run, trials_of(config), stage_inputs(config, STAMPS))


@pytest.mark.parametrize("lost", ["markers", "files"])
def test_a_move_that_was_interrupted_goes_on(
    copy_of: Callable[[RunDir], RunDir],
    alone: dict[int, RunDir],
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    run = copy_of(alone[42])
    name = {"markers": "unmark", "files": "exists"}[lost]
    owner = {"markers": RunDir, "files": type(run.selection)}[lost]
    kept = getattr(owner, name)

    def interrupted(path: Any, *arguments: Any) -> Any:
        if lost == "markers" or path == run.selection:
            raise KeyboardInterrupt
        return kept(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            rearranged(run, 2)
    rearranged(run, 2)
    assert figures(run.view("trials/seed-42")) == figures(alone[42])
    inputs = stage_inputs(configuration(train__seeds=2), STAMPS)
    view = run.view("trials/seed-42")
    assert view.is_complete("train", inputs["trials/seed-42/train"].fingerprint)
    assert not run.marker("train").exists()


# ---------------------------------------------------------------- whose weights are kept


def test_the_weights_of_the_other_trainings_are_deleted_unless_all_are_to_be_kept(
    copy_of: Callable[[RunDir], RunDir], together: RunDir
) -> None:
    run = copy_of(together)
    several(run, attempt=2, train__keep="best", eval__word_importance=True)
    best = records.read(Choice, run.choice).trial
    with_weights = {path.parts[-4] for path in run.root.glob(f"trials/*/train/*/{WEIGHTS}")}
    assert with_weights == {best}
    assert all((run.view(f"trials/seed-{s}").epoch_predictions(2)).exists() for s in SEEDS)


def test_trainings_without_weights_stay_complete_and_further_ones_may_be_added(
    tmp_path: Path, together: RunDir
) -> None:
    run = new_run(tmp_path / "job")
    several(run, 2, train__keep="best")
    shown = several(run, 3, attempt=2, train__keep="best")
    done = [line for line in shown if "complete, skipped" in line]
    assert len(done) == 7  # the baseline, and three stages of two trainings
    assert records.read(Choice, run.choice) == records.read(Choice, together.choice)
    assert (run.adapter / WEIGHTS).read_bytes() == (together.adapter / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_training_whose_weights_are_needed_and_were_not_kept_is_done_again(
    tmp_path: Path, together: RunDir
) -> None:
    run = new_run(tmp_path / "job")
    several(run, 3, train__keep="best")
    best = records.read(Choice, run.choice).trial
    other = next(f"seed-{seed}" for seed in SEEDS if f"seed-{seed}" != best)
    view = run.view(f"trials/{other}")
    view.evaluate_predictions.unlink()
    shown = several(run, attempt=2)
    assert f"{other}: the weights of epoch 1 were not kept: training starts again" in shown
    again = figures(view)
    assert again == figures(together.view(f"trials/{other}"))


# ---------------------------------------------------------------- order


def test_the_stages_of_a_training_are_done_before_the_next_one_begins() -> None:
    config = configuration(train__seeds=2)
    first, second = (
        [f"trials/seed-{seed}/{stage}" for stage in ("train", "select", "evaluate")]
        for seed in (42, 43)
    )
    keys = [step.key for step in steps_of(config)]
    assert keys == ["subset", "elsewhere", "baseline", *first, *second, "explain", "report"]
