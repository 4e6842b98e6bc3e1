"""Which route a path finds."""

import unittest

from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.routes import Route, RouteTable


def _answer(_site, _asked):
    raise NotImplementedError


class RouteTableTest(unittest.TestCase):
    def setUp(self):
        self.table = RouteTable(
            Route(method, path, Access.READ, _answer)
            for method, path in (
                ("GET", "/"),
                ("GET", "/devices/{product}/{name}"),
                ("GET", "/devices/{product}/all"),
                ("POST", "/devices/{product}/all"),
            )
        )

    def found(self, *segments: str):
        found = self.table.find(segments)
        return None if found is None else (dict(found.parts), found.allow)

    def test_a_path_finds_its_route_and_what_stands_in_braces(self):
        self.assertEqual(self.found(""), ({}, "GET, HEAD"))
        self.assertEqual(
            self.found("devices", "p", "a/b"), ({"product": "p", "name": "a/b"}, "GET, HEAD")
        )

    def test_a_name_comes_before_braces(self):
        self.assertEqual(self.found("devices", "p", "all"), ({"product": "p"}, "GET, HEAD, POST"))

    def test_another_path_finds_nothing(self):
        for segments in (("devices",), ("devices", "p", "a", "b"), ("",) * 2):
            with self.subTest(segments):
                self.assertIsNone(self.found(*segments))
