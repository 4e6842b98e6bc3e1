"""What a listener knows of its drivers: connections, replies, transfers that run."""

import threading

from tests.support import DEVICE, Client, ServerCase, request_head, until

CLIENTS, REQUESTS = 8, 50


class DriversTest(ServerCase):
    def test_connections_are_counted_while_they_are_open(self):
        self.start()
        with Client(self.port) as client:
            client.request("/version.txt")
            client.answer()
            self.assertTrue(until(lambda: self.server.drivers.connections == 1))
        self.assertTrue(until(lambda: self.server.drivers.connections == 0))
        self.assertEqual(self.server.accepted_connections, 1)

    def test_no_reply_is_lost_whose_connection_has_ended(self):
        self.start()
        self.get("/version.txt")
        for _ in range(20):
            self.get("/version.txt")
        self.assertTrue(until(lambda: self.server.drivers.turns.quick == 21))

    def test_a_reply_that_needs_a_request_is_timed_and_is_no_quick_one(self):
        self.start()
        self.get("/version.txt", {**DEVICE, "Range": "bytes=0-1"})
        self.get("/healthz")
        self.assertTrue(until(lambda: sum(self.server.drivers.turns.buckets) == 2))
        self.assertEqual(self.server.drivers.turns.quick, 0)

    def test_transfers_that_run_are_found_with_what_is_acknowledged(self):
        self.put_image("v1.0.1", bytes(8 * 1024 * 1024))
        self.start()
        with Client(self.port) as client:
            client.request("/firmware.bin")
            client.sock.recv(1024, 0x2)  # a look at what has arrived: nothing is taken
            found = []

            def is_acknowledged() -> bool:
                found[:] = self.server.drivers.transfers(10)
                return bool(found) and found[0][1] > 0

            self.assertTrue(until(is_acknowledged))
            (transfer, acknowledged_bytes) = found[0]
            self.assertEqual(transfer.stop - transfer.start, 8 * 1024 * 1024)
            self.assertLess(acknowledged_bytes, 8 * 1024 * 1024)
            self.assertEqual(self.server.drivers.transfers(0), [])
        self.assertTrue(until(lambda: not self.server.drivers.transfers(10)))


class ThreadsTest(ServerCase):
    TRANSPORT = "threads"

    def test_no_count_is_lost_among_many_threads(self):
        self.start()
        self.get("/version.txt")
        threads = [threading.Thread(target=self.ask_often) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        count = 1 + CLIENTS * REQUESTS
        self.assertTrue(until(lambda: sum(self.server.drivers.turns.buckets) == count))
        self.assertTrue(until(lambda: self.server.drivers.connections == 0))
        self.assertEqual(sum(self.server.drivers.turns.buckets), count)

    def ask_often(self) -> None:
        """Ask again and again on one connection."""
        with Client(self.port) as client:
            for _ in range(REQUESTS):
                client.send(request_head("/version.txt"))
                client.answer()
