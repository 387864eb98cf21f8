# SPDX-License-Identifier: GPL-2.0-only
"""Headless Chromium for the tests that look at a page, spoken to through a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")

# For each text on the page, its contrast with what is behind it (WCAG 2.2, 1.4.3); those that have too little.
CONTRAST = """(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const a = light(rgb(e.closest("svg") ? style.fill : style.color).slice(0, 3)), b = light(behind(e).slice(0, 3));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(e.className + ": " + walk.currentNode.data.slice(0, 30) + " " + ratio.toFixed(2));
  }
  return bad; })()"""

# What reaches beyond the right edge and does not lie in something that scrolls by itself.
OUTSIDE = """[...document.body.querySelectorAll("*")].filter(e =>
  e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1
  && !e.closest("pre, .scroll")).map(e => e.tagName + " " + e.getAttribute("class") + e.textContent.slice(0, 30))"""


class Browser:
    """One page in a browser of its own; the commands are those of the Chrome DevTools Protocol."""

    def __init__(self, folder: Path) -> None:
        """Start the browser; `folder` is for its profile and log."""
        assert PROGRAM
        theirs, self._out = os.pipe()
        back, their_out = os.pipe()
        # The browser expects its commands at descriptor 3 and answers at 4.
        words = [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words += ["--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-sync"]
        words += ["--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "about:blank"]
        shell = f'exec "$@" 3<&{theirs} 4>&{their_out}'
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "chromium", *words],
            pass_fds=(theirs, their_out),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ | {"HOME": str(folder)},
        )
        os.close(theirs)
        os.close(their_out)
        self._in = os.fdopen(back, "rb")
        self._number = 0
        self._session = ""
        self._rest = b""
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        self._in.close()
        self._log.close()

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._in.read1(1 << 16)
            assert more, "the browser is gone; see chromium.log"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        words = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            words["sessionId"] = self._session
        os.write(self._out, json.dumps(words).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def open(self, page: Path) -> None:
        """Load a page."""
        self.send("Page.navigate", url=page.as_uri())
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def show(self, width: int, height: int = 900, scheme: str = "light", media: str = "screen") -> None:
        """Set the window's size, and what the reader prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", media=media, features=[feature])

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key: Tab or Enter."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = "\r" if key == "Enter" else ""
        kind = "keyDown" if text else "rawKeyDown"
        self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, whole: bool = True) -> None:
        """Take a screenshot of what the window shows, or of the whole page."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
