"""`export`: writes a run's merged model, or its adapter, into a folder that stands on its own."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from nlijob import __version__, records
from nlijob.analysis.metrics import measure
from nlijob.analysis.outcome import build_results
from nlijob.analysis.premises import premises_of
from nlijob.analysis.wording import count, percent
from nlijob.belonging import unsound
from nlijob.config import Device
from nlijob.console import Console
from nlijob.errors import ConfigurationError, StoppedError
from nlijob.files import Piece, fresh_folder, sha256_of
from nlijob.hub import Hub
from nlijob.launch import GpuSide
from nlijob.records.job import Example, Plan, Prediction, Progress, of_split
from nlijob.records.outcome import Results
from nlijob.records.use import (
    ADAPTER_RECORD,
    AdapterRecord,
    ExportRecord,
    MergedModel,
    SplitAccuracy,
    UseTask,
    shared_config,
)
from nlijob.report.export_card import export_card
from nlijob.report.model_card import model_card
from nlijob.report.render import report_html
from nlijob.rundir import RunDir, write_record, write_text
from nlijob.stopping import Stopped
from nlijob.use.publish import Publisher
from nlijob.use.tuned import (
    SETTINGS,
    WEIGHTS,
    Tuned,
    find_model,
    find_tuned,
    with_device,
    with_model,
)
from nlijob.use.workspace import Workspace, workspace

EXPORT_RECORD = "nlijob-export.json"
MERGED_WEIGHTS = (
    "The weights are those that the run computed with, its 4-bit weights dequantised, plus the "
    "adapter, because the adapter was trained on top of them."
)
UNQUANTIZED_WEIGHTS = "The weights are those of the base model, plus the adapter."


@dataclass(frozen=True)
class Request:
    """What `export` was asked for."""

    run_dir: Path
    target: Path
    adapter: bool = False
    """Export the adapter alone."""
    push: str | None = None
    """Repository on the hub to publish to, as owner/name."""
    public: bool = False
    """Make a new repository public."""
    model: str | None = None
    """Where the base model is now; None where the run had it."""
    device: Device = "auto"
    offline: bool = False


def export(request: Request, console: Console) -> ExportRecord:
    """Write the folder, and publish it where that is asked for. Raises JobError.

    A folder that holds this very export already is only published.
    """
    publisher = None
    if request.push is not None:
        publisher = Publisher(request.push, request.public, console.line)
    tuned = find_tuned(request.run_dir)
    if tuned.run is None:
        raise ConfigurationError(
            f"{request.run_dir} is an adapter without its run, and an export states what both the "
            "run and the exported model score",
            "name the run's folder",
        )
    record = _earlier(request, tuned) if publisher else None
    if record is None:
        _check_target(request.target)
        record = _export(request, tuned, tuned.run, console)
    else:
        console.line(f"      {request.target} holds this export already")
    _say(record, request.target, console)
    if publisher is not None:
        address = publisher.publish(request.target, _what(record))
        console.result(f"Published: {address}")
    return record


def _check_target(target: Path) -> None:
    if os.path.lexists(target):
        raise ConfigurationError(
            f"{target} exists already", "name a folder that does not exist yet, or delete this one"
        )


def _earlier(request: Request, tuned: Tuned) -> ExportRecord | None:
    """The record of the target, if that is the same export of the same run."""
    try:
        found = records.read(ExportRecord, request.target / EXPORT_RECORD)
    except (OSError, ValueError):
        return None
    kind = "adapter" if request.adapter else "merged"
    is_same = found.kind == kind and found.adapter_sha256 == _sha256(tuned.adapter / WEIGHTS)
    return found if is_same else None


def _export(request: Request, tuned: Tuned, run: RunDir, console: Console) -> ExportRecord:
    try:
        results = build_results(run)
    except (OSError, ValueError) as error:
        raise unsound(run, [str(error)], "exported") from error
    try:
        with fresh_folder(request.target.absolute()) as folder:
            if request.adapter:
                record = _export_adapter(tuned, run, results, folder)
            else:
                record = _export_merged(request, tuned, run, results, folder, console)
            write_record(folder / EXPORT_RECORD, record)
            write_text(folder / "report.html", report_html(results, run))
    except Stopped as error:
        raise StoppedError(
            f"stopped ({error})", f"nothing is written to {request.target}; export again"
        ) from error
    return record


# ---------------------------------------------------------------- the adapter


def _export_adapter(tuned: Tuned, run: RunDir, results: Results, folder: Path) -> ExportRecord:
    for name in (SETTINGS, WEIGHTS):
        shutil.copyfile(tuned.adapter / name, folder / name)
    use = AdapterRecord(
        shared_config(tuned.config),
        tuned.stamp or "",
        tuned.label_tokens or (),
        _sha256(folder / WEIGHTS),
        __version__,
    )
    if (tuned.adapter / ADAPTER_RECORD).is_file():
        shutil.copyfile(tuned.adapter / ADAPTER_RECORD, folder / ADAPTER_RECORD)
    elif tuned.stamp is not None:  # of a run by an older version
        write_record(folder / ADAPTER_RECORD, use)
    write_text(folder / "README.md", model_card(results))
    return _record(tuned, run, results, "adapter", "The adapter as it was trained.", "float32")


# ---------------------------------------------------------------- the merged model


def _export_merged(
    request: Request,
    tuned: Tuned,
    run: RunDir,
    results: Results,
    folder: Path,
    console: Console,
) -> ExportRecord:
    predictions, merged = _merge(request, tuned, run, folder, console)
    is_quantized = tuned.config.model.quantization == "nf4"
    weights = MERGED_WEIGHTS if is_quantized else UNQUANTIZED_WEIGHTS
    record = _record(tuned, run, results, "merged", weights, merged.dtype)
    answers = {row.index: row.predicted for row in _run_predictions(run)}
    record = dataclasses.replace(
        record,
        export_test=_accuracy(run, results, predictions),
        same_answers=sum(answers[row.index] == row.predicted for row in predictions),
    )
    write_text(folder / "README.md", export_card(results, record))
    return record


def _merge(
    request: Request, tuned: Tuned, run: RunDir, folder: Path, console: Console
) -> tuple[list[Prediction], MergedModel]:
    """Have the GPU side write the merged model into a folder, and score it."""
    config = with_device(with_model(tuned.config, request.model), request.device)
    tuned = dataclasses.replace(tuned, config=config)

    def show(progress: Progress) -> None:
        if progress.unit:
            console.progress(progress)
        elif progress.stage == "export":
            console.line(f"      {progress.note}")

    device, trusts_code = config.model.device, config.model.trust_remote_code
    with (
        workspace() as place,
        GpuSide(place.run, device, work="export", trusts_code=trusts_code) as gpu_side,
    ):
        gpu_side.start()
        model_dir, stamp = find_model(tuned, Hub(request.offline, console.line), console.warn)
        task = UseTask(
            str(tuned.adapter.absolute()),
            tuned.label_tokens,
            str(folder),
            config.eval.batch_size if _rows_keep_apart(run) else 1,
        )
        scored = {row.index for row in _run_predictions(run)}
        rows = records.read_lines(Example, run.subset("test"))
        test = [row for row in rows if row.index in scored]
        place.prepare(config, task, tuned.checked_rows, test)
        place.give(gpu_side, model_dir, stamp)
        gpu_side.follow(show)
        return _merged(place)


def _merged(place: Workspace) -> tuple[list[Prediction], MergedModel]:
    predictions = list(records.read_lines(Prediction, place.predictions))
    return predictions, records.read(MergedModel, place.merged)


def _rows_keep_apart(run: RunDir) -> bool:
    """Whether the run computed several rows at once in packs, so that none influences another."""
    return records.read(Plan, run.plan).way not in ("plain", "sharded")


# ---------------------------------------------------------------- figures


def _record(
    tuned: Tuned, run: RunDir, results: Results, kind: str, weights: str, dtype: str
) -> ExportRecord:
    return ExportRecord(
        kind="adapter" if kind == "adapter" else "merged",
        run_id=results.run.run_id,
        base_model=results.run.config.model.name,
        base_revision=results.run.config.model.revision,
        model_stamp=tuned.stamp or "",
        adapter_sha256=_sha256(tuned.adapter / WEIGHTS),
        config=shared_config(results.run.config),
        weights=weights,
        dtype=dtype,
        run_test=_accuracy(run, results, _run_predictions(run)),
        export_test=None,
        same_answers=None,
        nlijob_version=__version__,
    )


def _run_predictions(run: RunDir) -> list[Prediction]:
    return of_split(records.read_lines(Prediction, run.evaluate_predictions), "test")


def _accuracy(run: RunDir, results: Results, predictions: list[Prediction]) -> SplitAccuracy:
    premises = premises_of(records.read_lines(Example, run.subset("test")))
    measured = measure(predictions, results.manifest.label_names, premises)
    return SplitAccuracy(measured.rows, measured.correct, measured.accuracy_interval)


def _sha256(file: Path) -> str:
    return sha256_of([Piece(file)])[0]


def _what(record: ExportRecord) -> str:
    return "adapter" if record.kind == "adapter" else "merged model"


def _say(record: ExportRecord, target: Path, console: Console) -> None:
    run, merged = record.run_test, record.export_test
    if merged is not None:
        console.result(
            f"Test accuracy of the run {percent(run.accuracy)}, of the merged model "
            f"{percent(merged.accuracy)} ({count(run.correct)} and {count(merged.correct)} of "
            f"{count(run.rows)} rows; {count(record.same_answers or 0)} answered alike)"
        )
    console.result(f"Exported: {target} ({_what(record)})")
