"""Baselines on the same test rows that the tuned model should beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nlijob.analysis.statistics import paired_difference, wilson_interval
from nlijob.analysis.wording import p_value, percent, plural, points, with_interval
from nlijob.records.job import Prediction
from nlijob.records.outcome import SIGNIFICANT, Control, ControlKind, Finding


def build_controls(
    tuned: Sequence[Prediction],
    few_shot: Sequence[Prediction],
    blank_premise: Sequence[Prediction],
) -> tuple[Control, ...]:
    """The controls, each compared with the tuned model's predictions on the same test rows.

    `few_shot` are the base model's predictions with training rows in its prompt, `blank_premise`
    the tuned model's without premises. A control without predictions was not requested and is left
    out. Raises ValueError if a control labelled different rows.
    """
    right = _right(tuned)
    (commonest, _), *_ = Counter(row.label for row in tuned).most_common(1)
    controls = [_control("majority class", right, {r.index: r.label == commonest for r in tuned})]
    if few_shot:
        controls.append(_control("few-shot", right, _right(few_shot)))
    if blank_premise:
        controls.append(_control("blank premise", right, _right(blank_premise)))
    return tuple(controls)


def control_warnings(controls: Iterable[Control], shots: int) -> Iterator[Finding]:
    """Findings about controls that the tuned model does not clearly beat."""
    for control in controls:
        over = control.tuned_over_it
        clear = over.mcnemar_p < SIGNIFICANT
        if clear and over.difference > 0:
            continue
        numbers = {
            "accuracy": control.accuracy,
            "tuned_over_it": over.difference,
            "mcnemar_p": over.mcnemar_p,
        }
        figures = f"{points(over.difference)}, McNemar {p_value(over.mcnemar_p)}"
        if control.kind == "few-shot":
            outcome = "is significantly worse" if clear else "is not significantly better"
            yield Finding(
                "no-better-than-few-shot",
                {"shots": shots, **numbers},
                f"With {plural(shots, 'example')} in its prompt, the untuned base model is correct "
                f"on {percent(control.accuracy)} of the test rows; the tuned model {outcome} "
                f"({figures}).",
            )
        if control.kind == "blank premise":
            outcome = (
                "that is significantly more than with it"
                if clear
                else "these rows do not show that it uses the premise at all"
            )
            yield Finding(
                "no-better-than-blank-premise",
                {**numbers},
                f"With the premise left blank, the tuned model is correct on "
                f"{percent(control.accuracy)} of the test rows; {outcome} (with the premise: "
                f"{figures}).",
            )


def premise_finding(controls: Sequence[Control]) -> str:
    """A sentence on the tuned model's accuracy without the premise; "" if not measured."""
    by_kind = {control.kind: control for control in controls}
    blank, majority = by_kind.get("blank premise"), by_kind["majority class"]
    if blank is None:
        return ""
    share = with_interval(blank.accuracy, blank.accuracy_interval)
    if blank.accuracy_interval.low > majority.accuracy:
        return (
            f"Without the premise, the tuned model is still correct on {share} of the rows, which "
            f"is more than always answering the most frequent label "
            f"({percent(majority.accuracy)}): part of its accuracy comes from the hypothesis alone."
        )
    return (
        f"Without the premise, the tuned model is correct on {share} of the rows, which is not "
        f"clearly more than always answering the most frequent label "
        f"({percent(majority.accuracy)})."
    )


def _right(predictions: Iterable[Prediction]) -> dict[int, bool]:
    return {row.index: row.is_right for row in predictions}


def _control(kind: ControlKind, tuned: Mapping[int, bool], control: Mapping[int, bool]) -> Control:
    if tuned.keys() != control.keys():
        raise ValueError(f"the control {kind!r} labelled different rows from the tuned model")
    rows, correct = len(control), sum(control.values())
    gained = sum(tuned[index] and not control[index] for index in tuned)
    lost = sum(control[index] and not tuned[index] for index in tuned)
    return Control(
        kind=kind,
        rows=rows,
        correct=correct,
        accuracy=correct / rows,
        accuracy_interval=wilson_interval(correct, rows),
        tuned_over_it=paired_difference(gained, lost, rows),
    )
