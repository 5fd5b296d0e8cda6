"""What a job prints at its end beside the result: the verdict, and what to do next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nlijob.records.job import Split
from nlijob.records.outcome import Results
from nlijob.report.view.summary import summary_section
from nlijob.report.view.text import NBSP
from nlijob.terminal import Style

TONES = {"better": Style.GOOD, "worse": Style.BAD, "unclear": Style.CAUTION}
SEVERAL_TRAININGS = 3
"""Number of trainings to propose: the fewest whose spread says something."""
OWN_ROWS = "rows.jsonl"


class Verdict(NamedTuple):
    """The result in a sentence."""

    text: str
    style: Style


class NextStep(NamedTuple):
    """Something that the user could do next."""

    purpose: str
    command: str
    """To be copied into a shell."""


def verdict_of(results: Results) -> Verdict:
    """The verdict of the report's first screen."""
    summary = summary_section(results)
    return Verdict(summary.verdict.replace(NBSP, " "), TONES[summary.tone])


def next_steps(results: Results, root: Path, program: Sequence[str]) -> list[NextStep]:
    """What fits the outcome of a run in the folder `root`.

    `program`: the words that start nlijob (see `own_program`).
    """
    steps = list(_uses(results, root, program))
    for purpose, drop, add in _repetitions(results):
        if words := _changed(results.run.command, drop, add):
            steps.append(NextStep(purpose, shlex.join([*program, *words])))
    return steps


def own_program() -> list[str]:
    """The words with which this program can be started again from the same folder."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return [*_python(), "-m", "nlijob"]
    if script.suffix == ".py":
        return [*_python(), sys.argv[0]]
    found = shutil.which(script.name)
    is_known = found is not None and Path(found).resolve() == script.resolve()
    return [script.name if is_known else sys.argv[0]]


def _python() -> list[str]:
    """The interpreter, by its path below the current folder where it is there."""
    folder = os.path.join(os.getcwd(), "")
    return [sys.executable.removeprefix(folder)]


def _uses(results: Results, root: Path, program: Sequence[str]) -> Iterator[NextStep]:
    """What a better model is good for."""
    if summary_section(results).tone != "better":
        return
    words = [*program, "predict", str(root), OWN_ROWS]
    yield NextStep(
        f"label rows of your own ({OWN_ROWS}: premise and hypothesis)", shlex.join(words)
    )
    words = [*program, "export", str(root), f"{root.name}-merged"]
    yield NextStep("have the model as a folder of its own, merged", shlex.join(words))


_Change = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Purpose, options to leave out of the job's command, and words to add to it."""


def _repetitions(results: Results) -> Iterator[_Change]:
    """Jobs that would say more than this one."""
    is_clear = summary_section(results).tone == "better"
    if not is_clear and _has_more(results, "test"):
        yield "score all test rows, as the change is unclear on these", *_all_rows("test")
    if not is_clear and _has_more(results, "train"):
        yield "train on all rows", *_all_rows("train")
    if results.trials is None:
        several = ("--seeds", str(SEVERAL_TRAININGS))
        yield "see how much one training differs from another", ("--seeds",), several


def _all_rows(split: Split) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The change that takes all rows of a split, in a run of its own name."""
    names = (f"--{split}-size", f"--{split}-stride")
    return (*names, "--run-id"), (names[0], "0")


def _has_more(results: Results, split: Split) -> bool:
    rows = results.manifest.splits[split]
    return rows.selected < rows.source_rows


def _changed(command: Sequence[str], drop: Sequence[str], add: Sequence[str]) -> list[str] | None:
    """The job's command with some options left out and others added.

    None where it cannot be repeated: addresses in it were cut when it was recorded.
    """
    if any(word.endswith("://...") for word in command):
        return None
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word in drop:
            next(words, None)  # its value
        elif word.partition("=")[0] not in drop:
            kept.append(word)
    return [*kept, *add]
