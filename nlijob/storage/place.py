"""The remote folder of a run, on any file system that fsspec supports."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path, PurePosixPath
from typing import Any

from nlijob.errors import ConfigurationError, first_line
from nlijob.storage.contents import clear_way, is_copied

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
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
SILENCE_S = 300.0
"""A request, with all attempts of the client, is given up after this time without a byte."""
POLL_S = 0.1
GS_CONNECT_S, GS_SILENCE_S, GS_REQUEST_S = 10.0, 30.0, 300.0
"""Longest time for a connection, without an answer, and for a request in all, such as a part of
50 MB. gcsfs itself makes six attempts, with pauses of half a minute in all."""


class Place:
    """The remote folder `<URL>/<run id>`."""

    def __init__(self, option: str, url: str, run_id: str) -> None:
        """Make no request. Raises ConfigurationError that names `option` if the URL is unusable."""
        self.option = option
        self.url = f"{shown_url(url)}/{run_id}"
        """The folder's URL without secrets."""
        self._fs, folder = _file_system(option, url)
        self._root = f"{folder.rstrip('/')}/{run_id}/"
        self._is_local = url.startswith("file:")

    def sizes(self) -> dict[str, int]:
        """Name -> size in bytes of every file of a run in the folder.

        Links and placeholders of folders are not files. A bucket may have a file and a folder of
        one name; such a file cannot be one of a run.
        """
        # Otherwise a local folder that must not be read would look like an empty one.
        options: dict[str, Any] = {"on_error": "raise"} if self._is_local else {}
        with _named_faults():
            try:
                found = self._ask("find", self._root.rstrip("/"), detail=True, **options)
            except FileNotFoundError:
                if self._is_local:
                    return {}
                raise
        sizes = {
            path.removeprefix(self._root): int(info["size"])
            for path, info in found.items()
            if info.get("type") == "file"
        }
        folders = {str(folder) for name in sizes for folder in PurePosixPath(name).parents}
        return {name: n for name, n in sizes.items() if is_copied(name) and name not in folders}

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with _named_faults():
            content: bytes = self._ask("cat_file", self._root + name)
        return content

    def fetch(self, name: str, file: Path, moved: Callable[[], None] = lambda: None) -> None:
        """Download `name` to `file`; `moved` is called repeatedly while its bytes arrive."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with _named_faults():
            self._move("get_file", self._root + name, str(file), moved)

    def write(self, name: str, content: bytes) -> None:
        """Write a file with this content."""
        self._clear_way(name)
        with _named_faults():
            self._ask("pipe_file", self._root + name, content)

    def send(self, name: str, file: Path, moved: Callable[[], None]) -> None:
        """Upload a file; `moved` is called repeatedly while its bytes get through."""
        self._clear_way(name)
        with _named_faults():
            self._move("put_file", str(file), self._root + name, moved)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        with contextlib.suppress(FileNotFoundError), _named_faults():
            self._ask("rm_file", self._root + name)

    def _clear_way(self, name: str) -> None:
        if self._is_local:
            clear_way(Path(self._root), name)

    def _move(self, operation: str, source: str, target: str, moved: Callable[[], None]) -> None:
        from fsspec.callbacks import Callback

        last = [time.monotonic()]

        def count(size: int | None, value: int, **_: object) -> None:
            if value:
                last[0] = time.monotonic()
                moved()

        self._ask(operation, source, target, last=last, callback=Callback(hooks={"count": count}))

    def _ask(
        self, operation: str, *arguments: Any, last: Sequence[float] = (), **options: Any
    ) -> Any:
        """The value of an operation of the file system; `last`: when a byte last moved.

        Raises TimeoutError if nothing moves. The operation is cancelled then, so that it changes
        nothing later: aiohttp waits for ever for some servers that accept an upload and are silent.
        """
        if not self._fs.async_impl:
            return getattr(self._fs, operation)(*arguments, **options)
        import asyncio  # late: jobs without a bucket do without it

        started = (time.monotonic(),)
        call = getattr(self._fs, f"_{operation}")(*arguments, **options)
        value = asyncio.run_coroutine_threadsafe(call, self._fs.loop)
        while not wait([value], POLL_S).done:
            if time.monotonic() - (last or started)[0] > SILENCE_S:
                value.cancel()
                raise TimeoutError(f"nothing moved within {SILENCE_S:g} s")
        return value.result()


@contextlib.contextmanager
def _named_faults() -> Iterator[None]:
    """Raise what gcsfs says without a word or a type of its own as the other clients do."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        if getattr(error, "code", None) in (401, 403) or str(error).startswith("Forbidden: "):
            raise PermissionError(" ".join(str(error).split())) from error
        if isinstance(error, TimeoutError) and not str(error):
            raise TimeoutError("the server did not answer in time") from error
        if type(error).__name__ == "ProxyError" and not str(error):
            raise ConnectionError("502 (Bad Gateway)") from error
        raise


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
        if PACKAGES.get(scheme) == "gcsfs":
            return _google(url)
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


def _google(url: str) -> tuple[Any, str]:
    """Google Cloud Storage by its JSON API, and the path within it.

    gcsfs's own choice of class asks another API, for a minute at a time where that gives no answer,
    which kind of bucket it is, before every request.
    """
    import aiohttp
    from gcsfs.core import GCSFileSystem

    limits = aiohttp.ClientTimeout(
        total=GS_REQUEST_S, sock_connect=GS_CONNECT_S, sock_read=GS_SILENCE_S
    )
    file_system = GCSFileSystem(
        skip_instance_cache=True, use_listings_cache=False, requests_timeout=limits
    )
    return file_system, GCSFileSystem._strip_protocol(url)
