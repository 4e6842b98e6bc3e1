"""A listening socket outlives who serves it."""

import threading
import unittest

from ota_server.httpd.adopted import AdoptedListener, listen_on
from ota_server.httpd.threads import ChannelHandler, ThreadDriver
from tests.httpd.test_taken import TakingApp, digest
from tests.support import Client


class AdoptedTest(unittest.TestCase):
    def test_who_connects_while_nobody_serves_is_answered_later(self):
        sock = listen_on("127.0.0.1", 0)
        self.addCleanup(sock.close)
        client = Client(sock.getsockname()[1])
        self.addCleanup(client.sock.close)
        client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
        for expected in (b"plain", b"plain"):
            listener = AdoptedListener(sock.dup(), TakingApp(digest), ChannelHandler)
            thread = threading.Thread(target=listener.serve, args=(ThreadDriver(listener).run,))
            thread.start()
            self.assertEqual(client.answer().body, expected)
            listener.shutdown()
            thread.join()
            listener.server_close()
            client = Client(sock.getsockname()[1])
            self.addCleanup(client.sock.close)
            client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")

    def test_an_ipv6_address_is_served(self):
        sock = listen_on("::1", 0)
        self.addCleanup(sock.close)
        listener = AdoptedListener(sock, TakingApp(digest), ChannelHandler)
        self.addCleanup(listener.server_close)
        self.assertEqual(listener.server_name, "::1")
        self.assertEqual(listener.server_port, sock.getsockname()[1])

    def test_an_address_that_is_taken_is_an_error(self):
        with listen_on("127.0.0.1", 0) as sock, self.assertRaises(OSError):
            listen_on("127.0.0.1", sock.getsockname()[1])
