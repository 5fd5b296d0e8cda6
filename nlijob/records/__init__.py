"""Every record that a run writes to disk: the border between parent, GPU side and report.

All are frozen dataclasses: `job` holds what the job writes while it runs, `outcome` what is
measured afterwards. A figure that was not measured is None, never 0. Names carry units.
`serialization` reads and writes them as JSON, `older` upgrades records of earlier versions.
"""

from __future__ import annotations

from nlijob.records.serialization import (
    dump,
    dump_line,
    dump_lines,
    dump_log_line,
    from_json,
    parse,
    read,
    read_lines,
    read_log,
    to_json,
)

__all__ = [
    "dump",
    "dump_line",
    "dump_lines",
    "dump_log_line",
    "from_json",
    "parse",
    "read",
    "read_lines",
    "read_log",
    "to_json",
]
