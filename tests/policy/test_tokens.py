"""Tokens and sessions as they are on record."""

import json
import unittest

from ota_server.model.refusal import BadPolicy
from ota_server.policy.tokens import (
    MOST_SESSIONS,
    Session,
    Sessions,
    Token,
    digest_of,
    format_sessions,
    format_tokens,
    is_token_name,
    name_of_user,
    parse_sessions,
    parse_tokens,
    secret_of,
)

NOW = 1_800_000_000_000
ANNA = Token("anna", digest_of("a"), True, NOW, None)
BEN = Token("ben", digest_of("b"), False, NOW, NOW + 5)


def by_digest(*tokens: Token) -> dict[str, Token]:
    return {each.digest: each for each in tokens}


def session(name: str = "anna", **fields: object) -> Session:
    return Session(name, digest_of(name), True, NOW, NOW + 1000)._replace(**fields)


class FileTest(unittest.TestCase):
    def test_tokens_are_read_as_they_were_written(self):
        tokens = by_digest(ANNA, BEN)
        self.assertEqual(parse_tokens(format_tokens(tokens.values())), tokens)
        self.assertEqual(parse_tokens(b""), {})

    def test_sessions_are_read_as_they_were_written_without_those_that_are_over(self):
        login, old = session("ben", token=ANNA.digest), session("old", expires_ms=NOW)
        found = Sessions({login.digest: login}, {each.digest: each for each in (session(), old)})
        again = parse_sessions(format_sessions(found, NOW))
        self.assertEqual(again, Sessions({login.digest: login}, {session().digest: session()}))
        self.assertEqual(parse_sessions(b""), Sessions({}, {}))

    def test_the_oldest_sessions_end_where_there_are_too_many(self):
        many = [session(digest=digest_of(str(number))) for number in range(MOST_SESSIONS + 2)]
        found = parse_sessions(format_sessions(Sessions({}, {m.digest: m for m in many}), NOW))
        self.assertEqual([*found.sessions.values()], many[2:])

    def test_a_damaged_file_of_tokens_is_refused_with_what_is_wrong(self):
        good = json.loads(format_tokens([ANNA]))["anna"]
        for name, content, words in (
            ("no JSON", b"{", "is not JSON"),
            ("a list", b"[]", "is not a JSON object"),
            ("a name", {"Anna": good}, "'Anna', which is not a name"),
            ("no fields", {"anna": 5}, "no valid token at 'anna'"),
            ("no digest", {"anna": {**good, "sha256": "a" * 63}}, "is not a SHA-256"),
            ("capitals", {"anna": {**good, "sha256": "A" * 64}}, "is not a SHA-256"),
            ("a number", {"anna": {**good, "sha256": 5}}, "no valid token at 'anna'"),
            ("no truth", {"anna": {**good, "may_act": 1}}, "neither true nor false"),
            ("no time", {"anna": {**good, "expires": "soon"}}, "no valid token at 'anna'"),
            ("no end", {"anna": {k: good[k] for k in good if k != "expires"}}, "no 'expires'"),
            ("one twice", {"anna": good, "ben": good}, "one token as 'anna' and as 'ben'"),
        ):
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
            with self.subTest(name), self.assertRaisesRegex(BadPolicy, words):
                parse_tokens(content)

    def test_a_damaged_file_of_sessions_is_refused(self):
        good = json.loads(format_sessions(Sessions({}, {"": session()}), NOW))["sessions"][0]
        for name, fields in (
            ("a number", {"sessions": 5}),
            ("names", {"logins": ["anna"]}),
            ("a name", {"sessions": [{**good, "name": "Anna"}]}),
            ("no name", {"sessions": [{**good, "name": None}]}),
            ("no token", {"sessions": [{**good, "token": "x"}]}),
            ("no end", {"sessions": [{**good, "expires": None}]}),
        ):
            with self.subTest(name), self.assertRaises(BadPolicy):
                parse_sessions(json.dumps(fields).encode())


class RightsTest(unittest.TestCase):
    def test_a_token_is_over_from_the_moment_of_its_end(self):
        ends = [(ANNA, NOW * 2, False), (BEN, NOW + 4, False), (BEN, NOW + 5, True)]
        for token, now_ms, is_over in ends:
            with self.subTest(token.name, now_ms=now_ms):
                self.assertEqual(token.is_over(now_ms), is_over)

    def test_a_session_is_in_force_as_long_as_it_and_its_token_are(self):
        for name, found, tokens, now_ms, expected in (
            ("without a token", session(), (), NOW, True),
            ("at its end", session(), (), NOW + 1000, None),
            ("of a token", session(token=ANNA.digest), (ANNA,), NOW, True),
            ("of one that may read", session(token=BEN.digest), (BEN,), NOW, False),
            ("of one that has expired", session(token=BEN.digest), (BEN,), NOW + 5, None),
            ("of one that was revoked", session(token=ANNA.digest), (BEN,), NOW, None),
            ("that may read", session(may_act=False, token=ANNA.digest), (ANNA,), NOW, False),
        ):
            with self.subTest(name):
                allowed = found.in_force(by_digest(*tokens), now_ms)
                self.assertEqual(None if allowed is None else allowed.may_act, expected)


class TextTest(unittest.TestCase):
    def test_a_secret_is_recognised_by_its_prefix_and_has_only_what_a_url_may_hold(self):
        secret = secret_of("otas_", bytes(range(32)))
        self.assertRegex(secret, r"\Aotas_[A-Za-z0-9_-]{43}\Z")
        self.assertEqual(len({secret_of("", bytes([number] * 32)) for number in range(256)}), 256)

    def test_the_name_of_a_token_can_stand_anywhere(self):
        for name, is_good in {
            **dict.fromkeys(("a", "anna", "a.b-c_d9", "a" * 32), True),
            **dict.fromkeys(("", "Anna", "9a", "-a", "a" * 33, "a b", "a\n", "ä", "a/b"), False),
        }.items():
            with self.subTest(name):
                self.assertEqual(is_token_name(name), is_good)

    def test_a_user_of_the_system_becomes_a_name(self):
        for user, name in (
            ("anna", "anna"),
            ("Anna Smith", "anna-smith"),
            ("DOMAIN\\anna", "domain-anna"),
            ("1000", "operator"),
            ("", "operator"),
            ("a" * 40, "a" * 32),
        ):
            with self.subTest(user):
                self.assertEqual(name_of_user(user), name)
