"""A real S3 server on loopback."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable
from http.client import responses
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import make_server


class S3Server:
    """moto's S3 in this process; while `away` it answers every request with 503."""

    def __init__(self) -> None:
        self.away = False
        self.before: Callable[[str, str], int | None] = lambda method, path: None
        """Called with method and path of each request; may wait, or return a status to send."""
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_QuietHandler
        )
        self._s3 = DomainDispatcherApplication(create_backend_app)

    def __enter__(self) -> S3Server:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environment: Any, start_response: Any) -> Any:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        status = 503 if self.away else self.before(method, path)
        if status is not None:
            code = {403: "AccessDenied", 503: "SlowDown"}.get(status, "InternalError")
            content = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
            headers = [("Content-Length", str(len(content))), ("Content-Type", "application/xml")]
            start_response(f"{status} {responses[status]}", headers)
            return [] if method == "HEAD" else [content]
        return self._s3(environment, start_response)

    def make_bucket(self, name: str) -> None:
        """An empty bucket."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=60).close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"


class _QuietHandler(MotoRequestHandler):  # type: ignore[misc]  # moto has no types
    def log_request(self, *_: Any) -> None:
        """Say nothing."""


def client_environment(endpoint: str) -> dict[str, str]:
    """What makes a client of S3 ask the server at this URL."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
