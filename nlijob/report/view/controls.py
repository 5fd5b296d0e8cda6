"""Baselines that the tuned model is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.controls import premise_finding, tie_note
from nlijob.analysis.wording import (
    interval,
    p_value,
    percent,
    plural,
    points,
    points_interval,
)
from nlijob.heads import describe
from nlijob.records.outcome import Control, Results
from nlijob.report.view.parts import Row, Table, View, columns, row
from nlijob.report.view.text import unbroken, visible


def controls_section(results: Results) -> View:
    """The majority class, and the other controls that were requested."""
    shots = results.run.config.eval.few_shot
    rows = [
        *(_row(control, shots) for control in results.controls),
        row(
            "tuned model",
            f"{percent(results.tuned.accuracy)} ({plural(results.tuned.correct, 'row')})",
            interval(results.tuned.accuracy_interval),
            "",
            "",
            "",
            "",
            mark="this run",
        ),
    ]
    return View(
        table=Table(
            "Baselines that the tuned model should beat",
            columns(
                "model",
                "accuracy",
                "95 % interval",
                "tuned model minus baseline",
                "95 % interval",
                "McNemar test",
                "baseline minus most frequent label",
            ),
            tuple(rows),
        ),
        finding=unbroken(visible(premise_finding(results.controls))),
        tie=visible(_tie(results.controls)),
        few_shot_hint=""
        if shots or not describe(results.run.config.model.head).takes_few_shot
        else "Few-shot prompting was not tried. --set eval.few_shot=3 shows how much of the gain "
        "the base model reaches with examples in its prompt and without tuning.",
    )


def _row(control: Control, shots: int) -> Row:
    over = control.tuned_over_it
    return row(
        _name(control, shots),
        f"{percent(control.accuracy)} ({plural(control.correct, 'row')})",
        interval(control.accuracy_interval),
        points(over.difference),
        points_interval(over.interval),
        unbroken(p_value(over.mcnemar_p)),
        _over_majority(control),
    )


def _over_majority(control: Control) -> str:
    over = control.over_majority
    if over is None:
        return ""
    return f"{points(over.difference)}, {unbroken(p_value(over.mcnemar_p))}"


def _tie(controls: Sequence[Control]) -> str:
    """Which labels are equally frequent, and which of them stands for all; "" without a tie."""
    labels = next(control.labels for control in controls if control.kind == "majority class")
    if len(labels) < 2:
        return ""
    return f"{tie_note(labels)}; “{labels[0]}”, the first by number, is taken as the baseline."


def _name(control: Control, shots: int) -> str:
    return {
        "majority class": "always the most frequent label",
        "few-shot": f"base model with {plural(shots, 'example')} in the prompt",
        "blank premise": "tuned model without the premise",
    }[control.kind]
