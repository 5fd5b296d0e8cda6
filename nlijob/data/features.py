"""What the integers of a column mean, as features of the library `datasets` tell it.

The names of a ClassLabel come in three forms: as objects of the library, as JSON in the metadata
of Parquet files, and as YAML in the card (README.md) of a repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nlijob.data.table import ClassLabels


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


def card_class_labels(folder: Path, config_name: str | None) -> ClassLabels:
    """Names of labels from the card of a data set in a folder; {} without card or names."""
    card = folder / "README.md"
    try:
        if b"class_label" not in card.read_bytes():
            return {}
        from huggingface_hub import metadata_load

        described = (metadata_load(card) or {}).get("dataset_info")
    except Exception:  # a card is for readers first; a damaged one names nothing
        return {}
    infos = described if isinstance(described, list) else [described]
    found = [
        class_labels(info.get("features"))
        for info in infos
        if isinstance(info, Mapping)
        and (config_name is None or info.get("config_name", config_name) == config_name)
    ]
    return found[0] if found and all(names == found[0] for names in found) else {}


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
        return {int(number): str(name) for number, name in names.items()}
    if isinstance(names, Iterable) and not isinstance(names, str):
        return {number: str(name) for number, name in enumerate(names)}
    return {}
