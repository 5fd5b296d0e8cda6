"""Both models on further test sets: does the gain carry over to other data?

A set may tell fewer labels apart than the model. The model's most probable answer then counts for
the label that it stands for, as in the paper of HANS (McCoy, Pavlick and Linzen, 2019, Right for
the wrong reasons). Of equal probabilities the answer is the label with the lowest number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nlijob.analysis.cases import pairs
from nlijob.analysis.clustered import accuracy_interval, paired_difference
from nlijob.analysis.leakage import LEAK_MATTERS
from nlijob.analysis.premises import Premises, premises_of
from nlijob.analysis.slices import measure_set_slices
from nlijob.analysis.statistics import holm
from nlijob.analysis.wording import mcnemar_name, p_value, plural, points, share_of
from nlijob.config import JobConfig
from nlijob.kept import kept_trial, kept_view
from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.job import Example, Prediction
from nlijob.records.outcome import (
    SIGNIFICANT,
    Finding,
    GainsCompared,
    TransferResult,
    TransferScore,
    TransferTrial,
    TransferVerdict,
)
from nlijob.records.serialization import read, read_lines
from nlijob.records.transfer import Elsewhere, TransferManifest, TransferPrediction
from nlijob.rundir import RunDir
from nlijob.trials import trials_of

SMALLEST = 1e-45
"""Probabilities below it are taken as this one where a loss is computed: float32 has none."""


def measure_transfer(
    run: RunDir, config: JobConfig, own: PairedDifference
) -> tuple[TransferResult, ...]:
    """The further test sets of a run. `own`: the change on the run's own test rows.

    Raises OSError where a record is missing, ValueError where records contradict each other.
    """
    if not config.transfer:
        return ()
    found = read(Elsewhere, run.elsewhere_manifest).transfer
    results = [_result(run, config, _Set.of(run, one), own) for one in found]
    adjusted = holm([one.change.mcnemar_p for one in results])
    return tuple(
        replace(one, adjusted_p=p, verdict=_verdict(one.change, p))
        for one, p in zip(results, adjusted, strict=True)
    )


@dataclass(frozen=True)
class SetAnswer:
    """A model's answer to a row of a further test set."""

    given: Prediction
    """With the labels of the set, as a prediction on a test row; the probability of a label is the
    sum over the model's answers that count for it."""
    is_right_by_sum: bool
    """Whether the label with the highest sum is the gold label."""


def answers_of_set(
    predictions: Sequence[TransferPrediction], examples: Sequence[Example], answers: Sequence[int]
) -> list[SetAnswer]:
    """A model's answers to a set, with the labels of the set.

    `answers`: for each label of the model, the number of the set's label for which it counts.
    Raises ValueError if the answers are to other rows, or with another number of labels.
    """
    gold = {example.index: example.label for example in examples}
    if not {one.index for one in predictions} <= {*gold} or len(predictions) > len(gold):
        raise ValueError("answers to a further test set are to other rows than those of the set")
    labels = max(answers) + 1
    found = []
    for one in predictions:
        sums = [0.0] * labels
        for number, probability in zip(answers, one.probabilities, strict=True):
            sums[number] += probability
        label = gold[one.index]
        loss = -math.log(max(sums[label], SMALLEST))
        highest = max(range(labels), key=sums.__getitem__)
        best = answers[max(range(len(answers)), key=one.probabilities.__getitem__)]
        given = Prediction("test", one.index, label, best, tuple(sums), None, loss, one.tokens)
        found.append(SetAnswer(given, highest == label))
    return found


def transfer_warnings(
    results: Sequence[TransferResult], own: PairedDifference
) -> Iterator[Finding]:
    """Findings about the further test sets: gains that do not carry over come first."""
    has_gain = own.mcnemar_p < SIGNIFICANT and own.difference > 0
    for one in results:
        if one.verdict == "loss" or (has_gain and one.verdict == "unclear"):
            yield _not_carried_over(one, own if has_gain else None)
    for one in results:
        yield from _in_training(one)
        yield from (Finding("data", {}, text) for text in one.manifest.warnings)


def carries_over(one: TransferResult, own: PairedDifference) -> str:
    """The verdict on a set, as a sentence with its figures."""
    test = f"{mcnemar_name(one.change.premises)}, adjusted {p_value(one.adjusted_p)}"
    rows = plural(one.rows, "row")
    change = points(one.change.difference)
    home = own.mcnemar_p < SIGNIFICANT and own.difference > 0
    if one.verdict == "gain":
        verb = "The gain carries over" if home else "Tuning made the model better here"
        return f"{verb}: {change} on {rows} ({test}).{_beside_own(one, own)}"
    if one.verdict == "loss":
        return f"Tuning made the model worse here: {change} on {rows} ({test})."
    unclear = f"{change} on {rows} is not distinguishable from no change ({test})."
    if home:
        return f"The gain does not show here: {unclear}{_beside_own(one, own)}"
    return unclear[0].upper() + unclear[1:]


# ---------------------------------------------------------------- detail


@dataclass(frozen=True)
class _Set:
    """A set with the base model's answers; rows that are too long for the model are left out."""

    manifest: TransferManifest
    examples: Sequence[Example]
    base: Sequence[SetAnswer]
    premises: Premises
    too_long: int

    @classmethod
    def of(cls, run: RunDir, manifest: TransferManifest) -> _Set:
        examples = [*read_lines(Example, run.elsewhere(manifest.name))]
        base = _answers(run.baseline_transfer(manifest.name), examples, manifest)
        scored = {one.given.index for one in base}
        kept = [example for example in examples if example.index in scored]
        return cls(manifest, kept, base, premises_of(kept), len(examples) - len(kept))

    def tuned(self, view: RunDir) -> list[SetAnswer]:
        """The answers of a training's tuned model."""
        return _answers(view.evaluate_transfer(self.manifest.name), self.examples, self.manifest)

    def score(self, answers: Sequence[SetAnswer]) -> TransferScore:
        """The figures of one model."""
        right = [one.given.is_right for one in answers]
        bounds = accuracy_interval(right, [self.premises[one.given.index] for one in answers])
        by_sum = sum(one.is_right_by_sum for one in answers)
        return TransferScore(sum(right), sum(right) / len(right), bounds, by_sum)

    def change(self, tuned: Sequence[SetAnswer]) -> PairedDifference:
        """A tuned model compared with the base model."""
        matched = pairs(_given(self.base), _given(tuned))
        return paired_difference(
            [pair.tuned.is_right for pair in matched],
            [pair.base.is_right for pair in matched],
            [self.premises[pair.index] for pair in matched],
        )


def _given(answers: Sequence[SetAnswer]) -> list[Prediction]:
    return [one.given for one in answers]


def _answers(
    file: Path, examples: Sequence[Example], manifest: TransferManifest
) -> list[SetAnswer]:
    found = [*read_lines(TransferPrediction, file)]
    return answers_of_set(found, examples, manifest.answers)


def _result(run: RunDir, config: JobConfig, one: _Set, own: PairedDifference) -> TransferResult:
    """The figures of a set, with a p that is not adjusted yet."""
    tuned = one.tuned(kept_view(run, config))
    change = one.change(tuned)
    frequent = Counter(example.label for example in one.examples).most_common(1)[0][1]
    labels = len(one.manifest.label_names)
    return TransferResult(
        manifest=one.manifest,
        rows=len(one.base),
        too_long=one.too_long,
        majority=frequent / len(one.examples),
        base=one.score(one.base),
        tuned=one.score(tuned),
        change=change,
        adjusted_p=change.mcnemar_p,
        verdict=_verdict(change, change.mcnemar_p),
        over_own=gains_compared(change, own) if labels == len(one.manifest.answers) else None,
        slices=measure_set_slices(
            _given(one.base), _given(tuned), one.examples, one.manifest.label_names
        ),
        trials=tuple(_trials(run, config, one, change)),
    )


def _trials(
    run: RunDir, config: JobConfig, one: _Set, kept: PairedDifference
) -> Iterator[TransferTrial]:
    """Each of several trainings. `kept`: the change of the one whose adapter is kept."""
    trials = trials_of(config)
    if len(trials) == 1:
        return
    name = kept_trial(run, config).name
    for trial in trials:
        change = kept if trial.name == name else one.change(one.tuned(run.of_trial(trial)))
        correct = sum(answer.given.is_right for answer in one.base) + change.gained - change.lost
        yield TransferTrial(
            name=trial.name,
            seed=trial.config.train.seed,
            correct=correct,
            accuracy=correct / len(one.base),
            change=change,
        )


def _verdict(change: PairedDifference, adjusted_p: float) -> TransferVerdict:
    if adjusted_p >= SIGNIFICANT:
        return "unclear"
    return "gain" if change.difference > 0 else "loss"


def gains_compared(there: PairedDifference, own: PairedDifference) -> GainsCompared:
    """The difference of two gains on different rows, with its 95 % interval.

    The interval is made from those of the gains, by the squares of their distances: Zou and Donner
    (2008), Construction of confidence limits about effect measures.
    """
    difference = there.difference - own.difference
    low = math.hypot(there.difference - there.interval.low, own.interval.high - own.difference)
    high = math.hypot(there.interval.high - there.difference, own.difference - own.interval.low)
    return GainsCompared(difference, Interval(difference - low, difference + high))


def _beside_own(one: TransferResult, own: PairedDifference) -> str:
    """How the gain compares with that on the run's own test rows; "" where it cannot."""
    if one.over_own is None:
        return ""
    here = f"{points(own.difference)} on the run's own test rows"
    if one.over_own.interval.high < 0:
        return f" That is less than the {here}, beyond chance."
    if one.over_own.interval.low > 0:
        return f" That is more than the {here}, beyond chance."
    return f" It is not distinguishable from the {here}."


def _not_carried_over(one: TransferResult, own: PairedDifference | None) -> Finding:
    figures: dict[str, int | float | str] = {
        "set": one.manifest.name,
        "rows": one.rows,
        "change": one.change.difference,
        "adjusted_p": one.adjusted_p,
    }
    test = f"{mcnemar_name(one.change.premises)}, adjusted {p_value(one.adjusted_p)}"
    change = f"{points(one.change.difference)} on {plural(one.rows, 'row')}"
    here = f" The run's own test rows gained {points(own.difference)}." if own else ""
    here += _in_trainings(one)
    if one.verdict == "loss":
        text = f"On {one.manifest.name} tuning made the model worse: {change} ({test}).{here}"
        return Finding("worse-elsewhere", figures, text)
    text = (
        f"On {one.manifest.name} the gain does not show: {change} is not distinguishable from no "
        f"change ({test}).{here}"
    )
    return Finding("gain-not-elsewhere", figures, text)


def _in_trainings(one: TransferResult) -> str:
    """How many of several trainings are better there; "" where there is one."""
    if not one.trials:
        return ""
    changes = [trial.change for trial in one.trials]
    better = sum(c.mcnemar_p < SIGNIFICANT and c.difference > 0 for c in changes)
    return f" Of {plural(len(changes), 'training')}, {better or 'none'} made it better there."


def _in_training(one: TransferResult) -> Iterator[Finding]:
    seen, rows = one.manifest.in_training.whole_rows, one.manifest.rows.rows
    if seen and seen >= LEAK_MATTERS * rows:
        yield Finding(
            "elsewhere-in-training",
            {"set": one.manifest.name, "whole_rows": seen, "rows": rows},
            f"{share_of(seen, rows)} of the rows of {one.manifest.name} stand in training too: the "
            "tuned model has learned from them.",
        )
