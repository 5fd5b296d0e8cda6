"""How far the models, and a single annotator, agree with the people who labelled the test rows.

A gold label is made from the annotators' own labels, so that an annotator's agreement with it is
too high a measure of what a person reaches. Here each annotator is left out in turn and compared
with the most frequent label of the others, and so are the models, as in Calderon, Reichart and Dror
(2025), The alternative annotator test for LLM-as-a-judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.analysis.cases import pairs
from nlijob.analysis.clustered import (
    accuracy_interval,
    flipped_p,
    mean_difference_interval,
    mean_share_interval,
    premises_as_units,
)
from nlijob.analysis.premises import premises_of
from nlijob.analysis.wording import p_value, points, points_interval, with_interval
from nlijob.records.intervals import Interval
from nlijob.records.job import Example, Prediction
from nlijob.records.outcome import Annotators, PeopleDifference, Voice

Votes = Sequence[int]
"""How many annotators gave label 0, 1, 2, ..."""


def is_judged(votes: Votes) -> bool:
    """Whether two annotators or more labelled the row, so that they can agree or not."""
    return sum(votes) > 1


def all_agree(votes: Votes) -> bool:
    """Whether all annotators gave the same label."""
    return max(votes, default=0) == sum(votes)


def measure_annotators(
    base: Iterable[Prediction], tuned: Iterable[Prediction], examples: Sequence[Example]
) -> Annotators | None:
    """Agreement on the test rows with at least two annotators; None if there are none."""
    rows = [row for row in examples if is_judged(row.votes)]
    if not rows:
        return None
    matched = {pair.index: pair for pair in pairs(base, tuned)}
    before = [matched[row.index].base.predicted for row in rows]
    after = [matched[row.index].tuned.predicted for row in rows]
    premises = premises_of(examples)
    numbers = [premises[row.index] for row in rows]
    of_tuned = [of_answer(row.votes, answer) for row, answer in zip(rows, after, strict=True)]
    of_annotator = [of_one(row.votes) for row in rows]
    return Annotators(
        rows=len(rows),
        rows_without=len(examples) - len(rows),
        labels=sum(sum(row.votes) for row in rows),
        fewest_labels=min(sum(row.votes) for row in rows),
        most_labels=max(sum(row.votes) for row in rows),
        unanimous=sum(all_agree(row.votes) for row in rows),
        other_gold=sum(row.votes[row.label] < max(row.votes) for row in rows),
        base=_model(rows, before, numbers),
        tuned=_model(rows, after, numbers),
        annotator=_voice(
            [row.votes[row.label] / sum(row.votes) for row in rows], of_annotator, numbers
        ),
        tuned_over_annotator=_difference(of_tuned, of_annotator, numbers),
        premises=premises_as_units(numbers),
    )


def of_answer(votes: Votes, answer: int) -> float:
    """How far an answer agrees with the most frequent label of all annotators but one (0 to 1).

    It is the mean over the annotator who is left out.
    """
    left_out = ((label, number) for label, number in enumerate(votes) if number)
    agreed = sum(number * _agrees(_without(votes, label), answer) for label, number in left_out)
    return agreed / sum(votes)


def of_one(votes: Votes) -> float:
    """How far an annotator agrees with the most frequent label of the others (0 to 1).

    It is the mean over the annotators.
    """
    given = ((label, number) for label, number in enumerate(votes) if number)
    agreed = sum(number * _agrees(_without(votes, label), label) for label, number in given)
    return agreed / sum(votes)


def annotators_sentence(found: Annotators) -> str:
    """What a single annotator reaches, and whether the tuned model does by the test."""
    person, model, gap = found.annotator, found.tuned, found.tuned_over_annotator
    figures = (
        f"difference {points(gap.difference)}, 95 % interval {points_interval(gap.interval)}, "
        f"sign-flip test, {p_value(gap.p)}"
    )
    if not gap.is_significant:
        verdict = f"The tuned model is not distinguishable from a single annotator ({figures})."
    else:
        often = "more" if gap.difference > 0 else "less"
        verdict = (
            f"The tuned model agrees with the other annotators {often} often than a single "
            f"annotator does ({figures})."
        )
    return (
        "A single annotator gives the most frequent label of the other annotators in "
        f"{with_interval(person.others, person.others_interval)} of the cases, the tuned model in "
        f"{with_interval(model.others, model.others_interval)}. {verdict}"
    )


def _without(votes: Votes, label: int) -> list[int]:
    return [number - (own == label) for own, number in enumerate(votes)]


def _agrees(votes: Votes, answer: int) -> float:
    """1 if the answer is the most frequent label, a part of 1 if it is one of several, else 0."""
    most = max(votes)
    return (votes[answer] == most) / sum(number == most for number in votes)


def _model(rows: Sequence[Example], answers: Sequence[int], premises: Sequence[int]) -> Voice:
    right = [answer == row.label for row, answer in zip(rows, answers, strict=True)]
    others = [of_answer(row.votes, answer) for row, answer in zip(rows, answers, strict=True)]
    return _voice(right, others, premises, accuracy_interval(right, premises))


def _voice(
    gold: Sequence[float],
    others: Sequence[float],
    premises: Sequence[int],
    gold_interval: Interval | None = None,
) -> Voice:
    return Voice(
        gold=sum(gold) / len(gold),
        gold_interval=gold_interval or mean_share_interval(gold, premises),
        others=sum(others) / len(others),
        others_interval=mean_share_interval(others, premises),
    )


def _difference(
    tuned: Sequence[float], annotator: Sequence[float], premises: Sequence[int]
) -> PeopleDifference:
    values = [one - other for one, other in zip(tuned, annotator, strict=True)]
    return PeopleDifference(
        difference=sum(values) / len(values),
        interval=mean_difference_interval(values, premises),
        p=flipped_p(values, premises),
    )
