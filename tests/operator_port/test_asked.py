"""What a request asks: paths, queries, forms and JSON, read strictly."""

import unittest

from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer
from ota_server.operator_port.asked import Asked, Malformed, path_segments
from ota_server.operator_port.authoriser import NOBODY


def asked(target: str = "/", body: bytes = b"", kind: str = "") -> Asked:
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n\r\n".encode()
    found = read_request(head)
    assert found is not None
    return Asked(found[0]._replace(body=body), Peer("127.0.0.1", True), {}, NOBODY)


class PathTest(unittest.TestCase):
    def test_segments_are_decoded_after_they_are_split(self):
        for path, expected in (
            (b"/", [""]),
            (b"/devices/default/00%3a11", ["devices", "default", "00:11"]),
            (b"/a/b%2Fc", ["a", "b/c"]),
            (b"/%e2%82%ac", ["€"]),
            (b"/%ff", None),
        ):
            with self.subTest(path):
                self.assertEqual(path_segments(path), expected)


class QueryTest(unittest.TestCase):
    def test_a_field_has_all_its_values_and_the_last_one_counts(self):
        each = asked("/?a=1&a=%20x%2B&b")
        self.assertEqual(each.query, {"a": ["1", " x+"], "b": [""]})
        self.assertEqual((each.one("a"), each.one("b"), each.one("c", "no")), (" x+", "", "no"))

    def test_what_is_not_utf_8_is_malformed(self):
        with self.assertRaises(Malformed):
            asked("/?a=%ff").one("a")


class BodyTest(unittest.TestCase):
    def test_a_form_is_read_without_blanks_around_what_was_typed(self):
        form = asked(body=b"note=+two+words+&x=1", kind="application/x-www-form-urlencoded")
        self.assertEqual((form.typed("note"), form.typed("y", "d")), ("two words", "d"))

    def test_json_is_an_object_of_its_own_type(self):
        kind = "application/json; charset=utf-8"
        self.assertEqual(asked(body=b'{"a":[1]}', kind=kind).json, {"a": [1]})
        for body, said in ((b"[1]", kind), (b"{", kind), (b"\xff", kind), (b"{}", "text/plain")):
            with self.subTest(body=body, kind=said), self.assertRaises(Malformed):
                asked(body=body, kind=said).json  # noqa: B018
        with self.assertRaises(Malformed):
            asked(body=b"[" * 100_000, kind=kind).json  # noqa: B018

    def test_json_with_a_name_twice_is_malformed_however_many_names_there_are(self):
        names = b"".join(b'"%d": 1, ' % each for each in range(100_000))
        for body in (b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "b": 1}}', b'{%b"1": 1}' % names):
            with self.subTest(body=body[:40]), self.assertRaises(Malformed):
                asked(body=body, kind="application/json").json  # noqa: B018

    def test_a_form_of_another_type_is_malformed(self):
        with self.assertRaises(Malformed):
            asked(body=b"a=1", kind="text/plain").typed("a")
