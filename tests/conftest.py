"""Settings that must stand before torch is imported."""

from __future__ import annotations

import os

# Test processes share the cores; waiting OpenMP threads must not spin on them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
