"""Plans and checks in words: a plan has a line for each thing that was resolved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby

from nlijob.analysis.cost import SECONDS_AN_HOUR, price_per_hour
from nlijob.analysis.wording import clock, count, gib, listed, money, percent, plural, setting_text
from nlijob.config import seeds_of
from nlijob.disk import size_text
from nlijob.errors import ExitCode
from nlijob.heads import describe
from nlijob.planning.memory import MOST_GPUS
from nlijob.records.health import Health
from nlijob.records.job import SPLITS
from nlijob.records.planning import (
    CardFit,
    JobPlan,
    PlannedDisk,
    PlannedFiles,
    PlannedMemory,
    PlannedProcesses,
    PlannedRows,
    Span,
)

NOT_KNOWN = "not known"
WIDTH = 13
"""Width of the first column."""


def plan_lines(plan: JobPlan, verbose: bool = False) -> Iterator[str]:
    """The lines that `plan` prints. `verbose`: with the sum of each execution mode's memory."""
    for name, text in _entries(plan, verbose):
        first, *others = text.split("\n")
        yield f"{name:<{WIDTH}}{first}"
        yield from (f"{'':<{WIDTH}}{line}" for line in others)
    for fault in plan.obstacles:
        yield ""
        yield f"Here the job would end with exit code {fault.exit_code}: {fault.message}"
        if fault.hint:
            yield f"{'':<{WIDTH}}{fault.hint}"


def check_lines(health: Health) -> Iterator[str]:
    """The lines that `doctor` prints: one for each check."""
    widest = max(len(check.name) for check in health.checks)
    for check in health.checks:
        said = "; ".join(filter(None, (_one_line(check.text), _one_line(check.advice))))
        yield f"{check.status:<6}{check.name:<{widest}}  {said}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _entries(plan: JobPlan, verbose: bool) -> Iterator[tuple[str, str]]:
    config, look = plan.config, plan.look
    yield "run", plan.run + (" (exists: what is complete is not repeated)" * plan.run_exists)
    yield "model", _model(plan)
    yield "weights", _weights(plan)
    yield "head", describe(config.model.head).title
    yield "prompt", f"{look.prompt_form}\n{json.dumps(look.example_prompt, ensure_ascii=False)}"
    if look.label_tokens:
        yield "answers", _answers(plan)
    yield "adapter", _adapter(plan)
    yield "data set", _files(plan.dataset)
    for split in SPLITS:
        yield split, _rows(plan.rows[split]) + _tokens(plan, split)
    for one in plan.transfer:
        labels = f"; {listed([*one.label_names])}" if one.label_names else ""
        yield "further set", f"{one.name}: {_files(one.files)}\n{_rows(one.rows)}{labels}"
    if plan.candidates:
        yield "search", _search(plan)
    yield "training", _training(plan)
    yield "mode", _mode(plan)
    if plan.processes and config.model.device == "cuda":
        yield "GPUs", processes_text(plan.processes)
    yield "memory", _memory(plan)
    if plan.memory.cards:
        yield "GPU sizes", "\n".join(cards_lines(plan.memory))
    if verbose:
        yield "sums", "\n".join(sum_lines(plan.memory))
    for disk in plan.disk:
        yield "disk", _disk(disk)
    yield "time", _time(plan)
    if cost := _cost(plan):
        yield "cost", cost
    if config.report.min_accuracy is not None or config.report.min_gain is not None:
        yield "gates", _gates(plan)
    for warning in (*look.notes, *plan.warnings):
        yield "note", warning


def _model(plan: JobPlan) -> str:
    look = plan.look
    return (
        f"{_files(plan.model)}\n{look.model_type}, {count(look.base_parameters)} parameters, "
        f"prompts of up to {plural(look.max_length, 'token')}"
    )


def _files(files: PlannedFiles) -> str:
    text = files.name if files.source == files.name else f"{files.name}, {files.source}"
    if files.size_bytes is not None:
        text += f", {size_text(files.size_bytes)}"
    if files.download_bytes is None:
        return f"{text}, size of the download {NOT_KNOWN}"
    if files.download_bytes:
        return f"{text}, {size_text(files.download_bytes)} to download"
    return text


def _weights(plan: JobPlan) -> str:
    model, look = plan.config.model, plan.look
    held = "as stored" if model.quantization == "none" else "in 4 bits (NF4)"
    if model.quantization != "none" and model.double_quantization:
        held = "in 4 bits (NF4, double quantisation)"
    assumed = " (assumed: there is no GPU here)" if look.compute_dtype_is_assumed else ""
    return f"{held}, computed in {look.compute_dtype}{assumed} on {_device(plan)}"


def _device(plan: JobPlan) -> str:
    kind = "the GPU" if plan.config.model.device == "cuda" else "the CPU"
    return f"{kind} ({plan.look.device_name})" if plan.look.device_name else kind


def _answers(plan: JobPlan) -> str:
    look = plan.look
    labels = zip(
        plan.config.data.label_names, look.label_token_texts, look.label_tokens, strict=False
    )
    return ", ".join(f"{name}: {json.dumps(text)} (token {token})" for name, text, token in labels)


def _adapter(plan: JobPlan) -> str:
    look, lora = plan.look, plan.config.lora
    modules = [f"{name} ({number})" for name, number in look.target_modules.items()]
    head = f", and {listed(look.trained_head)} in full" if look.trained_head else ""
    share = look.trainable_parameters / (look.base_parameters or 1)
    searched = [key for key in plan.config.sweep.space if key.startswith("lora.")]
    tried = f" (before the search for {listed(searched)})" if searched else ""
    return (
        f"LoRA r={lora.r} alpha={lora.alpha} dropout={lora.dropout:g} on {listed(modules)}{head}\n"
        f"{count(look.trainable_parameters)} trained parameters ({percent(share, 2)}){tried}"
    )


def _rows(rows: PlannedRows) -> str:
    source = "" if rows.source_rows is None else f" of {count(rows.source_rows)}"
    if rows.rows is None:
        return f"{rows.rule}; the number is {NOT_KNOWN} before the download"
    unlabelled = "" if rows.is_exact else ", unlabelled ones included"
    return f"{plural(rows.rows, 'row')} ({rows.rule}{source}{unlabelled})"


def _tokens(plan: JobPlan, split: str) -> str:
    counts = next((found for name, found in plan.look.tokens.items() if name == split), None)
    if counts is None:
        return f"; tokens {NOT_KNOWN} before the download"
    of = "" if counts.counted == counts.rows else f", counted in {count(counts.counted)} rows"
    return f"; {counts.mean:.1f} tokens on average, longest {count(counts.longest)}{of}"


def _search(plan: JobPlan) -> str:
    """How many candidates are trained, of which settings, and for how many epochs in all."""
    sweep = plan.config.sweep
    how = "all combinations" if sweep.trials is None else "chosen by Optuna"
    most = "at most " if sweep.pruning or sweep.trials is not None else ""
    settings = "; ".join(
        f"{key} {values if isinstance(values, str) else listed([*map(setting_text, values)])}"
        for key, values in sweep.space.items()
    )
    return (
        f"{plural(plan.candidates, 'candidate')} ({how}, seed {sweep.seed}), "
        f"{most}{plural(plan.search_epochs, 'epoch')} in all, scored on validation rows\n{settings}"
    )


def _training(plan: JobPlan) -> str:
    train = plan.config.train
    seeds = seeds_of(train)
    several = f"{plural(len(seeds), 'training')} (seeds {listed(list(map(str, seeds)))}), each of "
    batch = f"{plural(train.epochs, 'epoch')}, batch size {count(train.batch_size)}"
    batch = several * (len(seeds) > 1) + batch
    if plan.optimizer_steps is None:
        return f"{batch}, number of steps {NOT_KNOWN} before the download"
    tokens = "" if plan.training_tokens is None else f", {count(plan.training_tokens)} tokens"
    return f"{batch}, {plural(plan.optimizer_steps, 'optimizer step')}{tokens}"


def processes_text(planned: PlannedProcesses) -> str:
    """How many of the visible GPUs a job uses, and why."""
    return f"{planned.number} of {planned.visible} visible in use: {planned.reason}"


def _mode(plan: JobPlan) -> str:
    if plan.config.machine.accelerate_config:
        return "plain loop, weights divided between the GPUs (FSDP)"
    return f"{plan.look.execution_modes[0]}; if that does not work, the next slower one"


def _memory(plan: JobPlan) -> str:
    memory = plan.memory
    free = "" if memory.free_bytes is None else f"; {gib(memory.free_bytes)} free here"
    if plan.config.machine.accelerate_config:
        return f"about {gib(memory.least_bytes)} on each GPU, with one row at a time{free}"
    return (
        f"about {gib(memory.least_bytes)} in the leanest mode; the fastest is used where about "
        f"{gib(memory.fastest_bytes)} are free{free}"
    )


def cards_lines(memory: PlannedMemory) -> Iterator[str]:
    """What GPUs of common sizes can do, a line for those that can do the same."""
    for can_do, group in groupby(memory.cards, key=_can_do):
        sizes = listed([f"{card.card_bytes / 10**9:.0f}" for card in group])
        yield f"{sizes} GB: {can_do}"


def _can_do(card: CardFit) -> str:
    if card.mode is None or card.gpus is None:
        return f"too small, also for weights sharded over {MOST_GPUS} of them"
    return card.mode if card.gpus == 1 else f"only with {card.mode}"


def sum_lines(memory: PlannedMemory) -> Iterator[str]:
    """The sum of each execution mode, from the leanest to the fastest, then of sharded weights."""
    for mode in (*memory.modes, *memory.sharded):
        yield f"{mode.mode}: {gib(mode.total_bytes)}{' on each' * (mode.gpus > 1)}"
        yield "  = " + " + ".join(f"{gib(term.size_bytes)} {term.name}" for term in mode.terms)


def _disk(disk: PlannedDisk) -> str:
    needed = NOT_KNOWN if disk.needed_bytes is None else f"about {size_text(disk.needed_bytes)}"
    free = NOT_KNOWN if disk.free_bytes is None else size_text(disk.free_bytes)
    return f"{disk.folder}: {needed} for {disk.purpose}, {free} free"


def _time(plan: JobPlan) -> str:
    time = plan.time
    if time.job is None or time.training is None:
        return time.basis
    return f"{_span(time.job)}, of which training {_span(time.training)}\n{time.basis}"


def _cost(plan: JobPlan) -> str:
    """The cost of the expected time; "" where time or price is not known."""
    report, job = plan.config.report, plan.time.job
    number = plan.processes.number if plan.processes else 1
    gpus = [plan.look.device_name] * number if plan.look.device_name else []
    price = price_per_hour(report, gpus)
    if job is None or price is None:
        return ""
    low, high = (
        money(price * s / SECONDS_AN_HOUR, report.currency) for s in (job.low_s, job.high_s)
    )
    return f"{low} to {high} at {money(price, report.currency)} an hour"


def _span(span: Span) -> str:
    return f"{clock(span.low_s)} to {clock(span.high_s)}"


def _gates(plan: JobPlan) -> str:
    report = plan.config.report
    gates = []
    if report.min_accuracy is not None:
        gates.append(f"test accuracy of at least {percent(report.min_accuracy)}")
    if report.min_gain is not None:
        gates.append(f"gain of at least {100 * report.min_gain:g} points")
    return f"{' and '.join(gates)}, else exit code {int(ExitCode.GATE_FAILED)}"
