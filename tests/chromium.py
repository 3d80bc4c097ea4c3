"""A headless Chromium, driven through its DevTools protocol: open a page, read it, point, click, type, take a picture.

Tests that need it are marked `needed`: skipped where there is no browser, unless ONESPACE_REQUIRE_CHROMIUM is set.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


needed = pytest.mark.skipif(
    find() is None and not os.environ.get("ONESPACE_REQUIRE_CHROMIUM"), reason=f"no browser: none of {', '.join(NAMES)} is on PATH"
)
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Escape": 27, "Tab": 9, "Enter": 13}


class Page:
    """`complaints`: what the page's scripts threw or logged as an error."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.number = 0
        self.complaints: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            self._listen(answer)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def _listen(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert", "warning"):
            self.complaints.append(json.dumps(params["args"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])

    def point(self, x: float, y: float, kind: str = "mouseMoved") -> None:
        """The mouse at a place of the window; kind mousePressed or mouseReleased is its left button."""
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def press(self, key: str) -> None:
        """A key such as ArrowRight, or a character."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]} if key in KEYS else {"key": key, "text": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", **known)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def text(self) -> str:
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    def wait_for(self, *texts: str, seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        while not all(text in (shown := self.text()) for text in texts):
            assert time.monotonic() < deadline, f"{[text for text in texts if text not in shown]} not on the page:\n{shown}"
            time.sleep(0.25)
        return shown

    def click(self, button: str) -> None:
        """The first button whose text begins so, as soon as it is there and enabled."""
        script = (
            f"(() => {{ const found = [...document.querySelectorAll('button')].find(b => b.innerText.trim().startsWith({button!r})"
            " && !b.disabled); if (found) found.click(); return !!found; })()"
        )
        deadline = time.monotonic() + 60
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"no button {button!r}:\n{self.text()}"
            time.sleep(0.25)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def page(profile: Path, width: int, height: int) -> Iterator[Page]:
    """`profile` is a folder of its own for what the browser keeps."""
    program = find()
    assert program is not None
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
    browser = subprocess.Popen(
        [*command, f"--user-data-dir={profile}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        told = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not told.exists() or "\n" not in told.read_text():
            assert time.monotonic() < deadline, "chromium did not start"
            time.sleep(0.1)
        port = int(told.read_text().split()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            (target,) = [each for each in json.load(answer) if each["type"] == "page"]
        with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
            shown = Page(socket)
            shown.call("Runtime.enable")
            shown.call("Log.enable")
            shown.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            yield shown
    finally:
        browser.terminate()
        browser.wait(30)
