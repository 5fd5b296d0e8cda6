"""How large the model is, and what was trained."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.analysis.wording import count, gib, percent
from nlijob.config import ModelConfig
from nlijob.heads import describe
from nlijob.records import ParameterCounts, Results
from nlijob.report.view.parts import Fact, Row, Table, columns


@dataclass(frozen=True)
class Parameters:
    """How large the model is and what was trained."""

    counts: Table
    explanation: str
    facts: tuple[Fact, ...]
    modules: Table


def parameters_section(results: Results) -> Parameters:
    """Counts and shares of trained weights, the LoRA settings, the modules matched."""
    counts, config = results.parameters, results.run.config
    lora, model = config.lora, config.model
    return Parameters(
        counts=_counts_table(counts, describe(model.head).title),
        explanation=_totals_explained(counts),
        facts=(
            Fact("LoRA rank r", str(lora.r)),
            Fact("LoRA alpha", str(lora.alpha), f"scale alpha / r = {lora.alpha / lora.r:g}"),
            Fact("LoRA dropout", f"{lora.dropout:g}"),
            Fact("quantisation", _quantization(model)),
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


def _counts_table(counts: ParameterCounts, head: str) -> Table:
    logical, packed = counts.total_logical, counts.total_packed
    rows = [
        Row(("trainable", count(counts.trainable), "")),
        Row(("of these, LoRA", count(counts.lora_parameters), ""), indented=True),
    ]
    if counts.head_parameters:
        rows.append(Row((f"of these, {head}", count(counts.head_parameters), ""), indented=True))
    rows += [
        Row(("total, logical", count(logical), percent(counts.trainable / logical, 3))),
        Row(("total, packed", count(packed), percent(counts.trainable / packed, 3))),
    ]
    return Table("Parameters", columns("", "number", "trainable share of it"), tuple(rows))


def _totals_explained(counts: ParameterCounts) -> str:
    if counts.total_logical == counts.total_packed:
        return "Nothing is stored in 4 bits, so counting weights and stored elements agree."
    return (
        f"Two totals, both right. Logical counts every weight once: {count(counts.total_logical)}. "
        "Packed counts stored elements, and two 4-bit weights share one: "
        f"{count(counts.total_packed)}. Published figures for one and the same model differ by "
        "this alone, and so do shares of trainable weights."
    )


def _quantization(model: ModelConfig) -> str:
    if model.quantization == "none":
        return "none"
    return "4-bit NF4" + (", double quantization" if model.double_quantization else "")
