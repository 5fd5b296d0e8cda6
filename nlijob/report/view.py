"""From the outcome of a run to what the page says: every text formatted, nothing left to compute.

The templates only print what stands here. A section is one function; the page is their list.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlijob.analysis.statistics import wilson_interval
from nlijob.analysis.warnings import habitual_label
from nlijob.analysis.wording import (
    NOT_MEASURED,
    clock,
    count,
    decimal,
    duration,
    energy,
    gib,
    interval,
    listed,
    p_value,
    percent,
    plural,
    points,
    rate,
    share_of,
    signed,
)
from nlijob.config import JobConfig
from nlijob.records import (
    SPLITS,
    ClassMetrics,
    EpochResult,
    GpuUse,
    Metrics,
    Results,
    SplitScore,
    StageTime,
    TrainStep,
)
from nlijob.report.case_view import Cases, case_section
from nlijob.report.parts import (
    Column,
    Fact,
    Matrix,
    MatrixCell,
    Row,
    Table,
    columns,
    unbroken,
    visible,
)
from nlijob.report.snippet import usage_snippet

STAGE_NAMES = {
    "fetch": "model files fetched or found",
    "subset": "rows chosen",
    "start": "GPU side started",
    "load": "model loaded and quantised",
    "baseline": "base model scored",
    "train": "training",
    "select": "checkpoint selected",
    "evaluate": "tuned model scored, free output written",
    "report": "report written",
}


@dataclass(frozen=True)
class Side:
    """One model's accuracy, as large as it gets."""

    name: str
    accuracy: str
    counts: str
    interval: str
    value: float
    """Percent, for the bar."""
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """The first screen."""

    verdict: str
    verdict_note: str
    tone: str
    """"better", "worse" or "unclear"."""
    demo: bool
    base: Side
    tuned: Side
    tiles: tuple[Fact, ...]
    gates: str
    gates_passed: bool
    gate_failures: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Accuracy:
    """Base against tuned on the test rows."""

    lead: str
    overall: Table
    by_label: Table
    matrices: tuple[Matrix, Matrix]


@dataclass(frozen=True)
class Epochs:
    """What every epoch scored, and which was kept."""

    lead: str
    table: Table
    note: str


@dataclass(frozen=True)
class Time:
    """Where the time went."""

    facts: tuple[Fact, ...]
    stages: Table
    epochs: Table
    note: str


@dataclass(frozen=True)
class Parameters:
    """How large the model is and what was trained."""

    counts: Table
    explanation: str
    facts: tuple[Fact, ...]
    modules: Table


@dataclass(frozen=True)
class Resources:
    """What the job took of the machine."""

    no_gpu: str
    gpus: tuple[tuple[str, tuple[Fact, ...]], ...]
    facts: tuple[Fact, ...]
    note: str


@dataclass(frozen=True)
class Prompt:
    """The exact model input."""

    lead: str
    template: str
    example: str
    tokens: str
    example_length: str
    labels: Table | None
    lengths: Table


@dataclass(frozen=True)
class Data:
    """Which rows the figures are about."""

    facts: tuple[Fact, ...]
    rows: Table
    classes: Table
    shared: Table
    hashes: Table


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    run_facts: tuple[Fact, ...]
    summary: Summary
    accuracy: Accuracy
    epochs: Epochs
    time: Time
    parameters: Parameters
    resources: Resources
    cases: Cases
    prompt: Prompt
    data: Data
    configuration: tuple[Table, ...]
    environment: tuple[Fact, ...]
    packages: Table
    command: str
    snippet: str
    snippet_note: str
    footer: str


def build_page(results: Results, steps: Sequence[TrainStep] = ()) -> Page:
    """The page of a run; `steps` are the training log, where it is there."""
    run = results.run
    config = run.config
    return Page(
        title=config.report.title or f"What tuning changed in {_model_name(results)}",
        subtitle=_subtitle(results),
        run_facts=(
            Fact("run", run.run_id),
            Fact("recipe", run.recipe),
            Fact("started", _time_of_day(run.created_at)),
            Fact("attempts", count(results.attempts)),
        ),
        summary=_summary(results),
        accuracy=_accuracy(results),
        epochs=_epochs(results),
        time=_time(results, steps),
        parameters=_parameters(results),
        resources=_resources(results),
        cases=case_section(results.cases, results.manifest.label_names),
        prompt=_prompt(results),
        data=_data(results),
        configuration=tuple(_configuration(config)),
        environment=_environment(results),
        packages=Table(
            "Packages in the process that trained",
            (Column("package", numeric=False), Column("version", numeric=False)),
            tuple(Row(item) for item in sorted(results.environment.packages.items())),
        ),
        command=visible(" ".join(run.command)),
        snippet=usage_snippet(results),
        snippet_note=_snippet_note(results),
        footer=f"nlijob {run.nlijob_version} · record format {results.format_version}",
    )


def _time_of_day(moment: str) -> str:
    return f"{datetime.datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S %Z}"


def _model_name(results: Results) -> str:
    name = results.run.config.model.name
    return "the demo's tiny model" if name == "demo" else name


def _subtitle(results: Results) -> str:
    manifest = results.manifest
    head = results.run.config.model.head
    task = "as a language model that answers with a label token"
    if head == "sequence-classification":
        task = "with a classification head"
    rows = ", ".join(
        f"{count(manifest.splits[split].rows)} {split}"
        for split in SPLITS
        if split in manifest.splits
    )
    name = _model_name(results)
    name = name[0].upper() + name[1:] if name.startswith("the ") else name
    return f"{name} {task}, on {manifest.dataset}: {rows} rows"


# ---------------------------------------------------------------- summary


def _summary(results: Results) -> Summary:
    verdict, tone = _verdict(results)
    return Summary(
        verdict=unbroken(verdict),
        verdict_note=unbroken(_verdict_note(results)),
        tone=tone,
        demo=results.run.config.model.name == "demo",
        base=_side("base model", results.base),
        tuned=_side(f"tuned model (epoch {results.selection.epoch})", results.tuned),
        tiles=_tiles(results),
        gates=_gates_text(results),
        gates_passed=results.gates.passed,
        gate_failures=results.gates.failures,
        warnings=tuple(unbroken(visible(warning)) for warning in results.warnings),
    )


def _verdict(results: Results) -> tuple[str, str]:
    """The outcome in one sentence, and its tone."""
    before, after = percent(results.base.accuracy), percent(results.tuned.accuracy)
    told_apart = results.mcnemar_p < 0.05
    if told_apart and (habit := habitual_label(results.tuned)):
        return (
            f"Test accuracy went from {before} to {after}, but the tuned model answers "
            f"“{habit.name}” for {count(habit.predicted)} of {plural(results.tuned.rows, 'row')}.",
            "unclear",
        )
    if not results.gain:
        return f"Test accuracy is the same before and after tuning: {after}.", "unclear"
    if not told_apart:
        return (
            f"Test accuracy went from {before} to {after}; on these rows that cannot be told "
            "from no change.",
            "unclear",
        )
    if results.gain > 0:
        return f"Tuning raised test accuracy from {before} to {after}.", "better"
    return f"Tuning lowered test accuracy from {before} to {after}.", "worse"


def _verdict_note(results: Results) -> str:
    bounds, cases = results.gain_interval, results.cases
    return (
        f"A change of {points(results.gain)} (95 % interval {signed(100 * bounds.low, 1)} to "
        f"{signed(100 * bounds.high, 1)}; exact McNemar test {p_value(results.mcnemar_p)}) on "
        f"{plural(results.tuned.rows, 'test row')}: {count(cases.corrected)} corrected, "
        f"{count(cases.newly_broken)} newly broken."
    )


def _side(name: str, metrics: Metrics) -> Side:
    bounds = metrics.accuracy_interval
    return Side(
        name=name,
        accuracy=percent(metrics.accuracy),
        counts=f"{count(metrics.correct)} of {count(metrics.rows)}",
        interval=f"95 % interval {interval(bounds.low, bounds.high)}",
        value=100 * metrics.accuracy,
        low=100 * bounds.low,
        high=100 * bounds.high,
    )


def _tiles(results: Results) -> tuple[Fact, ...]:
    return (
        Fact("time", clock(results.total_s), _time_note(results)),
        _energy_tile(results),
        _memory_tile(results),
        Fact(
            "trained weights",
            count(results.parameters.trainable),
            f"{percent(results.parameters.trainable / results.parameters.total_logical, 2)} of "
            f"{count(results.parameters.total_logical)}",
        ),
    )


def _time_note(results: Results) -> str:
    training = sum(stage.duration_s for stage in results.stages if stage.stage == "train")
    parts = [f"{results.total_s:,.0f} s", f"training {clock(training)}" if training else ""]
    if results.attempts > 1:
        parts.append(f"{results.attempts} attempts")
    return "; ".join(part for part in parts if part)


def _energy_tile(results: Results) -> Fact:
    used = total_energy_j(results)
    if used is None:
        return Fact("GPU energy", NOT_MEASURED, "" if results.resources.gpus else "no GPU")
    amount, _, joules = energy(used).partition(" (")
    return Fact("GPU energy", amount, f"{joules.rstrip(')')}; the whole card, by its own meter")


def total_energy_j(results: Results) -> float | None:
    """Energy of all GPUs; None where any was not measured, as a part would pass for the whole."""
    used = [gpu.energy_j for gpu in results.resources.gpus]
    measured = [joules for joules in used if joules is not None]
    return sum(measured) if measured and len(measured) == len(used) else None


def _memory_tile(results: Results) -> Fact:
    use = results.resources
    if not use.gpus:
        return Fact("peak memory", gib(use.max_ram_used_bytes), "RAM of the job; no GPU")
    return Fact(
        "peak GPU memory",
        gib(use.peak_allocated_bytes),
        f"allocated by torch; {gib(use.peak_reserved_bytes)} reserved",
    )


def _gates_text(results: Results) -> str:
    asked = results.run.config.report
    wanted = []
    if asked.min_accuracy is not None:
        wanted.append(f"test accuracy of {100 * asked.min_accuracy:g} % or more")
    if asked.min_gain is not None:
        wanted.append(f"a gain of {100 * asked.min_gain:g} points or more")
    return f"Asked for: {listed(wanted)}." if wanted else ""


# ---------------------------------------------------------------- accuracy


def _accuracy(results: Results) -> Accuracy:
    base, tuned = results.base, results.tuned
    names = results.manifest.label_names
    return Accuracy(
        lead=(
            f"Both models labelled the same {plural(tuned.rows, 'test row')}, in the same "
            "batches. Intervals are 95 % score intervals (Wilson)."
        ),
        overall=_overall_table(results),
        by_label=Table(
            "By label: one label against the rest",
            columns(
                "label",
                "rows",
                "given: before",
                "after",
                "precision: before",
                "after",
                "recall: before",
                "after",
                "F1: before",
                "after",
            ),
            tuple(
                _label_row(before, after)
                for before, after in zip(base.classes, tuned.classes, strict=True)
            ),
        ),
        matrices=(
            _matrix("Before: base model", base, names),
            _matrix("After: tuned model", tuned, names),
        ),
    )


def _overall_table(results: Results) -> Table:
    base, tuned = results.base, results.tuned
    rows = [
        Row(
            (
                "accuracy",
                f"{share_of(base.correct, base.rows)}, {_bounds(base)}",
                f"{share_of(tuned.correct, tuned.rows)}, {_bounds(tuned)}",
                points(results.gain),
            )
        ),
        _share_row("balanced accuracy", base.balanced_accuracy, tuned.balanced_accuracy),
        _share_row("macro F1", base.macro_f1, tuned.macro_f1),
        Row(
            (
                "mean loss (nats)",
                decimal(base.loss),
                decimal(tuned.loss),
                f"{tuned.loss - base.loss:+.3f}".replace("-", "\N{MINUS SIGN}"),
            )
        ),
    ]
    if base.label_mass is not None and tuned.label_mass is not None:
        rows.append(_share_row("probability on label tokens", base.label_mass, tuned.label_mass))
    return Table("Test split", columns("", "before", "after", "change"), tuple(rows))


def _share_row(name: str, before: float, after: float) -> Row:
    return Row((name, percent(before), percent(after), points(after - before)))


def _bounds(metrics: Metrics) -> str:
    return interval(metrics.accuracy_interval.low, metrics.accuracy_interval.high)


def _label_row(before: ClassMetrics, after: ClassMetrics) -> Row:
    return Row(
        (
            before.name,
            count(before.support),
            count(before.predicted),
            count(after.predicted),
            _share(before.precision, "never given"),
            _share(after.precision, "never given"),
            _share(before.recall, "no rows"),
            _share(after.recall, "no rows"),
            percent(before.f1),
            percent(after.f1),
        )
    )


def _share(value: float | None, missing: str) -> str:
    return missing if value is None else percent(value)


def _matrix(caption: str, metrics: Metrics, names: Sequence[str]) -> Matrix:
    def cell(gold: int, predicted: int) -> MatrixCell:
        rows, total = metrics.confusion[gold][predicted], sum(metrics.confusion[gold])
        share = rows / total if total else 0.0
        return MatrixCell(count(rows), percent(share, 0) if total else "", share, gold == predicted)

    labels = range(len(names))
    return Matrix(
        caption,
        tuple(names),
        tuple((names[gold], tuple(cell(gold, answer) for answer in labels)) for gold in labels),
    )


# ---------------------------------------------------------------- epochs


def _epochs(results: Results) -> Epochs:
    selection = results.selection
    chosen = next(epoch for epoch in results.epochs if epoch.epoch == selection.epoch)
    score = chosen.validation
    lead = (
        f"Epoch {selection.epoch} was kept: {share_of(score.correct, score.rows)} validation "
        f"accuracy at a loss of {score.loss:.3f}. Rule: {selection.rule}."
    )
    if len(selection.tied_on_accuracy) > 1:
        tied = listed([str(epoch) for epoch in selection.tied_on_accuracy])
        lead += f" Epochs {tied} tied on accuracy."
    base = _epoch_zero(results)
    return Epochs(
        lead=unbroken(lead),
        table=Table(
            "Accuracy and loss after every epoch",
            columns(
                "epoch",
                "training loss",
                "validation loss",
                "validation accuracy",
                "95 % interval",
                "test accuracy (information only)",
            ),
            (base, *(_epoch_row(epoch, selection.epoch) for epoch in results.epochs)),
        ),
        note=(
            "Test accuracy by epoch is for information only: it was never read to choose the "
            "epoch. Losses are in nats; the training loss is the mean over the epoch's rows with "
            "dropout on, while weights were still moving."
        ),
    )


def _epoch_zero(results: Results) -> Row:
    score = results.base_validation
    validation = _scored(score) if score else (NOT_MEASURED,) * 3
    return Row(
        ("0 (base)", "no training", *validation, share_of(results.base.correct, results.base.rows))
    )


def _epoch_row(epoch: EpochResult, selected: int) -> Row:
    test = share_of(epoch.test.correct, epoch.test.rows) if epoch.test else NOT_MEASURED
    return Row(
        (str(epoch.epoch), f"{epoch.train_loss:.3f}", *_scored(epoch.validation), test),
        mark="selected" if epoch.epoch == selected else "",
    )


def _scored(score: SplitScore) -> tuple[str, str, str]:
    bounds = wilson_interval(score.correct, score.rows)
    return (
        f"{score.loss:.3f}",
        share_of(score.correct, score.rows),
        interval(bounds.low, bounds.high),
    )


# ---------------------------------------------------------------- time


def _time(results: Results, steps: Sequence[TrainStep]) -> Time:
    return Time(
        facts=(
            Fact("whole job", duration(results.total_s), _attempts_note(results)),
            Fact("training speed", rate(results.training_examples_per_s), "optimizer steps only"),
            Fact("optimizer steps", count(sum(epoch.steps for epoch in results.epochs))),
            Fact("mean step", _mean_step(steps), "one optimizer step"),
        ),
        stages=Table(
            "Each stage, over all attempts",
            columns("stage", "time", "share of the job", "examples/s"),
            tuple(_stage_rows(results)),
        ),
        epochs=Table(
            "Each epoch",
            columns(
                "epoch",
                "steps",
                "examples",
                "optimizer steps",
                "examples/s",
                "scoring",
                "checkpoint",
                "training loss",
            ),
            tuple(_epoch_time_rows(results)),
        ),
        note=(
            "Examples/s counts optimizer steps only. Work that an interrupted attempt lost is in "
            "the time of the whole job and in no stage's."
        ),
    )


def _epoch_time_rows(results: Results) -> Iterable[Row]:
    pieces = {name: s for stage in results.stages for name, s in stage.parts.items()}
    for epoch in results.epochs:
        checkpoint = f"epoch {epoch.epoch} checkpoint"
        scoring = [
            seconds
            for name, seconds in pieces.items()
            if name.startswith(f"epoch {epoch.epoch} ") and name != checkpoint
        ]
        yield Row(
            (
                str(epoch.epoch),
                count(epoch.steps),
                count(epoch.examples),
                duration(epoch.duration_s),
                decimal(epoch.examples_per_s),
                duration(sum(scoring) if scoring else None),
                duration(pieces.get(checkpoint)),
                f"{epoch.train_loss:.3f}",
            ),
            mark="selected" if epoch.epoch == results.selection.epoch else "",
        )


def _attempts_note(results: Results) -> str:
    if results.attempts == 1:
        return "one attempt"
    return f"{results.attempts} attempts; the pauses between them are not counted"


def _mean_step(steps: Sequence[TrainStep]) -> str:
    if not steps:
        return NOT_MEASURED
    return f"{decimal(sum(step.duration_s for step in steps) / len(steps))} s"


def _stage_rows(results: Results) -> Iterable[Row]:
    for stage in results.stages:
        yield _stage_row(results, stage)
        for part, seconds in stage.parts.items():
            if not part.startswith("epoch "):  # those have a table of their own
                yield Row((part, duration(seconds), "", ""), indented=True)
    rest = results.total_s - sum(stage.duration_s for stage in results.stages)
    if rest > 0:
        share = rest / results.total_s
        yield Row(("between and beside the stages", duration(rest), percent(share), ""), bar=share)


def _stage_row(results: Results, stage: StageTime) -> Row:
    share = min(1.0, stage.duration_s / results.total_s) if results.total_s else 0.0
    speed = "" if stage.examples_per_s is None else decimal(stage.examples_per_s)
    name = STAGE_NAMES.get(stage.stage, stage.stage)
    return Row((name, duration(stage.duration_s), percent(share), speed), bar=share)


# ---------------------------------------------------------------- parameters


def _parameters(results: Results) -> Parameters:
    counts, config = results.parameters, results.run.config
    logical, packed = counts.total_logical, counts.total_packed
    lora, model = config.lora, config.model
    rows = [
        Row(("trainable", count(counts.trainable), "")),
        Row(("of these, LoRA", count(counts.lora_parameters), ""), indented=True),
    ]
    if counts.head_parameters:
        rows.append(
            Row(("of these, classification head", count(counts.head_parameters), ""), indented=True)
        )
    rows += [
        Row(("total, logical", count(logical), percent(counts.trainable / logical, 3))),
        Row(("total, packed", count(packed), percent(counts.trainable / packed, 3))),
    ]
    return Parameters(
        counts=Table("Parameters", columns("", "number", "trainable share of it"), tuple(rows)),
        explanation=_totals_explained(results),
        facts=(
            Fact("LoRA rank r", str(lora.r)),
            Fact("LoRA alpha", str(lora.alpha), f"scale alpha / r = {lora.alpha / lora.r:g}"),
            Fact("LoRA dropout", f"{lora.dropout:g}"),
            Fact("quantisation", _quantization(results)),
            Fact("quantised modules", count(counts.quantized_modules)),
            Fact("compute dtype", results.environment.compute_dtype),
            Fact("base weights in memory", gib(counts.base_memory_bytes), "with their constants"),
            Fact("head", model.head),
        ),
        modules=Table(
            "Target modules",
            columns("name", "modules matched"),
            tuple(Row((name, count(n))) for name, n in counts.matched_modules.items()),
        ),
    )


def _totals_explained(results: Results) -> str:
    counts = results.parameters
    if counts.total_logical == counts.total_packed:
        return "Nothing is stored in 4 bits, so counting weights and stored elements agree."
    return (
        f"Two totals, both right. Logical counts every weight once: {count(counts.total_logical)}. "
        "Packed counts stored elements, and two 4-bit weights share one: "
        f"{count(counts.total_packed)}. Published figures for one and the same model differ by "
        "this alone, and so do shares of trainable weights."
    )


def _quantization(results: Results) -> str:
    model = results.run.config.model
    if model.quantization == "none":
        return "none"
    return "4-bit NF4" + (", double quantization" if model.double_quantization else "")


# ---------------------------------------------------------------- resources


def _resources(results: Results) -> Resources:
    use, environment = results.resources, results.environment
    return Resources(
        no_gpu="" if use.gpus else "No GPU: this job ran on the CPU.",
        gpus=tuple((gpu.name, _gpu_facts(gpu)) for gpu in use.gpus),
        facts=(
            *(_torch_facts(results) if use.gpus else ()),
            Fact(
                "CPU",
                _share(use.mean_cpu_load, NOT_MEASURED),
                f"mean load of {environment.cpu_name}, {plural(environment.cpu_count, 'core')}",
            ),
            Fact(
                "RAM",
                gib(use.max_ram_used_bytes),
                f"peak of the job's processes, of {gib(environment.ram_bytes)}",
            ),
            Fact("disk", gib(use.min_disk_free_bytes), "least free space seen"),
        ),
        note=_sampling_note(results),
    )


def _gpu_facts(gpu: GpuUse) -> tuple[Fact, ...]:
    power = NOT_MEASURED if gpu.mean_power_w is None else f"{gpu.mean_power_w:.0f} W"
    heat = NOT_MEASURED if gpu.max_temperature_c is None else f"{gpu.max_temperature_c:.0f} °C"
    return (
        Fact("driver", gpu.driver_version or NOT_MEASURED),
        Fact("mean load", _share(gpu.mean_load, NOT_MEASURED), "over the whole job"),
        Fact("mean load in training", _share(gpu.mean_training_load, NOT_MEASURED)),
        Fact("highest load", _share(gpu.max_load, NOT_MEASURED)),
        Fact(
            "memory seen by the driver",
            gib(gpu.max_memory_used_bytes),
            f"highest sample, of {gib(gpu.total_memory_bytes)}",
        ),
        Fact("mean power", power),
        Fact("energy", energy(gpu.energy_j)),
        Fact("highest temperature", heat),
        Fact("uuid", gpu.uuid or NOT_MEASURED),
    )


def _torch_facts(results: Results) -> tuple[Fact, ...]:
    use = results.resources
    return (
        Fact("peak allocated", gib(use.peak_allocated_bytes), "GPU memory in use, by torch"),
        Fact("peak reserved", gib(use.peak_reserved_bytes), "GPU memory held, by torch"),
    )


def _sampling_note(results: Results) -> str:
    if not results.resources.samples:
        return "The hardware was not sampled."
    every = results.run.config.report.sample_interval_s
    text = f"{plural(results.resources.samples, 'sample')}, one every {every:g} s."
    if results.resources.gpus:
        text += (
            " Load and memory are what the driver reports for the whole card, with anything else "
            "that ran on it; torch's figures are this job's own. 1 GiB is 1,073,741,824 bytes."
        )
    return text


# ---------------------------------------------------------------- prompt


def _prompt(results: Results) -> Prompt:
    prompt = results.prompt
    causal = results.run.config.model.head == "causal"
    lead = (
        "The answer is the likeliest of the label tokens right after this text; nothing is "
        "generated to get it."
        if causal
        else "The classification head reads the model's state at the last token of this text and "
        "has one output a label, so there are no label tokens."
    )
    if not prompt.template:
        lead += " There is no template: the tokenizer joins premise and hypothesis itself."
    splits = [split for split in SPLITS if split in prompt.longest_tokens]
    return Prompt(
        lead=lead,
        template=visible(prompt.template),
        example=visible(prompt.example_prompt),
        tokens=" ".join(map(str, prompt.example_tokens)),
        example_length=plural(len(prompt.example_tokens), "token"),
        labels=_label_tokens(results) if prompt.label_tokens else None,
        lengths=Table(
            f"Length of the model input in tokens; the model takes {count(prompt.max_length)}",
            columns("split", "mean", "longest"),
            tuple(
                Row(
                    (
                        split,
                        f"{prompt.mean_tokens[split]:.1f}",
                        count(prompt.longest_tokens[split]),
                    )
                )
                for split in splits
            ),
        ),
    )


def _label_tokens(results: Results) -> Table:
    prompt, names = results.prompt, results.manifest.label_names
    rows = zip(names, prompt.label_token_texts, prompt.label_tokens, strict=True)
    return Table(
        "What stands for each label",
        (Column("label", numeric=False), Column("text", numeric=False), Column("token id")),
        tuple(Row((name, f"“{visible(text)}”", str(token))) for name, text, token in rows),
    )


# ---------------------------------------------------------------- data


def _data(results: Results) -> Data:
    manifest = results.manifest
    splits = [manifest.splits[split] for split in SPLITS if split in manifest.splits]
    return Data(
        facts=(
            Fact("data set", manifest.dataset),
            Fact("revision", manifest.revision or "not pinned"),
            Fact("configuration", manifest.config_name or "none"),
        ),
        rows=Table(
            "Rows of each split",
            (
                Column("split", numeric=False),
                Column("rule", numeric=False),
                *map(Column, ("in the source", "taken", "unlabelled, dropped", "kept")),
            ),
            tuple(
                Row(
                    (
                        split.split,
                        split.rule,
                        count(split.source_rows),
                        count(split.selected),
                        count(split.unlabelled_dropped),
                        count(split.rows),
                    )
                )
                for split in splits
            ),
        ),
        classes=Table(
            "Rows of each label",
            columns("split", *manifest.label_names),
            tuple(
                Row((split.split, *(share_of(n, split.rows) for n in split.class_counts)))
                for split in splits
            ),
        ),
        shared=Table(
            "Premises that stand in two splits",
            columns("splits", "premises"),
            tuple(
                Row((pair.replace("+", " and "), count(number)))
                for pair, number in manifest.shared_premises.items()
            ),
        ),
        hashes=Table(
            "SHA-256 of the rows kept",
            (Column("split", numeric=False), Column("hash", numeric=False)),
            tuple(Row((split.split, split.rows_sha256)) for split in splits),
        ),
    )


# ---------------------------------------------------------------- configuration


def _configuration(config: JobConfig) -> Iterable[Table]:
    """Every value, a table a section; what stands outside the sections comes first."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    plain = {name: v for name, v in values.items() if not dataclasses.is_dataclass(v)}
    yield _settings("job", plain)
    for name, section in values.items():
        if name not in plain:
            keys = (field.name for field in dataclasses.fields(section))
            yield _settings(name, {key: getattr(section, key) for key in keys})


def _settings(section: str, values: Mapping[str, Any]) -> Table:
    return Table(
        section,
        (Column("setting", numeric=False), Column("value", numeric=False)),
        tuple(Row((name, _setting(value))) for name, value in values.items()),
    )


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return visible(", ".join(map(repr, value))) or "none"
    if isinstance(value, dict):
        return visible(", ".join(f"{key} = {item}" for key, item in value.items())) or "none"
    return visible(str(value)) or "empty"


def _environment(results: Results) -> tuple[Fact, ...]:
    environment = results.environment
    return (
        Fact("device", environment.device),
        *(
            Fact("GPU", gpu.name, f"compute capability {gpu.compute_capability}")
            for gpu in environment.gpus
        ),
        Fact("CUDA", environment.cuda_version or "none"),
        Fact("compute dtype", environment.compute_dtype),
        Fact("attention", environment.attention),
        Fact("CPU", environment.cpu_name, plural(environment.cpu_count, "core")),
        Fact("RAM", gib(environment.ram_bytes)),
        Fact("platform", environment.platform),
        Fact("Python", environment.python_version),
    )


def _snippet_note(results: Results) -> str:
    note = (
        "Run it in the folder of this report, where the adapter stands as adapter/ (PEFT format)."
    )
    if results.run.config.model.name == "demo":
        note += (
            " The base model is the demo's own: put the path of the folder nlijob/demo/model in "
            "place of 'demo'."
        )
    return note
