"""URLs, secrets and signatures of notices, and what an answer means."""

import base64
import unittest

from ota_server.model.webhook import (
    LONG_WAIT_SECONDS,
    MOST_URL,
    delivery_of,
    parse_secret,
    parse_webhook_url,
    signature,
)

# The example of the standard's libraries.
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class UrlTest(unittest.TestCase):
    def test_a_url_is_shown_without_what_keeps_strangers_out(self):
        for text, shown, host, port, target in (
            ("https://a.example/s3cret", "https://a.example/...", "a.example", 443, "/s3cret"),
            ("http://a.example", "http://a.example", "a.example", 80, "/"),
            ("http://[::1]:8080/?k=1", "http://[::1]:8080/...", "::1", 8080, "/?k=1"),
            ("https://a.example/t?m={{.text}}", "https://a.example/...", "a.example", 443, None),
        ):
            with self.subTest(text):
                url = parse_webhook_url(text)
                self.assertEqual((url.shown, url.host, url.port), (shown, host, port))
                self.assertEqual(url.target, target or "/t?m=%7B%7B.text%7D%7D")
                self.assertEqual(url.is_https, text.startswith("https"))

    def test_what_cannot_be_sent_to_is_refused_without_telling_its_secret(self):
        for text, why in (
            ("", "not a URL"),
            ("ftp://a.example/s3cret", "http or https"),
            ("a.example/s3cret", "http or https"),
            ("https:///s3cret", "no host"),
            ("https://a.example:0/s3cret", "no host, or a port"),
            ("https://a.example:x/s3cret", "no host, or a port"),
            ("https://a.example:99999/s3cret", "no host, or a port"),
            ("https://ann:s3cret@a.example/", "holds a user and a password"),
            ("https://a.example/s3cret#x", "fragment"),
            ("https://a.example/s3cret\r\nx: y", "not a URL"),
            ("https://a.example/s3 cret", "not a URL"),
            ("https://ä.example/s3cret", "not a URL"),
            ("https://a.example/s3cret" + "x" * MOST_URL, "not a URL"),
            ("https://[::1/s3cret", "not a URL"),
            ("https://[s3cret]/", "not a URL"),
        ):
            with self.subTest(text[:40]):
                with self.assertRaises(ValueError) as raised:
                    parse_webhook_url(text)
                self.assertIn(why, str(raised.exception))
                self.assertNotIn("s3cret", str(raised.exception))


class SignatureTest(unittest.TestCase):
    def test_it_is_that_of_the_standard(self):
        said = signature(
            parse_secret(SECRET),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
        )
        self.assertEqual(said, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")

    def test_a_secret_is_base64_with_its_prefix_or_without(self):
        key = bytes(range(32))
        plain = base64.b64encode(key)
        for content in (plain, b"whsec_" + plain, plain + b"\n", b" whsec_" + plain + b"\r\n"):
            with self.subTest(content):
                self.assertEqual(parse_secret(content), key)

    def test_what_is_no_secret_is_refused_without_showing_it(self):
        short = base64.b64encode(b"x" * 23)
        for content in (b"", b"correct horse battery", b"whsec_", short, b"\xff" * 40):
            with self.subTest(content):
                with self.assertRaises(ValueError) as raised:
                    parse_secret(content)
                self.assertIn("openssl rand", str(raised.exception))
                self.assertNotIn("horse", str(raised.exception))


class DeliveryTest(unittest.TestCase):
    def test_an_answer_says_whether_it_was_told_and_when_to_try_again(self):
        for status, retry_after, is_told, wait in (
            (200, None, True, 0),
            (204, None, True, 0),
            (299, "60", True, 0),
            (500, None, False, 0),
            (502, "60", False, 0),
            (503, "60", False, 60),
            (429, "60", False, 60),
            (429, "999999999999999999", False, LONG_WAIT_SECONDS),
            (429, "Wed, 21 Oct 2026 07:28:00 GMT", False, 0),
            (429, "-5", False, 0),
            (408, None, False, 0),
            (425, None, False, 0),
            (301, None, False, LONG_WAIT_SECONDS),
            (400, None, False, LONG_WAIT_SECONDS),
            (404, None, False, LONG_WAIT_SECONDS),
            (410, None, False, LONG_WAIT_SECONDS),
            (101, None, False, 0),
            (799, None, False, 0),
        ):
            with self.subTest(status=status, retry_after=retry_after):
                delivery = delivery_of(status, retry_after)
                self.assertEqual((delivery.is_told, delivery.wait_seconds), (is_told, wait))
                self.assertEqual(bool(delivery.problem), not is_told)
                self.assertIn("" if is_told else str(status), delivery.problem)

    def test_what_a_person_has_to_do_is_said(self):
        self.assertIn("take the URL out", delivery_of(410, None).problem)
        self.assertIn("redirects are not followed", delivery_of(308, None).problem)
        self.assertIn("404 (Not Found)", delivery_of(404, None).problem)
