"""Connections that the application takes over: long bodies, streams, and their ends."""

import socket
import threading
import unittest
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus

from ota_server.httpd import http1, reply
from ota_server.httpd.adopted import AdoptedListener, listen_on
from ota_server.httpd.taken import ConnectionEnds, TakenConnection, TakesOver
from ota_server.httpd.threads import ChannelHandler, ThreadDriver
from tests.support import Client

BODY = bytes(range(256)) * 4096


class TakingApp:
    """An application that takes every connection over, and tells how that ended."""

    failures = withdrawals = 0

    def __init__(self, talk: Callable[[TakenConnection, http1.Request], None]) -> None:
        self._talk = talk
        self.ended = threading.Event()
        self.problem: BaseException | None = None

    def begin_turn(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def answer_quickly(self, data, peer):
        return None

    def read_request(self, buffer):
        return http1.read_request(buffer)

    def most_body_bytes(self, request):
        return 0

    def note_refused(self, problem, head, peer):
        pass

    def respond(self, request, peer, may_wait):
        if request.path == b"/plain":
            return reply.text(HTTPStatus.OK, "plain")
        raise TakesOver(lambda taken: self._run(taken, request))

    def _run(self, taken, request):
        try:
            self._talk(taken, request)
        except BaseException as problem:
            self.problem = problem
            raise
        finally:
            self.ended.set()


class TakenCase(unittest.TestCase):
    def serve(self, talk: Callable[[TakenConnection, http1.Request], None]) -> TakingApp:
        app = TakingApp(talk)
        sock = listen_on("127.0.0.1", 0)
        self.listener = AdoptedListener(sock, app, ChannelHandler, grace_seconds=1.0)
        self.addCleanup(self.listener.server_close)
        driver = ThreadDriver(self.listener)
        thread = threading.Thread(target=self.listener.serve, args=(driver.run,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.listener.shutdown)
        return app

    def client(self) -> Client:
        client = Client(self.listener.server_port)
        self.addCleanup(client.sock.close)
        return client


def digest(taken: TakenConnection, request: http1.Request) -> None:
    if request.expects_continue:
        taken.ask_for_body()
    found, left = sha256(), request.content_length
    while left:
        piece = taken.receive(min(left, 65536))
        found.update(piece)
        left -= len(piece)
    taken.reply(reply.text(HTTPStatus.CREATED, found.hexdigest()), request.minor_version)


class BodyTest(TakenCase):
    def test_a_body_of_any_length_is_read_piece_by_piece(self):
        self.serve(digest)
        client = self.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        client.send(BODY)
        answer = client.answer()
        self.assertEqual((answer.status, answer.fields["connection"]), (201, "close"))
        self.assertEqual(answer.body.decode(), sha256(BODY).hexdigest())
        self.assertEqual(client.sock.recv(1), b"")

    def test_a_client_that_waits_for_a_100_gets_it(self):
        self.serve(digest)
        client = self.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(client.read_until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"body")
        self.assertEqual(client.answer().body.decode(), sha256(b"body").hexdigest())

    def test_a_client_that_leaves_in_the_middle_ends_the_talk(self):
        app = self.serve(digest)
        client = self.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        client.sock.shutdown(socket.SHUT_WR)
        self.assertTrue(app.ended.wait(10))
        self.assertIsInstance(app.problem, ConnectionEnds)

    def test_a_body_that_trickles_ends_the_talk_when_its_time_is_over(self):
        app = self.serve(lambda taken, request: taken.read_body(request.content_length, 0.2))
        client = self.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        while not app.ended.wait(0.02):
            client.send(b"a")
        self.assertIsInstance(app.problem, ConnectionEnds)

    def test_a_refusal_in_the_middle_of_a_body_arrives(self):
        self.serve(
            lambda taken, request: taken.reply(
                reply.text(HTTPStatus.CONFLICT, "no"), request.minor_version
            )
        )
        client = self.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        client.send(b"x" * 100_000)
        self.assertEqual(client.answer().status, 409)

    def test_other_requests_of_the_same_connection_are_answered_before(self):
        self.serve(digest)
        client = self.client()
        client.send(
            b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n"
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
        )
        self.assertEqual(client.answer().body, b"plain")
        self.assertEqual(client.answer().status, 201)


class StreamTest(TakenCase):
    def test_a_stream_ends_when_the_server_drains(self):
        def talk(taken, request):
            taken.send(b"HTTP/1.1 200 OK\r\n\r\nfirst")
            taken.receive()

        app = self.serve(talk)
        client = self.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_until(b"first")
        self.listener.shutdown()
        self.assertTrue(app.ended.is_set())
        self.assertIsInstance(app.problem, ConnectionEnds)

    def test_it_is_seen_that_a_client_has_left(self):
        looks = []

        def talk(taken, request):
            looks.append(taken.is_left())
            taken.send(b"HTTP/1.1 200 OK\r\n\r\nfirst")
            while not taken.is_left():
                pass
            looks.append(True)

        app = self.serve(talk)
        client = self.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_until(b"first")
        client.sock.close()
        self.assertTrue(app.ended.wait(10))
        self.assertEqual(looks, [False, True])
