"""Reads finished runs for other commands, or says why a folder holds none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from nlijob.analysis.figures import wrong_rows
from nlijob.analysis.wording import listed, plural
from nlijob.belonging import changed_files, doubts
from nlijob.kept import kept_view
from nlijob.records.job import FORMAT_VERSION, Example, Prediction, WorkerOutcome, of_split
from nlijob.records.older import READABLE
from nlijob.records.outcome import Results
from nlijob.records.serialization import from_json, parse, read, read_lines
from nlijob.rundir import RunDir
from nlijob.stages import STAGE_NAMES
from nlijob.trials import trials_of

State = Literal["unfinished", "other version", "damaged"]
LONGEST_REASON = 300
"""Longest message, in characters, that is quoted from elsewhere."""


class NoOutcomeError(Exception):
    """The folder has no readable outcome; `state` is the kind of failure, `reason` explains it."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


def read_outcome(run: RunDir) -> Results:
    """The outcome of a run.

    Raises NoOutcomeError where it is missing or unreadable, has changed since it was written, or is
    not of the settings and stages in the folder. A results.json that somebody copied into a folder
    of its own is taken as it is.
    """
    results = _read_outcome(run)
    if run.config.exists() or run.marked():
        _check_belonging(run)
    return results


def _check_belonging(run: RunDir) -> None:
    for doubt in doubts(run, with_report=True):
        raise NoOutcomeError(doubt.kind, doubt.text)
    marker, name = run.read_marker("report"), run.name(run.results)
    if marker is None or marker.inputs is None:
        return  # versions that wrote formats 2 and 3 did not mark a report that was rendered again
    if run.changed({file: stamp for file, stamp in marker.files.items() if file == name}):
        raise NoOutcomeError("damaged", f"{name} has changed since it was written")


def _read_outcome(run: RunDir) -> Results:
    try:
        text = run.results.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NoOutcomeError("unfinished", _how_far(run)) from None
    except OSError as error:
        reason = f"results.json cannot be read: {error.strerror}"
        raise NoOutcomeError("damaged", reason) from error
    except UnicodeDecodeError as error:
        raise NoOutcomeError("damaged", "results.json is not UTF-8 text") from error
    try:
        value = parse(text)
    except ValueError as error:
        raise NoOutcomeError("damaged", f"results.json is not JSON: {_short(error)}") from error
    try:
        results = from_json(Results, value)
    except (ValueError, TypeError) as error:
        raise NoOutcomeError(*_misfit(value, error)) from error
    if results.format_version != FORMAT_VERSION:
        raise NoOutcomeError(*_misfit(value, None))
    _check(results)
    return results


def read_test_rows(
    run: RunDir, results: Results
) -> tuple[list[Example], list[Prediction], list[Prediction]]:
    """The test rows, and the predictions of the base model and of the tuned model for them.

    Raises NoOutcomeError where a file is missing, damaged, or does not match results.json.
    """
    for doubt in changed_files(run):
        raise NoOutcomeError("damaged", doubt.text)
    try:
        examples = results.prompt.kept("test", read_lines(Example, run.subset("test")))
        base = of_split(read_lines(Prediction, run.baseline_predictions), "test")
        kept = kept_view(run, results.run.config)
        tuned = of_split(read_lines(Prediction, kept.evaluate_predictions), "test")
    except OSError as error:
        reason = f"{_name(run, error.filename)} cannot be read: {error.strerror}"
        raise NoOutcomeError("damaged", reason) from error
    except ValueError as error:
        raise NoOutcomeError("damaged", f"the rows cannot be read: {_short(error)}") from error
    for predictions, metrics in ((base, results.base), (tuned, results.tuned)):
        correct = sum(row.is_right for row in predictions)
        if (len(predictions), correct) != (metrics.rows, metrics.correct):
            raise NoOutcomeError("damaged", "the predictions do not match results.json")
    for rows in (base, tuned):
        if {row.index for row in rows} != {row.index for row in examples}:
            raise NoOutcomeError("damaged", "the predictions are not for the rows in subset/")
    gold = {row.index: row.label for row in examples}
    if any(row.label != gold[row.index] for row in (*base, *tuned)):
        raise NoOutcomeError("damaged", "the predictions have other gold labels than subset/")
    return examples, base, tuned


def read_trial_rows(run: RunDir, results: Results) -> list[list[Prediction]]:
    """The predictions of all trainings for the test rows; empty if the run has one training.

    Call it after `read_test_rows`, which checks the files. Raises NoOutcomeError where a file is
    missing, damaged, or does not match results.json.
    """
    if results.trials is None:
        return []
    try:
        found = trial_predictions(run, results)
    except OSError as error:
        reason = f"{_name(run, error.filename)} cannot be read: {error.strerror}"
        raise NoOutcomeError("damaged", reason) from error
    except ValueError as error:
        raise NoOutcomeError("damaged", f"the rows cannot be read: {_short(error)}") from error
    rows = {row.index: row.label for row in found.get(results.trials.kept, ())}
    for outcome in results.trials.trials:
        own = found.get(outcome.name, [])
        if {row.index: row.label for row in own} != rows:
            raise NoOutcomeError("damaged", f"{outcome.name} was scored on other test rows")
        if sum(row.is_right for row in own) != outcome.correct:
            raise NoOutcomeError(
                "damaged", f"the predictions of {outcome.name} do not match results.json"
            )
    return [found[outcome.name] for outcome in results.trials.trials]


def trial_predictions(run: RunDir, results: Results) -> dict[str, list[Prediction]]:
    """Name of each training of a run -> its predictions for the test rows, in the file's order.

    Raises OSError where a file is missing, ValueError where one is damaged.
    """
    return {
        trial.name: of_split(
            read_lines(Prediction, run.of_trial(trial).evaluate_predictions), "test"
        )
        for trial in trials_of(results.run.config)
    }


# ---------------------------------------------------------------- detail


def _check(results: Results) -> None:
    """Check what types alone do not ensure and later arithmetic relies on."""
    rows, wrong = results.tuned.rows, results.tuned.rows - results.tuned.correct
    if rows <= 0 or len(wrong_rows(results)) != wrong:
        raise NoOutcomeError("damaged", "results.json contradicts itself about the test rows")
    if "test" not in results.manifest.splits:
        raise NoOutcomeError("damaged", "results.json does not describe the test rows")


def _misfit(value: Any, error: Exception | None) -> tuple[State, str]:
    """State and reason for an outcome that is JSON but does not match this version's records."""
    value = value if isinstance(value, dict) else {}
    run = value.get("run")
    version = run.get("nlijob_version") if isinstance(run, dict) else None
    form = value.get("format_version")
    if isinstance(form, int) and isinstance(version, str) and form != FORMAT_VERSION:
        return (
            "other version",
            f"written by nlijob {version[:40]} in record format {form}; this version reads "
            f"{listed([str(one) for one in READABLE])}",
        )
    fault = str(error).removeprefix("not a Results: ").partition("; ")[0]
    by = f" (nlijob {version[:40]})" if isinstance(version, str) else ""
    return "other version", f"written by another version{by}: {_cut(fault)}"


def _how_far(run: RunDir) -> str:
    """Which stages of an unfinished run are complete, and how its last attempt ended."""
    marked = run.marked()
    done = [stage for stage in STAGE_NAMES if stage in marked]
    epochs = run.count_marked_epochs()
    if epochs and "train" not in done:
        done.append(plural(epochs, "epoch"))
    reached = f"complete so far: {listed(done)}" if done else "no stage is complete"
    return f"no results.json; {reached}{_how_it_ended(run)}"


def _how_it_ended(run: RunDir) -> str:
    try:
        outcome = read(WorkerOutcome, run.worker_outcome)
    except (OSError, ValueError):
        return ""
    if not outcome.exit_code:
        return ""
    return f"; its last attempt ended with exit code {outcome.exit_code}: {_cut(outcome.message)}"


def _name(run: RunDir, path: str | bytes | None) -> str:
    try:
        return str(Path(str(path)).relative_to(run.root))
    except ValueError:
        return "a file of the run"


def _short(error: BaseException) -> str:
    return _cut(str(error).partition("\n")[0]) or type(error).__name__


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
