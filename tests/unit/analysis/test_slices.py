"""Effect of tuning on slices of the test rows."""

from __future__ import annotations

import pytest
from statsmodels.stats.multitest import multipletests

from nlijob.analysis.slices import measure_slices, slices_sentence, too_few_sentence
from nlijob.analysis.statistics import mcnemar_p, paired_difference_interval, wilson_interval
from nlijob.records.job import Example
from nlijob.records.outcome import Slice
from tests.unit.analysis.made import NAMES, answered

PREMISE = "A man plays a guitar"


def sliced(hypotheses: list[str], base_wrong: set[int], tuned_wrong: set[int]) -> tuple[Slice, ...]:
    """Slices of rows with gold labels 0, 1, 2, 0, ... and these hypotheses."""
    gold = [i % 3 for i in range(len(hypotheses))]
    base = answered(gold, [(g + 1) % 3 if i in base_wrong else g for i, g in enumerate(gold)])
    tuned = answered(gold, [(g + 2) % 3 if i in tuned_wrong else g for i, g in enumerate(gold)])
    examples = [
        Example(i, PREMISE, text, g)
        for i, (text, g) in enumerate(zip(hypotheses, gold, strict=True))
    ]
    return measure_slices(base, tuned, examples, NAMES)


def one(slices: tuple[Slice, ...], family: str, key: str) -> Slice:
    (found,) = [own for own in slices if (own.family, own.key) == (family, key)]
    return found


NEGATED = ["A man does not play"] * 30 + ["A man plays"] * 60
HURT = sliced(NEGATED, base_wrong={*range(40, 85)}, tuned_wrong={*range(20)})


def test_a_slice_counts_its_own_rows_only() -> None:
    negation = one(HURT, "tag", "negation")
    assert (negation.rows, negation.base_correct, negation.tuned_correct) == (30, 30, 10)
    assert (negation.corrected, negation.broken) == (0, 20)
    assert negation.change == pytest.approx(-20 / 30)


def test_figures_of_a_slice_are_those_of_its_counts() -> None:
    for found in HURT:
        assert found.base_interval == wilson_interval(found.base_correct, found.rows)
        assert found.tuned_interval == wilson_interval(found.tuned_correct, found.rows)
        assert found.tuned_correct - found.base_correct == found.corrected - found.broken
        assert found.p == mcnemar_p(found.corrected, found.broken)
        assert found.change_interval == paired_difference_interval(
            found.corrected, found.broken, found.rows
        )


def test_p_values_are_adjusted_over_all_judged_slices() -> None:
    adjusted = multipletests([found.p for found in HURT], method="holm")[1]
    assert [found.adjusted_p for found in HURT] == pytest.approx(list(adjusted))


def test_significant_slices_come_first_from_largest_gain_to_largest_loss() -> None:
    changes = [found.change for found in HURT if found.is_significant]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 0 > changes[-1]
    told = [found.is_significant for found in HURT]
    assert told == sorted(told, reverse=True)


def test_the_other_slices_are_sorted_by_the_size_of_their_change() -> None:
    slices = sliced(NEGATED, base_wrong={31, 32}, tuned_wrong={*range(6)})
    assert not any(found.is_significant for found in slices)
    sizes = [abs(found.change) for found in slices]
    assert sizes == sorted(sizes, reverse=True)


def test_slices_made_worse_are_named_with_their_figures() -> None:
    text = slices_sentence(HURT)
    assert f"of the {len(HURT)} slices tested significantly worse" in text
    assert (
        "“negation in one text only” (\N{MINUS SIGN}66.7 points on 30 rows, adjusted p < 0.001)"
        in text
    )


def test_without_significant_losses_it_does_not_claim_that_there_were_none() -> None:
    slices = sliced(NEGATED, base_wrong={31, 32}, tuned_wrong={1})
    text = slices_sentence(slices)
    assert f"none of the {len(slices)} slices tested significantly worse" in text
    assert "could have become worse without being detected" in text


def test_a_slice_made_better_is_not_named_as_worse() -> None:
    slices = sliced(NEGATED, base_wrong={*range(30)}, tuned_wrong=set())
    assert one(slices, "tag", "negation").is_significant
    assert "none of the" in slices_sentence(slices)


SMALL = ["A man not plays"] * 5 + ["A man plays plays"] * 55


def test_a_small_slice_comes_last_without_a_test() -> None:
    slices = sliced(SMALL, {*range(5)}, set())
    assert "negation" in [found.key for found in slices if not found.judged]
    assert (slices[-1].p, slices[-1].adjusted_p, slices[-1].is_significant) == (None, None, False)
    text = too_few_sentence(slices)
    assert text.startswith("Not tested, as they have fewer than 6 rows: ")
    assert "“negation in one text only” (5)" in text


def test_small_slices_do_not_count_as_tested() -> None:
    slices = sliced(SMALL, {9}, {10})
    judged = [found for found in slices if found.judged]
    assert len(judged) == len([found for found in slices if found.rows >= 6]) < len(slices)
    assert f"{len(judged)} slices tested" in slices_sentence(slices)


def test_gold_label_length_and_overlap_slices_each_contain_every_row_once() -> None:
    texts = ["word " * (1 + i % 17) + "plays" for i in range(60)]
    slices = sliced(texts, set(), set())
    for family in ("gold label", "length", "word overlap"):
        assert sum(found.rows for found in slices if found.family == family) == 60


def test_length_bands_state_their_bounds_and_contain_about_a_third_each() -> None:
    slices = sliced(["word " * (i + 1) for i in range(30)], set(), set())
    bands = {found.key: found for found in slices if found.family == "length"}
    assert {key: found.rows for key, found in bands.items()} == {
        "short": 10,
        "medium": 10,
        "long": 10,
    }
    assert bands["short"].meaning == "up to 15 words in both texts together"
    assert bands["medium"].meaning == "16 to 25 words in both texts together"
    assert bands["long"].meaning == "more than 25 words in both texts together"


def test_rows_of_one_length_are_not_cut_into_bands() -> None:
    assert not [own for own in sliced(["A man plays"] * 20, set(), set()) if own.family == "length"]


def test_bands_that_ties_leave_empty_are_left_out() -> None:
    slices = sliced(["plays"] * 29 + ["plays a very long song"], set(), set())
    bands = {found.key: found.rows for found in slices if found.family == "length"}
    assert bands == {"short": 29, "long": 1}


def test_overlap_is_cut_at_fixed_bounds() -> None:
    slices = sliced(["guitar", "guitar music", "music"] * 4, set(), set())
    bands = {found.key: found.rows for found in slices if found.family == "word overlap"}
    assert bands == {"low": 4, "middle": 4, "high": 4}


def test_a_label_without_rows_has_no_slice() -> None:
    gold = [0, 1] * 6
    rows = answered(gold, gold)
    examples = [Example(i, PREMISE, "guitar", label) for i, label in enumerate(gold)]
    slices = measure_slices(rows, rows, examples, NAMES)
    assert [f.key for f in slices if f.family == "gold label"] == ["entailment", "neutral"]


def test_one_row_is_too_few_for_any_test() -> None:
    slices = sliced(["A man plays"], set(), {0})
    assert not any(found.judged for found in slices)
    assert slices_sentence(slices) == "No slice has the 6 rows needed for a test."
    assert too_few_sentence(HURT) == ""


def test_a_row_without_its_text_is_refused() -> None:
    rows = answered([0], [0])
    with pytest.raises(KeyError):
        measure_slices(rows, rows, [], NAMES)


def test_a_slice_names_its_rows_that_a_model_got_wrong() -> None:
    negation = one(HURT, "tag", "negation")
    assert negation.wrong_rows == tuple(range(20))
    assert one(HURT, "gold label", NAMES[0]).wrong_rows == tuple(
        row for row in (*range(20), *range(40, 85)) if row % 3 == 0
    )
