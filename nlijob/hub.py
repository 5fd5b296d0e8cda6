"""Models and data sets from a hub, or from a local folder.

The parent downloads whole repositories here, at pinned revisions, before the GPU side starts.
Everything after that reads local folders and needs no network. Data sets are loaded from their
downloaded folder too: given a repository id, `datasets` 5 silently uses the revision that it
prepared last when the hub does not answer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nlijob.config import ModelConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError, first_line
from nlijob.files import Piece, sha256_of
from nlijob.hub_cache import HubFile
from nlijob.hub_fetch import Kind, Repository
from nlijob.hub_requests import HubError, Limits
from nlijob.model_files import CONFIG, check_code, check_model_folder

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken")
CODE_FILES = ("*.py",)
"""What else belongs to a model whose own code may run."""
PIECE_BYTES = 64 * 1024**2
ONLINE_HINT = "check its name and revision, the network, and access rights (HF_TOKEN)"


class Glance(NamedTuple):
    """A repository of which only small files were fetched."""

    folder: Path
    """The folder of its revision in the cache, which is named by the commit."""
    files: tuple[HubFile, ...]
    """All files that the job reads."""
    lacking: tuple[HubFile, ...]
    """Those of them that the cache does not have."""


class Hub:
    """Downloads repositories into the cache of the hub's client (HF_HOME)."""

    def __init__(
        self, offline: bool, tell: Callable[[str], None], limits: Limits | None = None
    ) -> None:
        """`offline`: use only the cache. `tell` is called with a line about each retry.

        `limits`: how long the hub is waited for; by default as the environment says.
        """
        self._offline = offline
        self._tell = tell
        self._limits = limits or Limits.of_environment()
        self._commits: dict[tuple[str, str, str | None], str] = {}

    @property
    def is_offline(self) -> bool:
        """Whether only the cache is used, by option or by the client's own variable."""
        from huggingface_hub import constants

        return bool(self._offline or constants.is_offline_mode())

    def model_folder(self, model: ModelConfig) -> Path:
        """The local folder with the model's files, downloaded first if the name is a hub id.

        Raises NotAvailableError if the model is not available, or if its files are missing or
        damaged.
        """
        if model.name == "demo":
            return MODEL_DIR
        folder = local_folder(model.name, "model", "model.name")
        if folder is None:
            if not model.trust_remote_code:  # told before gigabytes are fetched
                check_code(model.name, self._fetch("model", model.name, model.revision, [CONFIG]))
            folder = self._fetch("model", model.name, model.revision, model_files(model))
        check_model_folder(model.name, folder, model.trust_remote_code)
        return folder

    def check_local(self, model: ModelConfig) -> None:
        """Raise NotAvailableError if the model is a local folder that cannot be used."""
        if model.name == "demo":
            return
        folder = local_folder(model.name, "model", "model.name")
        if folder is not None:
            check_model_folder(model.name, folder, model.trust_remote_code)

    def load_split(
        self, dataset: str, config_name: str | None, revision: str | None, split: str
    ) -> Sequence[Any]:
        """The rows of a split of a hub data set, each a mapping of column to value.

        Raises NotAvailableError if the split is not available.
        """
        folder = self._fetch("dataset", dataset, revision, None)
        with _reading(dataset, split) as datasets:
            rows: Sequence[Any] = datasets.load_dataset(str(folder), config_name, split=split)
        return rows

    def split_names(self, dataset: str, config_name: str | None, revision: str | None) -> list[str]:
        """The names of a hub data set's splits; empty where they are not known before it is read.

        Raises NotAvailableError if the data set is not available.
        """
        folder = self._fetch("dataset", dataset, revision, None)
        with _reading(dataset, "train") as datasets:
            builder = datasets.load_dataset_builder(str(folder), config_name)
        named = getattr(builder.config, "data_files", None) or builder.info.splits or ()
        return [str(name) for name in named]

    def csv_files(
        self, dataset: str, config_name: str | None, revision: str | None, split: str
    ) -> tuple[list[Path], Mapping[str, Any]]:
        """The files of a split that is plain CSV, and its features; no files if it is not.

        The library would read them with pandas, which takes some malformed lines for whole ones.
        Raises NotAvailableError if the data set is not available.
        """
        folder = self._fetch("dataset", dataset, revision, None)
        with _reading(dataset, split) as datasets:
            builder = datasets.load_dataset_builder(str(folder), config_name)
            named = getattr(builder.config, "data_files", None) or {}
            files = [Path(file) for file in named.get(split, ())]
        plain = getattr(builder.config, "sep", None) == "," and builder.config.names is None
        if not plain or any(file.suffix != ".csv" or not file.is_file() for file in files):
            return [], {}
        return files, builder.info.features or {}

    def look(
        self,
        kind: Kind,
        name: str,
        revision: str | None,
        small: Sequence[str],
        files: Sequence[str] | None,
    ) -> Glance:
        """Fetch the small files of a repository alone, and say what the job would fetch.

        `small` and `files` are patterns of names; `files` are those of the job, None for all.
        Raises like `_fetch`.
        """
        folder = self._fetch(kind, name, revision, small)
        repository = Repository(kind, name, files, self._limits, self._tell)
        needed, lacking = repository.needed(folder.name)
        return Glance(folder, tuple(needed), tuple(lacking))

    def ask(self, kind: Kind, name: str, revision: str | None) -> None:
        """Ask the hub for a repository, whatever the cache has. Raises NotAvailableError."""
        what = f"{kind} {name} at revision {revision or 'main'}"
        try:
            Repository(kind, name, (), self._limits, self._tell).ask(revision or "main")
        except HubError as error:
            raise NotAvailableError(f"{what} is not available: {error}", ONLINE_HINT) from error

    def _fetch(
        self,
        kind: Kind,
        name: str,
        revision: str | None,
        files: Sequence[str] | None,
    ) -> Path:
        """The folder with a repository's files, which are whole.

        Raises NotAvailableError, or OSError if the cache's disk is full or cannot be used.
        """
        what = f"{kind} {name} at revision {revision or 'main'}"
        offline = self.is_offline
        asked = self._commits.get((kind, name, revision), revision or "main")
        try:
            repository = Repository(
                kind, name, files, self._limits, lambda text: self._tell(f"      {what}: {text}")
            )
            folder = repository.cached(asked) if offline else repository.fetched(asked)
        except (HubError, ValueError) as error:
            raise NotAvailableError(
                f"{what} is not available: {error}",
                "run `prefetch` with the same options while online" if offline else ONLINE_HINT,
            ) from error
        # All splits are of one commit, also if a branch moves meanwhile.
        self._commits[kind, name, revision] = folder.name
        return folder


def model_files(model: ModelConfig) -> tuple[str, ...]:
    """The files of a model that the job reads, as patterns."""
    return (*MODEL_FILES, *CODE_FILES) if model.trust_remote_code else MODEL_FILES


@contextlib.contextmanager
def _reading(dataset: str, split: str) -> Iterator[Any]:
    """The library `datasets`, whose errors in the block are told as the data set's."""
    os.environ["HF_DATASETS_OFFLINE"] = "1"  # it reads this when it is imported
    import datasets

    datasets.disable_progress_bars()
    try:
        yield datasets
    except Exception as error:
        raise NotAvailableError(
            f"data set {dataset}, split {split}, cannot be read: {first_line(error)}",
            "check the names of the configuration (config_name) and of the splits",
        ) from error


def local_folder(name: str, kind: str, key: str) -> Path | None:
    """The folder that `name` refers to, or None if it is a hub id ("name" or "owner/name").

    `kind` and `key` (of the configuration) are for the message of NotAvailableError, which is
    raised if `name` is written as a path and there is no such folder.
    """
    path, is_folder = Path(name), False
    with contextlib.suppress(RuntimeError, OSError):  # no such user; a name that is too long
        path = path.expanduser()
        is_folder = path.is_dir()
    if is_folder:
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
