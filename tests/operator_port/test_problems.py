"""What somebody sees whose request cannot be answered."""

import unittest

from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import NOBODY
from ota_server.operator_port.problems import _way_back


class WayBackTest(unittest.TestCase):
    def way_back(self, referer: str) -> str | None:
        head = f"GET /x HTTP/1.1\r\nHost: ota:7778\r\nReferer: {referer}\r\n\r\n"
        found = read_request(head.encode())
        assert found is not None
        return _way_back(Asked(found[0], Peer("127.0.0.1", True), {}, NOBODY))

    def test_it_leads_to_the_page_before(self):
        self.assertEqual(
            self.way_back("http://ota:7778/devices?state=failed&sort=seen"),
            '<p><a href="/devices?state=failed&amp;sort=seen">Back to the page before</a></p>',
        )

    def test_it_leads_nowhere_else(self):
        for referer in (
            "",
            "http://elsewhere.example/devices",
            "http://ota:7779/",
            "http://ota:7778//elsewhere.example/",
            "http://ota:7778@elsewhere.example/",
            "javascript:alert(1)",
            "http://[::1/",
            "/devices",
        ):
            with self.subTest(referer):
                self.assertIsNone(self.way_back(referer))
