"""Who may have what: every access, method, sender and site; and how a session begins and ends."""

import itertools
import json
import socket
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import NamedTuple

from ota_server.httpd.http1 import Request, read_request
from ota_server.httpd.reply import Peer
from ota_server.operations import session_edits
from ota_server.operations.session_edits import begin, read_sessions
from ota_server.operations.token_edits import begin_login, create_token, revoke_token
from ota_server.operations.token_use import read_uses
from ota_server.operator_port.authoriser import NOBODY, Access, Authoriser, Denied, Operator
from ota_server.operator_port.session_cookie import form_token_of
from ota_server.policy.admin_address import read_tokens
from ota_server.policy.tokens import LOGIN_MS, SESSION_MS
from ota_server.system import clock
from ota_server.system.locks import locked, locked_by
from tests.journal.test_writer import keep_quiet
from tests.support import DataDirCase

HOST = "127.0.0.1:7778"
HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
OK = 200


def request_of(
    method: str = "GET",
    fields: Iterable[tuple[str, str]] = (),
    body: str = "",
    host: str = HOST,
    target: str = "/",
    version: str = "1.1",
) -> Request:
    """Return a request as the server reads it."""
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields]
    found = read_request("\r\n".join([*lines, "", ""]).encode("latin-1"))
    assert found is not None
    return found[0]._replace(body=body.encode(), content_length=len(body))


def bearer(secret: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {secret}")


def cookie(secret: str) -> tuple[str, str]:
    return ("Cookie", f"a=b; ota_session_7778={secret}; c=d")


class Who(NamedTuple):
    """One sender, and what is answered to a request by a page of our own site.

    Attributes:
        answers: to READ where it is open, READ where it is not, ACT by GET, ACT by POST.
        is_session: it has a session that is in force, and no token.
    """

    name: str
    answers: tuple[int, int, int, int]
    fields: tuple[tuple[str, str], ...] = ()
    address: str = ELSEWHERE
    is_session: bool = False
    version: str = "1.1"
    body: str = ""
    is_proxied: bool = False


class Site(NamedTuple):
    """From where a browser sends a request, or a program."""

    name: str
    fields: tuple[tuple[str, str], ...] = ()
    host: str = HOST


OWN = Site("own page", (("Origin", f"http://{HOST}"),))
SITES = (
    OWN,
    Site("own page, new browser", (*OWN.fields, ("Sec-Fetch-Site", "same-origin"))),
    Site("no origin"),
    Site("another site", (("Origin", "http://evil.example"),)),
    Site("another port", (("Origin", "http://127.0.0.1:9999"),)),
    Site("a sandbox", (("Origin", "null"),)),
    Site("a link elsewhere", (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"))),
    Site("a picture elsewhere", (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"))),
    Site("a rebound name", (("Origin", "http://evil.example:7778"),), "evil.example:7778"),
)


class AuthoriserCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        keep_quiet(self)
        self.ahead_ms = 0
        self.authoriser = self.make()

    def make(self, reads_openly: bool = True, names: tuple[str, ...] = ()) -> Authoriser:
        return Authoriser(
            self.data_dir, reads_openly=reads_openly, names=names, now_seconds=self.now_seconds
        )

    def now_seconds(self) -> float:
        return (clock.now_ms() + self.ahead_ms) / 1000

    def token(self, name: str = "anna", may_act: bool = True, expires_ms: int | None = None) -> str:
        return create_token(self.data_dir, name, may_act, expires_ms)[1]

    def session(self, name: str | None = None, may_act: bool = True) -> str:
        code = begin_login(self.data_dir, name, may_act)[1]
        now_ms, tokens = clock.now_ms(), read_tokens(self.data_dir)
        return begin(self.data_dir, code, tokens, ELSEWHERE, now_ms)[1]

    def ask(
        self,
        *fields: tuple[str, str],
        access: Access = Access.ACT,
        address: str = ELSEWHERE,
        **how: str,
    ) -> Operator:
        """Ask for something; return whom the server takes the sender for."""
        peer = Peer(address, address == HERE)
        return self.authoriser.operator(request_of(fields=fields, **how), peer, access)

    def denied(self, *fields: tuple[str, str], **how: object) -> Denied:
        with self.assertRaises(Denied) as raised:
            self.ask(*fields, **how)
        return raised.exception


class TableTest(AuthoriserCase):
    """All combinations, by a table of the senders and one rule for each site."""

    def senders(self) -> Iterator[Who]:
        acting, reading = self.token("acting"), self.token("reading", may_act=False)
        expired = self.token("expired", expires_ms=clock.now_ms() + 60_000)
        self.ahead_ms = 61_000
        gone, gone_session = self.token("gone"), self.session("gone")
        mine, others = self.session("acting"), self.session()
        ended = self.session()
        session_edits.end(self.data_dir, session_edits.digest_of(ended), HERE, clock.now_ms())
        revoke_token(self.data_dir, "gone")
        form = ("X-Form-Token", form_token_of(mine))
        in_body = ("Content-Type", "application/x-www-form-urlencoded")
        no_one = (401, 401, 401, 401)
        yield Who("nobody here", (OK, 401, 401, 401), (), HERE)
        yield Who("nobody, forwarded", no_one, (("X-Forwarded-For", ELSEWHERE),), HERE)
        yield Who("nobody, via a proxy", no_one, (("Via", "1.1 proxy"),), HERE)
        yield Who("nobody, by HTTP/1.0", no_one, (), HERE, version="1.0")
        yield Who("nobody, by a trusted proxy", no_one, (), HERE, is_proxied=True)
        yield Who("nobody elsewhere", no_one)
        for address in (HERE, ELSEWHERE):
            yield Who(f"wrong token, {address}", no_one, (bearer("otas_x"),), address)
            yield Who(f"expired token, {address}", no_one, (bearer(expired),), address)
            yield Who(f"revoked token, {address}", no_one, (bearer(gone),), address)
            yield Who(f"a password, {address}", no_one, (("Authorization", "Basic x"),), address)
            yield Who(f"two tokens, {address}", no_one, (bearer(acting), bearer(acting)), address)
            yield Who(f"session as token, {address}", no_one, (bearer(mine),), address)
            at_once = (OK if address == HERE else 401, 401, 401, 401)
            yield Who(f"ended session, {address}", at_once, (cookie(ended), form), address)
            yield Who(f"session of revoked, {address}", at_once, (cookie(gone_session),), address)
            yield Who(f"token as session, {address}", at_once, (cookie(acting),), address)
            yield Who(f"reading token, {address}", (OK, OK, 403, 403), (bearer(reading),), address)
            yield Who(f"acting token, {address}", (OK,) * 4, (bearer(acting),), address)
        for name, fields, body, answers in (
            ("form token in header", (form,), "", (OK,) * 4),
            ("form token in body", (in_body,), f"x=y&form_token={form[1]}", (OK,) * 4),
            ("no form token", (), "", (OK, OK, OK, 403)),
            ("empty form token", (("X-Form-Token", ""),), "", (OK, OK, OK, 403)),
            ("odd form token", (("X-Form-Token", "\xe4"),), "", (OK, OK, OK, 403)),
            ("another's", (("X-Form-Token", form_token_of(others)),), "", (OK, OK, OK, 403)),
        ):
            fields = (cookie(mine), *fields)
            yield Who(f"session, {name}", answers, fields, is_session=True, body=body)
        form = ("X-Form-Token", form_token_of(reader := self.session("reading")))
        yield Who("reading session", (OK, OK, 403, 403), (cookie(reader), form), is_session=True)
        yield Who("token and its session", (OK,) * 4, (bearer(acting), cookie(mine)))
        yield Who("token and ended session", (OK,) * 4, (bearer(acting), cookie(ended)))
        yield Who("token and session of another", (400,) * 4, (bearer(acting), cookie(others)))

    def expected(self, who: Who, site: Site, access: Access, method: str, is_open: bool) -> int:
        """Return the status by the rules: those of the site first."""
        is_safe = method in ("GET", "HEAD")
        if site.name == "a rebound name":
            return 403
        if not is_safe and site not in SITES[:3]:
            return 403
        if site.name == "a picture elsewhere" and access is not Access.OPEN:
            return 403
        if not is_safe and site.name == "no origin" and who.is_session:
            return 403
        if access is Access.OPEN:
            return who.answers[0] if who.answers[0] == 400 else OK
        if access is Access.READ:
            return who.answers[0 if is_open else 1]
        return who.answers[2 if is_safe else 3]

    def test_each_access_method_sender_and_site(self):
        senders = [*self.senders()]
        numbers = itertools.count()
        for is_open in (True, False):
            authoriser = self.make(reads_openly=is_open)
            for who, site, access, method in itertools.product(senders, SITES, Access, METHODS):
                number = next(numbers)
                # From an address of its own, so that no limit is met.
                address = f"{who.address.partition('.')[0]}.1.{number >> 8 & 255}.{number & 255}"
                peer = Peer(address, who.address == HERE, who.is_proxied)
                fields = (*who.fields, *site.fields)
                request = request_of(method, fields, who.body, site.host, "/", who.version)
                status = OK
                try:
                    authoriser.operator(request, peer, access)
                except Denied as denied:
                    status = int(denied.status)
                expected = self.expected(who, site, access, method, is_open)
                if status != expected:
                    with self.subTest(
                        who=who.name, site=site.name, access=access, method=method, open=is_open
                    ):
                        self.assertEqual(status, expected)


class AnswerTest(AuthoriserCase):
    def test_whoever_is_let_in_is_named(self):
        token, session = self.token("anna"), self.session("anna")
        form_token = form_token_of(session)
        self.assertEqual(self.ask(bearer(token)), Operator("anna", True))
        self.assertEqual(self.ask(cookie(session)), Operator("anna", True, form_token, True))
        self.assertEqual(self.ask(access=Access.READ, address=HERE), NOBODY)
        self.assertEqual(self.ask(bearer("x"), access=Access.OPEN), NOBODY)

    def test_a_refusal_says_how_to_get_in(self):
        denied = self.denied()
        self.assertEqual(denied.fields, (("WWW-Authenticate", 'Bearer realm="ota-server"'),))
        self.assertIn("`token login`", denied.detail)
        challenge = 'Bearer realm="ota-server", error="invalid_token"'
        self.assertEqual(self.denied(bearer("x")).fields, (("WWW-Authenticate", challenge),))
        reading = bearer(self.token(may_act=False))
        challenge = 'Bearer realm="ota-server", error="insufficient_scope"'
        self.assertEqual(self.denied(reading).fields, (("WWW-Authenticate", challenge),))

    def test_the_scheme_is_written_in_any_case(self):
        token = self.token()
        for scheme in ("Bearer", "bearer", "BEARER "):
            with self.subTest(scheme):
                self.assertEqual(self.ask(("Authorization", f"{scheme} {token}")).name, "anna")

    def test_the_machine_and_names_that_were_given_are_known(self):
        self.authoriser = self.make(names=("OTA.example.org.",))
        for host in ("ota.example.org", "ota.example.org:80", socket.gethostname(), "localhost:1"):
            with self.subTest(host):
                self.ask(access=Access.READ, address=HERE, host=host)
        self.assertEqual(self.denied(host="other.example").status, HTTPStatus.FORBIDDEN)

    def test_a_target_in_absolute_form_has_the_host_that_counts(self):
        ours = {"host": "evil.example", "target": f"http://{HOST}/"}
        self.ask(access=Access.READ, address=HERE, **ours)
        theirs = self.denied(target="http://evil.example/", access=Access.OPEN)
        self.assertEqual(theirs.status, HTTPStatus.FORBIDDEN)

    def test_a_trusted_proxy_says_by_which_name_the_client_came(self):
        self.authoriser = self.make(names=("ota.example.org",))
        token = bearer(self.token())
        peer = Peer(ELSEWHERE, False, is_proxied=True)
        for host, origin, status in (
            ("ota.example.org", "https://ota.example.org", OK),
            ("ota.example.org", f"http://{HOST}", 403),
            ("evil.example", "https://evil.example", 403),
        ):
            fields = (token, ("X-Forwarded-Host", host), ("X-Forwarded-Proto", "https"))
            request = request_of("POST", (*fields, ("Origin", origin)))
            with self.subTest(host=host, origin=origin):
                try:
                    self.authoriser.operator(request, peer, Access.ACT)
                    found = OK
                except Denied as denied:
                    found = int(denied.status)
                self.assertEqual(found, status)

    def test_a_route_may_have_found_the_token_of_the_form_itself(self):
        session = self.session()
        request = request_of("POST", (cookie(session), *OWN.fields))
        peer = Peer(ELSEWHERE, False)
        given = form_token_of(session)
        self.assertTrue(self.authoriser.operator(request, peer, Access.ACT, given).may_act)
        with self.assertRaises(Denied):
            self.authoriser.operator(request, peer, Access.ACT, "x")

    def test_only_a_body_of_somebody_who_may_act_is_worth_reading(self):
        acting, reading = self.token("a"), self.token("b", may_act=False)
        session, peer = self.session(), Peer(HERE, True)
        for name, fields, is_wanted in (
            ("nobody", (), False),
            ("acting token", (bearer(acting),), True),
            ("reading token", (bearer(reading),), False),
            ("wrong token", (bearer("x"),), False),
            ("session", (cookie(session), *OWN.fields), True),
            ("session elsewhere", (cookie(session), ("Origin", "http://evil.example")), False),
        ):
            with self.subTest(name):
                request = request_of("POST", fields)
                self.assertEqual(self.authoriser.wants_body(request, peer), is_wanted)


class ChangeTest(AuthoriserCase):
    """What is on record counts from the next request on."""

    def test_a_token_counts_at_once_and_no_longer_once_it_is_revoked(self):
        token, session = self.token(), self.session("anna")
        for _ in range(2):
            self.assertEqual(self.ask(bearer(token)).name, "anna")
            self.assertEqual(self.ask(cookie(session)).name, "anna")
        revoke_token(self.data_dir, "anna")
        for credentials in (bearer(token), cookie(session)):
            self.assertEqual(self.denied(credentials).status, HTTPStatus.UNAUTHORIZED)

    def test_a_session_ends_after_twelve_hours(self):
        session = self.session()
        self.ahead_ms = SESSION_MS - 60_000
        self.ask(cookie(session))
        self.ahead_ms = SESSION_MS
        self.assertEqual(self.denied(cookie(session)).status, HTTPStatus.UNAUTHORIZED)

    def test_what_a_broken_file_held_before_applies(self):
        token, session = self.token(), self.session()
        self.ask(bearer(token))
        for name in ("version/tokens.json", "log/sessions.json"):
            path = self.data_dir / name
            temporary = path.with_name("new")
            temporary.write_bytes(b"{")
            temporary.replace(path)
        with self.assertLogs("ota_server.system.watched", "ERROR") as logged:
            self.assertEqual(self.ask(bearer(token)).name, "anna")
        self.ask(cookie(session))
        self.assertIn("fix it, or delete it and make new tokens", logged.output[0])
        self.assertIn("delete it, and everybody signs in again", logged.output[1])

    def test_a_file_that_is_broken_from_the_start_lets_nobody_in(self):
        token = self.token()
        (self.data_dir / "version" / "tokens.json").write_bytes(b"[]")
        with self.assertLogs("ota_server.system.watched", "ERROR"):
            self.authoriser = self.make()
        self.assertEqual(self.denied(bearer(token)).status, HTTPStatus.UNAUTHORIZED)
        self.assertEqual(self.ask(access=Access.READ, address=HERE), NOBODY)

    def test_no_command_holds_up_a_request(self):
        token = self.token()
        lock = self.data_dir / "log" / session_edits.LOCK_NAME
        with locked(self.data_dir), locked_by(lock, 0.0):
            self.assertEqual(self.ask(bearer(token)).name, "anna")

    def test_tokens_of_the_server_are_those_of_its_products(self):
        token = self.token()
        product = self.data_dir / "products" / "plug"
        product.mkdir(parents=True)
        request, peer = request_of(fields=[bearer(token)]), Peer(ELSEWHERE, False)
        now = self.now_seconds
        authoriser = Authoriser(product, reads_openly=True, now_seconds=now)
        self.assertEqual(authoriser.operator(request, peer, Access.ACT).name, "anna")


class WrongTokenTest(AuthoriserCase):
    def wrong(self, address: str = ELSEWHERE) -> int:
        return int(self.denied(bearer("otas_wrong"), address=address).status)

    def test_after_ten_in_a_minute_wrong_ones_wait_and_right_ones_do_not(self):
        token = self.token()
        self.assertEqual([self.wrong() for _ in range(11)], [401] * 10 + [429])
        denied = self.denied(bearer("x"))
        self.assertRegex(dict(denied.fields)["Retry-After"], r"\A([1-9]|[1-5]\d|60)\Z")
        self.assertEqual(self.ask(bearer(token)).name, "anna")
        self.assertEqual(self.wrong("192.0.2.8"), 401)
        self.ahead_ms = 60_000
        self.assertEqual(self.wrong(), 401)

    def test_an_ipv6_network_is_one_address(self):
        found = [self.wrong(f"2001:db8::{number:x}") for number in range(1, 12)]
        self.assertEqual(found[-1], 429)

    def test_wrong_links_count_too(self):
        peer = Peer(ELSEWHERE, False)
        found = []
        for _ in range(11):
            with self.assertRaises(Denied) as raised:
                self.authoriser.begin_session(request_of("POST"), peer, "otal_x")
            found.append(int(raised.exception.status))
        self.assertEqual(found, [403] * 10 + [429])

    def test_the_log_has_the_address_a_few_times_and_never_the_token(self):
        with self.assertLogs("ota_server.operator_port.authoriser", "WARNING") as logged:
            for _ in range(100):
                self.wrong()
        self.assertEqual(len(logged.output), 10)
        self.assertIn(ELSEWHERE, logged.output[0])
        self.assertNotIn("otas_", "".join(logged.output))

    def test_a_thousand_wrong_tokens_take_no_lock_and_write_nothing(self):
        self.session()
        peer = Peer(ELSEWHERE, False)
        with locked(self.data_dir), locked_by(self.data_dir / "log" / ".sessions.lock", 0.0):
            before = {path: path.stat().st_mtime_ns for path in self.data_dir.rglob("*")}
            for _ in range(500):
                self.wrong()
                with self.assertRaises(Denied):
                    self.authoriser.begin_session(request_of("POST"), peer, "otal_x")
        after = {path: path.stat().st_mtime_ns for path in self.data_dir.rglob("*")}
        self.assertEqual(before, after)


class SessionTest(AuthoriserCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer = Peer(ELSEWHERE, False)

    def sign_in(self, code: str) -> tuple[str, str]:
        """Begin a session; return the field that a browser sends from then on."""
        new = self.authoriser.begin_session(request_of("POST", OWN.fields), self.peer, code)
        return ("Cookie", new.cookie.partition(";")[0])

    def sign_out(self, *fields: tuple[str, str]) -> str:
        request = request_of("POST", (*OWN.fields, *fields))
        return self.authoriser.end_session(request, self.peer)

    def test_somebody_signs_in_acts_and_signs_out(self):
        self.token("anna")
        field = self.sign_in(begin_login(self.data_dir, "anna", True)[1])
        operator = self.ask(field)
        self.assertEqual((operator.name, operator.may_act), ("anna", True))
        form = ("X-Form-Token", operator.form_token)
        self.assertEqual(self.ask(field, form, *OWN.fields, method="POST"), operator)
        self.assertIn("Max-Age=0", self.sign_out(field, form))
        self.assertEqual(self.denied(field).status, HTTPStatus.UNAUTHORIZED)
        self.assertEqual(read_sessions(self.data_dir).sessions, {})

    def signed(self) -> list[tuple[str, str, str]]:
        """Return who is on record as having signed in and out, with from where."""
        lines = (self.data_dir / "log" / "audit.jsonl").read_text("utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        return [
            (each["action"], each["user"], each["what"])
            for each in found
            if each["action"].startswith("sign")
        ]

    def test_both_ends_of_a_session_are_in_the_audit_log(self):
        self.token("anna")
        field = self.sign_in(begin_login(self.data_dir, "anna", True)[1])
        form = ("X-Form-Token", self.ask(field).form_token)
        for _ in range(2):  # one that is over does not end again
            self.sign_out(field, form)
        whence = f"from {ELSEWHERE}"
        self.assertEqual(self.signed(), [("sign in", "anna", whence), ("sign out", "anna", whence)])

    def test_a_broken_audit_log_keeps_nobody_from_signing_out(self):
        field = self.sign_in(begin_login(self.data_dir, None, True)[1])
        form = ("X-Form-Token", self.ask(field).form_token)
        (self.data_dir / "log" / "audit.jsonl").unlink()
        (self.data_dir / "log" / "audit.jsonl").mkdir()
        with self.assertLogs("ota_server.policy.audit", "WARNING"):
            self.assertIn("Max-Age=0", self.sign_out(field, form))
        self.assertEqual(self.denied(field).status, HTTPStatus.UNAUTHORIZED)

    def test_a_session_goes_on_after_a_restart(self):
        field = self.sign_in(begin_login(self.data_dir, None, True)[1])
        before = self.ask(field)
        self.authoriser = self.make()
        self.assertEqual(self.ask(field), before)

    def test_a_link_that_was_used_or_is_old_is_refused_with_what_to_do(self):
        used, old = (begin_login(self.data_dir, None, True)[1] for _ in range(2))
        self.sign_in(used)
        self.ahead_ms = LOGIN_MS
        for code in (used, old, "", "\udcff"):
            with self.subTest(code), self.assertRaises(Denied) as raised:
                self.sign_in(code)
            self.assertEqual(raised.exception.status, HTTPStatus.FORBIDDEN)
            self.assertIn("`token login` prints a new one", raised.exception.detail)

    def test_a_page_of_another_site_signs_nobody_in_or_out(self):
        code = begin_login(self.data_dir, None, True)[1]
        elsewhere = request_of("POST", [("Origin", "http://evil.example")])
        with self.assertRaises(Denied):
            self.authoriser.begin_session(elsewhere, self.peer, code)
        field = self.sign_in(code)
        for fields in ((), (("X-Form-Token", "x"),)):
            with self.assertRaises(Denied):
                self.sign_out(field, *fields)
        with self.assertRaises(Denied):
            self.authoriser.end_session(
                request_of("POST", [field, ("Origin", "http://evil.example")]), self.peer
            )
        self.ask(field)

    def test_whoever_is_signed_out_already_may_sign_out(self):
        self.assertIn("Max-Age=0", self.sign_out())
        self.assertIn("Max-Age=0", self.sign_out(cookie("x")))

    def test_what_cannot_be_recorded_is_refused_for_now(self):
        code = begin_login(self.data_dir, None, True)[1]
        (self.data_dir / "log" / "audit.jsonl").unlink()
        (self.data_dir / "log" / "audit.jsonl").mkdir()
        with (
            self.assertLogs("ota_server.operator_port.authoriser", "ERROR") as logged,
            self.assertRaises(Denied) as raised,
        ):
            self.sign_in(code)
        self.assertEqual(raised.exception.status, HTTPStatus.SERVICE_UNAVAILABLE)
        self.assertIn("audit.jsonl", logged.output[0])
        self.assertNotIn(code, logged.output[0])
        (self.data_dir / "log" / "audit.jsonl").rmdir()
        self.sign_in(code)


class UseTest(AuthoriserCase):
    def uses(self) -> dict[str, int]:
        """Return when tokens were used last, by their names."""
        tokens = read_tokens(self.data_dir)
        return {tokens[each].name: ms for each, ms in read_uses(self.data_dir).items()}

    def test_the_last_use_is_on_record_once_a_minute(self):
        token = bearer(self.token())
        self.authoriser.look_after()
        self.assertEqual(self.uses(), {})
        self.ask(token)
        self.authoriser.look_after()
        first = self.uses()["anna"]
        self.ahead_ms = 59_000
        self.ask(token)
        self.authoriser.look_after()
        self.assertEqual(self.uses()["anna"], first)
        self.ahead_ms = 61_000
        self.authoriser.look_after()
        self.assertGreater(self.uses()["anna"], first + 58_000)

    def test_the_end_writes_what_is_new(self):
        self.ask(bearer(self.token()))
        self.authoriser.look_after()
        self.ahead_ms = 5_000
        self.ask(cookie(self.session("anna")))
        self.authoriser.close()
        self.assertGreater(self.uses()["anna"], clock.now_ms() + 1000)

    def test_a_start_keeps_what_is_on_record_and_a_revoked_token_is_forgotten(self):
        first, second = self.token("first"), self.token("second")
        self.ask(bearer(first))
        self.authoriser.close()
        self.authoriser = self.make()
        self.ask(bearer(second))
        self.authoriser.close()
        self.assertEqual({*self.uses()}, {"first", "second"})
        revoke_token(self.data_dir, "first")
        self.ask(bearer(second))
        self.authoriser.close()
        self.assertEqual(len(read_uses(self.data_dir)), 1)

    def test_wrong_and_reading_requests_of_nobody_are_no_use(self):
        self.token()
        self.denied(bearer("x"))
        self.ask(access=Access.READ, address=HERE)
        self.authoriser.close()
        self.assertFalse((self.data_dir / "log" / "token_use.json").exists())
