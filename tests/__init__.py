"""Tests: run by `python -m unittest discover`."""

import unittest
from pathlib import Path

from tests.sidebyside import SideBySide


def load_tests(
    loader: unittest.TestLoader, _: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Find the tests, to run them side by side; OTA_SERVER_TEST_PROCESSES=1: one after another."""
    here = Path(__file__).parent
    return SideBySide(loader.discover(str(here), pattern or "test*.py", str(here.parent)))
