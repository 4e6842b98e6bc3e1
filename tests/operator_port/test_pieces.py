"""The pieces of pages: times, numbers, links, tables, forms."""

import unittest

from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer
from ota_server.model.timestamp import parse_time
from ota_server.operator_port import pieces
from ota_server.operator_port.asked import Asked, path_segments
from ota_server.operator_port.authoriser import Operator
from ota_server.operator_port.html import html_of
from tests.support.pages import PageReader

NOW_MS = parse_time("2026-11-29T12:00:00Z")


def asked() -> Asked:
    """Return a request of somebody who is signed in."""
    found = read_request(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    assert found is not None
    operator = Operator("ann", True, 'to"ken', True)
    return Asked(found[0], Peer("127.0.0.1", True), {}, operator)


class TextTest(unittest.TestCase):
    def test_a_time_is_said_by_how_long_ago_it_was_with_utc_to_be_read_by_hovering(self):
        for ago_seconds, words in ((0, "now"), (59, "59 s ago"), (150, "2 min ago")):
            with self.subTest(words):
                time = pieces.when(NOW_MS - ago_seconds * 1000, NOW_MS)
                self.assertIn(f">{words}<", time)
        self.assertIn(
            'title="2026-11-22 12:00:00 UTC"', pieces.when(NOW_MS - 7 * 86_400_000, NOW_MS)
        )
        self.assertIn(">in 3 h<", pieces.when(NOW_MS + 3 * 3_600_000, NOW_MS))

    def test_what_is_a_little_newer_than_the_page_is_now(self):
        self.assertIn(">now<", pieces.when(NOW_MS + 1500, NOW_MS))

    def test_a_time_that_never_was_says_so(self):
        self.assertIn("never", pieces.when(None, NOW_MS))
        self.assertIn("not on record", pieces.at(None, "not on record"))

    def test_a_share_is_not_rounded_to_none_or_all(self):
        for count, of, text in (
            (0, 0, "0 %"),
            (0, 9, "0 %"),
            (1, 100_000, "0.1 %"),
            (99_999, 100_000, "99.9 %"),
            (1, 2, "50 %"),
            (9, 9, "100 %"),
        ):
            with self.subTest(count=count, of=of):
                self.assertEqual(pieces.percent(count, of), text)

    def test_what_stands_in_backticks_is_code_and_is_escaped(self):
        said = html_of(pieces.with_code("run `a <b>` now <i>"))
        self.assertEqual(said, "run <code>a &lt;b&gt;</code> now &lt;i&gt;")

    def test_a_time_in_a_text_is_as_pages_have_it_but_not_in_code(self):
        time = "2026-11-29T22:23:06Z"
        said = html_of(
            pieces.with_code(f"since {time}, until {time[:-1]}.123Z: `pin --until {time}`")
        )
        shown = "2026-11-29 22:23:06 UTC"
        self.assertEqual(said, f"since {shown}, until {shown}: <code>pin --until {time}</code>")


class LinkTest(unittest.TestCase):
    def test_whatever_a_name_holds_its_link_leads_to_it(self):
        for name in ("00:11:22:33:44:55", "id:a/b?c#d%", 'id:"<>&', "id:ä b"):
            with self.subTest(name):
                path = pieces.device_url("", name).encode("ascii")
                self.assertEqual(path_segments(path), ["devices", "default", name])


class TableTest(unittest.TestCase):
    def test_each_cell_names_its_column_for_narrow_screens(self):
        page = PageReader(pieces.table(["Name", "Size"], [("a", 1)]))
        self.assertEqual([each["data-name"] for each in page.all("td")], ["Name", "Size"])

    def test_a_table_without_rows_says_so(self):
        self.assertIn("No device yet.", pieces.table(["Name"], [], "No device yet."))

    def test_the_column_that_sorts_says_in_which_order(self):
        heading = pieces.Heading("Seen", url="/devices?sort=seen", order="descending")
        page = PageReader(pieces.table([heading], [("now",)]))
        self.assertEqual(page.all("th")[0]["aria-sort"], "descending")

    def test_facts_that_are_not_known_are_left_out(self):
        page = PageReader(pieces.facts([("Label", ""), ("Family", "br")]))
        self.assertEqual(len(page.all("dt")), 1)


class FormTest(unittest.TestCase):
    def test_a_form_sends_the_token_of_the_session_and_its_hidden_fields(self):
        page = PageReader(pieces.form(asked(), "/do", hidden={"key": ["a", "b"], "x": "<"}))
        sent = [(each["name"], each["value"]) for each in page.all("input")]
        expected = [("form_token", 'to"ken'), ("key", "a"), ("key", "b"), ("x", "<")]
        self.assertEqual(sent, expected)
        self.assertEqual(page.all("form")[0]["method"], "post")


if __name__ == "__main__":
    unittest.main()
