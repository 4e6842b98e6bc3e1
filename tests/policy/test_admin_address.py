"""Where the operators' port is, and where it may be."""

import json

from ota_server.operations.token_edits import create_token, revoke_token
from ota_server.policy import admin_address
from ota_server.policy.admin_address import (
    check_address,
    forget_url,
    is_loopback_host,
    said_url,
    say_url,
)
from ota_server.policy.tokens import Token, digest_of, format_tokens
from tests.support import DataDirCase

ELSEWHERE = ("", "0.0.0.0", "::", "192.0.2.7", "2001:db8::1", "ota.example.org", "127.evil")


class CheckTest(DataDirCase):
    def test_on_loopback_nobody_needs_a_token(self):
        for host in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST"):
            with self.subTest(host):
                self.assertTrue(is_loopback_host(host))
                self.assertEqual(check_address(self.data_dir, host), "")

    def test_elsewhere_there_has_to_be_one(self):
        for host in ELSEWHERE:
            with self.subTest(host):
                said = check_address(self.data_dir, host)
                self.assertIn("no token is on record", said)
                self.assertIn("`token create NAME`", said)
        create_token(self.data_dir, "anna", True, None)
        for host in ELSEWHERE:
            with self.subTest(host):
                self.assertEqual(check_address(self.data_dir, host), "")
        revoke_token(self.data_dir, "anna")
        self.assertIn("no token", check_address(self.data_dir, "::"))

    def test_one_that_has_expired_does_not_count(self):
        old = Token("old", digest_of("x"), True, 0, 1)
        (self.data_dir / "version" / "tokens.json").write_bytes(format_tokens([old]))
        self.assertIn("still valid", check_address(self.data_dir, "::"))

    def test_a_damaged_file_is_no_token_and_says_what_to_do(self):
        (self.data_dir / "version" / "tokens.json").write_bytes(b"{")
        said = check_address(self.data_dir, "::")
        self.assertRegex(said, r"tokens\.json is not JSON.*; fix it, or delete it and make")

    def test_a_token_of_the_server_counts_for_the_folder_of_a_product(self):
        create_token(self.data_dir, "anna", True, None)
        product = self.data_dir / "products" / "plug"
        product.mkdir(parents=True)
        self.assertEqual(check_address(product, "::"), "")


class UrlTest(DataDirCase):
    def test_it_is_said_while_the_port_listens(self):
        self.assertIsNone(said_url(self.data_dir))
        for url in ("http://127.0.0.1:7778", "http://[::1]:80", "https://ota.example.org"):
            with self.subTest(url):
                say_url(self.data_dir, url)
                self.assertEqual(said_url(self.data_dir), url)
        forget_url(self.data_dir)
        forget_url(self.data_dir)
        self.assertIsNone(said_url(self.data_dir))

    def test_what_is_no_url_is_not_shown_to_anybody(self):
        path = self.data_dir / "log" / admin_address.FILE_NAME
        for content in (
            *(b"", b"{", b"[]", b"{}", b"\xff", b"9" * 9999),
            *(json.dumps({"url": url}).encode() for url in (5, None, "", "http://", "\x1b[2J")),
            *(
                json.dumps({"url": f"http://{host}"}).encode()
                for host in ("a b", "h/path", "h:1:2", "h:", "u@h", "h\n", "[::1", "h?x", "`id`")
            ),
        ):
            with self.subTest(content[:40]):
                path.write_bytes(content)
                self.assertIsNone(said_url(self.data_dir))
