"""Comparison of runs: common rows and the paired test."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from nlijob.analysis.comparison import (
    Against,
    ComparedRun,
    Comparison,
    LabelledRow,
    compare,
    labelled_rows,
)
from nlijob.config import MachineConfig
from nlijob.records.job import Example
from nlijob.records.outcome import Results
from tests.synthetic import Spec
from tests.unit.analysis.made import NAMES, prediction
from tests.unit.report.view.outcomes import outcome


def row(index: int, right: bool = True, **changes: object) -> LabelledRow:
    made = LabelledRow(
        index=index,
        premise=f"premise {index}",
        hypothesis=f"hypothesis {index}",
        gold="neutral",
        base="neutral",
        tuned="neutral" if right else "entailment",
        base_probabilities={"entailment": 0.2, "neutral": 0.7, "contradiction": 0.1},
        tuned_gold_probability=0.9 if right else 0.1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def run(name: str, rows: Sequence[LabelledRow], results: Results | None = None) -> ComparedRun:
    return ComparedRun(name, results or outcome(Spec()), tuple(rows))


def pair(first: Sequence[LabelledRow], second: Sequence[LabelledRow]) -> Against:
    (one,) = compare([run("a", first), run("b", second)]).against
    return one


def rights(pattern: str) -> list[LabelledRow]:
    return [row(index, right == "1") for index, right in enumerate(pattern)]


# ---------------------------------------------------------------- the same rows


@pytest.mark.parametrize(
    "change",
    [{"index": 7}, {"premise": "other"}, {"hypothesis": "other"}, {"gold": "entailment"}],
)
def test_a_row_is_common_only_where_number_texts_and_gold_label_agree(
    change: dict[str, object],
) -> None:
    assert pair([row(0), row(1)], [row(0), row(1)]).common_rows == 2
    changed = replace(row(1), **change)  # type: ignore[arg-type]
    assert pair([row(0), row(1)], [row(0), changed]).common_rows == 1


def test_without_a_common_row_there_is_no_test() -> None:
    one = pair([row(0)], [row(0, premise="of another data set")])
    assert (one.common_rows, one.tuned, one.base) == (0, None, None)
    assert not one.is_significant
    assert one.only_other_right == one.only_reference_right == ()


def test_rows_of_only_one_run_are_not_compared() -> None:
    common = pair(rights("1100"), rights("1011"))
    more = pair([*rights("1100"), row(50, False)], [row(60), *rights("1011"), row(70, False)])
    assert more.tuned == common.tuned
    assert (more.reference_rows, more.other_rows, more.common_rows) == (5, 6, 4)


def test_labels_are_matched_by_name_not_by_number() -> None:
    results = outcome(Spec())
    turned = replace(results, manifest=replace(results.manifest, label_names=NAMES[::-1]))
    texts = [Example(0, "p", "h", 0)], [Example(0, "p", "h", 2)]
    first = labelled_rows(results, texts[0], [prediction(0, 0, 0)], [prediction(0, 0, 1)])
    second = labelled_rows(turned, texts[1], [prediction(0, 2, 2)], [prediction(0, 2, 1)])
    assert first == second
    assert first[0].base_probabilities["entailment"] == pytest.approx(0.8)


# ---------------------------------------------------------------- the test


@pytest.mark.parametrize("seed", range(5))
def test_the_paired_test_agrees_with_statsmodels(seed: int) -> None:
    chance = random.Random(seed)
    a = [chance.random() < 0.8 for _ in range(200)]
    b = [chance.random() < (0.9 if right else 0.5) for right in a]
    one = pair([row(i, r) for i, r in enumerate(a)], [row(i, r) for i, r in enumerate(b)])
    cells = [[0, 0], [0, 0]]
    for x, y in zip(a, b, strict=True):
        cells[not x][not y] += 1
    assert one.tuned is not None
    assert [[one.both_right, one.tuned.lost], [one.tuned.gained, one.both_wrong]] == cells
    assert one.tuned.mcnemar_p == pytest.approx(mcnemar(cells, exact=True).pvalue)
    assert one.tuned.difference == pytest.approx((sum(b) - sum(a)) / 200)
    assert one.tuned.interval.low < one.tuned.difference < one.tuned.interval.high


def test_p_values_of_several_comparisons_are_adjusted_as_statsmodels_does() -> None:
    runs = [
        run("a", rights("0" * 12 + "1" * 8)),
        run("b", rights("1" * 7 + "0" * 5 + "1" * 8)),
        run("c", rights("1" * 10 + "0" * 2 + "1" * 7 + "0")),
        run("d", rights("0" * 12 + "1" * 7 + "0")),
    ]
    found = compare(runs).against
    plain = [one.tuned.mcnemar_p for one in found if one.tuned]
    expected = multipletests(plain, method="holm")[1]
    assert [one.adjusted_p for one in found] == pytest.approx(list(expected))
    assert [one.p for one in found] == pytest.approx(list(expected))


def test_one_comparison_is_not_adjusted() -> None:
    one = pair(rights("0000000011"), rights("1111111111"))
    assert one.tuned is not None
    assert one.adjusted_p is None
    assert one.p == one.tuned.mcnemar_p < 0.05
    assert one.is_significant


def test_a_run_without_common_rows_does_not_count_in_the_adjustment() -> None:
    others = [run("b", rights("1110")), run("c", [row(0, premise="of another data set")])]
    found = compare([run("a", rights("1100")), *others]).against
    assert [one.adjusted_p for one in found] == [None, None]


def test_every_run_is_compared_with_the_first() -> None:
    runs = [run(name, rights("1100")) for name in "abc"]
    assert [(one.reference, one.other) for one in compare(runs).against] == [
        ("a", "b"),
        ("a", "c"),
    ]


def test_a_single_run_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        compare([run("a", rights("1"))])


# ---------------------------------------------------------------- rows that flipped


def test_every_row_that_only_one_run_labels_correctly_is_listed_by_gap() -> None:
    one = pair(
        [row(0), row(1, False), row(2, False, tuned_gold_probability=0.3), row(3), row(4, False)],
        [row(0), row(1), row(2), row(3, False), row(4, False)],
    )
    assert [flip.index for flip in one.only_other_right] == [1, 2]
    assert [flip.index for flip in one.only_reference_right] == [3]
    (flip,) = one.only_reference_right
    assert (flip.reference_answer, flip.other_answer) == ("neutral", "entailment")
    assert flip.gap == pytest.approx(0.8)


# ---------------------------------------------------------------- base models


def test_base_models_that_agree_have_no_differing_rows() -> None:
    base = pair(rights("110"), rights("011")).base
    assert base is not None
    assert (base.differing, base.largest_shift, base.same_model) == (0, 0.0, True)


def test_rows_on_which_base_models_differ_are_counted() -> None:
    shifted = {"entailment": 0.6, "neutral": 0.3, "contradiction": 0.1}
    first = [row(0), row(1, base="entailment"), row(2, base="entailment")]
    second = [row(0, base="entailment", base_probabilities=shifted), row(1), row(2, base="other")]
    base = pair(first, second).base
    assert base is not None
    assert (base.differing, base.only_reference_right, base.only_other_right) == (3, 1, 1)
    assert base.largest_shift == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ({"quantization": "none"}, False),
        ({"revision": "other"}, False),
        ({"device": "cpu"}, True),
    ],
)
def test_base_models_are_the_same_only_with_the_same_settings(
    setting: dict[str, str], same: bool
) -> None:
    results = outcome(Spec())
    model = replace(results.run.config.model, **setting)  # type: ignore[arg-type]
    config = replace(results.run.config, model=model)
    other = replace(results, run=replace(results.run, config=config))
    (one,) = compare([run("a", rights("1")), run("b", rights("1"), other)]).against
    assert one.base is not None
    assert one.base.same_model is same


# ---------------------------------------------------------------- differences


def of_outcomes(first: Results, second: Results) -> Comparison:
    return compare([run("a", rights("1"), first), run("b", rights("1"), second)])


def test_only_settings_that_differ_are_listed_with_the_value_of_each() -> None:
    found = of_outcomes(outcome(Spec()), outcome(Spec(lora_r=64, epochs=3)))
    assert {one.key: one.values for one in found.configuration} == {
        "lora.r": (32, 64),
        "train.epochs": (5, 3),
    }


def test_machines_and_packages_that_differ_are_listed() -> None:
    results = outcome(Spec())
    packages = {**results.environment.packages, "torch": "2.11.0"}
    del packages["peft"]
    other = replace(results, environment=replace(results.environment, packages=packages, gpus=()))
    found = {one.key: one.values for one in of_outcomes(results, other).environment}
    assert found["GPU"] == (("NVIDIA H200",), ())
    assert found["package torch"] == ("2.13.0", "2.11.0")
    assert found["package peft"] == ("0.21.0", None)
    assert "package accelerate" not in found


def test_gpus_that_differ_are_of_the_machine_and_not_of_the_recipe() -> None:
    results = outcome(Spec())
    config = replace(results.run.config, machine=MachineConfig(gpus=2))
    other = replace(
        results,
        run=replace(results.run, config=config),
        plan=replace(results.plan, processes=2, share="steps"),
    )
    found = of_outcomes(results, other)
    assert found.configuration == ()
    assert {one.key: one.values for one in found.environment} == {
        "processes of the GPU side": (1, 2),
        "how they train": ("none", "steps"),
        "machine.gpus": ("auto", 2),
    }


def test_different_rows_are_listed_by_their_hash() -> None:
    found = of_outcomes(outcome(Spec()), outcome(Spec(seed=12)))
    keys = {one.key for one in found.data}
    assert "test rows, SHA-256" in keys
    assert "test rows" not in keys


def test_the_same_outcome_twice_has_no_differences() -> None:
    found = of_outcomes(outcome(Spec()), outcome(Spec()))
    assert found.configuration == found.data == found.environment == ()


def test_common_rows_that_share_a_premise_are_one_observation() -> None:
    first = [row(index, right=True, premise=f"premise {index // 3}") for index in range(12)]
    second = [row(index, right=False, premise=f"premise {index // 3}") for index in range(12)]
    found = pair(first, second).tuned
    assert found is not None
    assert (found.premises, found.mcnemar_p) == (4, 0.125)
    alone = pair([row(index) for index in range(12)], [row(i, right=False) for i in range(12)])
    assert alone.tuned is not None
    assert (alone.tuned.premises, alone.tuned.mcnemar_p) == (None, 2 / 2**12)
    assert alone.tuned.interval.high < found.interval.high


# ---------------------------------------------------------------- several trainings


def of_trainings(*accuracies: float, seed: int = 0, rows: int = 200) -> list[LabelledRow]:
    """Rows of a run with a training of each accuracy; the first one's adapter is kept."""
    chance = random.Random(seed)
    luck = [[chance.random() < accuracy for accuracy in accuracies] for _ in range(rows)]
    return [
        row(index, right[0], rights=tuple(right) if len(right) > 1 else ())
        for index, right in enumerate(luck)
    ]


def test_runs_with_several_trainings_are_compared_by_the_means_of_all() -> None:
    one = pair(of_trainings(0.5, 0.6, 0.55), of_trainings(0.8, 0.7, 0.75, 0.8, seed=1))
    means = one.recipes
    assert means is not None
    assert (means.reference_trainings, means.other_trainings) == (3, 4)
    assert means.difference == pytest.approx(means.other_accuracy - means.reference_accuracy)
    assert means.interval.low < means.difference < means.interval.high
    assert one.p == means.p < 0.05
    assert one.is_significant
    assert one.difference == means.difference


def test_the_kept_adapters_are_still_compared_row_by_row() -> None:
    first, second = of_trainings(0.5, 0.6), of_trainings(0.8, 0.7, seed=1)
    several = pair(first, second)
    alone = pair([replace(r, rights=()) for r in first], [replace(r, rights=()) for r in second])
    assert several.tuned == alone.tuned
    assert several.only_other_right == alone.only_other_right
    assert alone.recipes is None


def test_trainings_that_differ_much_widen_the_interval() -> None:
    other = of_trainings(0.7, 0.7, 0.7, seed=1)
    alike, apart = (
        pair(of_trainings(0.7, 0.7, 0.7), other),
        pair(of_trainings(0.6, 0.7, 0.8), other),
    )
    widths = [
        one.recipes.interval.high - one.recipes.interval.low
        for one in (alike, apart)
        if one.recipes
    ]
    assert widths[1] > 2 * widths[0]


def test_a_run_with_one_training_is_compared_with_the_mean_of_the_other() -> None:
    one = pair(of_trainings(0.6), of_trainings(0.8, 0.75, 0.7, seed=1))
    assert one.recipes is not None
    assert (one.recipes.reference_trainings, one.recipes.other_trainings) == (1, 3)
    assert one.recipes.reference_accuracy == sum(r.is_right for r in of_trainings(0.6)) / 200


def test_holms_correction_takes_the_tests_over_trainings() -> None:
    reference, others = (
        of_trainings(0.6, 0.6, 0.65),
        (
            of_trainings(0.7, 0.72, 0.75, seed=1),
            of_trainings(0.66, seed=2),
        ),
    )
    found = compare([run("a", reference), *(run(str(n), r) for n, r in enumerate(others))]).against
    plain = [one.recipes.p for one in found if one.recipes]
    assert [one.adjusted_p for one in found] == pytest.approx(
        list(multipletests(plain, method="holm")[1])
    )


# ---------------------------------------------------------------- each with each


def test_two_runs_have_no_pairs_beside_their_comparison() -> None:
    assert compare([run("a", rights("10")), run("b", rights("11"))]).pairs == ()


def test_every_pair_is_tested_as_statsmodels_does_and_adjusted_over_all_pairs() -> None:
    chance = random.Random(3)
    patterns = ["".join(chance.choice("0111") for _ in range(80)) for _ in range(4)]
    names = "abcd"
    found = compare([run(n, rights(p)) for n, p in zip(names, patterns, strict=True)])
    assert [(one.first, one.second) for one in found.pairs] == [
        *(("a", "b"), ("a", "c"), ("a", "d")),
        *(("b", "c"), ("b", "d"), ("c", "d")),
    ]
    of_name = dict(zip(names, patterns, strict=True))
    plain = []
    for one in found.pairs:
        cells = [[0, 0], [0, 0]]
        for x, y in zip(of_name[one.first], of_name[one.second], strict=True):
            cells[x == "0"][y == "0"] += 1
        plain.append(mcnemar(cells, exact=True).pvalue)
        assert one.difference == pytest.approx((cells[0][1] - cells[1][0]) / 80)
    assert [one.p for one in found.pairs] == pytest.approx(plain)
    adjusted = list(multipletests(plain, method="holm")[1])
    assert [one.adjusted_p for one in found.pairs] == pytest.approx(adjusted)


def test_a_pair_with_the_reference_is_that_of_its_comparison() -> None:
    found = compare([run(n, rights(p)) for n, p in (("a", "1100"), ("b", "1111"), ("c", "0011"))])
    assert [one.p for one in found.pairs[:2]] == [one.plain_p for one in found.against]
    assert [one.difference for one in found.pairs[:2]] == [-one.difference for one in found.against]


def test_a_pair_without_common_rows_is_not_tested_and_does_not_count() -> None:
    far = [row(0, premise="of another data set")]
    found = compare([run("a", rights("1110")), run("b", rights("0001")), run("c", far)]).pairs
    assert [(one.common_rows, one.p) for one in found[1:]] == [(0, None)] * 2
    assert found[0].adjusted_p == found[0].p
    assert not any(one.is_significant for one in found)


def test_pairs_of_several_trainings_are_of_their_means() -> None:
    of_runs = [of_trainings(0.6, 0.65), of_trainings(0.7, 0.75, seed=1), of_trainings(0.8, seed=2)]
    compared = [run(str(n), rows) for n, rows in enumerate(of_runs)]
    last = compare(compared).pairs[-1]
    (alone,) = compare(compared[1:]).against
    assert alone.recipes is not None
    assert last.p == alone.recipes.p
    assert last.difference == pytest.approx(-alone.difference)
