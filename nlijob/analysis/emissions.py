"""Emissions of the job's energy at the configured carbon intensity of the grid."""

from __future__ import annotations

from nlijob.config import ReportConfig
from nlijob.records.outcome import Emissions

JOULES_A_KWH = 3.6e6


def job_emissions(asked: ReportConfig, energy_j: float | None) -> Emissions | None:
    """Emissions of the energy of all GPUs, in joules.

    None where no intensity was given, or where the energy was not measured.
    """
    intensity = asked.carbon_g_per_kwh
    if intensity is None or energy_j is None:
        return None
    return Emissions(energy_j / JOULES_A_KWH * intensity, intensity, energy_j)
