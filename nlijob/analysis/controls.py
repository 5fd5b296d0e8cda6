"""Baselines on the same test rows that the tuned model should beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nlijob.analysis.clustered import accuracy_interval, paired_difference
from nlijob.analysis.premises import Premises, premise_numbers
from nlijob.analysis.wording import (
    listed,
    mcnemar_name,
    p_value,
    percent,
    plural,
    points,
    share_of,
    with_interval,
)
from nlijob.records.intervals import PairedDifference
from nlijob.records.job import Prediction
from nlijob.records.outcome import SIGNIFICANT, Control, ControlKind, Finding


def build_controls(
    tuned: Sequence[Prediction],
    few_shot: Sequence[Prediction],
    blank_premise: Sequence[Prediction],
    label_names: Sequence[str],
    premises: Premises | None = None,
) -> tuple[Control, ...]:
    """The controls, each compared with the tuned model's predictions on the same test rows.

    `few_shot` are the base model's predictions with training rows in its prompt, `blank_premise`
    the tuned model's without premises. A control without predictions was not requested and is left
    out. Rows may share `premises`. Raises ValueError if a control labelled different rows.
    """
    numbers = premise_numbers(tuned, premises)
    right = [row.is_right for row in tuned]
    commonest = most_frequent([row.label for row in tuned])
    constant = [row.label == commonest[0] for row in tuned]
    majority = _control("majority class", right, constant, numbers)
    controls = [replace(majority, labels=tuple(label_names[label] for label in commonest))]
    others: tuple[tuple[ControlKind, Sequence[Prediction]], ...] = (
        ("few-shot", few_shot),
        ("blank premise", blank_premise),
    )
    for kind, rows in others:
        if rows:
            own = _right(kind, rows, tuned)
            over_majority = paired_difference(own, constant, numbers)
            found = _control(kind, right, own, numbers)
            controls.append(replace(found, over_majority=over_majority))
    return tuple(controls)


def most_frequent(labels: Sequence[int]) -> tuple[int, ...]:
    """The most frequent labels by number, in order; several if they are equally frequent.

    This is the one rule for ties: all are named, and the lowest number stands for them where one
    must be taken. Raises ValueError without labels.
    """
    counts = Counter(labels)
    most = max(counts.values())
    return tuple(sorted(label for label, number in counts.items() if number == most))


def control_warnings(controls: Iterable[Control], shots: int) -> Iterator[Finding]:
    """Findings about controls that the tuned model does not clearly beat."""
    for control in controls:
        over = control.tuned_over_it
        clear = over.mcnemar_p < SIGNIFICANT
        if clear and over.difference > 0:
            continue
        numbers: dict[str, int | float | str] = {
            "accuracy": control.accuracy,
            "tuned_over_it": over.difference,
            "mcnemar_p": over.mcnemar_p,
        }
        figures = _figures(over)
        if control.kind == "majority class":
            yield _no_better_than_one_label(control, clear, numbers)
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


def _no_better_than_one_label(
    control: Control, is_worse: bool, numbers: dict[str, int | float | str]
) -> Finding:
    share = share_of(control.correct, control.rows)
    outcome = "significantly worse" if is_worse else "not distinguishably better"
    return Finding(
        "no-better-than-one-label",
        {
            "label": control.labels[0] if control.labels else "",
            "support": control.correct,
            "rows": control.rows,
            **numbers,
        },
        f"Always answering {_label(control)} would be right for {share} of the test rows; the "
        f"tuned model is {outcome} ({_figures(control.tuned_over_it)}).",
    )


def _label(control: Control) -> str:
    """The label of the majority class in a sentence; equally frequent ones are named."""
    if not control.labels:
        return "the most frequent label"
    first = f"“{control.labels[0]}”"
    if len(control.labels) == 1:
        return first
    return f"{first} ({tie_note(control.labels)})"


def tie_note(labels: Sequence[str]) -> str:
    """That several labels are the most frequent ones; "" if only one is."""
    if len(labels) < 2:
        return ""
    return f"{listed([f'“{name}”' for name in labels])} are equally frequent"


def premise_finding(controls: Sequence[Control]) -> str:
    """A sentence on the tuned model's accuracy without the premise; "" if not measured.

    The claim rests on the paired test with the majority class, as in the table.
    """
    by_kind = {control.kind: control for control in controls}
    blank, majority = by_kind.get("blank premise"), by_kind["majority class"]
    if blank is None:
        return ""
    share = with_interval(blank.accuracy, blank.accuracy_interval)
    start = f"Without the premise, the tuned model is correct on {share} of the rows"
    over = blank.over_majority
    if over is None:
        return f"{start}."
    end = (
        f"always answering the most frequent label ({percent(majority.accuracy)}; {_figures(over)})"
    )
    if over.mcnemar_p >= SIGNIFICANT:
        return f"{start}, which is not distinguishable from {end}."
    if over.difference < 0:
        return f"{start}, which is significantly less than {end}."
    return (
        f"{start}, which is significantly more than {end}: part of its accuracy comes from the "
        "hypothesis alone."
    )


def _figures(over: PairedDifference) -> str:
    return f"{points(over.difference)}, {mcnemar_name(over.premises)}, {p_value(over.mcnemar_p)}"


def _right(
    kind: ControlKind, control: Sequence[Prediction], tuned: Sequence[Prediction]
) -> list[bool]:
    """Which rows a control has right, in the order of the tuned model's rows."""
    right = {row.index: row.is_right for row in control}
    if right.keys() != {row.index for row in tuned}:
        raise ValueError(f"the control {kind!r} labelled different rows from the tuned model")
    return [right[row.index] for row in tuned]


def _control(
    kind: ControlKind, tuned: Sequence[bool], control: Sequence[bool], premises: Sequence[int]
) -> Control:
    return Control(
        kind=kind,
        rows=len(control),
        correct=sum(control),
        accuracy=sum(control) / len(control),
        accuracy_interval=accuracy_interval(control, premises),
        tuned_over_it=paired_difference(tuned, control, premises),
    )
