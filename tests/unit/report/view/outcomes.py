"""Outcomes of made-up runs for the tests of the view, each measured once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nlijob.analysis.outcome import build_results
from nlijob.records import Results
from tests.synthetic import Spec, build_run

_measured: dict[str, Results] = {}


def outcome(spec: Spec) -> Results:
    """The results of a run made up from `spec`; the folder it stood in is gone again."""
    key = repr(spec)
    if key not in _measured:
        with tempfile.TemporaryDirectory() as folder:
            _measured[key] = build_results(build_run(Path(folder), spec))
    return _measured[key]
