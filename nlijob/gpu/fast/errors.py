"""Why a faster execution mode is not used."""

from __future__ import annotations


class Unsupported(Exception):  # noqa: N818 (not a fault: another mode is used instead)
    """A mode does not support this model, configuration or machine; the message says why."""


class NoPackedRows(Unsupported):
    """No mode on packs can compute this model."""
