"""Made-up inputs of stages, for tests that only need inputs that are the same or differ."""

from __future__ import annotations

from nlijob.records.job import Inputs


def made_from(name: str) -> Inputs:
    """Inputs that are the same for the same name."""
    return Inputs({}, {}, name)
