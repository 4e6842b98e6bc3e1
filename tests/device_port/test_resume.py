"""Which download a request for an image continues. Decisions are in test_decisions."""

import unittest

from ota_server.device_port.resume import continued_download
from ota_server.httpd.byterange import parse_ranges
from ota_server.model.device import RESTART_AFTER_MS, Download

BEGAN_MS = 1_000_000
KNOWN = Download("v1.0.0", "ab" * 32, 1000, BEGAN_MS)
JUST_BEFORE = BEGAN_MS + RESTART_AFTER_MS - 1


def continued(
    range_field: bytes, now_ms: int, under_way: bool = False, honours_range: bool = True
) -> bool:
    """Say whether a request goes on with the known download."""
    found = continued_download(KNOWN, under_way, parse_ranges(range_field), honours_range, now_ms)
    assert found in (None, KNOWN)
    return found is KNOWN


class ContinuedTest(unittest.TestCase):
    def test_a_range_from_byte_zero_continues_for_ten_minutes(self):
        for field in (b"bytes=0-", b"bytes=0-65535", b"bytes=0-0", b"bytes=50-,0-9"):
            with self.subTest(field):
                self.assertTrue(continued(field, JUST_BEFORE))
                self.assertFalse(continued(field, JUST_BEFORE + 1))

    def test_a_range_from_another_byte_continues_however_late(self):
        for field in (b"bytes=1-", b"bytes=65536-131071", b"bytes=-100"):
            with self.subTest(field):
                self.assertTrue(continued(field, BEGAN_MS + 365 * 86_400_000))

    def test_a_range_from_byte_zero_continues_for_as_long_as_a_transfer_is_under_way(self):
        self.assertTrue(continued(b"bytes=0-", JUST_BEFORE + 1, under_way=True))

    def test_a_request_without_range_begins_a_download(self):
        for under_way in (False, True):
            with self.subTest(under_way=under_way):
                self.assertFalse(continued(b"", BEGAN_MS, under_way))

    def test_an_if_range_of_other_bytes_begins_a_download(self):
        for field in (b"bytes=0-", b"bytes=1-"):
            with self.subTest(field):
                self.assertFalse(continued(field, BEGAN_MS, honours_range=False))

    def test_a_clock_that_went_back_continues(self):
        self.assertTrue(continued(b"bytes=0-", BEGAN_MS - 86_400_000))

    def test_where_nothing_is_known_a_download_begins(self):
        self.assertIsNone(continued_download(None, False, parse_ranges(b"bytes=5-"), True, 0))
