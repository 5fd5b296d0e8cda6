"""Settings that must stand before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path

# Test processes share the cores; waiting OpenMP threads must not spin on them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes that tests start import this checkout, as pytest itself does, whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
)
