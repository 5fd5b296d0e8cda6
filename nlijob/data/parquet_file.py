"""Parquet files, and the names of labels that their metadata carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nlijob.data.features import class_labels
from nlijob.data.table import ClassLabels, Table, refuse_repeated_columns
from nlijob.errors import NotAvailableError, first_line


def read_parquet(path: Path) -> Table:
    """The rows of a .parquet file.

    Raises NotAvailableError if it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            refuse_repeated_columns(path, schema.names)
            rows: list[dict[str, Any]] = file.read().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise NotAvailableError(
            f"{path} cannot be read: {first_line(error)}",
            "the file may be cut off or not be Parquet; fetch or write it again",
        ) from error
    return Table(rows, class_labels=_class_labels(schema.metadata or {}))


def _class_labels(metadata: dict[bytes, bytes]) -> ClassLabels:
    """The names of labels that the library `datasets` stores in a schema; {} without them."""
    try:
        return class_labels(json.loads(metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}
