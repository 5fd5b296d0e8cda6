"""Posts a small JSON document to a URL when the job ends, however it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from nlijob.ending import End, end_of
from nlijob.errors import ConfigurationError, ExitCode
from nlijob.printable import printable
from nlijob.records.outcome import Results
from nlijob.retry import retry
from nlijob.rundir import RunDir
from nlijob.storage.mirror import Mirror

ATTEMPTS = 3
FIRST_WAIT_S = 1.0
LIMIT_S = 60.0
"""Longest time for all attempts and the pauses between them."""
STOP_LIMIT_S = 2.0
"""Longest time after the job was stopped."""

ENDS = {ExitCode.DONE: "done", ExitCode.GATE_FAILED: "gate failed", ExitCode.STOPPED: "stopped"}
"""Exit code -> the value of `end` in the document; for all other codes it is "failed"."""


class Notice:
    """The document about a job, posted when the context ends.

    The job sets `run`, `mirror` and `results` as it progresses. If the document cannot be
    delivered, one line says so, and nothing else changes.
    """

    def __init__(self, url: str | None, recipe: str, tell: Callable[[str], None]) -> None:
        """Without a URL nothing is posted. Raises ConfigurationError if the URL is unusable."""
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

    def leave_to_others(self) -> None:
        """Post nothing: another host of the same job does."""
        self._url = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._url is not None:
            end = end_of(error)
            fault = _post(self._url, self.content(end), end.exit_code == ExitCode.STOPPED)
            if fault:
                self._tell(f"Note: the notice to {shown_url(self._url)} failed: {fault}")

    def content(self, end: End) -> dict[str, Any]:
        """The document as plain JSON values."""
        return {
            "run_id": self.run.root.name if self.run else None,
            "recipe": self._recipe,
            "end": ENDS.get(end.exit_code, "failed"),
            "exit_code": int(end.exit_code),
            "message": printable(end.message.partition("\n")[0]) or None,
            "duration_s": round(time.monotonic() - self._started, 1),
            "outcome": _outcome(self.results) if self.results else None,
            "report": str(self.run.report.absolute()) if self.run and self.results else None,
            "upload": {"url": self.mirror.url, "files_missing": len(self.mirror.missing)}
            if self.mirror
            else None,
        }


def shown_url(url: str) -> str:
    """The part of a URL that may be printed: the path of a webhook is a secret, too."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    except ValueError:
        usable = False
    if not usable:  # the message leaves the URL out, as it may hold a secret
        raise ConfigurationError(
            "--notify-url: not a URL to post to", "give http://... or https://..."
        )


def _post(url: str, content: dict[str, Any], in_haste: bool) -> str:
    """Post `content` as JSON, with retries; returns what went wrong, or "".

    `in_haste` shortens the time limit. The work is done in a thread, because name resolution has no
    time limit of its own.
    """
    from nlijob.posting import NotDeliveredError, post_once  # late: most jobs notify nobody

    limit_s = STOP_LIMIT_S if in_haste else LIMIT_S
    outcomes = [f"no answer within {limit_s:.0f} s"]
    body = json.dumps(content).encode()

    def post() -> None:
        try:
            retry(
                partial(post_once, url, body),
                ATTEMPTS,
                FIRST_WAIT_S,
                lambda error: not isinstance(error, NotDeliveredError) or error.is_final,
                lambda error, _: outcomes.append(str(error)),
            )
        except NotDeliveredError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("")

    thread = threading.Thread(target=post, name="notice", daemon=True)
    thread.start()
    thread.join(limit_s)
    return outcomes[-1]


def _outcome(results: Results) -> dict[str, Any]:
    """The figures; those of several trainings are told beside those of the one that is kept."""
    trials = results.trials
    return {
        "accuracy_before": results.base.accuracy,
        "accuracy_after": results.tuned.accuracy,
        "test_rows": results.tuned.rows,
        "selected_epoch": results.selection.epoch,
        "trainings": len(trials.trials) if trials else 1,
        "mean_accuracy_after": trials.accuracy.mean if trials else results.tuned.accuracy,
    }
