"""What the pages on several runs share: links to the runs, and the files to be written."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from nlijob.errors import ConfigurationError
from nlijob.rundir import write_text

MARK_WITHIN = 4096
"""The mark of the command that wrote a page or JSON file is within its first bytes."""


def relative_link(target: Path, page: Path) -> str:
    """Relative URL from a page to a file; works from disk and from a web server.

    It always begins with a dot, so that the name of a folder is never read as a scheme or host.
    """
    path = os.path.relpath(target.resolve(), page.parent.resolve())
    return "/".join((".", *map(quoted, Path(path).parts)))


def quoted(part: str) -> str:
    """A part of a path as it stands in a URL."""
    return quote(os.fsencode(part), safe="")


def checked_output(output: Path, kind: str) -> Path:
    """Path of the JSON. Raises ConfigurationError if another command wrote an existing file."""
    json_path = output.with_suffix(".json") if output.name else output
    if output.suffix not in (".html", ".htm"):
        raise ConfigurationError(f"--output {output}: name a file that ends in .html")
    for path in (output, json_path):
        try:
            if path.exists() and not _written_by(path, kind):
                raise ConfigurationError(
                    f"{path} exists and was not written by this command; it is left unchanged",
                    "name another file with --output",
                )
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    return json_path


def _written_by(path: Path, kind: str) -> bool:
    with path.open("rb") as handle:
        beginning = handle.read(MARK_WITHIN)
    marks = (f'<meta name="generator" content="{kind}">', f'"kind": "{kind}"')
    return any(mark.encode() in beginning for mark in marks)


def write_page(output: Path, html: str, json_path: Path, document: str) -> None:
    """Write a page, and before it the JSON beside it."""
    # JSON can hold a lone surrogate, which cannot be encoded as UTF-8.
    write_text(json_path, document.encode("utf-8", "replace").decode())
    write_text(output, html.encode("utf-8", "replace").decode())
