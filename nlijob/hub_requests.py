"""Requests to a hub that always end: with an answer, or with a failure that names its cause.

The client library's own requests have no time limit in places, wait as long as a server asks them
to, and report some failures as "not found in the cache". So the requests are made here.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from nlijob.retry import retry, retry_after_s
from nlijob.waiting import while_moving

if TYPE_CHECKING:
    import httpx2

MOST_JSON_BYTES = 256 * 1024**2
MOST_PAGES = 10_000
STEP_BYTES = 1024**2
"""A download that got this much further starts to count its failures anew."""
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""Statuses after which the same request may succeed (RFC 9110; 425: RFC 8470; 429: RFC 6585)."""
PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class Limits:
    """How long a hub is waited for, in every way in which it can keep a job waiting."""

    connect_s: float = 10.0
    answer_s: float = 10.0
    """From the request to its answer's headers, and between two pieces of its body."""
    window_s: float = 30.0
    """In each such time at least `window_bytes` must arrive; less is a server that stalls."""
    window_bytes: int = 64 * 1024
    attempts: int = 5
    """Failures of a request in a row, after which it is given up."""
    first_wait_s: float = 1.0
    """Pause after the first failure; it doubles with each further one, and varies by half."""
    longest_asked_s: float = 60.0
    """Longest pause that a server may ask for (Retry-After)."""
    patience_s: float = 600.0
    """The repository is given up after this time without a byte from any of its files."""

    @classmethod
    def of_environment(cls) -> Limits:
        """The limits, with `answer_s` as HF_HUB_DOWNLOAD_TIMEOUT says, if it is set."""
        try:
            return cls(answer_s=max(0.1, float(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"])))
        except (KeyError, ValueError):
            return cls()


class HubError(Exception):
    """A request that failed, or bytes that are not those that the hub promised."""

    def __init__(
        self, cause: str, is_final: bool = False, asked_s: float | None = None, status: int = 0
    ) -> None:
        """`is_final`: another attempt would fail in the same way; `asked_s`: the server's wish."""
        super().__init__(cause)
        self.is_final = is_final
        self.asked_s = asked_s
        self.status = status


class HubClient:
    """Makes requests to one hub. It may be used by several threads."""

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        limits: Limits,
        tell: Callable[[str], None],
    ) -> None:
        """`endpoint`: the hub's URL. `tell` is called with a line about each retry."""
        import httpx2

        self._endpoint = endpoint.rstrip("/")
        self._limits = limits
        self._tell = tell
        timeout = httpx2.Timeout(limits.answer_s, connect=limits.connect_s)
        self._client = httpx2.Client(
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=timeout,
            follow_redirects=True,  # without the token if they lead to another host
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def json(self, path: str) -> Any:
        """The JSON value at a path of the hub. Raises HubError."""
        return self._retried(lambda: self._json_once(self._endpoint + path)[0])

    def pages(self, path: str) -> Iterator[Any]:
        """The JSON values of a list in pages, which name their successors. Raises HubError."""
        url = self._endpoint + path
        for _ in range(MOST_PAGES):
            value, following = self._retried(partial(self._json_once, url))
            yield value
            if not following:
                return
            # Stay on this host, whatever the answer names: the request carries the token.
            parts = urlsplit(urljoin(url, following))
            url = f"{_origin(self._endpoint)}{parts.path}" + f"?{parts.query}" * bool(parts.query)
        raise HubError(f"a list of more than {MOST_PAGES:,} pages", is_final=True)

    def download(
        self, path: str, file: BinaryIO, size: int | None, moved: Callable[[], None]
    ) -> None:
        """Append to `file`, which may hold the first bytes already, until it is complete.

        `size`: the file's size in bytes, if known. `moved` is called whenever bytes arrived. Bytes
        that cannot belong to the file are deleted. Raises HubError.
        """
        furthest = 0

        def advance() -> None:
            nonlocal furthest
            furthest = max(furthest, file.tell())
            moved()

        self._retried(
            lambda: self._download_once(self._endpoint + path, file, size, advance),
            lambda: furthest // STEP_BYTES,
        )

    # ------------------------------------------------------------ one attempt

    def _retried(self, call: Callable[[], Any], progress: Callable[[], object] = lambda: 0) -> Any:
        def tell(error: Exception, wait_s: float) -> None:
            self._tell(f"{error}; trying again in {wait_s:.0f} s")

        return retry(
            call,
            self._limits.attempts,
            self._limits.first_wait_s,
            lambda error: not isinstance(error, HubError) or error.is_final,
            tell,
            asked_s=lambda error: error.asked_s if isinstance(error, HubError) else None,
            progress=progress,
        )

    def _json_once(self, url: str) -> tuple[Any, str]:
        """The value, and the URL of the next page or ""."""
        with self._answer(url, {}) as response:
            content = b"".join(self._pieces(response, MOST_JSON_BYTES))
            following = response.links.get("next", {}).get("url", "")
        try:
            return json.loads(content), following
        except (ValueError, RecursionError):
            kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
            raise HubError(f"the answer of {_host(url)} is not JSON ({kind})") from None

    def _download_once(
        self, url: str, file: BinaryIO, size: int | None, advance: Callable[[], None]
    ) -> None:
        start = file.seek(0, os.SEEK_END)
        if size is not None and start == size:
            return
        if size is not None and start > size:
            start = _empty(file)
        try:
            with self._answer(url, {"Range": f"bytes={start}-"} if start else {}) as response:
                if start and not _continues(response, start):
                    start = _empty(file)
                _check_length(response, url, start, size)
                for piece in self._pieces(response, None if size is None else size - start):
                    file.write(piece)
                    advance()
        except HubError as failure:
            if failure.status:  # a refusal, perhaps of the range
                _empty(file)
            raise
        if size is not None and file.tell() != size:
            found = file.tell()
            raise HubError(f"the answer was cut short: {found:,} of {size:,} bytes")

    @contextmanager
    def _answer(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """The answer to a GET once its headers are here; all failures become HubError."""
        import httpx2

        limits = self._limits
        try:
            request = self._client.build_request("GET", url, headers=dict(headers))
            # A server that sends its headers byte by byte keeps every limit of the client.
            response = while_moving(
                lambda _: self._client.send(request, stream=True),
                limits.connect_s + limits.answer_s,
            )
            try:
                if response.status_code not in (200, 206):
                    raise self._refusal(response)
                yield response
            finally:
                response.close()
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            raise _failure_of(error, url, limits) from error

    def _pieces(self, response: httpx2.Response, most: int | None) -> Iterator[bytes]:
        """The body's pieces as they arrive. Raises HubError if they stall, or are too many."""
        limits = self._limits
        received = in_window = 0
        since = time.monotonic()
        for piece in response.iter_bytes():
            received += len(piece)
            in_window += len(piece)
            if most is not None and received > most:
                raise HubError(f"the answer has more than the {most:,} bytes expected", status=-1)
            yield piece
            if time.monotonic() - since >= limits.window_s:
                if in_window < limits.window_bytes:
                    raise HubError(
                        f"{_host(str(response.url))} stalls: "
                        f"{in_window:,} bytes within {limits.window_s:g} s"
                    )
                in_window, since = 0, time.monotonic()

    def _refusal(self, response: httpx2.Response) -> HubError:
        status = response.status_code
        words = " ".join(response.headers.get("X-Error-Message", "").split())[:200]
        words = words or PHRASES.get(status, "unknown status")
        if status == 401:
            words += "; it does not exist, or the token gives no access to it"
        asked_s = retry_after_s(response.headers.get("Retry-After"), self._limits.longest_asked_s)
        return HubError(
            f"{_host(str(response.url))} answers {status} ({words})",
            is_final=status < 500 and status not in (*TRY_AGAIN, 416),
            asked_s=asked_s,
            status=status,
        )


def _check_length(response: httpx2.Response, url: str, start: int, size: int | None) -> None:
    """Raise HubError if the headers show that the bytes to come are not those of the file."""
    length = response.headers.get("Content-Length", "")
    if size is None or "Content-Encoding" in response.headers or not length.isdigit():
        return
    if int(length) != size - start:
        kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
        raise HubError(
            f"{_host(url)} sends {int(length):,} bytes ({kind}), expected {size - start:,}",
            status=-1,
        )


def _continues(response: httpx2.Response, start: int) -> bool:
    """Whether the answer is the rest of the file from `start` on."""
    is_part = response.status_code == 206 and "Content-Encoding" not in response.headers
    return is_part and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _empty(file: BinaryIO) -> int:
    file.seek(0)
    return file.truncate()


def _failure_of(error: Exception, url: str, limits: Limits) -> HubError:
    """What happened, in words. URLs are shown by host only, as their queries may be signed."""
    import httpx2

    request = getattr(error, "_request", None)
    host = _host(str(request.url) if request is not None else url)
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return HubError(f"the name {host} cannot be resolved (DNS)")
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", "") or cause.reason or str(cause)
            is_final = isinstance(cause, ssl.SSLCertVerificationError)
            return HubError(f"no secure connection to {host} (TLS: {reason})", is_final)
        if isinstance(cause, ConnectionRefusedError):
            return HubError(f"{host} refuses the connection")
    if isinstance(error, httpx2.ConnectTimeout):
        return HubError(f"no connection to {host} within {limits.connect_s:g} s")
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return HubError(f"no answer within {limits.answer_s:g} s from {host}")
    if isinstance(error, httpx2.TooManyRedirects):
        return HubError(f"too many redirects from {_host(url)}", is_final=True)
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return HubError(f"{_host(url) or url!r} is not the URL of a hub", is_final=True)
    if isinstance(error, httpx2.DecodingError):
        return HubError(f"the answer of {host} cannot be unpacked", status=-1)
    if isinstance(error, httpx2.RemoteProtocolError):
        return HubError(f"the answer of {host} was cut short ({_first(error)})")
    return HubError(f"the connection to {host} was lost ({_first(error)})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _host(url: str) -> str:
    """Host and port of a URL, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2]
