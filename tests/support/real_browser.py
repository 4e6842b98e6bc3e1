"""A real Chromium, driven by playwright, that notices whatever is wrong with a page.

The package is looked for where .ci/run puts clients that are Python packages. `tests/support/
browser.py` needs no package, for tests of one form.
"""

import json
import sys
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.browser import CHROMIUM
from tests.support.real_clients import PYTHON_CLIENTS

# Compiled parts fit one Python alone, and have a folder for each.
_OWN = PYTHON_CLIENTS / f"python{sys.version_info[0]}.{sys.version_info[1]}"
sys.path.extend(str(each) for each in (_OWN, PYTHON_CLIENTS) if each.is_dir())
try:
    import axe_playwright_python
    from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright
    from playwright.sync_api import TimeoutError as NeverShown
except ImportError:
    HAS_PLAYWRIGHT = False
    NeverShown = TimeoutError
else:
    HAS_PLAYWRIGHT = True
    _AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"

needs_browser = unittest.skipUnless(
    HAS_PLAYWRIGHT and CHROMIUM,
    "not there: the package chromium, or playwright and axe-playwright-python in the folder "
    "OTA_SERVER_TEST_CLIENTS",
)
# Chromium starts a dozen processes, on a machine that runs other tests too.
TIMEOUT_MS = 60_000
WIDE, PHONE = (1280, 900), (390, 844)
_SERIOUS = ("serious", "critical")
_LOOK = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return JSON.stringify(found.violations.map(each => ({
    id: each.id, impact: each.impact, help: each.help,
    nodes: each.nodes.map(node => node.html + " " + node.failureSummary)})));
}"""
# Which part of a page is wider than the screen; "" if none is.
_TOO_WIDE = """() => {
  const width = innerWidth;
  if (document.scrollingElement.scrollWidth <= width) return "";
  const wide = [...document.querySelectorAll("main *, header *")].filter(
    each => each.getBoundingClientRect().right > width + 1 && !each.closest(".wide, pre, svg"));
  return document.scrollingElement.scrollWidth + ": " + wide.slice(0, 5).map(
    each => each.outerHTML.slice(0, 160)).join(" | ");
}"""


class RealBrowser:
    """One Chromium, for all tests of a class."""

    def __init__(self) -> None:
        self._playwright = sync_playwright().start()
        try:
            self._chromium: Browser = self._playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"]
            )
        except BaseException:
            self._playwright.stop()
            raise

    def close(self) -> None:
        """End it."""
        self._chromium.close()
        self._playwright.stop()

    def window(
        self,
        origin: str,
        size: tuple[int, int] = WIDE,
        scheme: str = "light",
        has_script: bool = True,
        cookies: list[Any] | None = None,
    ) -> "Window":
        """Return a new window of somebody who has nothing to do with the others.

        Args:
            origin: such as `http://127.0.0.1:7778`, without a slash.
            scheme: `light` or `dark`.
            cookies: those of another window, which has signed in.
        """
        context = self._chromium.new_context(
            base_url=origin,
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
            java_script_enabled=has_script,
            is_mobile=size == PHONE,
            has_touch=size == PHONE,
            timezone_id="UTC",
        )
        context.set_default_timeout(TIMEOUT_MS)
        if cookies:
            context.add_cookies(cookies)
        return Window(context, origin)


class Window:
    """A window with one page, and all that went wrong in it.

    Attributes:
        page: playwright's.
        problems: errors of the console and of scripts, requests to other hosts, failed requests.
        expected: parts of problems that the test brings about.
        streams: the requests for the stream of changes that are under way.
    """

    def __init__(self, context: "BrowserContext", origin: str) -> None:
        self.context = context
        self.problems: list[str] = []
        self.expected: list[str] = []
        self.streams: list[Request] = []
        self.asked: list[Request] = []
        self._origin = origin
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_end)
        context.on("requestfinished", self._on_end)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self._add(f"script: {error.error}"))
        self.page: Page = context.new_page()

    def close(self) -> list[str]:
        """Close it; return what went wrong."""
        self.context.close()
        return [each for each in self.problems if not any(part in each for part in self.expected)]

    def _add(self, problem: str) -> None:
        self.problems.append(problem)

    def _on_request(self, request: "Request") -> None:
        there = urlsplit(request.url)
        if there.scheme != "blob" and f"{there.scheme}://{there.netloc}" != self._origin:
            self._add(f"request to another host: {request.url}")
        self.asked.append(request)
        if there.path == "/events":
            self.streams.append(request)

    def _on_end(self, request: "Request") -> None:
        if request in self.streams:
            self.streams.remove(request)

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self._add(f"console: {message.text} {message.location}")

    def open(self, path: str) -> "Page":
        """Go to a page."""
        self.page.goto(path)
        return self.page

    def faults(self) -> list[str]:
        """Return what axe-core finds wrong with the page that is seriously in somebody's way."""
        if not self.page.evaluate("() => typeof axe !== 'undefined'"):
            self.page.evaluate(_AXE.read_text("utf-8"))
        found = json.loads(self.page.evaluate(_LOOK))
        return [_said(each) for each in found if each["impact"] in _SERIOUS]

    def too_wide(self) -> str:
        """Return what makes the page wider than the window; "": nothing."""
        return str(self.page.evaluate(_TOO_WIDE))


def _said(violation: Mapping[str, Any]) -> str:
    nodes = " | ".join(each[:300] for each in violation["nodes"][:4])
    return f"{violation['id']} ({violation['impact']}): {violation['help']}: {nodes}"
