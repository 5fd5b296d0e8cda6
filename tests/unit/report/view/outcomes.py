"""Outcomes of made-up runs for the tests of the view, each measured once."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from nlijob.analysis.outcome import build_results
from nlijob.records import Results
from tests.synthetic import Spec, build_run


@functools.cache
def outcome(spec: Spec) -> Results:
    """The results of a run made up from `spec`; the folder it stood in is gone again."""
    with tempfile.TemporaryDirectory() as folder:
        return build_results(build_run(Path(folder), spec))
