"""Settings that must stand before torch is imported."""

from __future__ import annotations

import os

# Test processes share the cores: each computes alone, and waiting OpenMP threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_cores = len(os.sched_getaffinity(0))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores // _workers)))
