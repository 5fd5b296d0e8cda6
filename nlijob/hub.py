"""Models and data sets from a hub, or from a local folder.

The parent downloads whole repositories here, at pinned revisions, before the GPU side starts.
Everything after that reads local folders and needs no network. Data sets are loaded from their
downloaded folder too: given a repository id, `datasets` 5 silently uses the revision that it
prepared last when the hub does not answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nlijob.config import ModelConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError, first_line
from nlijob.files import Piece, sha256_of
from nlijob.model_files import check_model_folder
from nlijob.retry import retry

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken")
ATTEMPTS = 3
"""The hub's client also retries each request, for 23 s."""
FIRST_WAIT_S = 2.0
PIECE_BYTES = 64 * 1024**2


class Hub:
    """Downloads repositories into the cache of the hub's client (HF_HOME)."""

    def __init__(self, offline: bool, tell: Callable[[str], None]) -> None:
        """`offline`: use only the cache. `tell` is called with a line about each retry."""
        self._offline = offline
        self._tell = tell

    def model_folder(self, model: ModelConfig) -> Path:
        """The local folder with the model's files, downloaded first if the name is a hub id.

        Raises NotAvailableError if the model is not available, or if its files are missing or
        damaged.
        """
        if model.name == "demo":
            return MODEL_DIR
        folder = local_folder(model.name, "model", "model.name")
        if folder is None:
            folder = self._fetch("model", model.name, model.revision, MODEL_FILES)
        check_model_folder(model.name, folder)
        return folder

    def load_split(
        self, dataset: str, config_name: str | None, revision: str | None, split: str
    ) -> Sequence[Any]:
        """The rows of a split of a hub data set, each a mapping of column to value.

        Raises NotAvailableError if the split is not available.
        """
        folder = self._fetch("dataset", dataset, revision, None)
        os.environ["HF_DATASETS_OFFLINE"] = "1"  # datasets reads this when it is imported
        import datasets

        datasets.disable_progress_bars()
        try:
            rows: Sequence[Any] = datasets.load_dataset(str(folder), config_name, split=split)
        except Exception as error:
            raise NotAvailableError(
                f"data set {dataset}, split {split}, cannot be read: {first_line(error)}",
                "check data.config_name and the names of the splits (data.train_split, ...)",
            ) from error
        return rows

    def _fetch(
        self,
        kind: Literal["model", "dataset"],
        name: str,
        revision: str | None,
        files: Sequence[str] | None,
    ) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        what = f"{kind} {name} at revision {revision or 'main'}"
        fetch = partial(
            snapshot_download,
            name,
            repo_type=kind,
            revision=revision,
            allow_patterns=None if files is None else list(files),
            local_files_only=self._offline,
        )

        def tell(error: Exception, wait_s: float) -> None:
            self._tell(f"      {what}: {first_line(error)}; trying again in {wait_s:.0f} s")

        try:
            return Path(
                retry(fetch, ATTEMPTS, FIRST_WAIT_S, lambda e: self._offline or _is_final(e), tell)
            )
        except Exception as error:
            raise NotAvailableError(
                f"{what} is not available: {first_line(error)}",
                "it is not in the cache; run `prefetch` with the same options while online"
                if self._offline
                else "check its name and revision, the network, and access rights (HF_TOKEN)",
            ) from error


def local_folder(name: str, kind: str, key: str) -> Path | None:
    """The folder that `name` refers to, or None if it is a hub id ("name" or "owner/name").

    `kind` and `key` (of the configuration) are for the message of NotAvailableError, which is
    raised if `name` is written as a path and there is no such folder.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2:
        raise NotAvailableError(
            f"{kind} {name}: no such folder",
            f"{key} takes a folder or a hub id such as owner/name",
        )
    return None


def folder_stamp(folder: Path, patterns: Sequence[str]) -> str:
    """Names and hashes of a folder's matching files, the same on every machine.

    All bytes are hashed, because a model merged with another adapter may have the same sizes and
    the same bytes at the beginning and the end; and they are about to be read anyway. Large files
    are hashed in pieces, on all cores.
    """
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    pieces = [
        Piece(file, start, PIECE_BYTES)
        for file in files
        if file.is_file()
        for start in range(0, max(1, file.stat().st_size), PIECE_BYTES)
    ]
    hashes = zip(pieces, sha256_of(pieces), strict=True)
    return "|".join(f"{piece.file.name}:{hash_}" for piece, hash_ in hashes)


def _is_final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | ValueError):
        return True
    for fault in (error, error.__cause__):
        status = getattr(getattr(fault, "response", None), "status_code", None)
        if status is not None:
            return 400 <= status < 500 and status not in (408, 429)
    return False
