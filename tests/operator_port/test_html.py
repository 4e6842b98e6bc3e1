"""Elements, and what text cannot do in them."""

import unittest
from html.parser import HTMLParser

from ota_server.operator_port.html import Html, element, html_of, joined, shown

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><svg/onload=alert(1)>",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "-->",
)


class _Names(HTMLParser):
    """Collects the elements and attributes of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text += data


class ElementTest(unittest.TestCase):
    def test_an_element_has_children_and_attributes(self):
        made = element("a", "to ", element("b", 3), href="/x?a=1&b=2", class_="n", hidden=True)
        self.assertEqual(made, '<a href="/x?a=1&amp;b=2" class="n" hidden>to <b>3</b></a>')

    def test_what_is_none_or_false_is_left_out(self):
        self.assertEqual(element("p", None, False, True, "", title=None, hidden=False), "<p></p>")

    def test_an_empty_element_has_no_end(self):
        self.assertEqual(
            element("input", name="a", aria_label="b"), '<input name="a" aria-label="b">'
        )

    def test_lists_are_joined_by_markup_or_text(self):
        self.assertEqual(joined(" & ", ["a", element("b", "<")]), "a &amp; <b>&lt;</b>")

    def test_text_makes_no_element_and_no_attribute(self):
        for text in HOSTILE:
            with self.subTest(text):
                names = _Names()
                names.feed(element("td", text, [text], title=text, data_name=text))
                names.close()
                self.assertEqual(names.found, [("td", ("title", "data-name"))])
                self.assertEqual(names.text, text * 2)

    def test_markup_is_made_by_this_module_alone(self):
        self.assertEqual(html_of(Html("<b>") + "<i>"), "&lt;b&gt;&lt;i&gt;")


class ShownTest(unittest.TestCase):
    def test_characters_that_no_one_sees_are_shown_as_escapes(self):
        for text, expected in (
            ("plain text, größer", "plain text, größer"),
            ("a\u202eb", "a\\u202eb"),
            ("a\x00\x1b[2J", "a\\x00\\x1b[2J"),
            ("two\nlines", "two\\nlines"),
            ("\ud800", "\\ud800"),
            ("\U000e0041", "\\U000e0041"),
        ):
            with self.subTest(expected):
                self.assertEqual(shown(text), expected)
