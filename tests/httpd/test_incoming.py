"""Requests with bodies: over real sockets, to an application that sends each body back."""

import random
import re
import socket
import threading
import time
import unittest
from http import HTTPStatus
from itertools import pairwise

from ota_server.httpd import reply
from ota_server.httpd.body_budget import BodyBudget
from ota_server.httpd.connection import HEAD_SECONDS, Connection
from ota_server.httpd.http1 import MAX_HEAD_BYTES, BadRequest, Request, read_request
from ota_server.httpd.incoming import MOST_CUT_BYTES
from ota_server.httpd.listener import Listener
from ota_server.httpd.reply import Peer, Reply
from ota_server.httpd.threads import ChannelHandler
from ota_server.httpd.transports import TRANSPORTS, drive
from tests.support import Client, until

MOST = 64 * 1024
LOCAL = Peer("127.0.0.1", True)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def post(body: bytes, *lines: bytes, path: bytes = b"/echo", method: bytes = b"POST") -> bytes:
    """Return a request with a body."""
    return head(len(body), *lines, path=path, method=method) + body


def head(length: int, *lines: bytes, path: bytes = b"/echo", method: bytes = b"POST") -> bytes:
    """Return the head of a request whose body has a length."""
    fields = (b"Host: h", b"Content-Length: %d" % length, *lines)
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, path, b"\r\n".join(fields))


class Echo:
    """An application that wants bodies at one path, and sends them back."""

    failures = withdrawals = 0

    def begin_turn(self) -> None:
        """Do nothing."""

    flush = begin_turn

    def answer_quickly(self, _data: bytes, _peer: Peer) -> None:
        """Answer nothing."""

    read_request = staticmethod(read_request)

    def most_body_bytes(self, request: Request) -> int:
        """Return how long a body may be."""
        return MOST if request.path == b"/echo" and request.method in ("POST", "PUT") else 0

    def note_refused(self, _problem: BadRequest, _head: bytes, _peer: Peer) -> None:
        """Do nothing."""

    def respond(self, request: Request, _peer: Peer, _may_wait: bool) -> Reply:
        """Send the body back."""
        is_unread = request.content_length > 0 and not request.body
        text = f"{request.method} {len(request.body)} " + request.body.decode("latin-1")
        return reply.text(HTTPStatus.OK, text, close=is_unread)


class MachineTest(unittest.TestCase):
    """One connection without a socket, with a clock made by hand."""

    def setUp(self):
        self.connection = Connection(Echo(), LOCAL, 15.0, 0.0)

    def feed(self, content: bytes, now: float = 0.0) -> bytes | None:
        """Take bytes; return the reply to them, without what changes in its head."""
        self.connection.receive(content, now)
        outgoing = self.connection.next_reply(now)
        return None if outgoing is None else outgoing.head

    def test_a_body_is_whole_only_with_its_last_byte(self):
        for piece in (head(5), b"a", b"bcd"):
            self.assertIsNone(self.feed(piece))
        self.assertTrue(self.feed(b"e").endswith(b"POST 5 abcde"))
        self.assertFalse(self.connection.has_input)

    def test_a_body_that_looks_like_a_request_is_not_read_as_one(self):
        inner = post(b"x") + b"\r\n\r\n"
        self.assertTrue(self.feed(post(inner)).endswith(b"POST %d " % len(inner) + inner))
        self.assertIsNone(self.connection.next_reply(0.0))

    def test_what_follows_a_body_is_the_next_request(self):
        first = self.feed(post(b"one") + post(b"two", method=b"PUT") + b"GET /x HTT")
        self.assertTrue(first.endswith(b"POST 3 one"))
        self.assertTrue(self.connection.next_reply(0.0).head.endswith(b"PUT 3 two"))
        self.assertTrue(self.feed(b"P/1.1\r\nHost: h\r\n\r\n").endswith(b"GET 0 "))

    def test_however_a_stream_is_cut_its_replies_are_the_same(self):
        chance = random.Random(1)
        bodies = [chance.randbytes(chance.choice((0, 1, 40, 9000))) for _ in range(12)]
        stream = b"".join(post(body) for body in bodies)
        expected = [b"POST %d %b" % (len(b), b.decode("latin-1").encode()) for b in bodies]
        for _ in range(50):
            self.connection = Connection(Echo(), LOCAL, 15.0, 0.0)
            cuts = sorted(chance.choices(range(len(stream)), k=chance.choice((0, 1, 5, 50))))
            replies = []
            for start, stop in pairwise((0, *cuts, len(stream))):
                self.connection.receive(stream[start:stop], 0.0)
                while (outgoing := self.connection.next_reply(0.0)) is not None:
                    replies.append(outgoing.head.partition(b"\r\n\r\n")[2])
            self.assertEqual(replies, expected)

    def test_a_longer_body_than_wanted_is_refused_before_it_comes(self):
        refused = self.feed(head(MOST_CUT_BYTES + 1, b"Expect: 100-continue"))
        self.assertTrue(refused.startswith(b"HTTP/1.1 413 "))
        self.assertIn(b"Connection: close\r\n", refused)

    def test_of_a_longer_body_the_beginning_is_kept_and_the_rest_is_read_past(self):
        body = bytes(range(256)) * 1024
        chance = random.Random(2)
        for pieces in (1, 2, 7, 100):
            budget = BodyBudget(MOST)
            self.connection = Connection(Echo(), LOCAL, 15.0, 0.0)
            self.connection.bodies = budget
            stream = post(body) + post(b"next")
            cuts = sorted(chance.choices(range(len(stream)), k=pieces))
            replies = []
            for start, stop in pairwise((0, *cuts, len(stream))):
                self.connection.receive(stream[start:stop], 0.0)
                while (outgoing := self.connection.next_reply(0.0)) is not None:
                    replies.append(outgoing.head.partition(b"\r\n\r\n")[2])
                self.assertLess(len(self.connection._buffer), MOST + 2 * len(head(MOST)))
            kept = body[:MOST].decode("latin-1").encode()
            self.assertEqual(replies, [b"POST %d %b" % (MOST, kept), b"POST 4 next"])
            self.assertEqual(budget.left_bytes, MOST)

    def test_head_and_body_have_ten_seconds_together(self):
        self.assertIsNone(self.feed(head(MOST), 1.0))
        for second in range(2, 11):
            self.assertIsNone(self.feed(b"HEAD / HTTP/1.1\r\n", float(second)))
            self.assertTrue(self.connection.tick(float(second)))
        self.assertAlmostEqual(self.connection.wait_seconds(10.0), HEAD_SECONDS - 9.0)
        self.assertTrue(self.connection.tick(1.0 + HEAD_SECONDS))
        late = self.connection.next_reply(1.0 + HEAD_SECONDS).head
        self.assertTrue(late.startswith(b"HTTP/1.1 408 "))
        self.assertTrue(late.endswith(b"no whole request in 10 s"))

    def test_long_bodies_that_are_not_whole_take_a_budget_which_they_give_back(self):
        budget = BodyBudget(2 * MOST)
        ways = ("whole", "late", "left")
        for way in ways * 2:
            with self.subTest(way):
                first, second, third = connections = [
                    Connection(Echo(), LOCAL, 15.0, 0.0) for _ in range(3)
                ]
                for each in connections:
                    each.bodies = budget
                    each.receive(head(MOST) + b"half", 0.0)
                self.assertIsNone(first.next_reply(0.0))
                self.assertIsNone(first.next_reply(0.0))
                self.assertIsNone(second.next_reply(0.0))
                refused = third.next_reply(0.0)
                self.assertTrue(refused.head.startswith(b"HTTP/1.1 503 "))
                self.assertIn(b"Retry-After: ", refused.head)
                self.assertTrue(refused.close)
                for each in (first, second):
                    if way == "whole":
                        each.receive(b"x" * (MOST - 4), 0.0)
                        self.assertIn(b"POST %d half" % MOST, each.next_reply(0.0).head)
                    elif way == "late":
                        each.tick(HEAD_SECONDS)
                        self.assertTrue(each.next_reply(HEAD_SECONDS).close)
                for each in connections:
                    each.stop_reading()
                    each.stop_reading()
                self.assertEqual(budget.left_bytes, 2 * MOST)

    def test_a_body_no_longer_than_a_head_takes_none_of_it(self):
        self.connection.bodies = BodyBudget(0)
        self.assertIsNone(self.feed(head(MAX_HEAD_BYTES)))
        self.assertTrue(self.feed(b"x" * MAX_HEAD_BYTES).startswith(b"HTTP/1.1 200 "))

    def test_no_more_is_taken_in_than_the_request_that_is_under_way(self):
        self.feed(head(MOST))
        for _ in range(MOST // 1000):
            self.feed(b"x" * 1000)
            self.assertFalse(self.connection.has_enough)
        self.connection.receive(b"x" * 1000, 0.0)
        self.assertTrue(self.connection.has_enough)

    def test_a_client_that_waits_is_asked_for_the_body_once(self):
        expects = b"Expect: 100-Continue"
        self.assertEqual(self.feed(head(5, expects)), CONTINUE)
        self.assertIsNone(self.feed(b"abc"))
        self.assertTrue(self.feed(b"de").endswith(b"POST 5 abcde"))
        for request in (post(b"abc", expects), head(0, expects)):
            self.assertTrue(self.feed(request).startswith(b"HTTP/1.1 200 "))

    def test_nobody_is_asked_for_a_body_that_is_not_wanted(self):
        for request in (
            head(5, b"Expect: 100-continue", path=b"/other"),
            head(5, b"Expect: 100-continue", method=b"GET"),
        ):
            with self.subTest(request):
                self.connection = Connection(Echo(), LOCAL, 15.0, 0.0)
                answer = self.feed(request)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))
                self.assertIn(b"Connection: close\r\n", answer)

    def test_http_1_0_does_not_know_100(self):
        request = head(1, b"Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assertIsNone(self.feed(request))
        self.assertTrue(self.feed(b"x").endswith(b"POST 1 x"))

    def test_a_server_that_stops_asks_for_no_body(self):
        self.connection.receive(head(5, b"Expect: 100-continue"), 0.0)
        self.assertIsNone(self.connection.next_reply(0.0, draining=True))


class SocketTest(unittest.TestCase):
    """The same on each transport."""

    def start(self, transport: str) -> int:
        """Start a server; return its port."""
        return self.listener(transport).server_address[1]

    def listener(self, transport: str) -> Listener:
        """Start a server."""
        listener = Listener(("127.0.0.1", 0), Echo(), ChannelHandler)
        thread = threading.Thread(target=drive, args=(listener, transport))
        thread.start()
        self.addCleanup(listener.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(listener.drain)
        return listener

    def test_bodies_come_back_whole_in_order_on_one_connection(self):
        bodies = [b"", b"a", bytes(range(256)) * 256, b"\r\n\r\n", b"x" * MOST]
        for transport in TRANSPORTS:
            with self.subTest(transport), Client(self.start(transport)) as client:
                client.send(b"".join(post(body) for body in bodies))
                for body in bodies:
                    whole = client.answer().body.decode("utf-8").encode("latin-1")
                    self.assertEqual(whole, b"POST %d " % len(body) + body)
                client.send(head(3, b"Expect: 100-continue"))
                self.assertEqual(client.read(len(CONTINUE)), CONTINUE)
                client.send(b"xyz" + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                self.assertEqual(client.answer().body, b"POST 3 xyz")
                self.assertEqual(client.answer().body, b"GET 0 ")

    def test_beyond_the_budget_for_bodies_a_client_gets_503(self):
        for transport in TRANSPORTS:
            listener = self.listener(transport)
            budget = listener.bodies = BodyBudget(MOST)
            with self.subTest(transport), Client(listener.server_address[1]) as client:
                client.send(head(MOST) + b"half")
                self.assertTrue(until(lambda budget=budget: not budget.left_bytes))
                with Client(listener.server_address[1]) as other:
                    other.send(head(MOST) + b"half")
                    self.assertEqual(other.answer().status, 503)
                    self.assertEqual(other.read_all(), b"")
                client.sock.close()
                self.assertTrue(until(lambda budget=budget: budget.left_bytes == MOST))

    def test_a_body_that_nobody_wants_ends_the_connection(self):
        for transport in TRANSPORTS:
            with self.subTest(transport), Client(self.start(transport)) as client:
                client.send(post(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", path=b"/other"))
                replies = client.read_all()
                self.assertEqual(len(re.findall(rb"HTTP/1.1 ", replies)), 1)

    def test_a_client_that_leaves_within_a_body_is_let_go(self):
        for transport in TRANSPORTS:
            with self.subTest(transport), Client(self.start(transport)) as client:
                client.send(head(100) + b"half")
                client.sock.shutdown(socket.SHUT_WR)
                began = time.monotonic()
                self.assertEqual(client.read_all(), b"")
                self.assertLess(time.monotonic() - began, 5.0)
