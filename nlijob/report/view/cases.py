"""The failure cases: rows that tuning corrected, left wrong or broke."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.wording import count, percent, probability, share_of
from nlijob.records.outcome import Case, Results
from nlijob.records.trials import Trials
from nlijob.report.view.case_list import case_list, marks
from nlijob.report.view.parts import View
from nlijob.report.view.text import unbroken, visible
from nlijob.report.view.words import differing_words, not_tried, word_importance

KINDS = {
    "newly-broken": (
        "Newly broken",
        "the base model was correct, the tuned model is wrong",
        "the largest losses in the probability of the gold label first",
    ),
    "still-wrong": (
        "Still wrong",
        "wrong before and after",
        "the tuned model's most confident mistakes",
    ),
    "corrected": (
        "Corrected by tuning",
        "the base model was wrong, the tuned model is correct",
        "the largest gains in the probability of the gold label first",
    ),
}
"""Kind of case -> title, meaning, and how the shown cases were chosen."""
FIRST_OF_SEVERAL = {
    "corrected": "those that most trainings label correctly first, then ",
    "still-wrong": "those that most trainings get wrong first, then ",
    "newly-broken": "those that most trainings get wrong first, then ",
}
"""Kind of case -> what decides on the order before all else where there are several trainings."""


def cases_section(results: Results) -> View:
    """Counts of every kind, the shown cases, and the table of all wrong rows.

    What tuning broke or left wrong comes first: it decides on whether the model can be used.
    """
    groups, label_names = results.cases, results.manifest.label_names
    rows = groups.both_right + groups.corrected + groups.still_wrong + groups.newly_broken
    trainings = len(results.trials.trials) if results.trials else 1
    counts = (
        ("newly-broken", "newly broken", groups.newly_broken),
        ("still-wrong", "still wrong", groups.still_wrong),
        ("corrected", "corrected", groups.corrected),
        ("both-right", "both correct", groups.both_right),
    )
    return View(
        segments=[
            View(
                key=key,
                name=name,
                text=share_of(number, rows),
                width=100 * number / rows,
                is_shown=key in KINDS and number > 0,
            )
            for key, name, number in counts
        ],
        kinds=[
            _kind(key, number, shown, label_names, trainings)
            for key, number, shown in (
                ("newly-broken", groups.newly_broken, groups.shown_newly_broken),
                ("still-wrong", groups.still_wrong, groups.shown_still_wrong),
                ("corrected", groups.corrected, groups.shown_corrected),
            )
        ],
        all_rows=case_list(groups, label_names, trainings),
        file=f"{results.run.run_id}-wrong-rows",
        files=_files(results.trials),
    )


def _files(trials: Trials | None) -> str:
    """Where the whole of it lies in the run's folder."""
    tuned = "evaluate/predictions.jsonl"
    if trials is not None:
        tuned = f"trials/{trials.kept}/{tuned}"
    return (
        "In the run's folder, results.json has all of these rows (under “cases”), and all test "
        f"rows' predictions, with the probability of each label, are in "
        f"baseline/predictions.jsonl (base model) and {tuned} (tuned model)."
    )


def _kind(
    key: str, number: int, shown: Sequence[Case], label_names: Sequence[str], trainings: int
) -> View:
    title, meaning, chosen = KINDS[key]
    if trainings > 1:
        chosen = f"{FIRST_OF_SEVERAL[key]}{chosen}"
    if not number:
        lead = f"No test rows: {meaning}."
    elif number > len(shown):
        lead = f"{len(shown)} of {count(number)} shown ({meaning}): {chosen}."
    else:
        lead = f"All {count(number)} shown ({meaning})." if number > 1 else f"One row: {meaning}."
    return View(
        key=key,
        title=title,
        lead=lead,
        count=count(number),
        letter=key[0],
        cases=tuple(_shown(key, case, label_names, trainings) for case in shown),
    )


def _shown(key: str, case: Case, label_names: Sequence[str], trainings: int) -> View:
    base = (case.base_predicted, case.base_probabilities, case.base_text)
    tuned = (case.tuned_predicted, case.tuned_probabilities, case.tuned_text)
    premise, hypothesis = differing_words(case)
    return View(
        anchor=f"{key}-{case.index}",
        row=f"test row {case.index}",
        index=case.index,
        marks=marks(case, label_names),
        premise=premise,
        hypothesis=hypothesis,
        gold=label_names[case.label],
        answers=(
            _answer("base model", case.label, *base, label_names),
            _answer("tuned model", case.label, *tuned, label_names),
        ),
        trainings=_across(case, trainings),
        tags=case.tags,
        explanation=unbroken(case.explanation),
        overlap=_overlap(case),
        importance=word_importance(case, label_names),
        not_tried=not_tried(case),
    )


def _across(case: Case, trainings: int) -> str:
    """In how many trainings the case is so; "" where there is one training."""
    if case.right_in is None or trainings < 2:
        return ""
    if case.tuned_predicted == case.label:
        return f"correct in {case.right_in} of {trainings} trainings"
    return f"wrong in {trainings - case.right_in} of {trainings} trainings"


def _overlap(case: Case) -> str:
    if case.overlap is None:
        return "the hypothesis has no content words"
    return f"{percent(case.overlap, 0)} of the hypothesis's content words"


def _answer(
    model: str,
    gold: int,
    predicted: int,
    probabilities: Sequence[float],
    text: str | None,
    label_names: Sequence[str],
) -> View:
    bars = (
        View(
            label=name,
            text=probability(value),
            width=100 * value,
            gold=label == gold,
            answer=label == predicted,
        )
        for label, (name, value) in enumerate(zip(label_names, probabilities, strict=True))
    )
    return View(
        model=model,
        label=label_names[predicted],
        right=predicted == gold,
        bars=tuple(bars),
        text=None if text is None else visible(text),
        text_note=_text_note(text),
    )


def _text_note(text: str | None) -> str:
    if text is None:
        return "no free output was generated"
    if not text.strip():
        return "empty"
    return "continues after its first line" if "\n" in text.strip() else ""
