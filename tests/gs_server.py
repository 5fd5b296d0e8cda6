"""A Google Cloud Storage server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any

from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage


class GsServer:
    """An emulator of the JSON API in this process; while `away` it answers with 503."""

    def __init__(self) -> None:
        self.away = False
        self.before: Callable[[str, str], int | None] = lambda method, path: None
        """Called with method and path of each request; may wait, or return a status to send."""
        self._storage = Storage(use_memory_fs=True)
        handler = partial(_Handler, self, self._storage)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> GsServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def make_bucket(self, name: str) -> None:
        """An empty bucket."""
        buckets.create_bucket(name, self._storage)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"


class _Handler(RequestHandler):  # type: ignore[misc]  # the emulator has no types
    lock = threading.Lock()  # the emulator answers one request at a time

    def __init__(self, gs: GsServer, *arguments: Any) -> None:
        self._gs = gs
        super().__init__(*arguments)

    def _answer(self, answer: Callable[[], None]) -> None:
        status = 503 if self._gs.away else self._gs.before(self.command, self.path)
        if status is None:
            with self.lock:
                answer()
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = json.dumps({"error": {"code": status, "message": "as told"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:  # noqa: N802
        self._answer(super().do_GET)

    def do_POST(self) -> None:  # noqa: N802
        self._answer(super().do_POST)

    def do_PUT(self) -> None:  # noqa: N802
        self._answer(super().do_PUT)

    def do_DELETE(self) -> None:  # noqa: N802
        self._answer(super().do_DELETE)


def client_environment(endpoint: str) -> dict[str, str]:
    """What makes a client of Google's ask the server at this URL, without credentials."""
    return {
        "STORAGE_EMULATOR_HOST": endpoint,
        "NO_GCE_CHECK": "true",
        "CLOUDSDK_CONFIG": "/dev/null/none",
        "GOOGLE_APPLICATION_CREDENTIALS": "",
    }
