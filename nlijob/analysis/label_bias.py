"""How often each label is answered against how often it is the gold label."""

from __future__ import annotations

from nlijob.analysis.warnings import habitual_label
from nlijob.analysis.wording import count, percent, plural
from nlijob.records import LabelBias, LabelShare, Metrics


def label_bias(base: Metrics, tuned: Metrics) -> LabelBias:
    """Shares of every label before and after tuning.

    Raises ValueError where the two models were not measured on rows of the same gold labels.
    """
    labels = tuple(
        LabelShare(before.label, before.name, before.support, before.predicted, after.predicted)
        for before, after in zip(base.classes, tuned.classes, strict=True)
    )
    if [label.support for label in base.classes] != [label.support for label in tuned.classes]:
        raise ValueError("the two models were measured on different rows")
    return LabelBias(
        rows=base.rows,
        labels=labels,
        base_distance=sum(abs(label.base - label.gold) for label in labels) / (2 * base.rows),
        tuned_distance=sum(abs(label.tuned - label.gold) for label in labels) / (2 * base.rows),
    )


def label_bias_sentences(base: Metrics, tuned: Metrics) -> tuple[str, ...]:
    """For each model how far its answers are from the gold shares, a habit first where it has one.

    A distance of 0 does not mean that the answers are right, only that they are as frequent.
    """
    bias = label_bias(base, tuned)
    return (
        _sentence("base", base, bias, bias.base_distance),
        _sentence("tuned", tuned, bias, bias.tuned_distance),
    )


def _sentence(model: str, metrics: Metrics, bias: LabelBias, distance: float) -> str:
    if habit := habitual_label(metrics):
        return (
            f"The {model} model answered “{habit.name}” for {count(habit.predicted)} of "
            f"{plural(bias.rows, 'row')}, nearly all; {count(habit.support)} are of that label."
        )
    if not distance:
        return f"The {model} model gave every label as often as it is the gold label."
    most = max(metrics.classes, key=lambda label: label.predicted - label.support)
    others = round(distance * bias.rows)
    return (
        f"The {model} model's answers are {percent(distance)} away from the gold shares "
        f"({plural(others, 'answer')} of {count(bias.rows)} would have to be another label for "
        f"the shares to agree). It gave “{most.name}” most above its share: "
        f"{count(most.predicted)} answers for {plural(most.support, 'row')}."
    )
