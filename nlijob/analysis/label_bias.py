"""Label bias: how often each label is predicted, compared with how often it is the gold label."""

from __future__ import annotations

from nlijob.analysis.warnings import habitual_label
from nlijob.analysis.wording import count, listed, percent, plural
from nlijob.records.outcome import LabelBias, LabelShare, Metrics


def label_bias(base: Metrics, tuned: Metrics) -> LabelBias:
    """Shares of each label before and after tuning, and their distance from the gold shares.

    The distance is the total variation distance (0 to 1): the share of answers that would have to
    change for the two distributions to match. Raises ValueError if the two models were measured on
    rows with different gold labels.
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
    """How far each model's label distribution is from the gold labels, or its habitual label.

    A distance of 0 does not mean that the answers are correct, only that they are as frequent.
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
            f"{plural(bias.rows, 'row')}; the gold label is “{habit.name}” for "
            f"{count(habit.support)}."
        )
    if not distance:
        return f"The {model} model predicted each label as often as it is the gold label."
    surplus = max(label.predicted - label.support for label in metrics.classes)
    most = [label for label in metrics.classes if label.predicted - label.support == surplus]
    excess = listed(
        [
            f"“{label.name}” ({plural(label.predicted, 'answer')} for "
            f"{plural(label.support, 'row')})"
            for label in most
        ]
    )
    others = round(distance * bias.rows)
    return (
        f"The {model} model's label distribution differs from that of the gold labels by "
        f"{percent(distance)} ({count(others)} of {plural(bias.rows, 'answer')} would have to "
        f"change for them to match). It overpredicts most: {excess}."
    )
