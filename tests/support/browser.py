"""A real Chromium without a window, driven through a pipe: no package, no port."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
needs_chromium = unittest.skipUnless(CHROMIUM, "the package chromium is not installed")
# It starts a dozen processes, on a machine that is busy.
_TIMEOUT_SECONDS = 60.0
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-pipe"),
)


class Browser:
    """One Chromium with one page.

    Attributes:
        errors: what pages wrote to the console as errors, and exceptions of scripts.
    """

    def __init__(self, case: unittest.TestCase, width: int = 1280, height: int = 900) -> None:
        """Start it; it ends with the test."""
        self.errors: list[str] = []
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        case.addCleanup(profile.cleanup)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # It reads from descriptor 3 and writes to 4, whatever ours are.
        redirect = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        options = [*_OPTIONS, f"--user-data-dir={profile.name}", f"--window-size={width},{height}"]
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", CHROMIUM, *options, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        case.addCleanup(self._end)
        for descriptor in (theirs_in, theirs_out):
            os.close(descriptor)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol; return its result."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == number:
                assert "error" not in said, (method, said)
                result: dict[str, Any] = said["result"]
                return result
            self._take_event(said)

    def _next(self) -> dict[str, Any]:
        give_up_at = time.monotonic() + _TIMEOUT_SECONDS
        while b"\0" not in self._buffer:
            left = give_up_at - time.monotonic()
            assert left > 0 and select.select([self._in], [], [], left)[0], "Chromium is silent"
            part = os.read(self._in, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(line)
        return said

    def _take_event(self, said: dict[str, Any]) -> None:
        method, parameters = said.get("method", ""), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(str(parameters["entry"]))
        self._events.append(said)

    def _await_event(self, method: str) -> dict[str, Any]:
        while True:
            for at, said in enumerate(self._events):
                if said.get("method") == method:
                    del self._events[: at + 1]
                    parameters: dict[str, Any] = said["params"]
                    return parameters
            self._take_event(self._next())

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        self._await_event("Page.loadEventFired")

    def run(self, script: str) -> Any:
        """Run a script in the page; return its value, once a promise is settled."""
        said = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Wait until a script has a value that counts as true; return it."""
        give_up_at = time.monotonic() + _TIMEOUT_SECONDS
        while not (value := self._maybe(script)):
            assert time.monotonic() < give_up_at, (script, self.run("document.body.innerText"))
            select.select([], [], [], 0.05)
        return value

    def _maybe(self, script: str) -> Any:
        """Return the value of a script; None while the page changes."""
        try:
            return self.run(script)
        except AssertionError:
            return None

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a field of a form."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def set_cookie(self, url: str, cookie: str) -> None:
        """Be signed in by a cookie, `name=value`."""
        name, _, value = cookie.partition("=")
        done = self.call(
            "Network.setCookie", url=url, name=name, value=value, httpOnly=True, sameSite="Strict"
        )
        assert done["success"], done

    def disable_scripts(self) -> None:
        """Run no script of pages from the next page on; `run` still works."""
        self.call("Emulation.setScriptExecutionDisabled", value=True)
