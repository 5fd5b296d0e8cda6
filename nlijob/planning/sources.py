"""The files of model and data set, looked at without downloading more than the small ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nlijob.config import DataConfig, ModelConfig
from nlijob.data.sources import local_place
from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError
from nlijob.hub import Glance, Hub, local_folder, model_files
from nlijob.model_files import check_code, check_model_folder
from nlijob.records.planning import PlannedFiles

WEIGHTS = "*.safetensors"
"""The files of a model that are large; all others are configuration and tokenizer."""
CARD = ("README.md", "dataset_infos.json")
"""Files of a data set that tell how many rows it has."""


class FoundModel(NamedTuple):
    """A model whose configuration and tokenizer are here."""

    folder: Path
    files: PlannedFiles
    fault: NotAvailableError | None
    """What is wrong with it, if something is. The look may still tell the rest."""


class FoundData(NamedTuple):
    """A data set that is here, or of which only the card is."""

    files: PlannedFiles
    are_here: bool
    """Whether the rows can be read without a download."""
    source_rows: Mapping[str, int]
    """Rows of each of the source's splits, where its card tells."""


def find_model(model: ModelConfig, hub: Hub) -> FoundModel:
    """The model's files. Raises NotAvailableError if it does not exist."""
    own = MODEL_DIR if model.name == "demo" else local_folder(model.name, "model", "model.name")
    if own is not None:
        size = sum(file.stat().st_size for file in _matching(own, model_files(model)))
        files = PlannedFiles(model.name, str(own), size, 0)
        return FoundModel(own, files, _fault(model, own, is_whole=True))
    small = [pattern for pattern in model_files(model) if pattern != WEIGHTS]
    glance = hub.look("model", model.name, model.revision, small, model_files(model))
    fault: NotAvailableError | None = None
    if hub.is_offline:
        try:
            hub.model_folder(model)
        except NotAvailableError as error:
            fault = error
    else:
        has_weights = any(Path(file.name).match(WEIGHTS) for file in glance.files)
        fault = _fault(model, glance.folder, is_whole=not (glance.lacking and has_weights))
    return FoundModel(glance.folder, _files(model.name, glance), fault)


def find_data(data: DataConfig, hub: Hub) -> FoundData:
    """The data set's files. Raises NotAvailableError if it does not exist."""
    own = local_place(data)
    if own is not None:
        return FoundData(PlannedFiles(data.dataset, str(own), None, 0), True, {})
    glance = hub.look("dataset", data.dataset, data.revision, CARD, None)
    are_here = hub.is_offline or not glance.lacking
    rows = {} if are_here else dict(_rows_on_card(glance.folder, data.config_name))
    return FoundData(_files(data.dataset, glance), are_here, rows)


# ---------------------------------------------------------------- detail


def _fault(model: ModelConfig, folder: Path, is_whole: bool) -> NotAvailableError | None:
    """What is wrong with a model's files; `is_whole`: whether the weights should be there."""
    try:
        if is_whole:
            check_model_folder(model.name, folder, model.trust_remote_code)
        elif not model.trust_remote_code:
            check_code(model.name, folder)
    except NotAvailableError as error:
        return error
    return None


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    found = {file for pattern in patterns for file in folder.glob(pattern)}
    return [file for file in found if file.is_file()]


def _files(name: str, glance: Glance) -> PlannedFiles:
    return PlannedFiles(
        name=name,
        source=f"revision {glance.folder.name}",
        size_bytes=_total([file.size for file in glance.files]),
        download_bytes=_total([file.size for file in glance.lacking]),
    )


def _total(sizes: Sequence[int | None]) -> int | None:
    """The sum; None if a size is not known."""
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _rows_on_card(folder: Path, config_name: str | None) -> Iterator[tuple[str, int]]:
    """(split, rows) as the data set's own description says."""
    infos = [*_of_card(folder / CARD[0]), *_of_json(folder / CARD[1])]
    fitting = [info for info in infos if config_name in (None, info.get("config_name"))]
    if not fitting and len(infos) == 1 and "config_name" not in infos[0]:
        fitting = infos
    for split in _splits(fitting[0]) if fitting else []:
        name, rows = split.get("name"), split.get("num_examples")
        if isinstance(name, str) and isinstance(rows, int) and rows >= 0:
            yield name, rows


def _splits(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    splits = info.get("splits")
    listed = list(splits.values()) if isinstance(splits, dict) else splits
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _of_card(card: Path) -> list[dict[str, Any]]:
    from huggingface_hub import metadata_load

    try:
        described = (metadata_load(card) or {}).get("dataset_info")
    except Exception:  # a card is for readers first; a damaged one tells nothing
        return []
    infos = described if isinstance(described, list) else [described]
    return [info for info in infos if isinstance(info, dict)]


def _of_json(file: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(value, dict):
        return []
    return [{"config_name": name, **info} for name, info in value.items() if isinstance(info, dict)]
