"""Parquet files, and the names of labels that their metadata carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nlijob.analysis.wording import count
from nlijob.data.features import class_labels
from nlijob.data.table import ClassLabels, Table, refuse_repeated_columns
from nlijob.errors import NotAvailableError, first_line

DAMAGED = "the file may be cut off, damaged or not be Parquet; fetch or write it again"


def read_parquet(path: Path) -> Table:
    """The rows of a .parquet file; checksums of its pages are verified where it has them.

    Raises NotAvailableError if it cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            refuse_repeated_columns(path, schema.names)
            rows: list[dict[str, Any]] = file.read().to_pylist()
            stated = file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise NotAvailableError(
            f"{path} cannot be read: {first_line(error)}",
            DAMAGED,
        ) from error
    if len(rows) != stated:  # what a damaged count of a row group looks like
        raise NotAvailableError(
            f"{path} cannot be read: it states {count(stated)} rows and holds {count(len(rows))}",
            DAMAGED,
        )
    return Table(rows, class_labels=_class_labels(schema.metadata or {}))


def _class_labels(metadata: dict[bytes, bytes]) -> ClassLabels:
    """The names of labels that the library `datasets` stores in a schema; {} without them."""
    try:
        return class_labels(json.loads(metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}
