"""An audit that could not be made does not count as passed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import jobs

FAULT = {
    "vulns": [
        {
            "id": "OSV-1",
            "modified": "2026-01-01T00:00:00Z",
            "affected": [
                {
                    "package": {"name": "second", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "2.1"}]}],
                }
            ],
        }
    ]
}
Audit = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Audits two packages with a database at the URL that it is given."""
    lock = tmp_path / "two.lock"
    lock.write_text("first==1.0\nsecond==2.0\n", encoding="utf-8")
    options = ("--cache-dir", str(tmp_path / "cache"), "--timeout", "30")

    def run(url: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tools.audit", str(lock), "--", *options]
        return subprocess.run(
            [*command, "--osv-url", url],
            cwd=jobs.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database that answers for a package as the test's parameter says."""
    answers: dict[str, Any] = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = answers[asked["package"]["name"]]
            content = json.dumps(answer).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("database", [{"first": {}, "second": {}}], indirect=True)
def test_versions_without_known_vulnerabilities_pass(audit: Audit, database: str) -> None:
    done = audit(database)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "two.lock: 2 packages, no known vulnerability\n"


@pytest.mark.parametrize("database", [{"first": {}, "second": FAULT}], indirect=True)
def test_a_known_vulnerability_is_named(audit: Audit, database: str) -> None:
    done = audit(database)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "two.lock: second 2.0: OSV-1, fixed in 2.1\n"


@pytest.mark.parametrize("database", [{"first": {}, "second": 500}], indirect=True)
def test_a_database_that_fails_for_one_package_is_no_pass(audit: Audit, database: str) -> None:
    done = audit(database)
    assert done.returncode == 3, done.stdout
    assert "two.lock: NOT AUDITED" in done.stderr


def test_a_database_that_is_not_there_is_no_pass(audit: Audit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    done = audit(url)
    assert done.returncode == 3, done.stdout
    assert "two.lock: NOT AUDITED" in done.stderr
