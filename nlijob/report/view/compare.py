"""View of the comparison page: several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nlijob.analysis.comparison import (
    Against,
    BaseAgreement,
    Comparison,
    Difference,
    Flip,
    Pair,
)
from nlijob.analysis.recipe_difference import RecipeDifference
from nlijob.analysis.wording import (
    NOT_MEASURED,
    at_least,
    count,
    counted,
    duration,
    energy,
    gib,
    interval,
    mcnemar_name,
    money,
    p_value,
    percent,
    plural,
    points,
    points_interval,
    probability,
    rate,
    share_of,
    which,
    with_interval,
)
from nlijob.records.figures import Figures, SetFigures
from nlijob.records.intervals import Interval, PairedDifference
from nlijob.report.view.configuration import setting_text
from nlijob.report.view.parts import Column, Table, View, row, text_columns
from nlijob.report.view.text import as_name, unbroken, visible

FEW_TRAININGS = 2
"""With so few trainings of a run, its spread is so uncertain that the page says so."""
SHOWN_FLIPS = 100
"""Most rows of one kind on the page; the JSON file has all of them."""
NO_GPU = "no GPU"
ONE_TRAINING = "one training"


def compare_page(
    comparison: Comparison, links: Mapping[str, str], json_name: str, version: str
) -> View:
    """The page; `links` maps the name of a run to its report, if it has one."""
    names = [as_name(run.name) for run in comparison.runs]
    figures = [run.figures for run in comparison.runs]
    against = list(enumerate(comparison.against, start=1))
    return View(
        title=f"{plural(len(names), 'run')} compared",
        subtitle=(
            f"Each run is compared with the first, “{names[0]}”, on the test rows that both share."
        ),
        generator=comparison.kind,
        contents=(
            ("summary", "Summary"),
            *((("matrix", "Each with each"),) if comparison.pairs else ()),
            ("figures", "Side by side"),
            *((f"pair-{n}", _contents_name(one, len(against))) for n, one in against),
            ("configuration", "Configuration"),
            ("environment", "Environment"),
        ),
        runs=tuple(
            View(
                name=as_name(run.name),
                href=links.get(run.name, ""),
                note=_run_note(run.figures),
            )
            for run in comparison.runs
        ),
        other_rows=_other_rows(figures),
        holm=_holm_note(comparison.against),
        matrix=_matrix(names, comparison) if comparison.pairs else None,
        flips=_flips_to_save(comparison),
        scope=_scope(comparison.against),
        pairs=[_pair(n, one, json_name) for n, one in against],
        figures=_figures_table(names, figures),
        outcomes=_outcomes_table(names, figures),
        configuration=_differences(
            "Settings that differ", "setting", names, comparison.configuration, setting_text
        ),
        data=_differences("Data that differ", "fact", names, comparison.data, _fact_text),
        environment=_differences("What differs", "fact", names, comparison.environment, _fact_text),
        footer=f"nlijob {version}",
    )


def difference_note(difference: PairedDifference, adjusted: str = "") -> str:
    """A paired difference, with its interval and test in parentheses."""
    return (
        f"{points(difference.difference)} (95 % interval {points_interval(difference.interval)}; "
        f"{mcnemar_name(difference.premises)}, {p_value(difference.mcnemar_p)}{adjusted})"
    )


# ---------------------------------------------------------------- pairs


def _pair(number: int, one: Against, json_name: str) -> View:
    reference, other = as_name(one.reference), as_name(one.other)
    anchor = f"pair-{number}"
    groups = (
        _flip_group(f"{anchor}-corrected", one, other, one.only_other_right, json_name),
        _flip_group(f"{anchor}-newly-broken", one, reference, one.only_reference_right, json_name),
    )
    return View(
        anchor=anchor,
        title=f"“{other}” versus “{reference}”",
        sentence=unbroken(_verdict(one)),
        note=unbroken(_pair_note(one)),
        tone=_tone(one),
        rows=_common_rows(one),
        table=_paired_table(one) if one.tuned else None,
        base=unbroken(_base_note(one.base, one)) if one.base else "",
        flips=groups if one.tuned else (),
    )


def _verdict(one: Against) -> str:
    """The result of a comparison in one sentence, no stronger than its test."""
    reference, other = f"“{as_name(one.reference)}”", f"“{as_name(one.other)}”"
    tuned, rows = one.tuned, one.common_rows
    if tuned is None:
        return (
            f"{other} and {reference} have no test row in common, so no paired test can compare "
            "them."
        )
    start = f"On the {plural(rows, 'common test row')}, {other}"
    if one.recipes is not None:
        return _mean_verdict(one, one.recipes, start, reference)
    mine, its = (percent((one.both_right + only) / rows) for only in (tuned.lost, tuned.gained))
    if one.is_significant:
        often = "more" if tuned.difference > 0 else "less"
        return f"{start} is correct {often} often than {reference}: {its} versus {mine}."
    if not tuned.gained and not tuned.lost:
        return f"{start} and {reference} are correct on exactly the same ones."
    if not tuned.difference:
        return (
            f"{start} and {reference} are correct equally often ({its}), but not on the same ones."
        )
    return f"{start} ({its}) is not distinguishable from {reference} ({mine})."


def _mean_verdict(one: Against, means: RecipeDifference, start: str, reference: str) -> str:
    """The same where a run has several trainings: it is about their means."""
    its = f"{percent(means.other_accuracy)}, {_mean_of(means.other_trainings)}"
    mine = f"{percent(means.reference_accuracy)}, {_mean_of(means.reference_trainings)}"
    if one.is_significant:
        often = "more" if means.difference > 0 else "less"
        return f"{start} is correct {often} often than {reference}: {its}, versus {mine}."
    return f"{start} ({its}) is not distinguishable from {reference} ({mine})."


def _mean_of(trainings: int) -> str:
    return "its one training" if trainings == 1 else f"the mean of {count(trainings)} trainings"


def _tone(one: Against) -> str:
    """How the other run compares with the reference: "better", "worse" or "unclear"."""
    if not one.is_significant:
        return "unclear"
    return "better" if one.difference > 0 else "worse"


def _pair_note(one: Against) -> str:
    if one.tuned is None:
        return ""
    adjusted = "" if one.adjusted_p is None else f", Holm-adjusted {p_value(one.adjusted_p)}"
    if one.recipes is not None:
        return _mean_note(one, one.recipes, adjusted)
    return (
        f"The difference is {difference_note(one.tuned, adjusted)}. "
        f"Only “{as_name(one.other)}” is correct on {plural(one.tuned.gained, 'row')}, "
        f"only “{as_name(one.reference)}” on {count(one.tuned.lost)}."
    )


def _mean_note(one: Against, means: RecipeDifference, adjusted: str) -> str:
    units = "" if means.premises is None else f" of {plural(means.premises, 'premise')}"
    return (
        f"The difference of the means is {points(means.difference)} (95 % interval "
        f"{points_interval(means.interval)}; test over trainings and rows{units}, "
        f"{p_value(means.p)}{adjusted}). {_covered(one, means)}"
    )


def _covered(one: Against, means: RecipeDifference) -> str:
    """What the interval is about, and what it leaves open."""
    runs = (one.other, means.other_trainings), (one.reference, means.reference_trainings)
    alone = [as_name(name) for name, trainings in runs if trainings == 1]
    several = [as_name(name) for name, trainings in runs if trainings > 1]
    if alone:
        text = (
            f"The interval covers other rows of this kind and other trainings of “{several[0]}”, "
            f"but “{alone[0]}” has one training, and what another one would bring is not known."
        )
    else:
        text = "The interval covers other rows of this kind and other trainings of both recipes."
    fewest = min(trainings for _, trainings in runs if trainings > 1)
    if fewest <= FEW_TRAININGS:
        text += (
            f" {fewest} trainings tell little about how much trainings differ, so it is wide, and "
            "only a large difference can be detected."
        )
    return text


def _common_rows(one: Against) -> str:
    mine, its, both = one.reference_rows, one.other_rows, one.common_rows
    alike = "rows with the same number, premise, hypothesis and gold label"
    if not both:
        return (
            f"The {count(its)} and {plural(mine, 'test row')} of the two runs have no row in "
            f"common ({alike}), so no paired test was made."
        )
    if both == mine == its:
        return f"Both runs were scored on the same {plural(both, 'test row')}."
    return (
        f"{count(both)} of the {plural(its, 'test row')} of “{as_name(one.other)}” and the "
        f"{count(mine)} of “{as_name(one.reference)}” are in both runs ({alike}); only these are "
        "compared here."
    )


def _paired_table(one: Against) -> Table:
    assert one.tuned is not None
    other, reference = as_name(one.other), as_name(one.reference)
    whole = one.common_rows
    kept = "" if one.recipes is None else ", of the trainings whose adapters are kept"
    return Table(
        f"Common rows by which tuned model is correct{kept}: “{other}” and “{reference}”",
        (
            Column("", numeric=False),
            Column(f"“{reference}” correct"),
            Column(f"“{reference}” wrong"),
        ),
        (
            row(
                f"“{other}” correct",
                share_of(one.both_right, whole),
                share_of(one.tuned.gained, whole),
            ),
            row(
                f"“{other}” wrong", share_of(one.tuned.lost, whole), share_of(one.both_wrong, whole)
            ),
        ),
    )


def _base_note(base: BaseAgreement, one: Against) -> str:
    rows = plural(one.common_rows, "common row")
    shift = f"the probability of a label differs by up to {probability(base.largest_shift)}"
    if not base.differing and not base.largest_shift:
        return f"The two base models gave the same answers and probabilities on the {rows}."
    if not base.differing:
        return f"The two base models gave the same answers on the {rows}; {shift}."
    text = (
        f"Before tuning, the two base models answered {count(base.differing)} of the {rows} "
        f"differently ({count(base.only_other_right)} correct only in “{as_name(one.other)}”, "
        f"{count(base.only_reference_right)} only in “{as_name(one.reference)}”; {shift}), so the "
        "two gains start from different answers."
    )
    if base.same_model:
        return (
            f"{text} Both runs use the same model, quantisation and prompt, so the machine, a "
            "package version or the model files may differ."
        )
    return f"{text} The runs differ in model, quantisation or prompt."


# ---------------------------------------------------------------- each with each


def _matrix(names: Sequence[str], comparison: Comparison) -> View:
    """Every run in a row compared with every run in a column."""
    pairs = {(one.first, one.second): one for one in comparison.pairs}
    ids = [run.name for run in comparison.runs]
    return View(
        numbers=tuple(range(1, len(ids) + 1)),
        rows=tuple(
            View(name=name, cells=tuple(_pair_cell(pairs, own, other) for other in ids))
            for name, own in zip(names, ids, strict=True)
        ),
        outcome=unbroken(_matrix_outcome(comparison.pairs)),
        note=_matrix_note(comparison),
    )


def _pair_cell(pairs: Mapping[tuple[str, str], Pair], own: str, other: str) -> View:
    """One run minus another, in points."""
    if own == other:
        return View(text="same run", note="", mark="", tone="self")
    pair, sign = pairs.get((own, other)), 1
    if pair is None:
        pair, sign = pairs[other, own], -1
    if pair.difference is None or pair.adjusted_p is None:
        return View(text="no common row", note="", mark="", tone="unclear")
    difference = sign * pair.difference
    tone = "unclear"
    if pair.is_significant:
        tone = "better" if difference > 0 else "worse"
    return View(
        text=points(difference).removesuffix(" points"),
        note=unbroken(p_value(pair.adjusted_p)),
        mark={"better": "▲", "worse": "▼", "unclear": ""}[tone],
        tone=tone,
    )


def _matrix_outcome(pairs: Sequence[Pair]) -> str:
    """How many pairs differ, and which."""
    differing = [one for one in pairs if one.is_significant]
    if not differing:
        return f"No two runs differ significantly in accuracy ({plural(len(pairs), 'pair')})."
    verb = which(len(differing), "differs", "differ")
    return (
        f"{count(len(differing))} of {plural(len(pairs), 'pair')} {verb} significantly in accuracy."
    )


def _matrix_note(comparison: Comparison) -> str:
    tests = sum(one.p is not None for one in comparison.pairs)
    test = "the exact McNemar test, over premises where they repeat"
    if any(run.figures.trainings > 1 for run in comparison.runs):
        test += "; where a run has several trainings, that of the test on their means"
    return (
        "▲: the run of the row is more accurate than that of the column; ▼: it is less accurate; "
        f"no mark: they are not distinguishable. p is that of {test}. It is corrected for all "
        f"{tests} pairs by Holm's method, but in the comparisons with the first run for these "
        f"{len(comparison.against)} only, so two runs can differ there and not here."
    )


# ---------------------------------------------------------------- rows that flipped


def _row_of(flip: Flip) -> tuple[int, str, str, str]:
    return flip.index, flip.premise, flip.hypothesis, flip.gold


def _flips_to_save(comparison: Comparison) -> str:
    """All rows that flipped, as JSON for the page's script; a text of several pairs is there once.

    {"rows": [[number, premise, hypothesis, gold label]], "pairs": [{"reference", "other", "flips":
    [[place in rows, answer of the reference, answer of the other, gap]]}]}
    """
    places: dict[tuple[int, str, str, str], int] = {}
    pairs = []
    for one in comparison.against:
        flips = [
            (
                places.setdefault(
                    (flip.index, flip.premise, flip.hypothesis, flip.gold), len(places)
                ),
                flip.reference_answer,
                flip.other_answer,
                flip.gap,
            )
            for flip in (*one.only_other_right, *one.only_reference_right)
        ]
        pairs.append({"reference": one.reference, "other": one.other, "flips": flips})
    return json.dumps({"rows": list(places), "pairs": pairs}, separators=(",", ":"))


def _flip_group(key: str, one: Against, winner: str, flips: Sequence[Flip], json_name: str) -> View:
    number = len(flips)
    order = "the largest differences in the probability of the gold label first"
    if not number:
        lead = "There are no such rows."
    elif number > SHOWN_FLIPS:
        lead = f"{SHOWN_FLIPS} of {count(number)} shown, {order}; {json_name} contains all."
    elif number == 1:
        lead = "One row."
    else:
        lead = f"All {count(number)} shown, {order}."
    return View(
        key=key,
        title=f"Only “{winner}” is correct",
        count=count(number),
        lead=lead,
        flips=tuple(_shown_flip(key, flip, one) for flip in flips[:SHOWN_FLIPS]),
    )


def _shown_flip(key: str, flip: Flip, one: Against) -> View:
    answers = ((one.reference, flip.reference_answer), (one.other, flip.other_answer))
    return View(
        anchor=f"{key}-{flip.index}",
        row=f"test row {flip.index}",
        premise=visible(flip.premise),
        hypothesis=visible(flip.hypothesis),
        gold=visible(flip.gold),
        answers=tuple((as_name(n), visible(answer), answer == flip.gold) for n, answer in answers),
        note=f"probability of the gold label differs by {probability(flip.gap)}",
    )


# ---------------------------------------------------------------- tables


def _figures_table(names: Sequence[str], figures: Sequence[Figures]) -> Table:
    several = any(one.trainings > 1 for one in figures)
    kept = ", kept adapter" if several else ""
    rows = [
        ("recipe", [as_name(one.recipe) for one in figures]),
        ("model", [as_name(one.model) for one in figures]),
        ("machine", [as_name(counted(one.devices)) for one in figures]),
        ("training rows", [count(one.train_rows) for one in figures]),
        ("test rows", [count(one.test_rows) for one in figures]),
        (
            "accuracy before",
            [with_interval(f.base_accuracy, f.base_accuracy_interval) for f in figures],
        ),
        *(_over_trainings(figures) if several else ()),
        (
            f"accuracy after{kept}",
            [with_interval(f.tuned_accuracy, f.tuned_accuracy_interval) for f in figures],
        ),
        (f"gain{kept}", [_gain(one) for one in figures]),
        (
            f"balanced accuracy after{kept}",
            [percent(one.tuned_balanced_accuracy) for one in figures],
        ),
        (f"macro F1 after{kept}", [percent(one.tuned_macro_f1) for one in figures]),
        *_elsewhere(figures, kept),
        (f"selected epoch{kept}", [f"{one.selected_epoch} of {one.epochs}" for one in figures]),
        ("trainable parameters", [count(one.trainable_parameters) for one in figures]),
        ("time", [_time(one) for one in figures]),
        ("training time", [duration(one.training_s) for one in figures]),
        ("training speed", [rate(one.training_examples_per_s) for one in figures]),
        ("cost", [cost_text(one) for one in figures]),
        ("GPU energy", [energy_text(one) for one in figures]),
        ("peak GPU memory", [gib(f.peak_gpu_bytes) if f.has_gpu else NO_GPU for f in figures]),
        ("peak RAM", [gib(one.peak_ram_bytes) for one in figures]),
        ("gate", [gate_text(one) for one in figures]),
    ]
    return Table(
        "The runs side by side, each on its own test rows",
        (Column("", numeric=False), *(Column(name) for name in names)),
        tuple(row(name, *cells) for name, cells in rows),
    )


def _elsewhere(figures: Sequence[Figures], kept: str) -> Iterable[tuple[str, list[str]]]:
    """A row of the table for each further test set of any run."""
    sets = [{found.name: found for found in one.elsewhere} for one in figures]
    for name in dict.fromkeys(name for of_run in sets for name in of_run):
        found = [of_run.get(name) for of_run in sets]
        differ = len({one.rows_sha256 for one in found if one}) > 1
        yield (
            f"accuracy elsewhere, {as_name(name)}{kept}" + (" (not the same rows)" * differ),
            [_carried(one) if one else NOT_MEASURED for one in found],
        )


def _carried(one: SetFigures) -> str:
    """Accuracies on a further test set before and after tuning, and the change."""
    return (
        f"{percent(one.base_accuracy)} → {percent(one.tuned_accuracy)} of "
        f"{plural(one.rows, 'row')}; {points(one.change.difference)} "
        f"({points_interval(one.change.interval)})"
    )


def _over_trainings(figures: Sequence[Figures]) -> Iterable[tuple[str, list[str]]]:
    """Rows of the table about all trainings of each run."""
    accuracies = [one.accuracy_over_trainings for one in figures]
    gains = [one.gain_over_trainings for one in figures]
    yield "trainings", [count(one.trainings) for one in figures]
    yield (
        "accuracy after, mean of the trainings",
        [with_interval(one.mean, one.interval) if one else ONE_TRAINING for one in accuracies],
    )
    yield (
        "accuracy after, lowest to highest",
        [
            interval(Interval(one.lowest, one.highest)) if one else ONE_TRAINING
            for one in accuracies
        ],
    )
    yield (
        "gain, mean of the trainings",
        [
            f"{points(one.mean)} ({points_interval(one.interval)})" if one else ONE_TRAINING
            for one in gains
        ],
    )


def _outcomes_table(names: Sequence[str], figures: Sequence[Figures]) -> Table:
    def cells(kind: str) -> Iterable[str]:
        return (share_of(getattr(one, kind), one.test_rows) for one in figures)

    kinds = {
        "both_right": "correct before and after",
        "corrected": "corrected by tuning",
        "still_wrong": "still wrong",
        "newly_broken": "newly broken",
    }
    kept = ", by the kept adapter" if any(one.trainings > 1 for one in figures) else ""
    return Table(
        f"What tuning did to each run's test rows{kept}",
        (Column("", numeric=False), *(Column(name) for name in names)),
        tuple(row(text, *cells(kind)) for kind, text in kinds.items()),
    )


def _differences(
    caption: str,
    what: str,
    names: Sequence[str],
    differences: Sequence[Difference],
    text: Callable[[Any], str],
) -> Table | None:
    if not differences:
        return None
    return Table(
        caption,
        text_columns(what, *names),
        tuple(row(visible(one.key), *map(text, one.values)) for one in differences),
    )


def _fact_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return visible(counted([str(item) for item in value]))
    if isinstance(value, int) and value >= 2**30:
        return gib(value)
    return visible(str(value)) or "none"


def _gain(one: Figures) -> str:
    return f"{points(one.gain)} ({points_interval(one.gain_interval)})"


def _time(one: Figures) -> str:
    if not one.attempts:
        return NOT_MEASURED
    attempts = f", {one.attempts} attempts" if one.attempts > 1 else ""
    return at_least(f"{duration(one.total_s)}{attempts}", one.is_least)


def cost_text(one: Figures) -> str:
    """The cost of a run, or that no price was given."""
    if one.cost is None:
        return "no price given"
    return visible(at_least(money(one.cost, one.currency), one.is_least))


def energy_text(one: Figures) -> str:
    """The energy used by the GPUs of a run, or that there was no GPU."""
    return energy(one.energy_j) if one.has_gpu else NO_GPU


def gate_text(one: Figures) -> str:
    """Whether the required accuracy and gain were reached."""
    if one.gates is None:
        return "none"
    return "reached" if one.gates else "not reached"


# ---------------------------------------------------------------- words


def _contents_name(one: Against, pairs: int) -> str:
    return "Row by row" if pairs == 1 else f"“{as_name(one.other)}”"


def _run_note(one: Figures) -> str:
    return f"started {visible(one.created_at)[:19].replace('T', ' ')}, recipe {as_name(one.recipe)}"


def _other_rows(figures: Sequence[Figures]) -> str:
    if len({one.test_rows_sha256 for one in figures}) == 1:
        return ""
    return (
        "Not all runs were scored on the same test rows, so differences between the accuracies "
        "side by side may come from the rows. The row-by-row comparisons are not affected by this."
    )


def _scope(against: Sequence[Against]) -> str:
    """What the differences are about."""
    if not any(one.recipes is not None for one in against):
        return (
            "These are differences between trained adapters on these rows. They do not show which "
            "settings are better: a different seed alone can cause such a difference."
        )
    text = (
        "Where a run has several trainings, the difference is between means over all of them, and "
        "rows are listed for the adapter that is kept."
    )
    if any(one.tuned is not None and one.recipes is None for one in against):
        text += (
            " Differences between runs with one training each do not show which settings are "
            "better: a different seed alone can cause such a difference."
        )
    return text


def _holm_note(against: Sequence[Against]) -> str:
    tests = sum(one.adjusted_p is not None for one in against)
    if not tests:
        return ""
    return (
        f"{tests} comparisons were made, so a run counts as different only if p is below 0.05 "
        f"after Holm's correction for {tests}. The 95 % intervals are not corrected for the number "
        "of comparisons."
    )
