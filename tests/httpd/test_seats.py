"""Of all connections the one that waits longest gives way to a new one, unless it is held."""

import threading
import unittest
from collections.abc import Callable

from ota_server.httpd import http1
from ota_server.httpd.adopted import AdoptedListener, listen_on
from ota_server.httpd.seats import SeatedDriver, Seats
from ota_server.httpd.taken import TakenConnection
from ota_server.httpd.threads import ChannelHandler
from tests.httpd.test_taken import TakingApp
from tests.support import Client

MOST = 3
PLAIN = b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n"


class SeatsTest(unittest.TestCase):
    def setUp(self):
        self.seats = Seats()

    def serve(self, talk: Callable[[TakenConnection, http1.Request], None]) -> None:
        listener = AdoptedListener(
            listen_on("127.0.0.1", 0), TakingApp(talk), ChannelHandler, max_connections=MOST
        )
        driver = SeatedDriver(listener, self.seats)
        thread = threading.Thread(target=listener.serve, args=(driver.run,))
        thread.start()
        self.addCleanup(listener.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(listener.shutdown)
        self.port = listener.server_port

    def client(self, content: bytes) -> Client:
        client = Client(self.port)
        self.addCleanup(client.sock.close)
        client.send(content)
        return client

    def held(self) -> Client:
        """Return a client whose connection is held until the end."""
        client = self.client(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(client.read(4), b"held")
        return client

    def hold(self, taken: TakenConnection, _request: http1.Request) -> None:
        with self.seats.held():
            taken.send(b"held")
            while not taken.is_left():
                taken.receive()

    def test_whoever_says_nothing_keeps_nobody_out(self):
        self.serve(self.hold)
        silent = [self.client(b"GET / HT") for _ in range(10 * MOST)]
        self.assertEqual(self.client(PLAIN).answer().body, b"plain")
        self.assertEqual(silent[0].sock.recv(1), b"")

    def test_a_connection_that_was_answered_is_reused_while_there_is_room(self):
        self.serve(self.hold)
        client = self.client(PLAIN)
        for _ in range(3):
            self.assertEqual(client.answer().body, b"plain")
            client.send(PLAIN)

    def test_one_that_is_held_does_not_give_way(self):
        self.serve(self.hold)
        held = self.held()
        for _ in range(10 * MOST):
            self.client(b"GET / HT")
        self.assertEqual(self.client(PLAIN).answer().body, b"plain")
        held.sock.setblocking(False)
        with self.assertRaises(BlockingIOError):
            held.sock.recv(1)

    def test_if_all_are_held_the_next_is_refused(self):
        self.serve(self.hold)
        clients = [self.held() for _ in range(MOST)]
        self.assertEqual(self.client(PLAIN).answer().status, 503)
        clients.pop().sock.close()
        while (answer := self.client(PLAIN).answer()).status == 503:
            pass
        self.assertEqual(answer.body, b"plain")

    def test_without_a_place_nothing_is_held(self):
        with self.seats.held():
            self.seats.give_way()
        self.assertEqual(self.seats.leaving, 0)
