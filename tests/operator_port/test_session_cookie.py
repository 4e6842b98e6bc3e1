"""The cookie of a session, and the token of its forms."""

import unittest

from ota_server.httpd.http1 import Request
from ota_server.operator_port.session_cookie import (
    form_token_in,
    form_token_of,
    session_secret,
    set_cookie,
)

ORIGIN = "http://127.0.0.1:7778"
FORM = b"application/x-www-form-urlencoded"


def request(body: bytes = b"", **fields: bytes) -> Request:
    names = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return Request("POST", b"/", b"", 1, names, frozenset(), True, len(body), body)


class CookieTest(unittest.TestCase):
    def test_no_script_and_no_other_site_gets_it(self):
        cookie = set_cookie(ORIGIN, "secret", 5)
        how = "Max-Age=5; Path=/; HttpOnly; SameSite=Strict"
        self.assertEqual(cookie, f"ota_session_7778=secret; {how}")
        secure = set_cookie("https://ota.example.org", "secret", 5)
        self.assertEqual(secure, f"ota_session_443=secret; {how}; Secure")

    def test_it_is_found_among_others(self):
        for cookie, secret in (
            (b"ota_session_7778=s", "s"),
            (b"a=b; ota_session_7778=s; c", "s"),
            (b"ota_session_7778=s;ota_session_7778=s", "s"),
            (b"ota_session_7777=s", ""),
            (b"xota_session_7778=s", ""),
            (b"ota_session_7778=", ""),
            (b"", ""),
            (b";;=;", ""),
        ):
            with self.subTest(cookie):
                self.assertEqual(session_secret(request(cookie=cookie), ORIGIN), secret)

    def test_of_two_nobody_knows_which_is_ours(self):
        cookie = b"ota_session_7778=s; ota_session_7778=t"
        self.assertEqual(session_secret(request(cookie=cookie), ORIGIN), "")


class FormTokenTest(unittest.TestCase):
    def test_it_is_of_one_session_and_the_same_after_a_restart(self):
        self.assertEqual(form_token_of("a"), form_token_of("a"))
        self.assertNotEqual(form_token_of("a"), form_token_of("b"))
        self.assertNotIn("secret", form_token_of("secret"))

    def test_it_is_in_a_header_or_in_the_body_of_a_form(self):
        kinds = (FORM, FORM.upper(), FORM + b" ; charset=utf-8")
        for name, sent, token in (
            ("header", request(x_form_token=b"t"), "t"),
            ("both", request(b"form_token=u", x_form_token=b"t", content_type=FORM), "t"),
            *(
                (kind, request(b"a=b&form_token=t%2Bu&c=", content_type=kind), "t+u")
                for kind in kinds
            ),
            ("twice", request(b"form_token=t&form_token=u", content_type=FORM), ""),
            ("none", request(b"a=b", content_type=FORM), ""),
            ("bytes", request(b"\xff&%ff=\xff;", content_type=FORM), ""),
            ("too many", request(b"a=1&" * 200_000 + b"form_token=t", content_type=FORM), ""),
            ("another kind", request(b"form_token=t", content_type=b"text/plain"), ""),
            ("no kind", request(b"form_token=t"), ""),
        ):
            with self.subTest(name):
                self.assertEqual(form_token_in(sent), token)
