"""Finds the runs below a folder, at any depth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nlijob.rundir import PREVIOUS

TRACES = (
    *("config.json", "results.json", "timings.jsonl"),
    *("subset/manifest.json", "markers/subset.json"),
)
"""Files of which a folder with a run has at least one."""


@dataclass(frozen=True)
class FoundRuns:
    """What is below a folder. Names are paths below it, with forward slashes."""

    names: tuple[str, ...]
    """The folders that hold a run, sorted."""
    unreadable: tuple[tuple[str, str], ...]
    """Folders that cannot be read, each with the reason."""
    others: int
    """Number of folders directly below it that hold no run at any depth."""
    links_out: int
    """Number of links that lead to a folder elsewhere, which is not looked at."""


def holds_a_run(folder: Path) -> bool:
    """Whether a job has written anything in the folder. Raises OSError if it cannot be read."""
    return any((folder / trace).exists() for trace in TRACES)


def find_runs(root: Path) -> FoundRuns:
    """The runs below a folder. Raises OSError where the folder itself cannot be listed.

    Links are not followed, so that no run counts twice and no loop is endless. What is inside a run
    is the run's own. What a finished run was before it was replaced is kept beside it, but is not
    listed.
    """
    top, links = _folders_in(root)
    names: list[str] = []
    unreadable: list[tuple[str, str]] = []
    ahead = list(top)
    while ahead:
        folder = ahead.pop()
        name = folder.relative_to(root).as_posix()
        try:
            if holds_a_run(folder):
                names.append(name)
                continue
            below, further_links = _folders_in(folder)
        except OSError as error:
            unreadable.append((name, str(error.strerror)))
            continue
        ahead += below
        links += further_links
    listed = {name.partition("/")[0] for name in (*names, *(name for name, _ in unreadable))}
    return FoundRuns(
        names=tuple(sorted(names)),
        unreadable=tuple(sorted(unreadable)),
        others=sum(folder.name not in listed for folder in top),
        links_out=sum(_leads_out(link, root) for link in links),
    )


def _folders_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders directly in a folder, and the links in it that lead to folders."""
    folders: list[Path] = []
    links: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir() or entry.name.endswith(PREVIOUS):
                continue
            (links if entry.is_symlink() else folders).append(folder / entry.name)
    return folders, links


def _leads_out(link: Path, root: Path) -> bool:
    return not link.resolve().is_relative_to(root.resolve())
