"""The cost of the job's time at the configured price."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nlijob.analysis.cost import job_cost
from nlijob.analysis.resources import GpusInUse
from nlijob.config import ReportConfig
from nlijob.records.job import GpuInfo, Machine
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome

TABLE = {"H200": 4.0, "H200 NVL": 3.0, "T4": 0.5}


def gpus(*names: str) -> tuple[GpuInfo, ...]:
    return tuple(GpuInfo(name, None, "9.0", 2**37, None) for name in names)


def machine(*gpu_names: str) -> GpusInUse:
    """The same GPUs in all attempts."""
    return GpusInUse(replace(outcome(Spec()).environment, gpus=gpus(*gpu_names)), [])


def test_half_an_hour_costs_half_the_hourly_price() -> None:
    cost = job_cost(ReportConfig(price_per_hour=3.2, currency="EUR"), machine(), {1: 1800})
    assert cost is not None
    assert (cost.amount, cost.currency, cost.price_per_hour) == (1.6, "EUR", 3.2)


def test_without_a_price_there_is_no_cost() -> None:
    assert job_cost(ReportConfig(), machine("NVIDIA H200"), {1: 1800}) is None


@pytest.mark.parametrize(
    ("names", "hourly"),
    [
        (("NVIDIA H200",), 4.0),
        (("nvidia h200 nvl",), 3.0),
        (("Tesla T4", "Tesla T4"), 1.0),
    ],
)
def test_the_table_gives_the_price_of_every_gpu_in_use(
    names: tuple[str, ...], hourly: float
) -> None:
    cost = job_cost(ReportConfig(gpu_prices_per_hour=TABLE), machine(*names), {1: 3600})
    assert cost is not None
    assert cost.price_per_hour == cost.amount == hourly


@pytest.mark.parametrize("names", [(), ("NVIDIA L4",), ("Tesla T4", "NVIDIA L4")])
def test_a_gpu_that_is_not_in_the_table_leaves_the_cost_unknown(names: tuple[str, ...]) -> None:
    assert job_cost(ReportConfig(gpu_prices_per_hour=TABLE), machine(*names), {1: 3600}) is None


def test_the_price_of_the_machine_takes_precedence_over_the_table() -> None:
    asked = ReportConfig(price_per_hour=9.0, gpu_prices_per_hour=TABLE)
    cost = job_cost(asked, machine("Tesla T4"), {1: 3600})
    assert cost is not None
    assert cost.amount == 9.0
    assert "machine" in cost.source


def test_each_attempt_costs_what_its_gpus_do() -> None:
    asked = ReportConfig(gpu_prices_per_hour=TABLE)
    in_use = GpusInUse(
        replace(outcome(Spec()).environment, gpus=gpus("NVIDIA H200")),
        [Machine(1, gpus("Tesla T4")), Machine(2, gpus("NVIDIA H200"))],
    )
    cost = job_cost(asked, in_use, {1: 3 * 3600, 2: 3600})
    assert cost is not None
    assert (cost.amount, cost.price_per_hour) == (5.5, 1.375)


def test_an_attempt_of_unknown_price_leaves_the_cost_unknown() -> None:
    asked = ReportConfig(gpu_prices_per_hour=TABLE)
    environment = replace(outcome(Spec()).environment, gpus=gpus("NVIDIA H200"))
    in_use = GpusInUse(environment, [Machine(1, gpus("NVIDIA L4"))])
    assert job_cost(asked, in_use, {1: 60, 2: 3600}) is None
