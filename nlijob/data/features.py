"""What the integers of a column mean, as features of the library `datasets` tell it.

The names of a ClassLabel come in three forms: as objects of the library, as JSON in the metadata
of Parquet files or in files of its own, and as YAML in the card (README.md) of a repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nlijob.config import DataConfig
from nlijob.data.table import ClassLabels
from nlijob.errors import NotAvailableError


def class_labels(features: Any) -> ClassLabels:
    """Column -> number -> name, of the columns that carry names; {} if none does.

    `features` maps columns to features, or is a list of features with a name, as in a card.
    """
    if isinstance(features, list):
        features = {
            item["name"]: item for item in features if isinstance(item, Mapping) and "name" in item
        }
    if not isinstance(features, Mapping):
        return {}
    named = {str(column): _names(feature) for column, feature in features.items()}
    return {column: names for column, names in named.items() if names}


def folder_class_labels(folder: Path, data: DataConfig) -> ClassLabels:
    """Names of labels from the descriptions that lie beside a folder's files; {} without any.

    These are the card (README.md) and what `datasets` writes: dataset_infos.json, with an entry for
    each configuration, and dataset_info.json. Raises NotAvailableError if they differ, and the
    `config_name` of `data` does not choose between them.
    """
    infos = [info for info in (*_of_card(folder), *_of_json(folder)) if isinstance(info, Mapping)]
    named = [
        class_labels(info.get("features"))
        for info in infos
        if data.config_name in (None, info.get("config_name", data.config_name))
    ]
    found = [names for names in named if names]
    if any(names != found[0] for names in found):
        raise NotAvailableError(
            f"{folder}: the descriptions beside the data name their labels in different ways",
            f"set {data.key('config_name')} to the configuration that the files belong to",
        )
    return found[0] if found else {}


def _of_card(folder: Path) -> list[Any]:
    """What the card's front matter tells about each configuration."""
    card = folder / "README.md"
    try:
        if b"class_label" not in card.read_bytes():
            return []
        from huggingface_hub import metadata_load

        described = (metadata_load(card) or {}).get("dataset_info")
    except Exception:  # a card is for readers first; a damaged one names nothing
        return []
    return described if isinstance(described, list) else [described]


def _of_json(folder: Path) -> list[Any]:
    infos = _json_object(folder / "dataset_infos.json")
    by_config = [
        {"config_name": config, **info} for config, info in infos.items() if isinstance(info, dict)
    ]
    return [*by_config, _json_object(folder / "dataset_info.json")]


def _json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _names(feature: Any) -> dict[int, str]:
    if not isinstance(feature, Mapping):
        return _numbered(getattr(feature, "names", None))
    if feature.get("_type") == "ClassLabel":
        return _numbered(feature.get("names"))
    for described in (feature, feature.get("dtype")):
        if isinstance(described, Mapping) and isinstance(described.get("class_label"), Mapping):
            return _numbered(described["class_label"].get("names"))
    return {}


def _numbered(names: Any) -> dict[int, str]:
    """Names in order, or a mapping of numbers to names, as number -> name."""
    if isinstance(names, Mapping):
        return {int(number): str(name) for number, name in names.items() if str(number).isdecimal()}
    if isinstance(names, Iterable) and not isinstance(names, str):
        return {number: str(name) for number, name in enumerate(names)}
    return {}
