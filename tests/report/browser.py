"""A headless Chromium that records all complaints and requests of a page.

Driven through its DevTools protocol: one WebSocket, JSON messages.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import axe_playwright_python
import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
PATIENCE_S = 180.0


def find_chromium() -> str | None:
    """Path of the browser: $CHROMIUM, or one of the usual names; None if there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """A page of the browser, with all its events since it was opened."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=PATIENCE_S)
        self._last = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; events that arrive before it are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while (answer := self._receive()).get("id") != self._last:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def load(self, url: str) -> None:
        """Load a page."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not self._seen("Page.loadEventFired"):
            self._receive()

    def open(self, url: str) -> None:
        """Load a page and wait until it has settled."""
        self.load(url)
        # Two frames later, layout and observers have run, and what they have to say is said.
        self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        )

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    def show_as(self, scheme: str, width: int = 1280, height: int = 900) -> None:
        """Emulate a "light" or "dark" system setting, and a window of this size in pixels."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def print(self, **options: Any) -> bytes:
        """The page as a PDF; `options` as those of Page.printToPDF."""
        return base64.b64decode(self.call("Page.printToPDF", **options)["data"])

    def complaints(self) -> list[str]:
        """Every exception, console message and log entry so far."""
        self.evaluate("0")  # events come in order: all before this answer are in
        return [json.dumps(event["params"]) for event in self.events if _is_complaint(event)]

    def requests(self) -> list[str]:
        """The address of every request so far, the page's own among them."""
        self.evaluate("0")
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [str(event["params"]["request"]["url"]) for event in sent]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        if "method" in message:
            self.events.append(message)
        return message

    def _seen(self, method: str) -> bool:
        return any(event["method"] == method for event in self.events)


@contextmanager
def open_tab(program: str) -> Iterator[Tab]:
    """A new browser with one tab; both are closed afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            tab = Tab(_tab_address(Path(profile), process))
            yield tab
            tab.close()
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _tab_address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """DevTools address of the first tab; the browser writes its port to a file."""
    written = profile / "DevToolsActivePort"
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the browser ended with exit code {process.returncode}")
        if written.exists() and (lines := written.read_text().splitlines()):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise TimeoutError("the browser did not open its DevTools port")


def _is_complaint(event: dict[str, Any]) -> bool:
    return event["method"] in (
        "Runtime.exceptionThrown",
        "Runtime.consoleAPICalled",
        "Log.entryAdded",
    )


def serious_faults(tab: Tab, *rules: str) -> list[dict[str, str]]:
    """Serious and critical findings of axe-core, with all details open, by all rules or these."""
    chosen = json.dumps({"runOnly": list(rules)} if rules else {})
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js")
    tab.evaluate(axe.read_text(encoding="utf-8") + "; 0")
    found: list[dict[str, str]] = tab.evaluate(
        """(async (options) => {
            for (const one of document.querySelectorAll("details")) one.open = true;
            const { violations } = await axe.run(document, options);
            return violations
                .filter((fault) => ["serious", "critical"].includes(fault.impact))
                .map((fault) => ({ rule: fault.id, where: fault.nodes[0].html }));
        })("""
        + f"{chosen})"
    )
    return found
