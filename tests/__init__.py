"""Tests: run by `python -m unittest discover`."""

import signal
import unittest
from pathlib import Path

from tests.support.bytecode import keep_bytecode
from tests.support.side_by_side import SideBySide

keep_bytecode()


def load_tests(
    loader: unittest.TestLoader, _: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Find the tests, to run them side by side; OTA_SERVER_TEST_PROCESSES=1: one after another."""
    # A script's job in the background has it ignored, and so would what a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    here = Path(__file__).parent
    return SideBySide(loader.discover(str(here), pattern or "test*.py", str(here.parent)))
