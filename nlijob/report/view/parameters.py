"""Size of the model, and the parameters that were trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from nlijob.analysis.wording import count, gib, percent
from nlijob.config import ModelConfig
from nlijob.heads import describe
from nlijob.records.job import HeadOrigin, ParameterCounts
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Fact, Table, View, columns, row

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""The number of a layer within a module's name."""


def parameters_section(results: Results) -> View:
    """Parameter counts, LoRA settings and matched modules."""
    counts, config = results.parameters, results.run.config
    lora, model = config.lora, config.model
    return View(
        counts=_counts_table(counts, describe(model.head).title),
        explanation=_totals_explained(counts),
        facts=(
            Fact("LoRA rank r", str(lora.r)),
            Fact("LoRA alpha", str(lora.alpha), f"scale alpha / r = {lora.alpha / lora.r:g}"),
            Fact("LoRA dropout", f"{lora.dropout:g}"),
            Fact("quantisation", *_quantization(model, results)),
            Fact("quantised modules", count(counts.quantized_modules)),
            Fact("compute dtype", results.environment.compute_dtype),
            Fact(
                "base weights in memory",
                gib(counts.base_memory_bytes),
                "including quantisation constants",
            ),
            *_head(model, results.environment.head),
            *_own_code(model),
        ),
        modules=Table(
            "Target modules",
            columns("name", "modules matched"),
            tuple(row(name, count(n)) for name, n in _by_kind(counts).items()),
        ),
    )


def _by_kind(counts: ParameterCounts) -> dict[str, int]:
    """Modules matched by name; a module that has the same name in each layer is one line."""
    kinds: Counter[str] = Counter()
    for name, number in counts.matched_modules.items():
        kinds[NUMBER.sub("*", name)] += number
    return kinds


def _counts_table(counts: ParameterCounts, head: str) -> Table:
    logical, packed = counts.total_logical, counts.total_packed
    rows = [
        row("trainable", count(counts.trainable), ""),
        row("of these, LoRA", count(counts.lora_parameters), "", indented=True),
    ]
    if counts.head_parameters:
        rows.append(row(f"of these, {head}", count(counts.head_parameters), "", indented=True))
    rows += [
        row("total, logical", count(logical), percent(counts.trainable / logical, 3)),
        row("total, packed", count(packed), percent(counts.trainable / packed, 3)),
    ]
    return Table("Parameters", columns("parameters", "number", "trainable share"), tuple(rows))


def _totals_explained(counts: ParameterCounts) -> str:
    if counts.total_logical == counts.total_packed:
        return "Nothing is stored in 4 bits, so both totals are the same."
    return (
        "Both totals are correct. The logical total counts every weight once: "
        f"{count(counts.total_logical)}. The packed total counts stored elements, and two 4-bit "
        f"weights share one element: {count(counts.total_packed)}. Published figures for the same "
        "model often differ only in this, and so do trainable shares."
    )


def _quantization(model: ModelConfig, results: Results) -> tuple[str, str]:
    """How weights are held, and which linear modules are held otherwise."""
    if model.quantization == "none":
        return "none", ""
    if not results.parameters.quantized_modules:
        return "none", "4 bits do not support this model's layers"
    environment = results.environment
    double = environment.double_quantization
    if double is None:  # an older run
        double = model.double_quantization
    others = ", ".join(environment.unquantized_modules or ())
    return (
        "4-bit NF4" + (", double quantisation" if double else ""),
        f"all linear modules but {others}" if others else "",
    )


def _own_code(model: ModelConfig) -> Iterator[Fact]:
    if model.trust_remote_code:
        yield Fact("code that came with the model", "allowed", "model.trust_remote_code")


def _head(model: ModelConfig, origin: HeadOrigin | None) -> Iterator[Fact]:
    """The head, where its weights come from, and what else the checkpoint has."""
    note = ""
    if origin and origin.new:
        modules = " and ".join(origin.new)
        note = f"{modules}: new, drawn from the seed, as {origin.reason}"
    elif origin:
        note = origin.reason
    yield Fact("head", model.head, note)
    if origin and origin.unused:
        yield Fact("not used", ", ".join(origin.unused), "in the checkpoint, but not in this task")
