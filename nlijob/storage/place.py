"""The remote folder of a run, on any file system that fsspec supports."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nlijob.errors import ConfigurationError, first_line
from nlijob.storage.contents import is_copied

PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""Scheme -> the optional package behind it."""
HINT = "give s3://bucket/path, gs://bucket/path or file:///path"
OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"auto_mkdir": True},
    "s3": {
        "max_concurrency": 4,  # parts of 50 MB that are in memory and in transfer at a time
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 120,  # includes the upload of a part, so needs some 2 MB/s
            "retries": {"total_max_attempts": 2},  # s3fs itself makes five attempts
        },
    },
}
"""Scheme -> arguments of its file system."""


class Place:
    """The remote folder `<URL>/<run id>`."""

    def __init__(self, option: str, url: str, run_id: str) -> None:
        """Make no request. Raises ConfigurationError that names `option` if the URL is unusable."""
        self.option = option
        self.url = f"{shown_url(url)}/{run_id}"
        """The folder's URL without secrets."""
        self._fs, folder = _file_system(option, url)
        self._root = f"{folder.rstrip('/')}/{run_id}/"

    def sizes(self) -> dict[str, int]:
        """Name -> size in bytes of every file of a run in the folder."""
        found = self._fs.find(self._root.rstrip("/"), detail=True)
        names = {path.removeprefix(self._root): info["size"] for path, info in found.items()}
        return {name: size for name, size in names.items() if is_copied(name)}

    def read(self, name: str) -> bytes:
        """The content of a file."""
        content: bytes = self._fs.cat_file(self._root + name)
        return content

    def fetch(self, name: str, file: Path) -> None:
        """Download `name` to `file`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(self._root + name, str(file))

    def write(self, name: str, content: bytes) -> None:
        """Write a file with this content."""
        self._fs.pipe_file(self._root + name, content)

    def send(self, name: str, file: Path, moved: Callable[[], None]) -> None:
        """Upload a file; `moved` is called repeatedly while its bytes get through."""
        from fsspec.callbacks import Callback

        def count(size: int | None, value: int, **_: object) -> None:
            if value:
                moved()

        callback = Callback(hooks={"count": count})
        self._fs.put_file(str(file), self._root + name, callback=callback)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._root + name)


def shown_url(url: str) -> str:
    """A URL without credentials, query and fragment, so that it can be printed."""
    scheme, separator, rest = re.split(r"[?#]", url)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}".rstrip("/")


def _file_system(option: str, url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path within it."""
    import fsspec

    scheme, _, path = url.partition("://")
    if not scheme or not path.strip("/"):
        raise ConfigurationError(
            f"{option} {shown_url(url)}: not a folder that a run can be copied to",
            HINT,
        )
    try:
        # Listings are not cached, because other machines may change the folder.
        file_system, folder = fsspec.core.url_to_fs(
            url, skip_instance_cache=True, use_listings_cache=False, **OPTIONS.get(scheme, {})
        )
    except ImportError as error:
        package = PACKAGES.get(scheme)
        raise ConfigurationError(
            f"{option} {shown_url(url)}: the package for {scheme}:// is not installed",
            f"pip install {package} fsspec=={fsspec.__version__}" if package else str(error),
        ) from error
    except Exception as error:
        raise ConfigurationError(f"{option} {shown_url(url)}: {first_line(error)}", HINT) from error
    return file_system, folder
