"""The first screen: the result in one sentence, and the main figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlijob.analysis.precision import plain_gain
from nlijob.analysis.premises import units
from nlijob.analysis.resources import total_energy_j
from nlijob.analysis.warnings import habitual_label
from nlijob.analysis.wording import (
    MINUTE,
    NOT_MEASURED,
    at_least,
    clock,
    count,
    emissions,
    energy,
    gib,
    interval,
    listed,
    mcnemar_name,
    money,
    p_value,
    percent,
    plural,
    points,
)
from nlijob.records.outcome import SIGNIFICANT, GpuUse, Metrics, Results
from nlijob.records.trials import Trials
from nlijob.report.view.machine import machine_tile, used_several
from nlijob.report.view.parts import Fact, View
from nlijob.report.view.resources import covered_time
from nlijob.report.view.scope import (
    holds_sentence,
    interval_of_mean,
    note_on_several,
    range_of_trainings,
    scope_sentence,
    verdict_on_several,
)
from nlijob.report.view.search import search_sentence
from nlijob.report.view.spread import spread_chart
from nlijob.report.view.text import unbroken, visible
from nlijob.report.view.warnings import Warnings, warning_texts, warnings_view


@dataclass(frozen=True)
class Side:
    """One model's accuracy, shown in large type."""

    name: str
    accuracy: str
    counts: str
    interval: str
    value: float
    """Accuracy in percent, for the bar."""
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """The first screen."""

    verdict: str
    holds: str
    """For what the verdict holds: how many trainings, and which rows."""
    verdict_note: str
    tone: str
    """"better", "worse" or "unclear"."""
    scope: str
    """What more trainings would tell, or which training's adapter is kept."""
    spread: View | None
    """The chart of several trainings; None where there is one."""
    demo: bool
    base: Side
    tuned: Side
    tiles: tuple[Fact, ...]
    gates: str
    gates_passed: bool
    gate_failures: tuple[str, ...]
    warnings: tuple[str, ...]
    """The sentences of all warnings, the most severe first."""
    cautions: Warnings
    """The warnings as the page shows them."""


def summary_section(results: Results) -> Summary:
    """Verdict, both accuracies, tiles, gates and warnings."""
    trials = results.trials
    verdict, tone = verdict_on_several(results, trials) if trials else _verdict(results)
    note = note_on_several(results, trials) if trials else _verdict_note(results)
    return Summary(
        verdict=unbroken(verdict),
        holds=unbroken(holds_sentence(results)),
        verdict_note=unbroken(note),
        tone=tone,
        scope=unbroken(" ".join(filter(None, (search_sentence(results), scope_sentence(results))))),
        spread=spread_chart(results, trials) if trials else None,
        demo=results.run.config.model.name == "demo",
        base=_side("base model", results.base),
        tuned=_mean_side(trials)
        if trials
        else _side(f"tuned model (epoch {results.selection.epoch})", results.tuned),
        tiles=tuple(Fact(one.name, one.value, unbroken(one.note)) for one in _tiles(results)),
        gates=_gates_text(results),
        gates_passed=results.gates.passed,
        gate_failures=tuple(failure.text for failure in results.gates.failures),
        warnings=warning_texts(results.warnings),
        cautions=warnings_view(results.warnings),
    )


def _verdict(results: Results) -> tuple[str, str]:
    """The result in one sentence, and its tone."""
    before, after = percent(results.base.accuracy), percent(results.tuned.accuracy)
    change = f"Test accuracy went from {before} to {after}, but the"
    is_significant = results.mcnemar_p < SIGNIFICANT
    if is_significant and (habit := habitual_label(results.tuned)):
        rows = f"{count(habit.predicted)} of {plural(results.tuned.rows, 'row')}"
        return f"{change} tuned model answers “{habit.name}” for {rows}.", "unclear"
    if not results.gain:
        return f"Test accuracy is the same before and after tuning: {after}.", "unclear"
    if not is_significant:
        return f"{change} change is not statistically significant on these rows.", "unclear"
    if results.gain > 0:
        return f"Tuning raised test accuracy from {before} to {after}.", "better"
    return f"Tuning lowered test accuracy from {before} to {after}.", "worse"


def _verdict_note(results: Results) -> str:
    bounds, cases = results.gain_interval, results.cases
    premises = units(results.test_premises)
    return (
        f"{plain_gain(results.tuned.rows, bounds, results.mcnemar_p, premises)} Tuning corrected "
        f"{plural(cases.corrected, 'row')} and broke {count(cases.newly_broken)}: "
        f"{points(results.gain)} ({mcnemar_name(premises)}, {p_value(results.mcnemar_p)})."
    )


def _side(name: str, metrics: Metrics) -> Side:
    bounds = metrics.accuracy_interval
    return Side(
        name=name,
        accuracy=percent(metrics.accuracy),
        counts=f"{count(metrics.correct)} of {count(metrics.rows)}",
        interval=f"95 % interval {interval(bounds)}",
        value=100 * metrics.accuracy,
        low=100 * bounds.low,
        high=100 * bounds.high,
    )


def _mean_side(trials: Trials) -> Side:
    accuracy = trials.accuracy
    return Side(
        name=f"tuned model, mean of {plural(len(trials.trials), 'training')}",
        accuracy=percent(accuracy.mean),
        counts=range_of_trainings(trials),
        interval=unbroken(interval_of_mean(trials)),
        value=100 * accuracy.mean,
        low=100 * accuracy.interval.low,
        high=100 * accuracy.interval.high,
    )


def _tiles(results: Results) -> tuple[Fact, ...]:
    return (
        Fact("time", _time(results), _time_note(results)),
        *machine_tile(results),
        *_cost_tiles(results),
        *_energy_tiles(results),
        *_emission_tiles(results),
        _memory_tile(results),
        Fact(
            "trainable parameters",
            count(results.parameters.trainable),
            f"{percent(results.parameters.trainable / results.parameters.total_logical, 2)} of "
            f"{count(results.parameters.total_logical)}",
        ),
    )


def _time(results: Results) -> str:
    if not results.attempts:
        return NOT_MEASURED
    return at_least(clock(results.total_s), bool(results.cut_short))


def _time_note(results: Results) -> str:
    training = next((one.duration_s for one in results.stages if one.stage == "train"), None)
    # a time below a minute is shown in seconds already
    in_seconds = f"{results.total_s:,.0f} s" if results.total_s >= MINUTE else ""
    parts = [in_seconds, f"training {clock(training)}" if training else ""]
    if results.attempts > 1:
        parts.append(f"{results.attempts} attempts")
    return "; ".join(part for part in parts if part)


def _cost_tiles(results: Results) -> tuple[Fact, ...]:
    cost = results.cost
    if cost is None:
        return ()
    hourly = money(cost.price_per_hour, cost.currency)
    note = f"at {hourly} an hour ({visible(cost.source)}); job time only"
    amount = at_least(money(cost.amount, cost.currency), bool(results.cut_short))
    return (Fact("cost", visible(amount), visible(note)),)


def _energy_tiles(results: Results) -> tuple[Fact, ...]:
    """Energy of the GPUs; nothing where there is none, as that of a CPU is not measured."""
    return (_energy_tile(results),) if results.resources.gpus else ()


def _energy_tile(results: Results) -> Fact:
    used = total_energy_j(results.resources.gpus)
    if used is None:
        return Fact("GPU energy", NOT_MEASURED)
    amount, _, joules = energy(used).partition(" (")
    number = len(results.resources.gpus)
    meter = "whole card, from its own meter"
    if number > 1 and used_several(results):
        meter = f"sum of {number} whole cards, from their own meters"
    notes = (joules.rstrip(")"), meter, _covered(results.resources.gpus))
    return Fact("GPU energy", amount, "; ".join(filter(None, notes)))


def _emission_tiles(results: Results) -> tuple[Fact, ...]:
    """Emissions of the job, if a carbon intensity was given."""
    intensity = results.run.config.report.carbon_g_per_kwh
    if intensity is None:
        return ()
    if results.emissions is None:
        whose = "the GPU" if results.resources.gpus else "a CPU"
        return (Fact("CO₂ emissions", NOT_MEASURED, f"the energy of {whose} was not measured"),)
    used = results.emissions
    whose = "of the GPUs alone" if len(results.resources.gpus) > 1 else "of the GPU alone"
    note = f"CO₂ equivalents of the energy {whose}, at {used.carbon_g_per_kwh:g} g per kWh"
    return (Fact("CO₂ emissions", emissions(used.co2eq_g), note),)


def _covered(gpus: Sequence[GpuUse]) -> str:
    """The time that the energy covers, if it is the same for all GPUs."""
    covered = {covered_time(gpu) for gpu in gpus}
    return covered.pop() if len(covered) == 1 else ""


def _memory_tile(results: Results) -> Fact:
    use = results.resources
    if not use.gpus:
        return Fact("peak memory", gib(use.max_ram_used_bytes), "RAM of the job; no GPU")
    return Fact(
        "peak GPU memory",
        gib(use.peak_allocated_bytes),
        f"allocated by torch{' on one GPU' * used_several(results)}; "
        f"{gib(use.peak_reserved_bytes)} reserved",
    )


def _gates_text(results: Results) -> str:
    asked = results.run.config.report
    wanted = []
    if asked.min_accuracy is not None:
        wanted.append(f"a test accuracy of at least {100 * asked.min_accuracy:g} %")
    if asked.min_gain is not None:
        wanted.append(f"a gain of at least {100 * asked.min_gain:g} points")
    return f"Required: {listed(wanted)}." if wanted else ""
