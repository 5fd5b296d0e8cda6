"""A folder for a run on any file system that fsspec knows."""

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
        "max_concurrency": 4,  # parts of 50 MB in memory and on the line at a time
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": 120,  # runs while a part is being sent, too: 2 MB/s will do
            "retries": {"total_max_attempts": 2},  # s3fs tries five times itself
        },
    },
}
"""Scheme -> what its file system is made with."""


class Place:
    """The folder `<URL>/<run id>`."""

    def __init__(self, option: str, url: str, run_id: str) -> None:
        """`option` is named where the URL is at fault. Raises ConfigurationError; reads nothing."""
        self.option = option
        self.url = f"{shown_url(url)}/{run_id}"
        """As it may be printed."""
        self._fs, folder = _file_system(option, url)
        self._root = f"{folder.rstrip('/')}/{run_id}/"

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every file of a run that is there."""
        found = self._fs.find(self._root.rstrip("/"), detail=True)
        names = {path.removeprefix(self._root): info["size"] for path, info in found.items()}
        return {name: size for name, size in names.items() if is_copied(name)}

    def read(self, name: str) -> bytes:
        """The content of a file that is there."""
        content: bytes = self._fs.cat_file(self._root + name)
        return content

    def fetch(self, name: str, file: Path) -> None:
        """Write what is there as `name` to `file`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(self._root + name, str(file))

    def write(self, name: str, content: bytes) -> None:
        """Put a file of this content there."""
        self._fs.pipe_file(self._root + name, content)

    def send(self, name: str, file: Path, moved: Callable[[], None]) -> None:
        """Put a file there; `moved` is called now and then while its bytes get through."""
        from fsspec.callbacks import Callback

        def count(size: int | None, value: int, **_: object) -> None:
            if value:
                moved()

        callback = Callback(hooks={"count": count})
        self._fs.put_file(str(file), self._root + name, callback=callback)

    def remove(self, name: str) -> None:
        """Take a file away; one that is not there is no fault."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._root + name)


def shown_url(url: str) -> str:
    """A URL as it may be printed: without credentials, query and fragment."""
    scheme, separator, rest = re.split(r"[?#]", url)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}".rstrip("/")


def _file_system(option: str, url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    import fsspec

    scheme, _, path = url.partition("://")
    if not scheme or not path.strip("/"):
        raise ConfigurationError(
            f"{option} {shown_url(url)}: no place to copy a run to",
            HINT,
        )
    try:
        # Listings are not kept: others may change what is there.
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
