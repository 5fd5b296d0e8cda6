"""Finds what a command is to use: a run's adapter, or an adapter that was taken out of its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nlijob import records
from nlijob.belonging import check_whole, unsound
from nlijob.config import Device, JobConfig
from nlijob.errors import HardwareError, NotAvailableError, first_line
from nlijob.files import Piece, sha256_of
from nlijob.hub import Hub, model_files
from nlijob.hub_cache import COMMIT
from nlijob.kept import kept_trial
from nlijob.pipeline import model_stamp
from nlijob.records.job import Example, PromptRecord, RunRecord, WorkerTask
from nlijob.records.use import ADAPTER_RECORD, AdapterRecord
from nlijob.rundir import RunDir
from nlijob.weight_files import BrokenFileError, stored_tensors

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
CHECKED_ROWS = 256
"""Training rows with which the prompt and the execution mode are checked, as in the job."""
SAMPLE = tuple(
    Example(number, premise, hypothesis, 0)
    for number, (premise, hypothesis) in enumerate(
        (
            ("A man is playing a guitar.", "A person makes music."),
            ("Two dogs run along the beach in the sun.", "The dogs are asleep."),
            ("A woman in a red coat waits at the station.", "She is late for work."),
            ("Snow.", "It is cold."),
            ("Three children build a castle of sand near the water.", "Children are outdoors."),
            ("The old man reads a newspaper on a bench in the park.", "He is swimming."),
            ("A cyclist passes a row of shops.", "Someone rides a bicycle past several shops."),
            ("People are crossing a busy street at night.", "The street is empty."),
        )
    )
)
"""Rows for the same checks where there is no run, and so no training rows."""


@dataclass(frozen=True)
class Tuned:
    """An adapter, and all that is needed to use it as the job does."""

    config: JobConfig
    adapter: Path
    stamp: str | None
    """Identity of the base model's files; None where it is not known."""
    label_tokens: tuple[int, ...] | None
    """None where they are not known."""
    checked_rows: tuple[Example, ...]
    """Rows with which the prompt and the execution mode are checked."""
    run: RunDir | None
    """The run that the adapter lies in, as the training sees it that it is of; None for an adapter
    alone."""


def find_tuned(path: Path) -> Tuned:
    """What the folder of a run, or of an adapter, holds.

    Raises NotAvailableError for a run that is not whole, and for an adapter that lacks something.
    """
    from nlijob.run_folders import holds_a_run

    if _holds_a_model(path):
        raise NotAvailableError(
            f"{path} holds a model, neither a run nor an adapter",
            "name a run such as runs/demo; a model with an adapter merged into it is used with "
            "transformers, as its card says",
        )
    if holds_a_run(path):
        return _of_run(RunDir(path))
    if (path / SETTINGS).is_file() or (path / WEIGHTS).is_file():
        return _of_adapter(path)
    raise NotAvailableError(
        f"{path} holds neither a run nor an adapter"
        if path.is_dir()
        else f"{path}: no such folder",
        "name a run such as runs/demo, or the folder adapter/ of one",
    )


def find_model(tuned: Tuned, hub: Hub, tell: Callable[[str], None]) -> tuple[Path, str]:
    """The folder of the base model, and the identity of its files.

    Raises NotAvailableError if the model is not available, or is not the one of the run.
    """
    model = tuned.config.model
    if tuned.stamp and COMMIT.fullmatch(tuned.stamp):
        model = dataclasses.replace(model, revision=tuned.stamp)
    folder = hub.model_folder(model)
    found = model_stamp(folder, model_files(model))
    if tuned.stamp is None:
        tell(f"Note: the run does not say which files of {model.name} it read; not checked")
    elif found != tuned.stamp:
        raise NotAvailableError(
            f"model {model.name}: {_difference(tuned.stamp, found)}; the adapter was trained on "
            "the other weights",
            f"it is in {folder}; name a folder that holds the run's own with --model",
        )
    return folder, found


def with_model(config: JobConfig, name: str | None) -> JobConfig:
    """The configuration with the place where the base model is now; None where the run had it."""
    if name is None:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, name=name))


def with_device(config: JobConfig, wanted: Device) -> JobConfig:
    """The configuration for this machine. Raises HardwareError if a GPU is asked for in vain."""
    from nlijob.hardware import driver_fault, gpu_count

    gpus = gpu_count() if wanted != "cpu" else 0
    if wanted == "cuda" and not gpus:
        fault = driver_fault()
        raise HardwareError(
            "--device cuda: no GPU with an NVIDIA driver was found"
            + (f" ({fault})" if fault else "")
        )
    device: Device = "cuda" if gpus else "cpu"
    model = dataclasses.replace(config.model, device=device)
    if device == "cpu" and model.compute_dtype == "float16":
        model = dataclasses.replace(model, compute_dtype="float32")
    train = config.train
    if train.speed == "graph":  # else an error where there are no graphs
        train = dataclasses.replace(train, speed="auto")
    return dataclasses.replace(config, model=model, train=train)


# ---------------------------------------------------------------- detail


def _holds_a_model(path: Path) -> bool:
    """Whether a folder's config.json is that of a model; a run has one too."""
    try:
        config = records.parse((path / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config


def _of_run(run: RunDir) -> Tuned:
    check_whole(run, "used")
    try:
        trial = kept_trial(run, records.read(RunRecord, run.config).config)
        prompt = records.read(PromptRecord, run.prompt)
        rows = islice(records.read_lines(Example, run.subset("train")), CHECKED_ROWS)
        checked_rows = tuple(rows)
    except (OSError, ValueError) as error:
        raise unsound(run, [first_line(error)], "used") from error
    _check_files(run.adapter)
    stamp = _stamp_of_run(run)
    kept = run.of_trial(trial)
    return Tuned(trial.config, run.adapter, stamp, prompt.label_tokens, checked_rows, kept)


def _stamp_of_run(run: RunDir) -> str | None:
    marker = run.read_marker("baseline")
    if marker is not None and marker.inputs is not None:
        return marker.inputs.stamp
    try:
        return records.read(WorkerTask, run.worker_task).model_stamp
    except (OSError, ValueError):  # of an older version
        return None


def _of_adapter(folder: Path) -> Tuned:
    _check_files(folder)
    file = folder / ADAPTER_RECORD
    if not file.is_file():
        raise NotAvailableError(
            f"{folder} has no {ADAPTER_RECORD}: an adapter alone does not say which prompt and "
            "labels it was trained with",
            "this job writes that file beside its adapters; name the run itself if an older "
            "version made it",
        )
    try:
        record = records.read(AdapterRecord, file)
    except (OSError, ValueError) as error:
        raise NotAvailableError(f"{file} cannot be read: {first_line(error)}") from error
    if sha256_of([Piece(folder / WEIGHTS)]) != [record.adapter_sha256]:
        raise NotAvailableError(
            f"{folder / WEIGHTS} is not the file that {ADAPTER_RECORD} belongs to",
            "copy the whole folder of the adapter again",
        )
    tokens = record.label_tokens
    return Tuned(record.config, folder, record.model_stamp, tokens, SAMPLE, None)


def _check_files(folder: Path) -> None:
    missing = [name for name in (SETTINGS, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise NotAvailableError(
            f"the adapter in {folder} has no {' and no '.join(missing)}",
            "copy the whole folder adapter/ of a run",
        )
    try:
        stored_tensors(folder / WEIGHTS)
    except (OSError, BrokenFileError) as error:
        raise NotAvailableError(f"{folder / WEIGHTS} {error}") from error


def _difference(wanted: str, found: str) -> str:
    """How the files of a model differ from those of the run, in words."""
    if "|" not in wanted + found and ":" not in wanted + found:
        return f"it is revision {found}, and the run's was {wanted}"
    of_run, here = ({*stamp.split("|")} for stamp in (wanted, found))
    names = sorted({part.partition(":")[0] for part in of_run ^ here})
    return f"{', '.join(names[:5])} differ from the files that the run read"
