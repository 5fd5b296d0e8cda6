"""Groups of test rows, and the choice of rows to show."""

from __future__ import annotations

import pytest

from nlijob.analysis.cases import (
    build_cases,
    group,
    pairs,
    shown_indices,
)
from nlijob.records.job import Example, Generation, OccludedWord, Occlusion, Prediction, Split

NAMES = ("entailment", "neutral", "contradiction")


def row(
    index: int, label: int, probabilities: tuple[float, ...], split: Split = "test"
) -> Prediction:
    predicted = max(range(3), key=probabilities.__getitem__)
    return Prediction(split, index, label, predicted, probabilities, None, 0.1, 20)


RIGHT, WRONG = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1)


def test_every_row_is_in_the_group_of_its_two_answers() -> None:
    base = [row(0, 0, RIGHT), row(1, 0, WRONG), row(2, 0, WRONG), row(3, 0, RIGHT)]
    tuned = [row(0, 0, RIGHT), row(1, 0, RIGHT), row(2, 0, WRONG), row(3, 0, WRONG)]
    groups = group(pairs(base, tuned))
    kinds = (groups.both_right, groups.corrected, groups.still_wrong, groups.newly_broken)
    assert [[pair.index for pair in kind] for kind in kinds] == [[0], [1], [2], [3]]


def test_rows_are_matched_by_index_whatever_their_order() -> None:
    base = [row(7, 0, WRONG), row(2, 0, RIGHT)]
    tuned = [row(2, 0, RIGHT), row(7, 0, RIGHT)]
    assert shown_indices(base, tuned, 5).corrected == (7,)


def test_validation_rows_with_the_same_index_are_ignored() -> None:
    base = [row(0, 0, RIGHT, "validation"), row(0, 0, WRONG)]
    tuned = [row(0, 0, RIGHT), row(0, 0, WRONG, "validation")]
    assert shown_indices(base, tuned, 5).corrected == (0,)


def test_rows_labelled_by_one_model_only_are_refused() -> None:
    with pytest.raises(ValueError, match="1 test rows were labelled by one model only"):
        pairs([row(0, 0, RIGHT)], [row(0, 0, RIGHT), row(1, 0, RIGHT)])


def test_rows_with_two_gold_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="two gold labels"):
        pairs([row(0, 0, RIGHT)], [row(0, 1, RIGHT)])


def test_a_row_labelled_twice_by_one_model_is_refused() -> None:
    with pytest.raises(ValueError, match="labelled twice"):
        pairs([row(0, 0, RIGHT), row(0, 0, RIGHT)], [row(0, 0, RIGHT)])


def test_corrected_rows_are_ordered_by_the_gold_labels_gain() -> None:
    base = [row(0, 0, (0.4, 0.5, 0.1)), row(1, 0, (0.0, 0.9, 0.1)), row(2, 0, (0.2, 0.7, 0.1))]
    tuned = [row(index, 0, (0.9, 0.1, 0.0)) for index in range(3)]
    assert shown_indices(base, tuned, 2).corrected == (1, 2)


def test_rows_still_wrong_are_ordered_by_the_tuned_models_confidence() -> None:
    base = [row(index, 0, WRONG) for index in range(3)]
    tuned = [row(0, 0, (0.3, 0.6, 0.1)), row(1, 0, (0.0, 0.0, 1.0)), row(2, 0, (0.1, 0.8, 0.1))]
    assert shown_indices(base, tuned, 5).still_wrong == (1, 2, 0)


def test_newly_broken_rows_are_ordered_by_the_gold_labels_loss() -> None:
    base = [row(0, 0, (0.6, 0.2, 0.2)), row(1, 0, (0.9, 0.1, 0.0))]
    tuned = [row(0, 0, WRONG), row(1, 0, WRONG)]
    assert shown_indices(base, tuned, 5).newly_broken == (1, 0)


def test_ties_go_to_the_lower_row_number() -> None:
    base, tuned = [row(i, 0, WRONG) for i in (9, 4)], [row(i, 0, RIGHT) for i in (9, 4)]
    assert shown_indices(base, tuned, 1).corrected == (4,)


def test_corrected_rows_that_most_trainings_label_correctly_come_first() -> None:
    base = [row(0, 0, (0.0, 0.9, 0.1)), *(row(index, 0, WRONG) for index in (1, 2))]
    tuned = [row(0, 0, RIGHT), row(1, 0, (0.7, 0.2, 0.1)), row(2, 0, RIGHT)]
    assert shown_indices(base, tuned, 3, {0: 1, 1: 3, 2: 3}).corrected == (2, 1, 0)
    assert shown_indices(base, tuned, 3).corrected == (0, 2, 1)


def test_mistakes_that_most_trainings_share_come_first() -> None:
    base = [
        *(row(index, 0, WRONG) for index in (0, 1)),
        *(row(index, 0, RIGHT) for index in (2, 3)),
    ]
    tuned = [
        row(0, 0, (0.0, 0.9, 0.1)),
        row(1, 0, WRONG),
        row(2, 0, (0.0, 0.9, 0.1)),
        row(3, 0, WRONG),
    ]
    shown = shown_indices(base, tuned, 3, {0: 1, 1: 0, 2: 2, 3: 1})
    assert (shown.still_wrong, shown.newly_broken) == ((1, 0), (3, 2))


def test_all_rows_have_the_order_and_the_counts_of_the_trainings() -> None:
    base = [row(index, 0, WRONG) for index in range(3)]
    tuned = [row(0, 0, (0.0, 0.9, 0.1)), row(1, 0, WRONG), row(2, 0, RIGHT)]
    examples = [Example(index, "A dog runs.", "A cat.", 0) for index in range(3)]
    groups = build_cases(base, tuned, examples, [], [], NAMES, 5, {0: 2, 1: 0, 2: 3})
    assert [(one.index, one.right_in) for one in groups.rows_still_wrong] == [(1, 0), (0, 2)]
    assert [(one.index, one.right_in) for one in groups.shown_still_wrong] == [(1, 0), (0, 2)]
    assert [one.right_in for one in groups.rows_corrected] == [3]


def test_shown_rows_are_those_that_the_report_shows() -> None:
    base = [row(index, 0, WRONG) for index in range(9)]
    tuned = [row(index, 0, RIGHT if index % 2 else WRONG) for index in range(9)]
    examples = [Example(index, "A dog runs.", "A cat.", 0) for index in range(9)]
    groups = build_cases(base, tuned, examples, [], [], NAMES, per_kind=3)
    shown = [*groups.shown_corrected, *groups.shown_still_wrong, *groups.shown_newly_broken]
    assert tuple(sorted(case.index for case in shown)) == shown_indices(base, tuned, 3).all


def test_free_output_is_none_if_none_was_generated() -> None:
    base, tuned = [row(i, 0, WRONG) for i in (0, 1)], [row(i, 0, RIGHT) for i in (0, 1)]
    examples = [Example(index, "A dog runs.", "A cat.", 0) for index in (0, 1)]
    written = [Generation(1, "prompt", "before", "")]
    first, second = build_cases(base, tuned, examples, written, [], NAMES, 5).shown_corrected
    assert (first.base_text, first.tuned_text) == (None, None)
    assert (second.base_text, second.tuned_text) == ("before", "")


def test_word_importance_is_stored_with_its_case() -> None:
    base, tuned = [row(i, 0, WRONG) for i in (0, 1)], [row(i, 0, RIGHT) for i in (0, 1)]
    examples = [Example(index, "A dog runs.", "A cat.", 0) for index in (0, 1)]
    word = OccludedWord("premise", 2, 5, 0.1, 0.4)
    groups = build_cases(base, tuned, examples, [], [Occlusion(1, (word,), 3)], NAMES, 5)
    first, second = groups.shown_corrected
    assert (first.word_importance, first.words_not_tried) == ((), 0)
    assert (second.word_importance, second.words_not_tried) == ((word,), 3)


def test_every_row_that_a_model_got_wrong_is_listed_with_its_margin() -> None:
    base = [row(i, 0, WRONG) for i in range(4)] + [row(4, 0, RIGHT), row(5, 0, RIGHT)]
    tuned = [
        row(0, 0, (0.5, 0.3, 0.2)),
        row(1, 0, (0.9, 0.1, 0.0)),
        row(2, 0, (0.4, 0.5, 0.1)),
        row(3, 0, (0.1, 0.2, 0.7)),
        row(4, 0, WRONG),
        row(5, 0, RIGHT),
    ]
    examples = [Example(index, "A dog runs.", "A dog does not run.", 0) for index in range(6)]
    groups = build_cases(base, tuned, examples, [], [], NAMES, 1)
    assert [r.index for r in groups.rows_corrected] == [1, 0]
    assert [r.index for r in groups.rows_still_wrong] == [3, 2]
    assert [r.index for r in groups.rows_newly_broken] == [4]
    worst = groups.rows_still_wrong[0]
    assert worst.margin == pytest.approx(-0.6)
    assert (worst.base_gold_probability, worst.tuned_gold_probability) == (0.1, 0.1)
    assert "negation" in worst.tags
