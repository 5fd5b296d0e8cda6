"""Tells a web address how the job ended: one small JSON document, whatever the end was."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from nlijob.ending import End, end_of
from nlijob.errors import ConfigurationError, ExitCode
from nlijob.records import Results
from nlijob.retry import retry
from nlijob.rundir import RunDir
from nlijob.storage.mirror import Mirror

ATTEMPTS = 3
FIRST_WAIT_S = 1.0
TIMEOUT_S = 10.0
LIMIT_S = 60.0
"""All attempts and the pauses between them."""
STOP_LIMIT_S = 2.0
"""The same after a stop."""

ENDS = {ExitCode.DONE: "done", ExitCode.GATE_FAILED: "gate failed", ExitCode.STOPPED: "stopped"}
"""Exit code -> the end in words; every other is "failed"."""


class Notice:
    """What there is to tell about a job, filled in as far as the job gets, posted when left.

    A notice that is not taken is told in one line and changes nothing else.
    """

    def __init__(self, url: str | None, recipe: str, tell: Callable[[str], None]) -> None:
        """Without a URL nobody is told. Raises ConfigurationError where nothing can be posted."""
        if url is not None:
            _check(url)
        self._url = url
        self._recipe = recipe
        self._tell = tell
        self._started = time.monotonic()
        self.run: RunDir | None = None
        self.mirror: Mirror | None = None
        self.results: Results | None = None

    def __enter__(self) -> Notice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._url is not None:
            end = end_of(error)
            fault = _post(self._url, self.content(end), end.exit_code == ExitCode.STOPPED)
            if fault:
                self._tell(f"Note: the notice to {shown_url(self._url)} was not taken: {fault}")

    def content(self, end: End) -> dict[str, Any]:
        """The document, as plain JSON values."""
        return {
            "run_id": self.run.root.name if self.run else None,
            "recipe": self._recipe,
            "end": ENDS.get(end.exit_code, "failed"),
            "exit_code": int(end.exit_code),
            "message": end.message.partition("\n")[0] or None,
            "duration_s": round(time.monotonic() - self._started, 1),
            "outcome": _outcome(self.results) if self.results else None,
            "report": str(self.run.report.absolute()) if self.run and self.results else None,
            "upload": _upload(self.mirror) if self.mirror else None,
        }


def shown_url(url: str) -> str:
    """A URL as it may be printed; the path too may hold a secret, as those of webhooks do."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    except ValueError:
        usable = False
    if not usable:  # the URL itself stays unsaid
        raise ConfigurationError(
            "--notify-url: nothing can be posted to this", "give http://... or https://..."
        )


class _NotTakenError(Exception):
    """The notice was not taken, for a reason that may be printed."""

    def __init__(self, reason: str, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final
        """Whether another attempt would bring the same answer."""


def _post(url: str, content: dict[str, Any], in_haste: bool) -> str:
    """Post `content` as JSON, repeatedly where that may help; returns what went wrong, if anything.

    In a thread, because the wait for a name server cannot be given a time limit.
    """
    limit_s = STOP_LIMIT_S if in_haste else LIMIT_S
    outcomes = [f"no answer within {limit_s:.0f} s"]
    body = json.dumps(content).encode()

    def post() -> None:
        try:
            retry(
                partial(_try, url, body),
                ATTEMPTS,
                FIRST_WAIT_S,
                lambda error: not isinstance(error, _NotTakenError) or error.is_final,
                lambda error, _: outcomes.append(str(error)),
            )
        except _NotTakenError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("")

    thread = threading.Thread(target=post, name="notice", daemon=True)
    thread.start()
    thread.join(limit_s)
    return outcomes[-1]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects count as faults: followed, a POST becomes a GET and its document is lost."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _try(url: str, body: bytes) -> None:
    """Post `body` once. Raises _NotTakenError."""
    headers = {"Content-Type": "application/json", "User-Agent": "nlijob"}
    try:
        request = urllib.request.Request(url, body, headers)
        urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        is_final = error.code < 500 and error.code not in (408, 429)
        raise _NotTakenError(f"HTTP status {error.code}", is_final) from None
    except urllib.error.URLError as error:
        raise _NotTakenError(str(error.reason), is_final=False) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # its text may hold the URL
        raise _NotTakenError(type(error).__name__, is_final=False) from None


def _outcome(results: Results) -> dict[str, Any]:
    return {
        "accuracy_before": results.base.accuracy,
        "accuracy_after": results.tuned.accuracy,
        "test_rows": results.tuned.rows,
        "selected_epoch": results.selection.epoch,
    }


def _upload(mirror: Mirror) -> dict[str, Any]:
    return {"url": mirror.url, "files_missing": len(mirror.missing)}
