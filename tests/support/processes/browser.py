"""A headless Chromium that tests drive by its own protocol, over a pipe. It can reach only 127.0.0.1."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.stack import wait_for

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(__file__).parent.parent / "axe" / "axe.min.js"
"""axe-core 4.14.1 from npm, unchanged: it checks pages for accessibility (WCAG 2, and good practice)."""
LIMIT_SECONDS = 60
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe", "--no-startup-window"),
)


WIDTH, HEIGHT = 1300, 1600
"""The size of a page, unless another is asked for."""


class Browser:
    """One page. Records its requests and errors."""

    def __init__(self, folder: Path) -> None:
        """Skips the test on a machine without Chromium."""
        program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
        if program is None:
            pytest.skip("Chromium is not installed.")
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._number = 0
        self._unread = b""
        incoming, self._out = os.pipe()
        self._in, outgoing = os.pipe()
        self._process = subprocess.Popen(
            # It reads commands from descriptor 3, and writes responses to 4.
            [
                "bash",
                "-c",
                f'exec "$@" 3<&{incoming} 4>&{outgoing}',
                "bash",
                program,
                *OPTIONS,
                f"--user-data-dir={folder}",
            ],
            pass_fds=(incoming, outgoing),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(incoming)
        os.close(outgoing)
        self._context: str | None = None
        self._session: str | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Show an empty page, as a browser that was never used: without history, cookies and cache."""
        previous, self._session = self._context, None
        self._context = self.call("Target.createBrowserContext")["browserContextId"]
        size = {"width": WIDTH, "height": HEIGHT}
        target = self.call("Target.createTarget", url="about:blank", browserContextId=self._context, **size)["targetId"]
        if previous:
            self.call("Target.disposeBrowserContext", browserContextId=previous)
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.requests.clear()
        self.complaints.clear()

    def open(self, url: str) -> None:
        """Open a URL."""
        self.call("Page.navigate", url=url)

    def visit(self, url: str) -> None:
        """Open a URL, and wait until its page is complete."""
        self.run("window.isLeft = true")
        self.open(url)
        self.wait_for("!window.isLeft && document.readyState === 'complete'", what=url)

    def leave(self) -> None:
        """Leave the page, which would go on asking for changes."""
        self.open("about:blank")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str, *, what: str = "") -> None:
        """Wait until an expression is true in the page."""
        wait_for(lambda: self.run(f"!!({script})"), seconds=LIMIT_SECONDS, what=what or script)

    def find_barriers(self, *, rules: Sequence[str] = ()) -> list[str]:
        """Return what keeps people with disabilities from using the page, by axe: the rule and the element. `rules`:
        the only ones to check, else all."""
        if not self.run("'axe' in window"):
            self.call("Runtime.evaluate", expression=AXE.read_text())
        # It would load the style sheets again.
        options = {"resultTypes": ["violations"], "preload": False, **({"runOnly": list(rules)} if rules else {})}
        found = f"axe.run(document, {json.dumps(options)})"
        rules = f"{found}.then((result) => result.violations.map((rule) => [rule.id, rule.nodes[0].html]))"
        return [f"{rule}: {element}" for rule, element in self.run(rules)]

    def show_as(self, *, width: int, height: int = 844, dark: bool = False) -> None:
        """Show pages as on a screen of this size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Store a screenshot."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its response. Records events that arrive meanwhile."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._out, json.dumps(order).encode() + b"\0")
        limit_at = time.monotonic() + LIMIT_SECONDS
        while True:
            message = self._read(limit_at)
            if message.get("id") == self._number:
                assert "error" not in message, (method, message)
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def close(self) -> None:
        """End it with all of its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _read(self, limit_at: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], max(limit_at - time.monotonic(), 0))
            assert ready, "The browser does not respond."
            part = os.read(self._in, 65_536)
            assert part, "The browser has ended."
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(told["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] == "error":
                self.complaints.append(json.dumps(told["args"]))
