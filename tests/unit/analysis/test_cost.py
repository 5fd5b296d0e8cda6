"""What the job's time cost, at the price that was given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nlijob.analysis.cost import job_cost
from nlijob.config import ReportConfig
from nlijob.records import Environment, GpuInfo
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome

TABLE = {"H200": 4.0, "H200 NVL": 3.0, "T4": 0.5}


def machine(*gpu_names: str) -> Environment:
    gpus = tuple(GpuInfo(name, None, "9.0", 2**37, None) for name in gpu_names)
    return replace(outcome(Spec()).environment, gpus=gpus)


def test_half_an_hour_costs_half_the_hourly_price() -> None:
    cost = job_cost(ReportConfig(price_per_hour=3.2, currency="EUR"), machine(), 1800)
    assert cost is not None
    assert (cost.amount, cost.currency, cost.price_per_hour) == (1.6, "EUR", 3.2)


def test_without_a_price_there_is_no_cost() -> None:
    assert job_cost(ReportConfig(), machine("NVIDIA H200"), 1800) is None


@pytest.mark.parametrize(
    ("gpus", "hourly"),
    [
        (("NVIDIA H200",), 4.0),
        (("nvidia h200 nvl",), 3.0),
        (("Tesla T4", "Tesla T4"), 1.0),
    ],
)
def test_the_table_gives_the_price_of_every_gpu_in_use(
    gpus: tuple[str, ...], hourly: float
) -> None:
    cost = job_cost(ReportConfig(gpu_prices_per_hour=TABLE), machine(*gpus), 3600)
    assert cost is not None
    assert cost.price_per_hour == cost.amount == hourly


@pytest.mark.parametrize("gpus", [(), ("NVIDIA L4",), ("Tesla T4", "NVIDIA L4")])
def test_a_gpu_that_is_not_in_the_table_leaves_the_cost_unknown(gpus: tuple[str, ...]) -> None:
    assert job_cost(ReportConfig(gpu_prices_per_hour=TABLE), machine(*gpus), 3600) is None


def test_the_price_of_the_machine_wins_over_the_table() -> None:
    asked = ReportConfig(price_per_hour=9.0, gpu_prices_per_hour=TABLE)
    cost = job_cost(asked, machine("Tesla T4"), 3600)
    assert cost is not None
    assert cost.amount == 9.0
    assert "machine" in cost.source
