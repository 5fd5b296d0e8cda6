"""The front matter of a model card: what the Hugging Face hub reads of it.

The keys are those of the hub's model card specification: base model, data set, evaluation results
("model-index") and emissions. It is YAML; each value is written as JSON, which YAML reads too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nlijob.analysis.wording import counted, decimal
from nlijob.config import JobConfig
from nlijob.records.outcome import Results

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
DEMO = "demo"
"""Names the demo's model and data, which come with the package."""
LOCAL = "local"
"""Stands for the hub's name of a data set that has none."""
DECIMALS = 4
TAGS = ("natural-language-inference", "qlora", "nlijob")


@dataclass(frozen=True)
class Metric:
    """A figure of the model on the test rows."""

    type: str
    """Its name on the hub."""
    name: str
    value: float


def run_metrics(results: Results) -> tuple[Metric, ...]:
    """The figures of the tuned model whose adapter is kept."""
    tuned = results.tuned
    return (
        Metric("accuracy", "accuracy", tuned.accuracy),
        Metric("balanced_accuracy", "balanced accuracy", tuned.balanced_accuracy),
        Metric("f1", "macro F1", tuned.macro_f1),
    )


def front_matter(
    results: Results, library: str, metrics: Sequence[Metric], elsewhere: bool = False
) -> str:
    """The lines between the dashes, with their line breaks.

    `metrics` are those on the test rows; `elsewhere` adds the accuracy on further test sets.
    """
    config = results.run.config
    lines = [
        *_origin(config),
        f"library_name: {library}",
        f"tags: {_value(TAGS)}",
        f"metrics: {_value([metric.type for metric in metrics])}",
        *_emissions(results),
        "model-index:",
        f"- name: {_value(f'{_short(config.model.name)} tuned on {_short(config.data.dataset)}')}",
        "  results:",
        *_result(_test_rows(results), metrics),
    ]
    for one in results.transfer if elsewhere else ():
        where = one.manifest
        lines += _result(
            _dataset(
                where.name, where.dataset, where.config_name, where.source_split, where.revision
            ),
            [Metric("accuracy", "accuracy", one.tuned.accuracy)],
        )
    return "".join(f"{line}\n" for line in lines)


def _origin(config: JobConfig) -> Iterator[str]:
    """Base model and data set, unless they are a folder or the demo.

    The hub refuses cards with names that cannot be its own.
    """
    if _is_on_hub(config.model.name):
        yield f"base_model: {_value(config.model.name)}"
    if _is_on_hub(config.data.dataset):
        yield f"datasets: {_value([config.data.dataset])}"


def _test_rows(results: Results) -> dict[str, str]:
    manifest = results.manifest
    return _dataset(
        _short(manifest.dataset),
        manifest.dataset,
        manifest.config_name,
        results.run.config.data.test_split,
        manifest.revision,
    )


def _dataset(
    name: str, dataset: str, config: str | None, split: str, revision: str | None
) -> dict[str, str]:
    """A data set as the specification describes it; what is not known is left out."""
    on_hub = _is_on_hub(dataset)
    known = {
        "name": name,
        "type": dataset if on_hub else LOCAL,
        "config": config if on_hub else None,
        "split": split,
        "revision": revision if on_hub else None,
    }
    return {key: value for key, value in known.items() if value}


def _result(dataset: dict[str, str], metrics: Sequence[Metric]) -> Iterator[str]:
    yield "  - task:"
    yield "      type: text-classification"
    yield "      name: Natural language inference"
    yield "    dataset:"
    yield from (f"      {key}: {_value(value)}" for key, value in dataset.items())
    yield "    metrics:"
    for metric in metrics:
        yield f"    - type: {metric.type}"
        yield f"      name: {metric.name}"
        yield f"      value: {round(metric.value, DECIMALS)}"


def _emissions(results: Results) -> Iterator[str]:
    """Emissions in grams of CO2 equivalents, if they are known."""
    found = results.emissions
    if found is None:
        return
    yield "co2_eq_emissions:"
    yield f"  emissions: {decimal(found.co2eq_g).replace(',', '')}"
    source = f"energy of the GPUs, at {found.carbon_g_per_kwh:g} g of CO2 equivalents per kWh"
    yield f"  source: {_value(source)}"
    yield "  training_type: fine-tuning"
    hardware = counted([gpu.name for gpu in results.environment.gpus])
    yield f"  hardware_used: {_value(hardware)}"


def _is_on_hub(name: str) -> bool:
    """Whether the name can be one of the hub's."""
    return name != DEMO and HUB_NAME.fullmatch(name) is not None


def _short(name: str) -> str:
    """A name without its owner, or that of a folder without the way to it."""
    return PurePath(name).name or name


def _value(value: str | Sequence[str]) -> str:
    return json.dumps(value, ensure_ascii=False)
