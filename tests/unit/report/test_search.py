"""A search in the outcome of a run: what is measured of it, its section, and its recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.analysis.search import importance
from nlijob.belonging import doubts
from nlijob.config import load_config
from nlijob.errors import DivergedError, HardwareError
from nlijob.recipe_text import best_recipe, recipe_text
from nlijob.records.job import RunRecord
from nlijob.records.outcome import Results, StageTime
from nlijob.records.search import CandidateResult, Search, Winner
from nlijob.records.serialization import read
from nlijob.report.render import render
from nlijob.report.view.parts import View
from nlijob.report.view.search import search_section
from nlijob.report.view.summary import summary_section
from nlijob.rundir import RunDir, write_record
from nlijob.sweep import is_behind, winner_of
from tests.searched import FAILED, PRUNED, SPACE, with_search
from tests.synthetic import Spec, build_run

SMALL = Spec(rows=60, train_rows=40, epochs=2, word_importance=False, few_shot=0, samples=False)
WINNER = "candidate-4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return with_search(build_run(tmp_path_factory.mktemp("searched") / "job", SMALL))


@pytest.fixture(scope="module")
def results(run: RunDir) -> Results:
    return build_results(run)


def search_of(results: Results) -> Search:
    assert results.search is not None
    return results.search


def section(results: Results) -> View:
    view = search_section(results)
    assert view is not None
    return view


def result(run: RunDir, name: str) -> CandidateResult:
    return read(CandidateResult, run.candidate_result(name))


# ---------------------------------------------------------------- measured


def test_the_best_complete_candidate_is_compared_with_each_other_one(results: Results) -> None:
    search = search_of(results)
    compared = {one.name for one in search.candidates if one.adjusted_p is not None}
    assert search.winner == WINNER
    assert compared == {"candidate-1", "candidate-2", "candidate-3"}
    for one in search.candidates:
        if one.behind and one.selection:
            own = search.candidates[3].selection
            assert own is not None
            gap = own.validation_accuracy - one.selection.validation_accuracy
            assert one.behind.difference == pytest.approx(gap)


def test_p_values_are_adjusted_for_all_comparisons(results: Results) -> None:
    compared = [one for one in search_of(results).candidates if one.behind and one.adjusted_p]
    smallest = min(compared, key=lambda one: one.behind.mcnemar_p if one.behind else 1)
    assert smallest.behind is not None
    expected = min(1.0, len(compared) * smallest.behind.mcnemar_p)
    assert smallest.adjusted_p == pytest.approx(expected)
    alike = {one.name for one in compared if one.adjusted_p and one.adjusted_p >= 0.05}
    assert {*search_of(results).alike} == alike


def test_a_run_without_a_search_says_nothing_of_one(tmp_path: Path) -> None:
    plain = build_results(build_run(tmp_path / "job", SMALL))
    assert plain.search is None
    assert search_section(plain) is None
    assert "search" not in summary_section(plain).scope


def test_a_winner_that_is_not_the_best_is_refused(run: RunDir) -> None:
    winner = read(Winner, run.winner)
    other = result(run, "candidate-1")
    write_record(run.winner, replace(winner, name=other.name, settings=other.settings))
    try:
        with pytest.raises(ValueError, match="contradict each other"):
            build_results(run)
    finally:
        write_record(run.winner, winner)


def test_a_run_whose_settings_are_not_those_of_its_search_is_in_doubt(run: RunDir) -> None:
    assert doubts(run) == []
    record = read(RunRecord, run.config)
    lora = replace(record.config.lora, r=8)
    write_record(run.config, replace(record, config=replace(record.config, lora=lora)))
    try:
        assert "lora.r" in str(doubts(run))
    finally:
        write_record(run.config, record)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.2, 0.2, 0.8, 0.8], {"lora.r": 1.0, "train.epochs": 0.0}),
        ([0.2, 0.4, 0.6, 0.8], {"lora.r": 0.8, "train.epochs": 0.2}),
    ],
)
def test_importance_is_the_share_of_variance_between_the_values_of_a_setting(
    accuracies: list[float], expected: dict[str, float]
) -> None:
    settings = [{"lora.r": r, "train.epochs": e} for r in (4, 8) for e in (1, 2)]
    found = importance(settings, accuracies, [])
    assert {one.setting: one.share for one in found} == pytest.approx(expected)
    assert [one.setting for one in found] == ["lora.r", "train.epochs"]
    assert all(one.by_chance == pytest.approx(1 / 3) for one in found)


def test_values_of_a_range_are_compared_in_thirds() -> None:
    rates = [1e-5, 2e-5, 3e-4, 4e-4, 5e-3, 6e-3]
    accuracies = [0.2, 0.2, 0.5, 0.5, 0.8, 0.8]
    settings = [{"train.learning_rate": rate} for rate in rates]
    (one,) = importance(settings, accuracies, ["train.learning_rate"])
    assert (one.groups, one.in_thirds) == (3, True)
    assert one.share == pytest.approx(1.0)


def test_importance_needs_two_candidates_for_each_value_and_a_difference() -> None:
    few = [{"lora.r": 4}, {"lora.r": 8}, {"lora.r": 16}]
    assert importance(few, [0.1, 0.2, 0.3], []) == ()
    assert importance([*few, *few], [0.5] * 6, []) == ()


# ---------------------------------------------------------------- choosing and stopping


def test_a_tie_is_broken_by_the_loss_and_then_by_the_order(run: RunDir) -> None:
    one = result(run, "candidate-2")
    assert one.selection is not None
    same = replace(one, name="later")
    lower = replace(one, name="lower", selection=replace(one.selection, validation_loss=0.1))
    assert winner_of([one, same]).name == one.name
    assert winner_of([one, lower]).name == "lower"


def test_a_search_of_which_every_candidate_fails_ends_like_its_trainings(run: RunDir) -> None:
    with pytest.raises(DivergedError, match="none of the 1 candidates"):
        winner_of([result(run, FAILED)])
    full = replace(result(run, FAILED), reason="out of memory: CUDA out of memory")
    with pytest.raises(HardwareError, match=r"none of the 2 .*: out of memory") as caught:
        winner_of([result(run, FAILED), full])
    assert "lora.r" in caught.value.hint


def test_a_candidate_is_stopped_below_the_median_of_three_or_more(run: RunDir) -> None:
    names = ("candidate-2", "candidate-3", "candidate-4")
    others = [result(run, name) for name in names]
    worst = result(run, "candidate-1")
    assert is_behind(worst.epochs[:1], others)
    assert not is_behind(worst.epochs[:1], others[:2])
    assert not is_behind(others[1].epochs[:1], [worst, *others[1:]])


# ---------------------------------------------------------------- the page


def test_the_first_screen_says_that_settings_were_chosen_by_validation_rows(
    results: Results,
) -> None:
    scope = summary_section(results).scope.replace("\N{NO-BREAK SPACE}", " ")
    assert scope.startswith(
        "The search chose among 6 settings by validation rows; the figures on this page are of a "
        "new training on a new seed."
    )


def test_the_table_has_the_chosen_candidate_first_and_the_failed_one_last(
    results: Results,
) -> None:
    rows = section(results).table.rows
    assert (rows[0].cells[0], rows[0].mark) == (WINNER, "chosen")
    assert (rows[-1].cells[0], rows[-1].mark) == (FAILED, "failed")
    assert rows[-1].cells[3] == "not measured"
    assert {row.cells[0]: row.mark for row in rows}[PRUNED] == "stopped early"
    assert [column.name for column in section(results).table.columns][1:3] == [*SPACE]


def test_of_many_candidates_the_best_are_shown_at_once_and_the_others_folded(
    results: Results,
) -> None:
    search = search_of(results)
    many = tuple(
        replace(one, name=f"{one.name}-{copy}" if copy else one.name)
        for copy in range(4)
        for one in search.candidates
    )
    view = section(replace(results, search=replace(search, candidates=many)))
    assert (len(view.table.rows), len(view.others.rows), view.others_title) == (20, 4, "4 more")
    assert view.table.rows[0].cells[0] == WINNER
    assert section(results).others is None


def test_what_is_said_of_the_others_follows_from_the_tests(results: Results) -> None:
    search = search_of(results)
    names = ("candidate-1", "candidate-2", "candidate-3")

    def said(*alike: str) -> str:
        changed = replace(results, search=replace(search, alike=alike))
        return str(section(changed).alike).replace("\N{NO-BREAK SPACE}", " ")

    assert said().startswith("All others differ significantly from candidate-4")
    assert said(*names).startswith("None of the others is distinguishable from candidate-4")
    assert "Of the 3 others, 2 are not distinguishable from candidate-4" in said(*names[1:])
    assert said(*names[1:]).endswith("candidate-2 and candidate-3.")


def test_stopped_and_failed_candidates_are_named_with_the_reason(results: Results) -> None:
    stopped, failed = section(results).losses
    assert f": {PRUNED}." in stopped.replace("\N{NO-BREAK SPACE}", " ")
    assert failed.startswith(FAILED.capitalize())
    assert "training diverged in epoch" in failed.replace("\N{NO-BREAK SPACE}", " ")


# ---------------------------------------------------------------- best.toml


def test_the_report_writes_the_winner_as_a_recipe_that_can_be_read(run: RunDir) -> None:
    render(run)
    config = read(RunRecord, run.config).config
    assert "Settings against validation accuracy" in run.report.read_text(encoding="utf-8")
    best = load_config(str(run.best_recipe))
    assert best == replace(
        config, sweep=type(config.sweep)(), model=replace(config.model, device="auto")
    )
    assert (best.lora.r, best.train.learning_rate) == (16, 3e-4)
    marker = run.read_marker("report")
    assert marker is not None
    assert "best.toml" in marker.files


@pytest.mark.parametrize(
    "settings",
    [
        {"data.label_map": {"a b": 1, 'quote"': 0, "ü\n": -1}, "data.columns": ["x", "y"]},
        {"report.title": 'C:\\temp "quoted"\ttab \x7f 🙂', "train.learning_rate": 1e-05},
        {"train.seeds": [3, 5], "lora.target_modules": ["q_proj", "v_proj"]},
        {"transfer": [{"name": "one", "dataset": "x", "answers": {"neutral": "no"}}]},
        {"sweep.space": {"lora.r": [4, 8], "train.schedule": ["linear", "cosine"]}},
    ],
)
def test_a_configuration_written_as_a_recipe_is_read_as_the_same(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    dotted = {key: value for key, value in settings.items() if "." in key}
    recipe = tmp_path / "given.toml"
    recipe.write_text('extends = "demo"\n')
    if "transfer" in settings:
        recipe.write_text(
            'extends = "demo"\n[[transfer]]\nname = "one"\ndataset = "x"\n'
            'answers = {neutral = "no"}\n'
        )
    config = load_config(str(recipe), dotted)
    again = tmp_path / "again.toml"
    again.write_text(recipe_text(config), encoding="utf-8")
    assert load_config(str(again)) == config


def test_the_best_recipe_leaves_the_device_to_the_machine() -> None:
    config = load_config("demo", {"model.device": "cpu"})
    assert 'device = "auto"' in best_recipe(config)


def test_candidates_side_by_side_took_less_time_than_one_after_the_other(results: Results) -> None:
    stage = StageTime("search", 30.0, {}, None, at_once=2)
    both = replace(results, stages=(*results.stages, stage))
    search = replace(search_of(results), duration_s=58.0)
    text = section(replace(both, search=search)).lead.replace("\N{NO-BREAK SPACE}", " ")
    assert "in 30.0 s (up to 2 side by side, 58.0 s one after the other), and scored" in text
