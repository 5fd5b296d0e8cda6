"""Scores a model on the further test sets, in the same way as on the run's own rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nlijob.gpu.reporting import Part
from nlijob.gpu.session import Session
from nlijob.records.transfer import TransferPrediction
from nlijob.rundir import write_text


def score_sets(session: Session, stage: str, file: Callable[[str], Path]) -> list[Path]:
    """Score the model as it is now on every set, and return the files that were written.

    `file` gives the file for the answers to the set of a name.
    """
    written = []
    for name, rows in session.further_rows.items():
        part = Part(f"further set {name}")
        _, answers = session.score_rows(stage, part, "test", session.head, rows)
        lines = (TransferPrediction(a.index, a.probabilities, a.tokens).line() for a in answers)
        write_text(file(name), "".join(lines))
        written.append(file(name))
    return written
