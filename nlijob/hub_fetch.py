"""Brings a repository of a hub into the cache, whole, or says why that is not possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from nlijob.hub_cache import COMMIT, HubFile, RepoCache
from nlijob.hub_requests import HubClient, HubError, Limits
from nlijob.waiting import all_of, while_moving

Kind = Literal["model", "dataset"]
Moved = Callable[[], None]
WORKERS = 8
"""Number of files that are downloaded at a time."""


class Repository:
    """A model or data set of a hub, and its copy in the cache of the hub's client (HF_HOME)."""

    def __init__(
        self,
        kind: Kind,
        name: str,
        patterns: Sequence[str] | None,
        limits: Limits,
        tell: Callable[[str], None],
    ) -> None:
        """`patterns`: the files that are needed, or None for all. `tell` gets a line of news."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name
        from huggingface_hub.utils._validators import validate_repo_id

        validate_repo_id(name)
        self._path = f"{kind}s/{name}"
        self._files_path = name if kind == "model" else self._path
        self._patterns = patterns
        self._limits = limits
        self._tell = tell
        folder = Path(constants.HF_HUB_CACHE).expanduser()
        self._cache = RepoCache(folder / repo_folder_name(repo_id=name, repo_type=kind))

    def cached(self, revision: str) -> Path:
        """The folder of a revision that the cache has whole. Raises HubError; asks nobody."""
        commit = revision if COMMIT.fullmatch(revision) else self._cache.commit_of(revision)
        if commit is None or not self._cache.snapshot(commit).is_dir():
            raise HubError("it is not in the cache")
        listed = self._cache.files(commit)
        files = self._cache.found(commit) if listed is None else listed
        for file in self._needed(files):
            fault = self._cache.fault(commit, file, lambda: None)
            if fault is not None:
                raise HubError(_difference(file, fault))
        self._cache.keep_verified()
        return self._cache.snapshot(commit)

    def needed(self, commit: str) -> tuple[list[HubFile], list[HubFile]]:
        """The files of a commit that are needed, and those of them that the cache lacks.

        Only names and sizes are looked at. The list of files must be in the cache already.
        """
        listed = self._cache.files(commit)
        files = self._needed(self._cache.found(commit) if listed is None else listed)
        return files, [file for file in files if not self._cache.has(commit, file)]

    def fetched(self, revision: str) -> Path:
        """The folder of a revision, with what the cache lacks downloaded. Raises HubError."""
        from huggingface_hub import constants
        from huggingface_hub.utils._headers import build_hf_headers

        headers = build_hf_headers(library_name="nlijob")
        client = HubClient(constants.ENDPOINT, headers, self._limits, self._tell)
        try:
            return while_moving(
                lambda moved: self._fetched(client, revision, moved), self._limits.patience_s
            )
        except TimeoutError as error:
            raise HubError(str(error)) from error
        finally:
            client.close()

    def ask(self, revision: str) -> None:
        """Ask the hub for a revision, whatever the cache has. Raises HubError."""
        from huggingface_hub import constants
        from huggingface_hub.utils._headers import build_hf_headers

        headers = build_hf_headers(library_name="nlijob")
        client = HubClient(constants.ENDPOINT, headers, self._limits, self._tell)
        try:
            client.json(f"/api/{self._path}/revision/{quote(revision, safe='')}")
        finally:
            client.close()

    def _fetched(self, client: HubClient, revision: str, moved: Moved) -> Path:
        try:
            commit = self._commit(client, revision)
            moved()
            files = self._files(client, commit)
        except HubError as failure:
            if failure.is_final:
                raise
            return self._cached_instead(revision, failure)
        moved()
        tasks = [partial(self._bring, client, commit, file, moved) for file in self._needed(files)]
        try:
            all_of(tasks, WORKERS)
        finally:
            self._cache.keep_verified()
        return self._cache.snapshot(commit)

    def _cached_instead(self, revision: str, failure: HubError) -> Path:
        """The cached files, as the hub does not say what the revision stands for."""
        try:
            folder = self.cached(revision)
        except HubError:
            raise failure from None
        self._tell(f"{failure}; using commit {folder.name} from the cache")
        return folder

    def _commit(self, client: HubClient, revision: str) -> str:
        if COMMIT.fullmatch(revision):
            return revision
        answer = client.json(f"/api/{self._path}/revision/{quote(revision, safe='')}")
        commit = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise HubError("the answer of the hub names no commit")
        self._cache.keep_commit(revision, commit)
        return commit

    def _files(self, client: HubClient, commit: str) -> list[HubFile]:
        listed = self._cache.files(commit)
        if listed is not None:
            return listed
        path = f"/api/{self._path}/tree/{commit}?recursive=true&expand=false"
        entries: list[Any] = []
        for page in client.pages(path):
            entries += page if isinstance(page, list) else [page]
        listed_files = [e for e in entries if not isinstance(e, dict) or e.get("type") == "file"]
        if not listed_files:
            raise HubError("the hub lists no files")
        try:
            return self._cache.keep_files(commit, listed_files)
        except ValueError as error:
            raise HubError(f"the hub's list of files has {error}", is_final=True) from error

    def _needed(self, files: Sequence[HubFile]) -> list[HubFile]:
        from huggingface_hub.utils._paths import filter_repo_objects

        patterns = None if self._patterns is None else list(self._patterns)
        return list(filter_repo_objects(files, allow_patterns=patterns, key=lambda f: f.name))

    def _bring(self, client: HubClient, commit: str, file: HubFile, moved: Moved) -> None:
        """Make sure that the cache has a file, and that its bytes are the hub's."""
        fault = self._cache.fault(commit, file, moved)
        if fault is None:
            return
        if fault != "nothing":
            self._tell(f"in the cache {_difference(file, fault)}; fetching it again")
        try:
            fault = self._downloaded(client, commit, file, moved)
        except HubError as failure:
            raise HubError(f"{file.name}: {failure}") from failure
        if fault is not None:
            raise HubError(_difference(file, fault))

    def _downloaded(
        self, client: HubClient, commit: str, file: HubFile, moved: Moved
    ) -> str | None:
        """Download a file. Returns what came in its place if no attempt brought its bytes."""
        path = f"/{self._files_path}/resolve/{commit}/{quote(file.name)}"
        fault: str | None = None
        for attempt in range(1, self._limits.attempts + 1):
            fault = self._cache.add(
                commit, file, lambda part: client.download(path, part, file.size, moved), moved
            )
            if fault is None:
                break
            if attempt < self._limits.attempts:
                self._tell(f"{_difference(file, fault)}; fetching it again")
        return fault


def _difference(file: HubFile, fault: str) -> str:
    return f"{file.name} is damaged or missing: expected {file.promise}, found {fault}"
