"""The command `token`, as an operator sees it."""

import json
import os
import re
import subprocess
from unittest import mock

from ota_server.httpd.reply import Peer
from ota_server.operator_port.authoriser import Access, Authoriser
from ota_server.policy.admin_address import read_tokens, say_url
from ota_server.policy.tokens import Token, digest_of, format_tokens
from ota_server.system import clock
from tests.operator_port.test_authoriser import bearer, request_of
from tests.support import NOBODY, DataDirCase
from tests.support.commands import call

SECRET = re.compile(r"otas_[A-Za-z0-9_-]{43}\n")


class TokenCase(DataDirCase):
    def run_token(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return call("token", *arguments, "--data-dir", str(self.data_dir))

    def done(self, *arguments: str) -> str:
        done = self.run_token(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, *arguments: str, code: int = 1) -> str:
        done = self.run_token(*arguments)
        self.assertEqual((done.returncode, done.stdout), (code, ""))
        return done.stderr

    def listed(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.done("list", "--json").splitlines()]


class CreateTest(TokenCase):
    def test_the_token_alone_is_on_standard_output_and_it_works(self):
        done = self.run_token("create", "anna")
        self.assertRegex(done.stdout, SECRET)
        self.assertEqual(done.stderr, "ota-server: the token anna may act; it is not shown again\n")
        authoriser = Authoriser(self.data_dir, reads_openly=False, now_seconds=lambda: 0.0)
        request = request_of(fields=[bearer(done.stdout.strip())])
        operator = authoriser.operator(request, Peer("192.0.2.7", False), Access.ACT)
        self.assertEqual(operator.name, "anna")

    def test_it_may_be_for_reading_and_for_a_time(self):
        self.done("create", "anna", "--read-only", "--expires", "90d")
        self.done("create", "ben", "--expires", "2099-01-31")
        anna, ben = self.listed()
        self.assertEqual((anna["may_act"], ben["may_act"]), (False, True))
        token = next(t for t in read_tokens(self.data_dir).values() if t.name == "anna")
        assert token.expires_ms is not None
        self.assertAlmostEqual(token.expires_ms, clock.now_ms() + 90 * 86_400_000, delta=60_000)
        self.assertEqual(ben["expires"], "2099-01-31T00:00:00.000Z")

    def test_what_makes_no_sense_is_wrong_usage(self):
        for arguments, words in (
            (("Anna",), "'Anna' is not a name: use a letter, then up to 31 of"),
            (("x", "--expires", "soon"), "'soon' is not how long, such as 90d, and neither a date"),
            (("x", "--expires", "0s"), "not between 1s and 36500d"),
            (("x", "--expires", "999999999d"), "not between 1s and 36500d"),
        ):
            with self.subTest(arguments):
                self.assertIn(words, self.refused("create", *arguments, code=2))

    def test_it_is_refused_where_there_is_no_data_directory(self):
        for name in ("version", "log", "firmware"):
            (self.data_dir / name).rmdir()
        for part in (("list",), ("revoke", "anna"), ("login",)):
            with self.subTest(part):
                self.assertIn("no version/ in", self.refused(*part))
        self.assertEqual([*self.data_dir.iterdir()], [])

    def test_a_token_can_be_made_before_a_server_that_needs_one_was_ever_started(self):
        for name in ("version", "log", "firmware"):
            (self.data_dir / name).rmdir()
        with self.subTest("with a warning, for it may be the wrong folder"):
            done = self.run_token("create", "anna")
            self.assertRegex(done.stdout, SECRET)
            self.assertIn("was not a data directory, and is one now", done.stderr)
        self.assertEqual([each["name"] for each in self.listed()], ["anna"])
        self.assertNotIn("was not a data directory", self.run_token("create", "ben").stderr)

    def test_it_is_for_the_server_where_the_folder_of_a_product_is_named(self):
        product = self.data_dir / "products" / "plug"
        product.mkdir(parents=True)
        call("token", "create", "anna", "--data-dir", str(product))
        self.assertEqual([each["name"] for each in self.listed()], ["anna"])


class ListTest(TokenCase):
    def test_each_is_a_row_with_its_use_and_its_sessions(self):
        secret = self.done("create", "anna").strip()
        old = Token("old", digest_of("x"), False, 0, 1)
        tokens = [*read_tokens(self.data_dir).values(), old]
        (self.data_dir / "version" / "tokens.json").write_bytes(format_tokens(tokens))
        peer, now = Peer("127.0.0.1", True), lambda: clock.now_ms() / 1000
        authoriser = Authoriser(self.data_dir, reads_openly=False, now_seconds=now)
        for arguments in (("anna",), ()):
            with mock.patch.dict(os.environ, {"SUDO_USER": "carl"}):
                code = self.done("login", *arguments).strip().partition("=")[2]
            authoriser.begin_session(request_of("POST"), peer, code)
        authoriser.operator(request_of(fields=[bearer(secret)]), peer, Access.READ)
        authoriser.close()
        shown = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z|\d+s ago|now", "TIME", self.done("list"))
        self.assertEqual(
            [re.split("  +", line.strip()) for line in shown.splitlines()],
            [
                ["NAME", "MAY", "CREATED", "EXPIRES", "LAST USE", "SESSIONS"],
                ["anna", "act", "TIME", "never", "TIME", "1"],
                ["old", "read", "TIME", "TIME (over)", "never", "0"],
                ["carl", "-", "-", "no token", "-", "1"],
            ],
        )

    def test_json_has_all_but_what_would_let_somebody_in(self):
        self.done("create", "anna")
        (found,) = self.listed()
        self.assertEqual(
            {**found, "created": ""},
            {
                "name": "anna",
                "may_act": True,
                "created": "",
                "expires": None,
                "is_over": False,
                "last_use": None,
                "sessions": 0,
            },
        )

    def test_whoever_may_not_read_the_tokens_is_told_who_may(self):
        self.done("create", "anna")
        self.data_dir.chmod(0o755)
        with self.unreadable(self.data_dir / "version" / "tokens.json"):
            self.assertIn("Permission denied; run this as", self.refused("list"))


class RevokeTest(TokenCase):
    def test_it_says_what_has_ended(self):
        self.done("create", "anna")
        said = self.done("revoke", "anna")
        self.assertEqual(said, "the token anna is revoked; 0 sessions of anna ended\n")
        self.assertIn("no token anna; `token list` shows all", self.refused("revoke", "anna"))

    def test_links_without_a_token_end_too(self):
        with mock.patch.dict(os.environ, {"SUDO_USER": "carl"}):
            self.done("login")
        self.assertIn("and links that were not used", self.done("revoke", "carl"))

    def test_it_fails_loudly_where_a_session_may_go_on(self):
        self.done("create", "anna")
        (self.data_dir / "log" / "sessions.json").write_bytes(b"{")
        done = self.run_token("revoke", "anna")
        self.assertEqual(done.returncode, 1)
        self.assertIn("anna is revoked", done.stdout)
        self.assertIn("may go on: ", done.stderr)
        self.assertEqual(self.listed_names(), [])

    def listed_names(self) -> list[str]:
        return [each.name for each in read_tokens(self.data_dir).values()]


class LoginTest(TokenCase):
    def link(self, *arguments: str) -> str:
        link = self.done("login", *arguments)
        self.assertRegex(link, r"\Ahttps?://\S+/login\?code=otal_[A-Za-z0-9_-]{43}\n\Z")
        return link.partition("/login")[0]

    def test_the_link_leads_to_where_the_port_is(self):
        self.assertEqual(self.link(), "http://127.0.0.1:7778")
        say_url(self.data_dir, "http://[::1]:8080")
        self.assertEqual(self.link(), "http://[::1]:8080")
        self.assertEqual(self.link("--url", "https://ota.example.org/"), "https://ota.example.org")
        for url in ("ota.example.org", "http://h/page", "javascript:alert(1)", ""):
            with self.subTest(url):
                said = self.refused("login", "--url", url, code=2)
                self.assertIn("is not scheme://host:port", said)

    def test_it_says_for_whom_it_is(self):
        self.done("create", "anna", "--read-only")
        said = self.run_token("login", "anna").stderr
        self.assertIn("signs in anna, who may read", said)
        with mock.patch.dict(os.environ, {"SUDO_USER": "Carl"}):
            self.assertIn("signs in carl, who may act", self.run_token("login").stderr)
            said = self.run_token("login", "--read-only").stderr
        self.assertIn("signs in carl, who may read", said)
        self.assertIn("no token ben", self.refused("login", "ben"))

    def test_damage_is_refused_with_what_to_do(self):
        (self.data_dir / "log" / "sessions.json").write_bytes(b"{")
        said = self.refused("login")
        self.assertIn("sessions.json is not JSON", said)
        self.assertIn("delete it, and everybody signs in again by `token login`", said)


class StatusTest(TokenCase):
    def test_a_damaged_file_of_tokens_needs_a_person(self):
        self.done("create", "anna")
        path = self.data_dir / "version" / "tokens.json"
        path.write_bytes(b"{")
        said = call("health", "--data-dir", str(self.data_dir)).stdout
        self.assertIn("tokens.json is not JSON", said)

    def test_one_that_only_its_owner_may_read_does_not(self):
        self.done("create", "anna")
        self.assertNotEqual(os.geteuid(), NOBODY)
        with self.unreadable(self.data_dir / "version" / "tokens.json"):
            said = call("health", "--data-dir", str(self.data_dir)).stdout
        self.assertNotIn("tokens.json", said)
