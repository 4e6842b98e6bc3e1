"""Which site a request is for, and which site's page sent it."""

import unittest

from ota_server.operator_port.request_site import (
    SiteName,
    is_embedded_elsewhere,
    is_from_elsewhere,
    is_known_host,
    site_of,
)

NAMES = frozenset(("localhost", "ota.example.org"))
OWN = SiteName("http", "127.0.0.1", 7778)


class HostTest(unittest.TestCase):
    def test_addresses_and_known_names_are_accepted_and_no_other_names(self):
        for host, is_known in {
            **dict.fromkeys(("127.0.0.1", "192.0.2.7:7778", "[::1]", "[2001:DB8::1]:80"), True),
            **dict.fromkeys(("localhost:7778", "LocalHost", "localhost.", "OTA.example.org"), True),
            **dict.fromkeys(("evil.example", "localhost.evil.example", "127.0.0.1.nip.io"), False),
            **dict.fromkeys(("127.1", "0x7f.0.0.1", "2130706433", "example.org", "1.2.3"), False),
        }.items():
            with self.subTest(host):
                site = site_of(f"http://{host}")
                self.assertEqual(site is not None and is_known_host(site, NAMES), is_known)

    def test_what_is_no_origin_is_no_site(self):
        for text in ("", "null", "http://", "file://", "http://h/", "http://u@h", "ftp://h", "h"):
            with self.subTest(text):
                self.assertIsNone(site_of(text))


class OriginTest(unittest.TestCase):
    def test_a_page_of_this_site_is_told_from_all_others(self):
        for own, origin, is_elsewhere in (
            ("http://127.0.0.1:7778", "http://127.0.0.1:7778", False),
            ("http://127.0.0.1:7778", "http://127.0.0.1:7777", True),
            ("http://127.0.0.1:7778", "http://127.0.0.1", True),
            ("http://127.0.0.1:7778", "http://localhost:7778", True),
            ("http://127.0.0.1:7778", "null", True),
            ("http://127.0.0.1:7778", "", True),
            ("http://127.0.0.1:7778", "http://127.0.0.1:7778.evil.example", True),
            ("http://127.0.0.1:7778", "http://127.0.0.1:7778, http://127.0.0.1:7778", True),
            ("http://ota.example.org", "https://ota.example.org", False),
            ("http://ota.example.org", "https://OTA.example.org:443", False),
            ("http://ota.example.org", "https://evil.example", True),
            ("https://ota.example.org", "https://ota.example.org", False),
            ("http://[::1]:7778", "http://[::1]:7778", False),
        ):
            with self.subTest(own=own, origin=origin):
                self.assertEqual(is_from_elsewhere(site_of(own), origin, None), is_elsewhere)

    def test_what_the_browser_says_of_its_fetch_counts_beside_the_origin(self):
        ours, theirs = "http://127.0.0.1:7778", "http://evil.example"
        for origin, fetch_site, is_elsewhere in (
            (None, None, False),
            (None, "same-origin", False),
            (None, "none", False),
            (None, "cross-site", True),
            (None, "same-site", True),
            (None, "something new", True),
            (ours, "same-origin", False),
            (ours, "cross-site", True),
            (theirs, "same-origin", True),
            # A page of ours whose Referrer-Policy is no-referrer.
            ("null", "same-origin", False),
            ("null", "cross-site", True),
            ("null", "none", True),
        ):
            with self.subTest(origin=origin, fetch_site=fetch_site):
                self.assertEqual(is_from_elsewhere(OWN, origin, fetch_site), is_elsewhere)

    def test_a_link_may_lead_here_but_no_page_may_embed_this(self):
        for fetch_site, mode, is_embedded in (
            (None, None, False),
            ("same-origin", "cors", False),
            ("none", "navigate", False),
            ("cross-site", "navigate", False),
            ("cross-site", "no-cors", True),
            ("cross-site", None, True),
            ("same-site", "cors", True),
        ):
            with self.subTest(fetch_site=fetch_site, mode=mode):
                self.assertEqual(is_embedded_elsewhere(fetch_site, mode), is_embedded)
