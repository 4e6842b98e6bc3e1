"""Tests in a real browser: a server, a fleet with a past, and windows that notice faults."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from tests.support.operators import await_indexed
from tests.support.past_fleet import ARGUMENTS, PastFleet, live_through, prepare_past
from tests.support.real_browser import RealBrowser, Window
from tests.support.server import Process


class BrowserCase(unittest.TestCase):
    """A browser for all tests of a class; each window is without fault when its test ends.

    Attributes:
        origin: of the pages.
    """

    browser: RealBrowser
    origin: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.browser = RealBrowser()
        cls.addClassCleanup(cls.browser.close)

    def window(self, *expected: str, **how: Any) -> Window:
        """Return a new window; see `RealBrowser.window`.

        Args:
            expected: parts of problems that the test brings about.
        """
        window = self.browser.window(self.origin, **how)
        window.expected += expected
        self.addCleanup(lambda: self.assertEqual(window.close(), []))
        return window


class PastFleetCase(BrowserCase):
    """A server, and so many devices that have been on record for a month."""

    DEVICES = 300
    data_dir: Path
    server: Process
    fleet: PastFleet

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        cls.addClassCleanup(folder.cleanup)
        cls.data_dir = Path(folder.name) / "data"
        prepare_past(cls.data_dir)
        runs = live_through(cls.data_dir, cls.DEVICES)
        cls.server = Process("--data-dir", str(cls.data_dir), "--admin", "127.0.0.1:0", *ARGUMENTS)
        cls.addClassCleanup(cls.server.end)
        cls.fleet = PastFleet(cls.server.port, runs)
        cls.addClassCleanup(cls.fleet.close)
        await_indexed(cls.data_dir, cls.DEVICES)
        cls.origin = f"http://127.0.0.1:{cls.server.admin_port}"
