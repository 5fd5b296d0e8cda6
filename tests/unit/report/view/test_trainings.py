"""Several trainings on the page: the first screen, and the section about them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nlijob.analysis.wording import count, percent, share_of
from nlijob.records.intervals import Interval
from nlijob.records.outcome import Results
from nlijob.records.trials import Trials
from nlijob.report.plots import epoch_plots, training_plots
from nlijob.report.view.accuracy import accuracy_section
from nlijob.report.view.cases import cases_section
from nlijob.report.view.epochs import epochs_section
from nlijob.report.view.parts import View
from nlijob.report.view.spread import Axis
from nlijob.report.view.summary import summary_section
from nlijob.report.view.trainings import trainings_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, several_trainings

KEPT = "seed-43"


def trials_of(results: Results) -> Trials:
    assert results.trials is not None
    return results.trials


def changed(**changes: object) -> Results:
    """Results of three trainings that say something else together."""
    results = several_trainings()
    trials = replace(trials_of(results), **changes)  # type: ignore[arg-type]
    return replace(results, trials=trials)


def with_gain(mean: float, low: float, high: float) -> Results:
    gain = trials_of(several_trainings()).gain
    return changed(gain=replace(gain, mean=mean, interval=Interval(low, high)))


def section(results: Results) -> View:
    found = trainings_section(results)
    assert found is not None
    return found


def test_one_training_says_that_another_is_not_known_and_how_to_find_out() -> None:
    summary = summary_section(outcome(Spec()))
    assert (
        summary.holds == "This holds for one training (seed 42), on rows like these 98 test rows."
    )
    assert "What another training would bring is not known" in summary.scope
    assert "--seeds 5" in summary.scope
    assert summary.spread is None
    assert trainings_section(outcome(Spec())) is None


def test_the_verdict_on_several_trainings_holds_for_others_of_the_recipe() -> None:
    assert summary_section(several_trainings()).holds == (
        "This holds for trainings that differ from these 3 trainings in their seed alone, on rows "
        "like these 98 test rows."
    )


def test_the_verdict_on_several_trainings_is_about_their_mean() -> None:
    results = several_trainings()
    summary = summary_section(results)
    mean = percent(trials_of(results).accuracy.mean).replace(" ", "\xa0")
    assert summary.verdict.endswith(f"to {mean}, on average over 3 trainings.")
    assert summary.tone == "better"
    assert summary.tuned.name == "tuned model, mean of 3 trainings"
    assert summary.tuned.accuracy == percent(trials_of(results).accuracy.mean)
    assert summary.base.accuracy == percent(results.base.accuracy)


@pytest.mark.parametrize(
    ("gain", "tone", "words"),
    [
        ((0.1, 0.02, 0.2), "better", "Tuning raised"),
        ((0.1, -0.02, 0.2), "unclear", "not distinguishable from no change"),
        ((-0.1, -0.2, -0.02), "worse", "Tuning lowered"),
        ((0.0, -0.1, 0.1), "unclear", "not distinguishable from no change"),
    ],
)
def test_a_change_is_called_one_only_if_its_interval_excludes_none(
    gain: tuple[float, float, float], tone: str, words: str
) -> None:
    summary = summary_section(with_gain(*gain))
    assert summary.tone == tone
    assert words in summary.verdict


def test_the_first_screen_counts_the_trainings_in_which_tuning_helped_or_harmed() -> None:
    note = summary_section(changed(helped=2, harmed=0, premises=None)).verdict_note
    assert "helped beyond chance in 2 of 3 trainings (for each, the exact McNemar test;" in note
    assert "harmed" not in note
    note = summary_section(changed(helped=1, harmed=2, premises=70)).verdict_note
    assert (
        "in 1 of 3 trainings, and harmed in 2 (for each, the exact McNemar test over 70 premises"
        in note
    )


def test_the_first_screen_says_which_training_the_other_sections_are_about_and_why() -> None:
    results = several_trainings()
    scope = summary_section(results).scope
    assert f"is that of {KEPT}: its validation accuracy is the best of the 3" in scope
    assert KEPT in accuracy_section(results).lead
    assert KEPT in epochs_section(results).trainings


def test_trainings_with_the_same_validation_accuracy_are_named() -> None:
    trials = trials_of(several_trainings()).trials
    assert "the same" not in summary_section(several_trainings()).scope
    tied = replace(trials[2], selection=trials[1].selection)
    scope = summary_section(changed(trials=(*trials[:2], tied))).scope
    assert "seed-44 has the same, and the lower validation loss decides" in scope


def test_a_kept_model_that_always_gives_one_label_is_no_success() -> None:
    results = several_trainings()
    classes = tuple(
        replace(one, predicted=98 if one.name == "neutral" else 0) for one in results.tuned.classes
    )
    always = replace(results, tuned=replace(results.tuned, classes=classes))
    summary = summary_section(always)
    assert summary.tone == "unclear"
    assert f"{KEPT} answers “neutral” for 98 of 98 rows" in summary.verdict


def test_each_training_is_a_point_of_the_chart_and_one_is_kept() -> None:
    results = several_trainings()
    spread = summary_section(results).spread
    assert spread is not None
    shown = sorted(point.text for point in spread.points)
    assert shown == [f"{one.name}: {percent(one.accuracy)}" for one in trials_of(results).trials]
    assert [point.text.split(":")[0] for point in spread.points if point.kept] == [KEPT]
    assert [lane.name for lane in spread.lanes] == ["base model", "mean of 3"]
    places = [*spread.points, *spread.ticks, *spread.lanes]
    assert all(0 <= one.place <= 100 for one in places)


def test_points_that_would_cover_each_other_differ_in_height() -> None:
    results = several_trainings()
    trials = tuple(replace(one, accuracy=0.8) for one in trials_of(results).trials)
    spread = summary_section(changed(trials=trials)).spread
    assert spread is not None
    assert sorted(point.height for point in spread.points) == [-1, 0, 1]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.306, 0.985, ["20", "40", "60", "80", "100"]),
        (0.737, 0.768, ["73", "74", "75", "76", "77"]),
        (0.5, 0.5, ["50", "50.1"]),
        (1.0, 1.0, ["99.9", "100"]),
        (0.0, 1.0, ["0", "20", "40", "60", "80", "100"]),
        (-0.1, 1.2, ["0", "20", "40", "60", "80", "100"]),
    ],
)
def test_the_axis_begins_and_ends_with_a_round_figure(
    low: float, high: float, ticks: list[str]
) -> None:
    shown = [tick.text.removesuffix("\xa0%") for tick in Axis.around(low, high).ticks()]
    assert shown == ticks


def test_the_table_has_base_model_each_training_and_mean_and_marks_the_kept_one() -> None:
    results = several_trainings()
    rows = section(results).table.rows
    names = [row.cells[0] for row in rows]
    assert names == ["base model", "seed-42", KEPT, "seed-44", "mean of 3"]
    assert {row.cells[0]: row.mark for row in rows if row.mark} == {KEPT: "adapter kept"}
    for row, one in zip(rows[1:-1], trials_of(results).trials, strict=True):
        assert row.cells[1].startswith(f"{percent(one.accuracy)}\n")
        assert row.cells[4] == count(one.selection.epoch)


def test_a_training_that_is_far_off_the_others_is_named() -> None:
    results = several_trainings()
    assert section(results).far_off == ()
    trials = trials_of(results).trials
    failed = replace(trials[2], answers=(0, 98, 0))
    found = section(changed(trials=(*trials[:2], failed), far_off=("seed-44",)))
    (sentence,) = found.far_off
    assert "seed-44 is far off that of all others" in sentence
    assert "“neutral”" in sentence
    assert [row.mark for row in found.table.rows][1:4] == ["", "adapter kept", "far off"]


def test_a_further_training_is_not_foretold_from_too_few() -> None:
    text = " ".join(section(several_trainings()).further)
    assert "One further training of this recipe" in text
    accuracy, gain = trials_of(several_trainings()).accuracy, trials_of(several_trainings()).gain
    unknown = changed(accuracy=replace(accuracy, another=None), gain=replace(gain, another=None))
    text = " ".join(section(unknown).further)
    assert "One further training" not in text
    assert "3 trainings are too few" in text


@pytest.mark.parametrize(
    ("trainings", "rows", "words"),
    [
        (0.02, 0.04, "more trainings would narrow it more"),
        (0.04, 0.02, "more test rows would narrow it more"),
        (0.0201, 0.0199, "both help about as much"),
    ],
)
def test_it_says_what_would_narrow_the_interval_more(
    trainings: float, rows: float, words: str
) -> None:
    variance = replace(
        trials_of(several_trainings()).variance,
        half_width_more_trainings=trainings,
        half_width_more_rows=rows,
    )
    assert words in section(changed(variance=variance)).further[-1]


def test_rows_are_counted_over_all_trainings() -> None:
    results = several_trainings()
    rows = trials_of(results).rows
    facts = {fact.name: fact.value for fact in section(results).rows}
    assert facts["correct in all 3"] == share_of(rows.in_all, 98)
    assert facts["correct in none"] == share_of(rows.in_none, 98)
    assert facts["two trainings answer differently"] == percent(rows.disagreement)


def test_what_so_few_trainings_cannot_tell_depends_on_their_number() -> None:
    assert (
        "none of 3 trainings may still happen in up to 63" in section(several_trainings()).limits[0]
    )
    ten = section(several_trainings(tuple(range(42, 52))))
    assert "none of 10 trainings may still happen in up to 26" in ten.limits[0]


def test_several_trainings_have_charts_of_their_own() -> None:
    results = several_trainings()
    assert {"trainings-accuracy", "trainings-loss"} <= epoch_plots(results).keys()
    assert training_plots(results).keys() == {"rows-across"}
    one = outcome(Spec())
    assert epoch_plots(one).keys() == {"epochs", "loss"}
    assert training_plots(one) == {}


def test_a_case_says_in_how_many_trainings_it_is_so() -> None:
    results = several_trainings()
    broken, still_wrong, corrected = cases_section(results).kinds
    assert corrected.cases[0].trainings == "correct in 3 of 3 trainings"
    assert still_wrong.cases[0].trainings == "wrong in 3 of 3 trainings"
    assert {case.trainings for case in broken.cases} <= {
        f"wrong in {number} of 3 trainings" for number in (1, 2, 3)
    }
    assert {
        case.trainings for kind in cases_section(outcome(Spec())).kinds for case in kind.cases
    } == {""}


def test_the_list_of_cases_has_the_number_of_trainings() -> None:
    results = several_trainings()
    listed = cases_section(results).all_rows
    rows = (
        *results.cases.rows_newly_broken,
        *results.cases.rows_still_wrong,
        *results.cases.rows_corrected,
    )
    assert [row.right_in for row in listed.rows] == [str(row.right_in) for row in rows]
    (right,) = (one for one in listed.filters if one.name == "right")
    assert {option.value for option in right.options} == {row.right_in for row in listed.rows}
    one_training = cases_section(outcome(Spec())).all_rows
    assert "right" not in {one.name for one in one_training.filters}
