"""A page that changes by itself: by the stream of changes, and by asking where there is none."""

import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from ota_server.operator_port.changes import MOST_STREAMS
from tests.support import TIMEOUT_SECONDS, Client, Process, until
from tests.support.browser_case import BrowserCase
from tests.support.commands import call
from tests.support.fleet import NEW, OLD
from tests.support.operators import ask_all, make_data_dir
from tests.support.real_browser import Window, needs_browser

# What no window without a head does by itself.
_HIDE = """(isHidden) => {
  Object.defineProperty(document, "hidden", {get: () => isHidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
# Later than the page asks where it has no stream.
_POLL_MS = 16_000


@needs_browser
class LivePageTest(BrowserCase):
    def setUp(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        self.data_dir = str(folder / "data")
        make_data_dir(folder / "data")
        self.server = Process("--data-dir", self.data_dir, "--admin", "127.0.0.1:0")
        self.addCleanup(self.server.end)
        self.origin = f"http://127.0.0.1:{self.server.admin_port}"

    def assert_streams(self, window: Window, count: int) -> None:
        def there() -> bool:
            window.page.wait_for_timeout(20)
            return len(window.streams) == count

        self.assertTrue(until(there, TIMEOUT_SECONDS), window.streams)

    def come(self, mac: str, version: str = OLD) -> None:
        """Have a device ask."""
        ask_all(self.server.port, {mac: version})

    def hold(self, reason: str) -> None:
        """Hold everything, by a command."""
        done = call("hold", "--reason", reason, "--data-dir", self.data_dir)
        self.assertEqual(done.returncode, 0, done.stderr)

    @unittest.skipUnless(shutil.which("curl"), "not installed: curl")
    def test_the_first_device_appears_by_the_line_that_the_page_shows(self):
        window = self.window()
        page = window.open("/")
        line = page.locator("pre", has_text="curl").inner_text()
        page.evaluate("window.isSamePage = true")
        done = subprocess.run(
            [*shlex.split(line), "--silent", "--noproxy", "*"], capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stdout), (0, OLD), done.stderr)
        page.locator(".cards b").first.wait_for()
        self.assertEqual(page.locator(".cards b").first.inner_text(), "1")
        self.assertTrue(page.evaluate("window.isSamePage"), "the page was loaded again")

    def test_a_hidden_page_closes_its_stream_and_looks_again_when_it_is_shown(self):
        self.come("02:00:00:00:00:01")
        window = self.window()
        page = window.open("/devices")
        self.assert_streams(window, 1)
        page.evaluate(_HIDE, True)
        self.assert_streams(window, 0)
        self.come("02:00:00:00:00:02", NEW)
        page.evaluate(_HIDE, False)
        self.assert_streams(window, 1)
        page.get_by_role("link", name="02:00:00:00:00:02").wait_for()

    def test_what_changes_while_the_page_asks_is_shown_too(self):
        window, page_beside = self.window(), self.window().open("/audit")
        page = window.open("/audit")
        self.assert_streams(window, 1)
        late: list[tuple[Any, Any]] = []
        page.route(
            "**/audit",
            lambda route: route.continue_() if late else late.append((route, route.fetch())),
        )
        self.hold("the first change")
        page_beside.get_by_text("the first change").first.wait_for()
        while not late:
            page.wait_for_timeout(20)
        self.hold("the second one")
        page_beside.get_by_text("the second one").first.wait_for()
        route, answer_before = late[0]
        route.fulfill(response=answer_before)
        page.get_by_text("the second one").first.wait_for()

    def test_a_page_that_gets_no_stream_asks_from_time_to_time(self):
        self.come("02:00:00:00:00:01")
        for _ in range(MOST_STREAMS):
            client = self.enterContext(Client(self.server.admin_port))
            host = f"127.0.0.1:{self.server.admin_port}"
            client.send(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            self.assertIn(b" 200 ", client.read_until(b"\r\n\r\n"))
        window = self.window("503 (Service Unavailable)")
        window.page.clock.install()
        page = window.open("/devices")
        self.assertTrue(until(lambda: not page.wait_for_timeout(20) and bool(window.problems)))
        self.come("02:00:00:00:00:02", NEW)

        def has_come() -> bool:
            page.clock.fast_forward(_POLL_MS)
            page.wait_for_timeout(100)
            return page.get_by_role("link", name="02:00:00:00:00:02").is_visible()

        self.assertTrue(until(has_come))
        self.assertEqual(window.streams, [])
        fragments = [each for each in window.asked if each.headers.get("x-fragment")]
        self.assertTrue(fragments)
