"""The report's section on time: the whole job, its stages and its epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.analysis.wording import (
    NOT_MEASURED,
    at_least,
    count,
    decimal,
    duration,
    listed,
    loss,
    percent,
    rate,
)
from nlijob.records.job import Plan, TimingKind, TrainStep
from nlijob.records.outcome import Results, StageTime
from nlijob.report.view.machine import most_at_once, overlap_note, sharing_facts
from nlijob.report.view.parts import Fact, Row, Table, View, columns, row
from nlijob.report.view.text import percent_or, visible
from nlijob.stages import PHASES

NOTE = (
    "Examples/s counts optimizer steps only. Work that was lost when an attempt was "
    "interrupted counts for the whole job but for no stage. The process that runs the model starts "
    "while files are read and rows are selected; its row counts the remaining wait. The time "
    "to write the report is not counted, so that writing it again changes no figure."
)
WORDS = {phase.name: phase.words for phase in PHASES}


def time_section(results: Results, steps: Sequence[TrainStep]) -> View:
    """Time of the job, its stages and its epochs; `steps` give the mean step."""
    of_all = ", all trainings" if results.trials else ""
    return View(
        facts=(
            Fact(
                "whole job",
                at_least(
                    duration(results.total_s if results.attempts else None),
                    bool(results.cut_short),
                ),
                _attempts_note(results),
            ),
            Fact("training speed", rate(results.training_examples_per_s), _speed_note(results)),
            Fact(
                "optimizer steps",
                count(sum(epoch.steps for epoch in results.epochs)),
                f"of {results.trials.kept}" if results.trials else "",
            ),
            Fact("mean step", _mean_step(steps), "one optimizer step"),
            *_plan_facts(results.plan),
            *sharing_facts(results),
        ),
        refused=tuple(visible(text) for text in results.plan.refused),
        stages=Table(
            f"Each stage, over all attempts{' and trainings' if results.trials else ''}",
            columns("stage", "time", "share of the job", "examples/s"),
            tuple(_stage_rows(results)),
        ),
        epochs=Table(
            f"Each epoch of {results.trials.kept}" if results.trials else "Each epoch",
            columns(
                "epoch",
                "steps",
                "examples",
                "optimizer steps",
                "examples/s",
                f"scoring{of_all}",
                f"checkpoint{of_all}",
                "training loss",
            ),
            tuple(_epoch_time_rows(results)),
        ),
        note=" ".join(filter(None, (NOTE, overlap_note(results)))),
    )


def _speed_note(results: Results) -> str:
    """What the training speed counts; where trainings were side by side, also that of all."""
    of_all = next((s.examples_per_s for s in results.stages if s.stage == "train"), None)
    if most_at_once(results) == 1 or of_all is None:
        return "optimizer steps only"
    return f"optimizer steps of one training only; {rate(of_all)} side by side"


def _plan_facts(plan: Plan) -> tuple[Fact, ...]:
    weights = {
        "dequantized": "4-bit weights also kept dequantised",
        "as loaded": "weights as loaded",
    }
    recompute = (
        ", activations recomputed in the backward pass (gradient checkpointing)"
        if plan.activations == "recomputed"
        else ""
    )
    compiled = ", layers compiled for training" if plan.layers == "compiled" else ""
    if plan.way in ("plain", "sharded"):
        reason = visible(plan.reason)
        if plan.base_weights == "dequantized":
            reason = f"{reason}; {weights[plan.base_weights]}"
        name = "plain loop" if plan.way == "plain" else "plain loop, weights divided between GPUs"
        return (Fact("execution mode", name, reason + recompute),)
    modes = {"graph": "CUDA graphs on packed rows", "packed": "packed rows"}
    shared = (
        f"; the shared prefix of {plan.shared_prefix} tokens is computed once per step"
        if plan.shared_prefix
        else ""
    )
    return (
        Fact(
            "execution mode",
            modes[plan.way],
            weights[plan.base_weights] + recompute + compiled + shared,
        ),
        Fact(
            "checked against the plain loop",
            percent_or(plan.logits_difference, NOT_MEASURED, 2),
            "relative difference of the logits (norm) on some rows",
        ),
        Fact("warm-up", duration(plan.warm_up_s), "preparation, not part of any epoch"),
    )


def _attempts_note(results: Results) -> str:
    if not results.attempts:
        return "no times were recorded, or none can be read"
    if results.attempts == 1:
        note = "one attempt"
    else:
        note = f"{results.attempts} attempts; pauses between them are not counted"
    return "; ".join(filter(None, (note, cut_short_note(results))))


def cut_short_note(results: Results) -> str:
    """Why time and cost are lower bounds, or "" where they are not."""
    if not results.cut_short:
        return ""
    which = "attempt" if len(results.cut_short) == 1 else "attempts"
    numbers = listed([str(number) for number in results.cut_short])
    return f"{which} {numbers} ended without a record, and counts up to the last one"


def _mean_step(steps: Sequence[TrainStep]) -> str:
    if not steps:
        return NOT_MEASURED
    return f"{decimal(sum(step.duration_s for step in steps) / len(steps))} s"


def _stage_rows(results: Results) -> Iterable[Row]:
    for stage in results.stages:
        yield _stage_row(results, stage)
        for part in stage.timed_parts:
            if part.epoch is None:  # epochs have a table of their own
                yield row(part.name, duration(part.duration_s), "", "", indented=True)
    known = [stage.duration_s for stage in results.stages if stage.duration_s is not None]
    rest = results.outside_stages_s
    if rest is None:
        rest = results.total_s - sum(known)
    if rest > 0 and len(known) == len(results.stages):
        share = rest / results.total_s
        yield row("outside the stages", duration(rest), percent(share), "", bar=share)


def _stage_row(results: Results, stage: StageTime) -> Row:
    speed = "" if stage.examples_per_s is None else decimal(stage.examples_per_s)
    name = WORDS.get(stage.stage, stage.stage)
    if stage.stage == "load" and not results.parameters.quantized_modules:
        name = "model loaded"
    if stage.at_once > 1:
        name += f", up to {stage.at_once} side by side"
    if stage.duration_s is None or not results.total_s:
        return row(name, duration(stage.duration_s), "", speed)
    share = min(1.0, stage.duration_s / results.total_s)
    return row(name, duration(stage.duration_s), percent(share), speed, bar=share)


def _epoch_time_rows(results: Results) -> Iterable[Row]:
    for epoch in results.epochs:
        yield row(
            str(epoch.epoch),
            count(epoch.steps),
            count(epoch.examples),
            duration(epoch.duration_s),
            decimal(epoch.examples_per_s),
            duration(_seconds(results, epoch.epoch, "scoring")),
            duration(_seconds(results, epoch.epoch, "checkpoint")),
            loss(epoch.train_loss),
            mark="selected" if epoch.epoch == results.selection.epoch else "",
        )


def _seconds(results: Results, epoch: int, kind: TimingKind) -> float | None:
    """Seconds of one kind of work in an epoch; None where none was measured."""
    parts = [part for stage in results.stages for part in stage.timed_parts]
    own = [part.duration_s for part in parts if (part.epoch, part.kind) == (epoch, kind)]
    known = [seconds for seconds in own if seconds is not None]
    return sum(known) if known and len(known) == len(own) else None
