"""The models beside the annotators of the test rows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from fractions import Fraction

import pytest

from nlijob.analysis.annotators import annotators_sentence, measure_annotators, of_answer, of_one
from nlijob.analysis.clustered import accuracy_interval
from nlijob.analysis.slices import measure_slices
from nlijob.records.job import Example
from nlijob.records.outcome import Annotators
from tests.unit.analysis.made import NAMES, answered, chance_answers

VOTES = [(5, 0, 0), (4, 1, 0), (3, 1, 1), (2, 2, 1), (1, 1, 0), (2, 0, 0), (3, 2, 0), (76, 20, 4)]


def judged(
    votes: Sequence[tuple[int, ...]],
    base: Sequence[int],
    tuned: Sequence[int],
    premises: Sequence[str] = (),
) -> Annotators:
    """Rows of gold label 0 with these votes and answers."""
    found = measure_annotators(
        answered([0] * len(votes), base), answered([0] * len(votes), tuned), made(votes, premises)
    )
    assert found is not None
    return found


def made(votes: Sequence[tuple[int, ...]], premises: Sequence[str] = ()) -> list[Example]:
    return [
        Example(i, premises[i] if premises else f"premise {i}", "h", 0, votes=own)
        for i, own in enumerate(votes)
    ]


def one_by_one(votes: Sequence[int], answer: int | None) -> float:
    """The definition, annotator by annotator, whose own label is the answer where it is None."""
    people = [label for label, number in enumerate(votes) for _ in range(number)]
    total = Fraction(0)
    for left_out, own in enumerate(people):
        others = people[:left_out] + people[left_out + 1 :]
        counts = [others.count(label) for label in range(len(votes))]
        most = [label for label, number in enumerate(counts) if number == max(counts)]
        total += Fraction((own if answer is None else answer) in most, len(most))
    return float(total / len(people))


@pytest.mark.parametrize("votes", VOTES)
def test_each_annotator_is_left_out_in_turn(votes: tuple[int, ...]) -> None:
    assert of_one(votes) == pytest.approx(one_by_one(votes, None))
    for answer in range(3):
        assert of_answer(votes, answer) == pytest.approx(one_by_one(votes, answer))


def test_where_all_agree_everyone_who_says_so_agrees_fully() -> None:
    assert (of_one((0, 5, 0)), of_answer((0, 5, 0), 1), of_answer((0, 5, 0), 2)) == (1, 1, 0)


def test_rows_with_fewer_than_two_annotators_are_left_out() -> None:
    found = judged([(5, 0, 0), (1, 0, 0), (), (3, 2, 0)], [0, 1, 1, 0], [0, 1, 1, 1])
    assert (found.rows, found.rows_without, found.labels) == (2, 2, 10)
    assert (found.base.gold, found.tuned.gold) == (1.0, 0.5)


def test_without_annotators_there_is_no_evidence() -> None:
    rows = answered([0], [0])
    assert measure_annotators(rows, rows, made([(1, 0, 0)])) is None
    assert measure_annotators(rows, rows, made([()])) is None


def test_rows_are_counted_by_what_the_annotators_gave() -> None:
    found = judged([(5, 0, 0), (4, 0, 0), (1, 4, 0), (2, 2, 1)], [0] * 4, [0] * 4)
    assert (found.fewest_labels, found.most_labels) == (4, 5)
    assert (found.unanimous, found.other_gold) == (2, 1)


def test_agreement_with_the_gold_label_counts_every_row_once() -> None:
    found = judged([(5, 0, 0), (6, 4, 0)], [1, 0], [0, 0])
    assert found.annotator.gold == pytest.approx((1 + 0.6) / 2)
    assert (found.base.gold, found.tuned.gold) == (0.5, 1.0)
    assert found.base.gold_interval == accuracy_interval([False, True], [0, 1])


def test_a_model_that_answers_as_people_do_is_not_distinguishable_from_one() -> None:
    votes = [(4, 1, 0)] * 200
    person = [0 if i % 5 else 1 for i in range(200)]  # one in five of the people says 1
    found = judged(votes, [0] * 200, person)
    assert found.tuned_over_annotator.difference == pytest.approx(0)
    assert "is not distinguishable from a single annotator" in annotators_sentence(found)


@pytest.mark.parametrize(("tuned", "often"), [(0, "more"), (1, "less")])
def test_the_sentence_says_who_agrees_more_often(tuned: int, often: str) -> None:
    found = judged([(4, 1, 0)] * 100, [1] * 100, [tuned] * 100)
    text = annotators_sentence(found)
    assert f"agrees with the other annotators {often} often than a single annotator" in text
    assert (
        "A single annotator gives the most frequent label of the other annotators in 80.0 %" in text
    )


def test_rows_of_one_premise_count_as_less_than_independent_rows() -> None:
    choose = random.Random(7)
    votes = [(4, 1, 0) if choose.random() < 0.5 else (1, 2, 2) for _ in range(50)]
    thrice = [own for own in votes for _ in range(3)]
    answers = chance_answers([0] * 150, 0.7, 1)
    premises = [f"premise {i // 3}" for i in range(150)]
    alone, shared = judged(thrice, answers, answers), judged(thrice, answers, answers, premises)
    assert (alone.premises, shared.premises) == (None, 50)
    assert width(shared) > 1.3 * width(alone)


def width(found: Annotators) -> float:
    return found.annotator.others_interval.high - found.annotator.others_interval.low


def test_slices_tell_rows_apart_on_which_annotators_agree() -> None:
    votes = [(5, 0, 0)] * 8 + [(3, 2, 0)] * 7 + [(1, 0, 0)] * 3
    rows = answered([0] * 18, [0] * 18)
    slices = measure_slices(rows, answered([0] * 18, [0] * 8 + [1] * 10), made(votes), NAMES)
    found = {one.key: one for one in slices if one.family == "annotators"}
    assert {key: (one.rows, one.tuned_correct) for key, one in found.items()} == {
        "agree": (8, 8),
        "disagree": (7, 0),
    }


def families(votes: Iterable[tuple[int, ...]]) -> set[str]:
    votes = list(votes)
    rows = answered([0] * len(votes), [0] * len(votes))
    return {one.family for one in measure_slices(rows, rows, made(votes), NAMES)}


def test_rows_without_annotators_have_no_such_slices() -> None:
    assert "annotators" not in families([()] * 10)
    assert "annotators" not in families([(1, 0, 0)] * 10)
