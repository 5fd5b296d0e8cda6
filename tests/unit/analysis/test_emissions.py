"""Emissions follow from the measured energy and the configured intensity, or are not measured."""

from __future__ import annotations

from nlijob.analysis.emissions import job_emissions
from nlijob.config import ReportConfig
from nlijob.records.outcome import Emissions


def test_emissions_are_energy_times_intensity() -> None:
    half_a_kwh = 1.8e6
    found = job_emissions(ReportConfig(carbon_g_per_kwh=400), half_a_kwh)
    assert found == Emissions(co2eq_g=200, carbon_g_per_kwh=400, energy_j=half_a_kwh)


def test_without_intensity_or_energy_there_are_none() -> None:
    assert job_emissions(ReportConfig(), 1.8e6) is None
    assert job_emissions(ReportConfig(carbon_g_per_kwh=400), None) is None


def test_a_grid_without_carbon_has_no_emissions() -> None:
    found = job_emissions(ReportConfig(carbon_g_per_kwh=0), 1.8e6)
    assert found
    assert found.co2eq_g == 0
