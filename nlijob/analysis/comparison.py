"""Compares several runs: how they differ, and whose tuned model is more accurate.

The first run is the reference. Every other run is compared with it, row by row, on their common
test rows. Where there are more than two runs, each is also compared with each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from nlijob.analysis.clustered import paired_difference
from nlijob.analysis.figures import figures, settings
from nlijob.analysis.premises import premises_of
from nlijob.analysis.recipe_difference import RecipeDifference, recipe_difference
from nlijob.analysis.statistics import holm
from nlijob.records.figures import Figures
from nlijob.records.intervals import PairedDifference
from nlijob.records.job import Example, Prediction
from nlijob.records.outcome import SIGNIFICANT, Results
from nlijob.stages import UNREAD

KIND = "nlijob compare"


@dataclass(frozen=True)
class LabelledRow:
    """A test row with both models' predictions; labels are names because numbers may differ."""

    index: int
    """Row number in the source split."""
    premise: str
    hypothesis: str
    gold: str
    base: str
    tuned: str
    base_probabilities: Mapping[str, float]
    """Label -> probability."""
    tuned_gold_probability: float
    rights: tuple[bool, ...] = ()
    """Whether each training of the run is right, in order; empty where the run has one."""

    @property
    def is_right(self) -> bool:
        """Whether the tuned model is right: that of the training whose adapter is kept."""
        return self.tuned == self.gold

    @property
    def all_rights(self) -> tuple[bool, ...]:
        """Whether each training is right, also where the run has one."""
        return self.rights or (self.is_right,)

    @property
    def identity(self) -> tuple[int, str, str, str]:
        """Key that a row has in every run: row number, both texts and gold label."""
        return self.index, self.premise, self.hypothesis, self.gold


_Common = tuple[LabelledRow, LabelledRow]
"""A common row as the reference and the other run have it."""


@dataclass(frozen=True)
class ComparedRun:
    """One of the compared runs, with a unique name."""

    name: str
    results: Results
    rows: tuple[LabelledRow, ...]


@dataclass(frozen=True)
class Difference:
    """A setting, package or fact that differs between the runs."""

    key: str
    values: tuple[Any, ...]
    """One value per run, in order; None where it is not set or missing."""


@dataclass(frozen=True)
class Flip:
    """A common test row that exactly one of two tuned models labels correctly."""

    index: int
    premise: str
    hypothesis: str
    gold: str
    reference_answer: str
    other_answer: str
    gap: float
    """Difference between the two models' probabilities of the gold label."""


@dataclass(frozen=True)
class BaseAgreement:
    """How far the base models of two runs agree on the common rows."""

    same_model: bool
    """Whether both runs use the same model with the same quantisation and prompt."""
    differing: int
    """Rows with different predictions."""
    only_reference_right: int
    only_other_right: int
    largest_shift: float
    """The largest difference in any label's probability (0 to 1)."""


@dataclass(frozen=True)
class Against:
    """A run compared with the reference on their common test rows."""

    reference: str
    other: str
    reference_rows: int
    other_rows: int
    common_rows: int
    both_right: int
    both_wrong: int
    tuned: PairedDifference | None
    """The other tuned model compared with the reference's; None without common rows. With several
    trainings, they are those whose adapters are kept."""
    adjusted_p: float | None
    """p, Holm-adjusted over all comparisons; None with fewer than two."""
    base: BaseAgreement | None
    only_other_right: tuple[Flip, ...]
    only_reference_right: tuple[Flip, ...]
    recipes: RecipeDifference | None = None
    """The means over all trainings compared; None where both runs have one training, and without
    common rows."""

    @property
    def plain_p(self) -> float | None:
        """p of this comparison alone: by all trainings where a run has several."""
        if self.tuned is None:
            return None
        return self.tuned.mcnemar_p if self.recipes is None else self.recipes.p

    @property
    def p(self) -> float:
        """The adjusted p where there are several comparisons; 1.0 without common rows."""
        if self.plain_p is None:
            return 1.0
        return self.plain_p if self.adjusted_p is None else self.adjusted_p

    @property
    def difference(self) -> float:
        """The other run's accuracy minus the reference's: of the means where there are several."""
        if self.recipes is not None:
            return self.recipes.difference
        return self.tuned.difference if self.tuned else 0.0

    @property
    def is_significant(self) -> bool:
        """Whether the two runs differ significantly in accuracy."""
        return self.p < SIGNIFICANT


@dataclass(frozen=True)
class Pair:
    """Two of the runs compared on their common test rows, as each pair of them is."""

    first: str
    second: str
    common_rows: int
    difference: float | None
    """Accuracy of the first minus that of the second, of the means where a run has several
    trainings; None without common rows."""
    p: float | None
    """p of this comparison alone."""
    adjusted_p: float | None
    """p, Holm-adjusted over all pairs."""

    @property
    def is_significant(self) -> bool:
        """Whether the two runs differ significantly in accuracy."""
        return self.adjusted_p is not None and self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class NamedFigures:
    """The figures of a run, with its name on the page."""

    name: str
    figures: Figures


@dataclass(frozen=True)
class Comparison:
    """compare.json: the whole comparison."""

    kind: str
    runs: tuple[NamedFigures, ...]
    configuration: tuple[Difference, ...]
    data: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    against: tuple[Against, ...]
    pairs: tuple[Pair, ...] = ()
    """Every pair of runs, in their order; empty where there are only two, as `against` has them."""


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """The comparison of two runs or more. Raises ValueError on fewer."""
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run: a comparison needs two or more")
    reference, *others = runs
    results = [run.results for run in runs]
    against = [_against(reference, other) for other in others]
    return Comparison(
        kind=KIND,
        runs=tuple(NamedFigures(run.name, figures(run.results)) for run in runs),
        configuration=_differences(results, _recipe_settings),
        data=_differences(results, _data_facts),
        environment=_differences(results, _environment_facts),
        against=_adjusted(against),
        pairs=_pairs(against, others),
    )


def labelled_rows(
    results: Results,
    examples: Iterable[Example],
    base: Iterable[Prediction],
    tuned: Iterable[Prediction],
    trials: Sequence[Iterable[Prediction]] = (),
) -> tuple[LabelledRow, ...]:
    """The test rows with both models' predictions, in row order.

    `trials` are the predictions of all trainings of a run that has several. Raises KeyError where
    the arguments are not for the same rows.
    """
    names = results.manifest.label_names
    before = {row.index: row for row in base}
    after = {row.index: row for row in tuned}
    rights = [{row.index: row.is_right for row in trial} for trial in trials]
    return tuple(
        LabelledRow(
            index=row.index,
            premise=row.premise,
            hypothesis=row.hypothesis,
            gold=names[row.label],
            base=names[before[row.index].predicted],
            tuned=names[after[row.index].predicted],
            base_probabilities=dict(zip(names, before[row.index].probabilities, strict=True)),
            tuned_gold_probability=after[row.index].probabilities[row.label],
            rights=tuple(right[row.index] for right in rights),
        )
        for row in sorted(examples, key=lambda row: row.index)
    )


# ---------------------------------------------------------------- pairs


def _pairs(against: Sequence[Against], others: Sequence[ComparedRun]) -> tuple[Pair, ...]:
    """Each run compared with each, if they are more than two; Holm-adjusted over all pairs."""
    if len(others) < 2:
        return ()
    with_reference = [
        Pair(
            first=one.reference,
            second=one.other,
            common_rows=one.common_rows,
            difference=None if one.plain_p is None else -one.difference,
            p=one.plain_p,
            adjusted_p=None,
        )
        for one in against
    ]
    pairs = [*with_reference, *(_pair(*two) for two in combinations(others, 2))]
    adjusted = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    return tuple(
        pair if pair.p is None else replace(pair, adjusted_p=next(adjusted)) for pair in pairs
    )


def _pair(first: ComparedRun, second: ComparedRun) -> Pair:
    common = _common_rows(second, first)
    if not common:
        return Pair(first.name, second.name, 0, None, None, None)
    premises = _premises(common)
    means = _recipes(common, premises)
    if means is not None:
        difference, p = means.difference, means.p
    else:
        alone = _paired(common, premises)
        difference, p = alone.difference, alone.mcnemar_p
    return Pair(first.name, second.name, len(common), difference, p, None)


def _common_rows(reference: ComparedRun, other: ComparedRun) -> list[_Common]:
    known = {row.identity: row for row in reference.rows}
    return [(known[row.identity], row) for row in other.rows if row.identity in known]


def _against(reference: ComparedRun, other: ComparedRun) -> Against:
    common = _common_rows(reference, other)
    gained = [(own, its) for own, its in common if its.is_right and not own.is_right]
    lost = [(own, its) for own, its in common if own.is_right and not its.is_right]
    premises = _premises(common)
    return Against(
        reference=reference.name,
        other=other.name,
        reference_rows=len(reference.rows),
        other_rows=len(other.rows),
        common_rows=len(common),
        both_right=sum(first.is_right and second.is_right for first, second in common),
        both_wrong=sum(not first.is_right and not second.is_right for first, second in common),
        tuned=_paired(common, premises) if common else None,
        adjusted_p=None,
        base=_base_agreement(reference, other, common) if common else None,
        only_other_right=_flips(gained),
        only_reference_right=_flips(lost),
        recipes=_recipes(common, premises) if common else None,
    )


def _premises(common: Sequence[_Common]) -> list[int]:
    """The premise number of each common row."""
    examples = [Example(own.index, own.premise, own.hypothesis, 0) for own, _ in common]
    premises = premises_of(examples)
    return [premises[own.index] for own, _ in common]


def _paired(common: Sequence[_Common], premises: Sequence[int]) -> PairedDifference:
    """The other tuned model minus the reference's; premises are the units where they repeat."""
    return paired_difference(
        [other.is_right for _, other in common], [own.is_right for own, _ in common], premises
    )


def _recipes(common: Sequence[_Common], premises: Sequence[int]) -> RecipeDifference | None:
    """The means over all trainings compared, if a run has several."""
    return recipe_difference(
        [own.all_rights for own, _ in common], [other.all_rights for _, other in common], premises
    )


def _adjusted(pairs: Sequence[Against]) -> tuple[Against, ...]:
    """The pairs with Holm-adjusted p where there is more than one test."""
    tests = [pair.plain_p for pair in pairs if pair.plain_p is not None]
    if len(tests) < 2:
        return tuple(pairs)
    adjusted = iter(holm(tests))
    return tuple(
        pair if pair.tuned is None else replace(pair, adjusted_p=next(adjusted)) for pair in pairs
    )


def _flips(pairs: Iterable[_Common]) -> tuple[Flip, ...]:
    """The rows as flips, the largest gap first; ties in row order."""
    flips = [
        Flip(
            index=first.index,
            premise=first.premise,
            hypothesis=first.hypothesis,
            gold=first.gold,
            reference_answer=first.tuned,
            other_answer=second.tuned,
            gap=abs(second.tuned_gold_probability - first.tuned_gold_probability),
        )
        for first, second in pairs
    ]
    return tuple(sorted(flips, key=lambda flip: (-flip.gap, flip.index)))


def _base_agreement(
    reference: ComparedRun,
    other: ComparedRun,
    common: Sequence[_Common],
) -> BaseAgreement:
    differing = [(a, b) for a, b in common if a.base != b.base]
    return BaseAgreement(
        same_model=_base_settings(reference.results) == _base_settings(other.results),
        differing=len(differing),
        only_reference_right=sum(a.base == a.gold for a, _ in differing),
        only_other_right=sum(b.base == b.gold for _, b in differing),
        largest_shift=max(_shift(a.base_probabilities, b.base_probabilities) for a, b in common),
    )


def _base_settings(results: Results) -> dict[str, Any]:
    """The settings that the base model's predictions depend on."""
    keep = ("model.", "prompt.", "data.label_names")
    chosen = {k: v for k, v in settings(results.run.config).items() if k.startswith(keep)}
    irrelevant = {"model.device", "model.requires_gpu", "model.residual_dropout"}
    return {key: value for key, value in chosen.items() if key not in irrelevant}


def _shift(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    labels = {*first, *second}
    return max(abs(first.get(label, 0.0) - second.get(label, 0.0)) for label in labels)


# ---------------------------------------------------------------- differences


def _differences(
    results: Sequence[Results], facts: Callable[[Results], Mapping[str, Any]]
) -> tuple[Difference, ...]:
    """The keys whose values differ between the runs, in order of first appearance."""
    of_runs = [facts(one) for one in results]
    keys = dict.fromkeys(key for one in of_runs for key in one)
    rows = (Difference(key, tuple(one.get(key) for one in of_runs)) for key in keys)
    return tuple(row for row in rows if any(value != row.values[0] for value in row.values))


def _recipe_settings(results: Results) -> dict[str, Any]:
    return {k: v for k, v in settings(results.run.config).items() if not _is_of_machine(k)}


def _machine_settings(results: Results) -> dict[str, Any]:
    return {k: v for k, v in settings(results.run.config).items() if _is_of_machine(k)}


def _is_of_machine(key: str) -> bool:
    """Whether a setting says where a run is computed, and not what."""
    return key.partition(".")[0] in UNREAD


def _data_facts(results: Results) -> dict[str, Any]:
    manifest = results.manifest
    facts: dict[str, Any] = {
        "data set": manifest.dataset,
        "revision": manifest.revision,
        "configuration of the data set": manifest.config_name,
        "labels": manifest.label_names,
    }
    for split in manifest.splits.values():
        facts[f"{split.split} rows"] = split.rows
        facts[f"{split.split} rows, SHA-256"] = split.rows_sha256
    return facts


def _environment_facts(results: Results) -> dict[str, Any]:
    environment = results.environment
    facts: dict[str, Any] = {
        "nlijob": results.run.nlijob_version,
        "device": environment.device,
        "GPU": tuple(gpu.name for gpu in environment.gpus),
        "GPU driver": tuple(gpu.driver_version for gpu in environment.gpus),
        "processes of the GPU side": results.plan.processes,
        "how they train": results.plan.share,
        "CUDA": environment.cuda_version,
        "compute dtype": environment.compute_dtype,
        "attention": environment.attention,
        "CPU": environment.cpu_name,
        "CPU cores": environment.cpu_count,
        "RAM": environment.ram_bytes,
        "platform": environment.platform,
        "Python": environment.python_version,
    }
    facts |= _machine_settings(results)
    return facts | {f"package {k}": v for k, v in sorted(environment.packages.items())}
