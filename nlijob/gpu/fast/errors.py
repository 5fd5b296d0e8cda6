"""Why the fast way steps back."""

from __future__ import annotations


class NotServed(Exception):  # noqa: N818 (no fault: the plain way serves instead)
    """The fast way does not serve this model, configuration or machine; says why."""
