"""Tokens and links, made and ended: on record, once, and by nobody else."""

import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from unittest import mock

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations import session_edits
from ota_server.operations.session_edits import WrongCode, begin, end, read_sessions
from ota_server.operations.token_edits import begin_login, create_token, revoke_token
from ota_server.policy import audit
from ota_server.policy.admin_address import read_tokens
from ota_server.policy.tokens import LOGIN_MS, SESSION_MS, digest_of
from ota_server.system import clock
from ota_server.system.locks import Busy, locked, locked_by
from tests.support import ROOT, TIMEOUT_SECONDS, DataDirCase

FULL = OSError(28, "No space left on device")


class TokenCase(DataDirCase):
    def create(self, name: str = "anna", may_act: bool = True) -> str:
        """Make a token; return its secret."""
        return create_token(self.data_dir, name, may_act, None)[1]

    def login(self, name: str | None = None, may_act: bool = True) -> str:
        """Return the code of a new link."""
        return begin_login(self.data_dir, name, may_act)[1]

    def begin(self, code: str, now_ms: int | None = None) -> str:
        """Begin a session; return its secret."""
        now_ms = clock.now_ms() if now_ms is None else now_ms
        return begin(self.data_dir, code, read_tokens(self.data_dir), "192.0.2.7", now_ms)[1]

    def actions(self) -> list[str]:
        return [each["action"] for each in audit.entries(self.data_dir / "log")]

    def names(self) -> list[str]:
        """Return the names of the sessions that are in force."""
        now_ms, tokens = clock.now_ms(), read_tokens(self.data_dir)
        found = read_sessions(self.data_dir).sessions.values()
        return [each.name for each in found if each.in_force(tokens, now_ms)]

    def content(self) -> bytes:
        """Return all that is on the disk."""
        paths = (path for path in self.data_dir.rglob("*") if path.is_file())
        return b"".join(path.read_bytes() for path in paths)


class TokenEditsTest(TokenCase):
    def test_a_secret_is_nowhere_on_the_disk(self):
        secrets = [self.create(), self.login(), code := self.login("anna")]
        secrets.append(self.begin(code))
        content = self.content()
        for secret in secrets:
            with self.subTest(secret[:5]):
                self.assertNotIn(secret.encode(), content)
                self.assertNotIn(secret[5:].encode(), content)

    def test_only_the_owner_may_read_who_may_do_what(self):
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.begin((self.create(), self.login("anna"))[1])
        for path in ("version/tokens.json", "log/sessions.json"):
            with self.subTest(path):
                mode = stat.S_IMODE((self.data_dir / path).stat().st_mode)
                self.assertEqual(oct(mode), "0o600")

    def test_a_name_is_given_once(self):
        self.create()
        with self.assertRaisesRegex(Refused, "a token anna already; `token revoke anna`"):
            self.create()

    def test_an_end_that_is_past_is_refused(self):
        with self.assertRaisesRegex(Refused, "is past"):
            create_token(self.data_dir, "anna", True, clock.now_ms() - 1)

    def test_damage_is_refused_with_what_to_do_and_not_overwritten(self):
        path = self.data_dir / "version" / "tokens.json"
        path.write_bytes(b"{")
        for change in (self.create, lambda: revoke_token(self.data_dir, "anna")):
            with self.assertRaisesRegex(BadPolicy, "tokens.json is not JSON.*; fix it, or delete"):
                change()
        self.assertEqual(path.read_bytes(), b"{")

    def test_what_is_done_is_on_record(self):
        self.create()
        self.create("prometheus", may_act=False)
        self.begin(self.login("anna"))
        revoke_token(self.data_dir, "anna")
        found = [
            (each["action"], each["what"], each.get("from"), each.get("to"), each.get("through"))
            for each in audit.entries(self.data_dir / "log")
        ]
        self.assertEqual(
            found,
            [
                ("token create", "anna", None, "may act", None),
                ("token create", "prometheus", None, "may read", None),
                ("token login", "anna", None, "may act", None),
                ("sign in", "from 192.0.2.7", None, "may act", "admin port"),
                ("token revoke", "anna", "may act", None, None),
            ],
        )
        self.assertEqual(audit.entries(self.data_dir / "log")[3]["user"], "anna")

    def test_what_cannot_be_put_on_record_is_not_done(self):
        (self.data_dir / "log" / "audit.jsonl").mkdir()
        for change in (self.create, self.login):
            with self.assertRaises(OSError):
                change()
        self.assertEqual(read_tokens(self.data_dir), {})
        self.assertEqual(read_sessions(self.data_dir), ({}, {}))

    def test_two_commands_at_once_lose_nothing(self):
        names = [f"t{number}" for number in range(4)]
        command = [sys.executable, "-m", "ota_server", "token", "create", "--data-dir"]
        with ExitStack() as stack:
            for process in [
                stack.enter_context(
                    subprocess.Popen(
                        [*command, str(self.data_dir), name],
                        cwd=ROOT,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
                for name in names
            ]:
                self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)
        self.assertEqual(sorted(t.name for t in read_tokens(self.data_dir).values()), names)


class RevokeTest(TokenCase):
    def test_its_sessions_end_and_links_that_were_not_used(self):
        self.create()
        self.create("ben")
        self.begin(self.login("anna"))
        self.begin(self.login("ben"))
        code = self.login("anna")
        self.assertEqual(revoke_token(self.data_dir, "anna").sessions, 1)
        self.assertEqual(self.names(), ["ben"])
        with self.assertRaises(WrongCode):
            self.begin(code)

    def test_a_new_token_of_the_same_name_does_not_bring_them_back(self):
        self.create()
        self.begin(self.login("anna"))
        path = self.data_dir / "log" / "sessions.json"
        before = path.read_bytes()
        revoke_token(self.data_dir, "anna")
        path.write_bytes(before)  # as if it had been killed before it came to them
        self.create()
        self.assertEqual(self.names(), [])

    def test_sessions_without_a_token_end_by_the_name_of_their_user(self):
        with mock.patch.dict(os.environ, {"SUDO_USER": "carl"}):
            self.begin(self.login())
        self.assertEqual(self.names(), ["carl"])
        done = revoke_token(self.data_dir, "carl")
        self.assertEqual((done.token, done.sessions), (None, 1))
        self.assertEqual(self.names(), [])
        with self.assertRaisesRegex(Refused, "no token carl; `token list`"):
            revoke_token(self.data_dir, "carl")

    def test_a_token_ends_though_its_sessions_cannot_be_read(self):
        self.create()
        (self.data_dir / "log" / "sessions.json").write_bytes(b"{")
        done = revoke_token(self.data_dir, "anna")
        self.assertIn("delete it, and everybody signs in again", done.problem)
        self.assertEqual(read_tokens(self.data_dir), {})

    def test_it_works_on_a_full_disk(self):
        self.create()

        def no_room(path: object, *_arguments: object) -> None:
            raise OSError(FULL.errno, FULL.strerror, str(path))

        with (
            mock.patch("ota_server.system.files._put", no_room),
            mock.patch("ota_server.policy.audit.append", no_room),
            self.assertLogs("ota_server.policy.audit", "WARNING"),
        ):
            revoke_token(self.data_dir, "anna")
        self.assertEqual(read_tokens(self.data_dir), {})
        path = self.data_dir / "version" / "tokens.json"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)


class LoginTest(TokenCase):
    def test_a_link_works_once(self):
        code = self.login()
        self.begin(code)
        with self.assertRaises(WrongCode):
            self.begin(code)

    def test_a_link_works_for_five_minutes(self):
        code, begun_ms = self.login(), clock.now_ms()
        with self.assertRaises(WrongCode):
            self.begin(code, begun_ms + LOGIN_MS)
        self.begin(code, begun_ms + LOGIN_MS - 1000)

    def test_a_code_that_is_made_up_begins_nothing(self):
        self.login()
        for code in ("", "otal_", "x" * 10_000, "\udcff", "ä"):
            with self.subTest(code[:9]), self.assertRaises(WrongCode):
                self.begin(code)

    def test_neither_a_token_nor_a_session_begins_a_session(self):
        for secret in (self.create(), self.begin(self.login())):
            with self.assertRaises(WrongCode):
                self.begin(secret)

    def test_a_session_lasts_twelve_hours(self):
        begun_ms = clock.now_ms()
        self.begin(self.login(), begun_ms)
        (session,) = read_sessions(self.data_dir).sessions.values()
        self.assertEqual(session.expires_ms, begun_ms + SESSION_MS)

    def test_it_may_do_no_more_than_its_token_or_its_link(self):
        self.create("reader", may_act=False)
        self.create("actor")
        for name, may_act, expected in (
            ("reader", True, False),
            ("actor", True, True),
            ("actor", False, False),
            (None, False, False),
        ):
            with self.subTest(name, may_act=may_act):
                digest = digest_of(self.begin(self.login(name, may_act)))
                session = read_sessions(self.data_dir).sessions[digest]
                allowed = session.in_force(read_tokens(self.data_dir), clock.now_ms())
                self.assertEqual(allowed.may_act, expected)

    def test_it_is_for_a_token_that_is_there_and_valid(self):
        with self.assertRaisesRegex(Refused, "no token anna; `token create anna`"):
            self.login("anna")
        create_token(self.data_dir, "old", True, clock.now_ms() + 60_000)
        later = clock.now_ms() + 61_000
        with (
            mock.patch("ota_server.system.clock.now_ms", lambda: later),
            self.assertRaisesRegex(Refused, "old has expired"),
        ):
            self.login("old")

    def test_a_session_that_cannot_be_recorded_uses_up_no_link(self):
        code = self.login()
        with (
            mock.patch("ota_server.operations.session_edits.replace", side_effect=FULL),
            self.assertRaises(OSError),
        ):
            self.begin(code)
        self.assertEqual(self.actions()[-2:], ["sign in", audit.NOT_DONE])
        self.begin(code)

    def test_a_command_that_takes_long_keeps_nobody_from_signing_in(self):
        code = self.login()
        with locked(self.data_dir):
            self.begin(code)

    def test_the_port_does_not_wait_long_for_somebody_else_who_signs_in(self):
        code = self.login()
        lock = self.data_dir / "log" / session_edits.LOCK_NAME
        with (
            mock.patch("ota_server.operations.session_edits.PORT_WAIT_SECONDS", 0.0),
            locked_by(lock, 0.0),
            self.assertRaises(Busy),
        ):
            self.begin(code)
        self.begin(code)

    def test_a_session_ends_and_others_go_on(self):
        digests = [digest_of(self.begin(self.login())) for _ in range(2)]
        for _ in range(2):
            end(self.data_dir, digests[0], "192.0.2.7", clock.now_ms())
        self.assertEqual([*read_sessions(self.data_dir).sessions], digests[1:])
