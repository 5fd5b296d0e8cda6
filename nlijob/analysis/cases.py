"""Test rows grouped by the effect of tuning, and the selection of cases to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nlijob.analysis.explain import Explainer
from nlijob.analysis.tags import text_tags
from nlijob.records.job import Example, Generation, Occlusion, Prediction, of_split
from nlijob.records.outcome import Case, CaseGroups, CaseRow


@dataclass(frozen=True)
class Pair:
    """One test row as the base model and the tuned model labelled it."""

    base: Prediction
    tuned: Prediction

    @property
    def index(self) -> int:
        """Row number in the source split."""
        return self.base.index

    @property
    def gold_shift(self) -> float:
        """Change in the probability of the gold label through tuning (-1 to 1)."""
        label = self.base.label
        return self.tuned.probabilities[label] - self.base.probabilities[label]

    @property
    def tuned_margin(self) -> float:
        """The tuned model's probability of the gold label minus its highest other one."""
        label, probabilities = self.base.label, self.tuned.probabilities
        others = [p for other, p in enumerate(probabilities) if other != label]
        return probabilities[label] - max(others)


@dataclass(frozen=True)
class Groups:
    """All test rows, each in one of four groups, in row order."""

    both_right: tuple[Pair, ...]
    corrected: tuple[Pair, ...]
    still_wrong: tuple[Pair, ...]
    newly_broken: tuple[Pair, ...]


@dataclass(frozen=True)
class Shown:
    """Row numbers of the cases to show, the clearest first."""

    corrected: tuple[int, ...]
    still_wrong: tuple[int, ...]
    newly_broken: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        """All shown rows, in row order."""
        return tuple(sorted({*self.corrected, *self.still_wrong, *self.newly_broken}))


def pairs(base: Iterable[Prediction], tuned: Iterable[Prediction]) -> tuple[Pair, ...]:
    """Test rows matched by index, in row order; predictions on other splits are ignored.

    Raises ValueError if the two models did not label the same rows.
    """
    before, after = _test_rows(base), _test_rows(tuned)
    if before.keys() != after.keys():
        differing = len(before.keys() ^ after.keys())
        raise ValueError(f"{differing} test rows were labelled by one model only")
    matched = tuple(Pair(before[index], after[index]) for index in sorted(before))
    for pair in matched:
        if pair.base.label != pair.tuned.label:
            raise ValueError(f"test row {pair.index} has two gold labels")
    return matched


def group(matched: Sequence[Pair]) -> Groups:
    """The pairs grouped by which of the two models is correct."""

    def where(base_right: bool, tuned_right: bool) -> tuple[Pair, ...]:
        right = (base_right, tuned_right)
        return tuple(p for p in matched if (p.base.is_right, p.tuned.is_right) == right)

    return Groups(
        both_right=where(True, True),
        corrected=where(False, True),
        still_wrong=where(False, False),
        newly_broken=where(True, False),
    )


def shown_indices(
    base: Iterable[Prediction],
    tuned: Iterable[Prediction],
    per_kind: int,
    right_in: Mapping[int, int] | None = None,
) -> Shown:
    """Test rows to show, at most `per_kind` of each kind, chosen from both models' predictions.

    Corrected and newly broken rows are chosen by the largest change in the gold label's
    probability, rows still wrong by the tuned model's confidence in its mistake. Ties go to the
    lower row number, so that the same predictions always give the same rows.

    Where there are several trainings, `tuned` is the model of one, and `right_in` has the number
    of trainings that label each row correctly. Corrected rows that most trainings label correctly
    then come first, and so do the others that fewest label correctly.
    """
    groups = group(pairs(base, tuned))

    def first(of: Sequence[Pair], weight: Callable[[Pair], float], sign: int) -> tuple[int, ...]:
        ranked = sorted(
            of, key=lambda pair: (_rank(pair, right_in, sign), -weight(pair), pair.index)
        )
        return tuple(pair.index for pair in ranked[:per_kind])

    return Shown(
        corrected=first(groups.corrected, lambda pair: pair.gold_shift, -1),
        still_wrong=first(groups.still_wrong, lambda pair: pair.tuned.confidence, 1),
        newly_broken=first(groups.newly_broken, lambda pair: -pair.gold_shift, 1),
    )


def build_cases(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    examples: Iterable[Example],
    generations: Iterable[Generation],
    occlusions: Iterable[Occlusion],
    label_names: Sequence[str],
    per_kind: int,
    right_in: Mapping[int, int] | None = None,
) -> CaseGroups:
    """Counts of all groups, the shown cases with their evidence, and all rows that were wrong.

    `examples` are the test rows; `generations` and `occlusions` hold the free output and word
    importance of some of them (a row without either gets None, or no words). `right_in` is as in
    `shown_indices`.
    """
    matched = pairs(base, tuned)
    groups, shown = group(matched), shown_indices(base, tuned, per_kind, right_in)
    counts = right_in or {}
    by_index = {pair.index: pair for pair in matched}
    texts = {example.index: example for example in examples}
    written = {generation.index: generation for generation in generations}
    occluded = {occlusion.index: occlusion for occlusion in occlusions}
    explainer = Explainer.over(
        [pair.base for pair in matched], [pair.tuned for pair in matched], label_names
    )

    def cases(indices: Iterable[int]) -> tuple[Case, ...]:
        return tuple(
            _case(by_index[i], texts[i], written.get(i), occluded.get(i), explainer, counts.get(i))
            for i in indices
        )

    def rows(of_kind: Iterable[Pair], sign: int) -> tuple[CaseRow, ...]:
        ranked = sorted(
            of_kind,
            key=lambda pair: (_rank(pair, right_in, sign), sign * pair.tuned_margin, pair.index),
        )
        return tuple(_row(pair, texts[pair.index], counts.get(pair.index)) for pair in ranked)

    return CaseGroups(
        both_right=len(groups.both_right),
        corrected=len(groups.corrected),
        still_wrong=len(groups.still_wrong),
        newly_broken=len(groups.newly_broken),
        shown_corrected=cases(shown.corrected),
        shown_still_wrong=cases(shown.still_wrong),
        shown_newly_broken=cases(shown.newly_broken),
        rows_corrected=rows(groups.corrected, -1),
        rows_still_wrong=rows(groups.still_wrong, 1),
        rows_newly_broken=rows(groups.newly_broken, 1),
    )


def _case(
    pair: Pair,
    example: Example,
    generation: Generation | None,
    occlusion: Occlusion | None,
    explainer: Explainer,
    right_in: int | None,
) -> Case:
    importance = occlusion.words if occlusion else ()
    evidence = explainer.evidence(example, pair.base, pair.tuned, importance)
    return Case(
        index=pair.index,
        premise=example.premise,
        hypothesis=example.hypothesis,
        label=pair.base.label,
        base_predicted=pair.base.predicted,
        base_probabilities=pair.base.probabilities,
        tuned_predicted=pair.tuned.predicted,
        tuned_probabilities=pair.tuned.probabilities,
        base_text=generation.base_text if generation else None,
        tuned_text=generation.tuned_text if generation else None,
        tags=evidence.tags,
        explanation=evidence.explanation,
        only_in_premise=evidence.words.only_in_premise,
        only_in_hypothesis=evidence.words.only_in_hypothesis,
        overlap=evidence.words.overlap,
        word_importance=importance,
        words_not_tried=occlusion.words_not_tried if occlusion else 0,
        reasons=evidence.findings,
        right_in=right_in,
    )


def _row(pair: Pair, example: Example, right_in: int | None) -> CaseRow:
    label = pair.base.label
    return CaseRow(
        index=pair.index,
        premise=example.premise,
        hypothesis=example.hypothesis,
        label=label,
        base_predicted=pair.base.predicted,
        tuned_predicted=pair.tuned.predicted,
        base_gold_probability=pair.base.probabilities[label],
        tuned_gold_probability=pair.tuned.probabilities[label],
        margin=pair.tuned_margin,
        tags=text_tags(example.premise, example.hypothesis),
        right_in=right_in,
    )


def _test_rows(predictions: Iterable[Prediction]) -> dict[int, Prediction]:
    rows = of_split(predictions, "test")
    by_index = {prediction.index: prediction for prediction in rows}
    if len(by_index) != len(rows):
        raise ValueError("a test row was labelled twice by one model")
    return by_index


def _rank(pair: Pair, right_in: Mapping[int, int] | None, sign: int) -> int:
    """The number of trainings that label the row correctly, or its negative; 0 for one training."""
    return sign * right_in[pair.index] if right_in else 0
