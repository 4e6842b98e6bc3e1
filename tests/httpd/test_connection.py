"""Connections: deadlines, limits, and clients that behave badly."""

import os
import random
import select
import socket
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from ota_server.device_port.checks import Checks
from ota_server.device_port.offers import Offers
from ota_server.device_port.wiring import open_service
from ota_server.httpd.connection import CONFIRM_SECONDS, HEAD_SECONDS, STALL_SECONDS, Connection
from ota_server.httpd.reply import ImageSpan, Peer
from ota_server.releases.store import NotHashed, Store
from tests.support import (
    DEVICE,
    Client,
    DataDirCase,
    Process,
    ServerCase,
    parse_reply_head,
    request_head,
    until,
)

IDLE_SECONDS = 15.0
LOCAL = Peer("127.0.0.1", True)


class DeadlineTest(ServerCase):
    """The machine of one connection, with a clock made by hand and no socket."""

    def setUp(self):
        super().setUp()
        self.service = open_service(self.data_dir, settle_seconds=0.0)
        self.addCleanup(self.service.close)
        self.connection = Connection(self.service, LOCAL, IDLE_SECONDS, 0.0)

    def answer(self, now: float) -> int:
        """Take the next reply as sent and acknowledged whole; return its status."""
        outgoing = self.connection.next_reply(now)
        self.assertIsNotNone(outgoing)
        self.connection.sent_all(now)
        status, _ = parse_reply_head(outgoing.head[: outgoing.head.index(b"\r\n\r\n") + 4])
        return status

    def begin_download(self, now: float) -> int:
        """Have the image sent, nothing of it acknowledged; return the length of the reply."""
        self.connection.receive(request_head("/firmware.bin"), now)
        try:
            outgoing = self.connection.next_reply(now)
        except NotHashed as not_ready:
            not_ready.hashing.done.wait()
            outgoing = self.connection.next_reply(now)
        self.connection.sent_all(now)
        parts = [p.stop - p.start if isinstance(p, ImageSpan) else len(p) for p in outgoing.parts]
        return len(outgoing.head) + sum(parts)

    def ended(self) -> list[tuple[int, bool]]:
        """Return bytes and completeness of the downloads that have ended."""
        self.service.flush()
        return [(r["bytes_sent"], r["complete"]) for r in self.records(event="download")]

    def test_a_client_that_says_nothing_has_the_idle_time(self):
        self.assertEqual(self.connection.wait_seconds(0.0), IDLE_SECONDS)
        self.assertTrue(self.connection.tick(IDLE_SECONDS - 0.1))
        self.assertFalse(self.connection.tick(IDLE_SECONDS))

    def test_a_head_has_ten_seconds_from_its_first_byte_however_it_trickles(self):
        for second, byte in enumerate(b"GET /versi", start=5):
            self.connection.receive(bytes([byte]), float(second))
            self.assertIsNone(self.connection.next_reply(float(second)))
            self.assertTrue(self.connection.tick(float(second)))
        self.assertAlmostEqual(self.connection.wait_seconds(14.0), HEAD_SECONDS - 9.0)
        self.assertTrue(self.connection.tick(5.0 + HEAD_SECONDS))
        self.assertEqual(self.answer(5.0 + HEAD_SECONDS), 408)
        self.assertTrue(self.connection.is_over)

    def test_what_has_arrived_whole_is_answered_also_where_it_is_read_late(self):
        head = request_head("/healthz")
        self.connection.receive(head[:20], 0.0)
        self.assertIsNone(self.connection.next_reply(0.0))
        self.assertTrue(self.connection.tick(HEAD_SECONDS + 5))
        self.assertTrue(self.connection.is_due)
        self.connection.receive(head[20:], HEAD_SECONDS + 5)
        self.assertEqual(self.answer(HEAD_SECONDS + 5), 200)
        self.assertFalse(self.connection.is_over)

    def test_a_late_head_has_no_body_in_its_reply_as_any_other(self):
        for content in (b"HEAD /version.txt HTTP/1.1\r\nHost: ", b"\r\nHEAD ", b"HEAD"):
            with self.subTest(content):
                connection = Connection(self.service, LOCAL, IDLE_SECONDS, 0.0)
                connection.receive(content, 0.0)
                self.assertTrue(connection.tick(HEAD_SECONDS))
                outgoing = connection.next_reply(HEAD_SECONDS)
                self.assertTrue(outgoing.head.startswith(b"HTTP/1.1 408 "), outgoing.head)
                self.assertTrue(outgoing.head.endswith(b"\r\n\r\n"), outgoing.head)

    def test_empty_lines_are_a_head_that_trickles_too(self):
        self.connection.receive(b"\r\n", 0.0)
        self.assertIsNone(self.connection.next_reply(0.0))
        self.assertTrue(self.connection.tick(HEAD_SECONDS))
        self.assertEqual(self.answer(HEAD_SECONDS), 408)

    def test_a_whole_head_ends_the_time_for_it(self):
        self.connection.receive(request_head("/healthz"), 0.0)
        self.assertEqual(self.answer(9.0), 200)
        self.assertTrue(self.connection.tick(9.0 + IDLE_SECONDS - 0.1))
        self.assertFalse(self.connection.tick(9.0 + IDLE_SECONDS))

    def test_the_piece_of_a_next_head_has_its_own_time(self):
        self.connection.receive(request_head("/healthz") + b"GET /", 0.0)
        self.assertEqual(self.answer(8.0), 200)
        self.assertTrue(self.connection.tick(17.9))
        self.assertIsNone(self.connection.next_reply(17.9))
        self.assertTrue(self.connection.tick(18.0))
        self.assertEqual(self.answer(18.0), 408)

    def test_a_download_may_be_slow_as_long_as_bytes_are_acknowledged(self):
        length = self.begin_download(0.0)
        now = 0.0
        for acknowledged in range(1000, length, 1000):
            now += STALL_SECONDS - 1
            self.connection.acknowledged(acknowledged, now)
            self.assertTrue(self.connection.tick(now))
            self.assertFalse(self.connection.is_stalled(now))

    def test_a_download_of_which_nothing_is_acknowledged_is_stalled(self):
        self.begin_download(0.0)
        self.connection.acknowledged(1000, 5.0)
        self.connection.acknowledged(1000, 50.0)
        self.assertTrue(self.connection.tick(5.0 + STALL_SECONDS - 0.1))
        self.assertFalse(self.connection.tick(5.0 + STALL_SECONDS))
        self.connection.close(was_reset=False)
        ((sent, complete),) = self.ended()
        self.assertLess(sent, 1000)
        self.assertFalse(complete)

    def test_the_idle_time_does_not_cut_a_download(self):
        self.begin_download(0.0)
        self.connection.acknowledged(1000, 1.0)
        self.assertTrue(self.connection.tick(IDLE_SECONDS * 2))

    def test_a_download_is_complete_when_the_client_had_time_to_reset(self):
        length = self.begin_download(0.0)
        self.connection.acknowledged(length, 1.0)
        self.connection.tick(1.0 + CONFIRM_SECONDS - 0.1)
        self.assertEqual(self.ended(), [])
        self.connection.tick(1.0 + CONFIRM_SECONDS)
        self.assertEqual(self.ended(), [(len(self.IMAGE), True)])

    def test_a_download_whose_reply_cannot_be_made_ends(self):
        self.begin_download(0.0)  # so that the image is hashed
        self.connection.close(was_reset=False)
        self.connection = Connection(self.service, LOCAL, IDLE_SECONDS, 0.0)
        self.connection.receive(request_head("/firmware.bin"), 0.0)
        year_10000 = 2.6e11  # has no HTTP-date
        with mock.patch("time.time", return_value=year_10000), self.assertRaises(ValueError):
            self.connection.next_reply(0.0)
        self.assertTrue(self.connection.awaits_acknowledgement)
        self.connection.acknowledged(0, 0.0)
        self.connection.close(was_reset=False)
        self.assertEqual(self.ended(), [(0, False)] * 2)
        self.assertEqual(self.service.fleet.transfers.counts, {})

    def test_a_reset_in_that_time_makes_it_incomplete(self):
        length = self.begin_download(0.0)
        self.connection.acknowledged(length, 1.0)
        self.connection.close(was_reset=True)
        self.assertEqual(self.ended(), [(len(self.IMAGE), False)])

    def test_a_next_request_makes_it_complete_at_once(self):
        length = self.begin_download(0.0)
        self.connection.acknowledged(length, 1.0)
        self.connection.receive(b"GET", 1.0)
        self.assertEqual(self.ended(), [(len(self.IMAGE), True)])

    def test_no_head_is_kept_beyond_its_limit(self):
        self.connection.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000, 0.0)
        self.assertEqual(self.answer(0.0), 431)
        self.connection.receive(b"y" * 20000, 0.0)
        self.assertIsNone(self.connection.next_reply(0.0))

    def test_a_server_that_drains_closes_after_the_reply(self):
        self.connection.receive(request_head("/healthz") * 2, 0.0)
        self.assertTrue(self.connection.next_reply(0.0, draining=True).close)
        self.assertIsNone(self.connection.next_reply(0.0))

    def test_what_comes_after_the_last_request_has_no_time_for_a_head(self):
        for late in (b"\r\n", b"G"):
            with self.subTest(late):
                self.connection = Connection(self.service, LOCAL, IDLE_SECONDS, 0.0)
                self.begin_download(0.0)
                self.connection.stop_reading()
                self.connection.receive(late, 1.0)
                self.connection.acknowledged(1000, 1.0)
                # There is time left for the download, and something to wait for.
                self.assertTrue(self.connection.tick(HEAD_SECONDS + 5.0))
                self.assertFalse(self.connection.is_due)
                self.assertGreater(self.connection.wait_seconds(HEAD_SECONDS + 5.0), 0.0)
                self.assertFalse(self.connection.tick(1.0 + STALL_SECONDS))

    def pipeline_parts(self, count: int) -> None:
        """Have the client send so many requests for a byte, and get the answers it may have."""
        self.connection.acknowledged(self.begin_download(0.0), 0.0)
        fields = {**DEVICE, "Range": "bytes=1-1"}
        self.connection.receive(request_head("/firmware.bin", fields) * count, 0.0)
        self.replies = 0
        while self.connection.next_reply(0.0) is not None:
            self.connection.sent_all(0.0)
            self.replies += 1

    def test_a_client_that_acknowledges_nothing_has_its_next_request_wait(self):
        self.pipeline_parts(50)
        self.assertLess(self.replies, 50)
        self.assertTrue(self.connection.has_enough)
        self.connection.receive(b"", 0.0)
        self.assertFalse(self.connection.is_over)
        # What waits is no late head; the end is that of any client that takes nothing.
        for now in range(1, int(STALL_SECONDS)):
            self.connection.acknowledged(0, now)
            self.assertTrue(self.connection.tick(now))
            self.assertFalse(self.connection.is_due)
        self.assertFalse(self.connection.tick(STALL_SECONDS))

    def test_what_waits_is_answered_once_the_client_acknowledges_more(self):
        self.pipeline_parts(50)
        self.connection.acknowledged(10**6, HEAD_SECONDS + 1.0)
        self.assertTrue(self.connection.tick(HEAD_SECONDS + 1.0))
        self.assertTrue(self.connection.is_due)
        self.assertEqual(self.answer(HEAD_SECONDS + 1.0), 206)
        self.assertEqual(len(self.ended()), 2)

    def test_a_server_that_drains_answers_what_waits_for_the_last_time(self):
        self.pipeline_parts(50)
        self.assertTrue(self.connection.next_reply(0.0, draining=True).close)
        self.assertFalse(self.connection.has_enough)

    def test_no_more_is_read_while_more_than_a_head_is_not_answered(self):
        self.connection.receive(request_head("/healthz") * 400, 0.0)
        while self.connection.has_enough:
            self.assertEqual(self.answer(0.0), 200)
        self.assertTrue(self.connection.has_input)

    def test_a_head_that_is_too_long_by_a_byte_is_never_left_unread(self):
        for before in (b"", b"\r\n", b"\r\n\r\n"):
            for length in range(16 * 1024 - 2, 16 * 1024 + 8):
                with self.subTest(before=before, length=length):
                    connection = Connection(self.service, LOCAL, IDLE_SECONDS, 0.0)
                    head = b"GET / HTTP/1.1\r\na: "
                    connection.receive(before + head + b"b" * (length - len(head)), 0.0)
                    if connection.has_enough:
                        self.assertIsNotNone(connection.next_reply(0.0))

    def test_a_late_head_is_told_so_once_and_its_download_goes_on(self):
        length = self.begin_download(0.0)
        self.connection.receive(b"G", 1.0)
        self.assertTrue(self.connection.tick(1.0 + HEAD_SECONDS))
        self.assertEqual(self.answer(1.0 + HEAD_SECONDS), 408)
        self.assertIsNone(self.connection.next_reply(12.0))
        self.assertGreater(self.connection.wait_seconds(25.0), 0.0)
        self.connection.acknowledged(length, 26.0)
        self.connection.tick(26.0 + CONFIRM_SECONDS)
        self.assertEqual(self.ended(), [(len(self.IMAGE), True)])

    def test_nothing_is_kept_that_nobody_will_read(self):
        self.connection.stop_reading()
        for _ in range(10):
            self.connection.receive(b"y" * 20000, 0.0)
        self.assertFalse(self.connection.has_input)

    def test_nobody_waits_for_a_hash_who_may_not(self):
        # So large that it is not hashed before it is asked for, however busy the machine is.
        os.truncate(self.data_dir / "firmware" / "firmware_v1.0.1.bin", 64 * 1024 * 1024)
        self.connection.receive(request_head("/firmware.bin"), 0.0)
        outgoing = self.connection.next_reply(0.0, may_wait=False)
        self.assertIn(b" 503 ", outgoing.head)
        self.assertIn(b"Retry-After: ", outgoing.head)


class CrowdTest(ServerCase):
    def test_two_hundred_devices_at_the_same_instant_are_all_answered(self):
        self.start()
        gate = threading.Barrier(200)

        def check(number: int) -> bytes:
            gate.wait()
            return self.get("/version.txt", {**DEVICE, "_br_mac_": f"0200000001{number:02x}"}).body

        with ThreadPoolExecutor(200) as pool:
            self.assertEqual(set(pool.map(check, range(200))), {b"v1.0.1"})
        self.stop()
        self.assertEqual(len(self.records(event="check")), 200)

    def test_one_byte_of_a_head_a_second_is_gone_after_ten_seconds_and_holds_up_nobody(self):
        slow, began = Client(self.port), time.monotonic()
        self.addCleanup(slow.sock.close)
        for byte in b"GET /version.txt HTTP/1.1":
            slow.send(bytes([byte]))
            if select.select([slow.sock], [], [], 1.0)[0]:
                break
            answered_at = time.monotonic()
            self.assertEqual(self.get("/version.txt").status, 200)
            self.assertLess(time.monotonic() - answered_at, 1.0)
        self.assertEqual(slow.answer().status, 408)
        self.assertTrue(9.5 < time.monotonic() - began < 12.0)
        self.assertEqual(slow.read_all(), b"")

    def test_an_idle_connection_is_closed(self):
        self.start(idle_seconds=0.2)
        with Client(self.port) as client:
            self.assertEqual(client.read_all(), b"")
        with Client(self.port) as client:
            client.request("/version.txt")
            self.assertEqual(client.answer().status, 200)
            self.assertEqual(client.read_all(), b"")

    def test_a_connection_over_the_limit_is_answered_503_and_closed(self):
        self.start(max_connections=2)
        held = [Client(self.port) for _ in range(2)]
        for client in held:
            self.addCleanup(client.sock.close)
            client.request("/healthz")
            self.assertEqual(client.answer().status, 200)
        for _ in range(3):
            with Client(self.port) as client:
                client.request("/version.txt")
                answer = client.answer()
                self.assertEqual((answer.status, answer.fields["connection"]), (503, "close"))
                self.assertIn("retry-after", answer.fields)
                self.assertEqual(client.read_all(), b"")
        with Client(self.port) as client:
            client.request("/version.txt", method="HEAD")
            self.assertEqual(client.answer("HEAD").status, 503)
            self.assertEqual(client.read_all(), b"")
        held[0].request("/version.txt")
        self.assertEqual(held[0].answer().status, 200)

    def test_room_that_was_made_is_given_to_the_next(self):
        self.start(max_connections=1)
        for _ in range(5):
            with Client(self.port) as client:
                client.request("/version.txt", {**DEVICE, "Connection": "close"})
                self.assertEqual(client.answer().status, 200)
                client.sock.shutdown(socket.SHUT_WR)
                self.assertEqual(client.read_all(), b"")
            self.assertTrue(until(lambda: not connection_threads()))

    def test_many_refused_at_once_all_get_their_reply(self):
        self.start(max_connections=1)
        with Client(self.port) as held:
            held.request("/healthz")
            held.answer()
            with ThreadPoolExecutor(50) as pool:
                found = list(pool.map(lambda _: self.get("/version.txt").status, range(50)))
        self.assertEqual(set(found), {503})


def connection_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "connection"]


class BadClientTest(ServerCase):
    """Clients that reset, stall or leave: no traceback, and nothing leaks."""

    ROUNDS = 40

    def assert_nothing_leaks(self, act) -> None:
        """Run `act` once to warm up, then often, and count threads and open files."""
        self.start()
        self.get("/firmware.bin")
        act(random.Random(0))
        self.assertTrue(until(lambda: not connection_threads()))
        before = open_files()
        for number in range(self.ROUNDS):
            act(random.Random(number))
        self.assertTrue(until(lambda: not connection_threads()), connection_threads())
        self.assertTrue(until(lambda: open_files() <= before), (before, open_files()))
        self.assertEqual(self.get("/version.txt").status, 200)
        self.stop()
        downloads = self.records(event="download")
        self.assertEqual(len(self.records(event="begin")), len(downloads))

    def test_resets_at_any_moment(self):
        requests = request_head("/firmware.bin") * 3

        def act(chance: random.Random) -> None:
            for path in ("/version.txt", "/firmware.bin"):
                for how in ("", "close"):
                    client = Client(self.port, receive_buffer=chance.choice((4096, 65536)))
                    client.request(path, {**DEVICE, "Connection": how} if how else DEVICE)
                    client.read(chance.choice((0, 1, 500, 60000)) if path == "/firmware.bin" else 0)
                    client.reset()
            client = Client(self.port)
            client.send(requests[: chance.randrange(len(requests))])
            client.reset()

        self.assert_nothing_leaks(act)

    def test_resets_right_after_closing_its_side(self):
        def act(chance: random.Random) -> None:
            for content in (b"", b"GET", b"junk\r\n\r\n", request_head("/version.txt")):
                client = Client(self.port)
                client.send(content)
                client.sock.shutdown(socket.SHUT_WR)
                if chance.random() < 0.5:
                    client.sock.recv(1)
                client.reset()

        self.assert_nothing_leaks(act)

    def test_refused_requests_that_are_reset(self):
        def act(chance: random.Random) -> None:
            for _ in range(4):
                client = Client(self.port)
                client.send(b"junk\r\n\r\n")
                if chance.random() < 0.5:
                    client.sock.recv(1)
                client.reset()

        self.assert_nothing_leaks(act)

    def test_clients_that_leave_in_the_middle(self):
        def act(chance: random.Random) -> None:
            for content in (b"", b"GET /ver", request_head("/firmware.bin")):
                with Client(self.port, receive_buffer=4096) as client:
                    client.send(content)
                    if chance.random() < 0.5 and content.startswith(b"GET /f"):
                        client.read(100)

        self.assert_nothing_leaks(act)

    def test_half_closed_clients_get_their_reply(self):
        def act(_: random.Random) -> None:
            self.assertTrue(self.raw(request_head("/firmware.bin")).endswith(self.IMAGE))
            self.assertTrue(self.raw(request_head("/version.txt")).endswith(b"v1.0.1"))
            self.assertEqual(self.raw(request_head("/version.txt")[:-2]), b"")

        self.assert_nothing_leaks(act)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


class HashingTest(ServerCase):
    def test_a_device_that_waited_five_seconds_for_a_hash_is_told_to_come_again(self):
        self.start(service={"settle_seconds": 3600.0})
        self.put_image("v1.0.1", self.IMAGE)  # one that was there at the start need not settle
        began = time.monotonic()
        with Client(self.port) as other, Client(self.port) as client:
            client.request("/firmware.bin")
            other.request("/version.txt")
            self.assertEqual(other.answer().status, 200)
            answer = client.answer()
        self.assertEqual(answer.status, 503)
        self.assertIn("retry-after", answer.fields)
        self.assertTrue(4.5 < time.monotonic() - began < 7.0)

    def test_a_device_that_waits_for_a_hash_is_not_idle(self):
        self.start(idle_seconds=0.5, service={"settle_seconds": 1.5})
        self.put_image("v1.0.1", self.IMAGE)
        with Client(self.port) as client:
            client.request("/firmware.bin")
            answer = client.answer()
        self.assertEqual((answer.status, answer.body), (200, self.IMAGE))


class PipelineTest(ServerCase):
    def test_a_long_pipeline_lets_others_have_their_turn_and_is_answered_whole(self):
        with Client(self.port) as client, Client(self.port) as other:
            client.send(request_head("/version.txt") * 200)
            other.request("/version.txt")
            self.assertEqual(other.answer().body, b"v1.0.1")
            for _ in range(200):
                self.assertEqual(client.answer().body, b"v1.0.1")
        self.stop()
        self.assertEqual(len(self.records(event="check")), 201)


class BrokenStore(Store):
    """A collaborator with a bug."""

    def target(self):
        """Fail as no store may."""
        raise ValueError("a secret of the inside")


class BugTest(ServerCase):
    def test_a_bug_in_a_route_is_a_500_without_its_text_and_the_server_lives_on(self):
        self.start()
        store = BrokenStore(self.data_dir)
        self.addCleanup(store.close)
        service = self.server.service
        offers = Offers(store, service.policies, service.fleet)
        sound = service.checks
        broken = Checks(offers, service.policies, service.fleet, service.clock_ms)
        service.checks = service.default.checks = broken
        for fields in (DEVICE, {**DEVICE, "X-Uncommon": "1"}):  # by the fast path, and without
            with self.subTest(fields=fields):
                with self.assertLogs("ota_server", "ERROR") as logs:
                    answer = self.get("/version.txt", fields)
                self.assertEqual((answer.status, answer.body), (500, b"Internal Server Error"))
                self.assertEqual(answer.fields["connection"], "close")
                (entry,) = logs.output
                self.assertIn("Traceback", entry)
                self.assertIn("a secret of the inside", entry)
        service.checks = service.default.checks = sound
        self.assertEqual(self.get("/version.txt").status, 200)


@unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
class OpenFilesTest(DataDirCase):
    """At the limit of open files the server rests instead of spinning, and recovers."""

    def test_accepting_rests_at_the_limit_of_open_files_and_recovers(self):
        self.put_image("v1", b"image")
        self.set_target("v1")
        # The server takes what the limit allows less a reserve; with almost none left it must meet
        # the limit itself: it counts 128 files as reserve, and this process uses them up.
        code = (
            "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200));"
            "held = [os.open('/dev/null', os.O_RDONLY) for _ in range(150)];"
            "from ota_server.server import main; sys.exit(main(sys.argv[1:]))"
        )
        server = Process("--data-dir", str(self.data_dir), code=code)
        self.addCleanup(server.kill)
        clients = [Client(server.port) for _ in range(60)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.request("/version.txt")
        answered = [c for c in clients if select.select([c.sock], [], [], 0.05)[0]]
        self.assertLess(len(answered), len(clients))
        self.assertLess(cpu_seconds_within(server.process.pid, 1.0), 0.3)
        for client in answered:
            client.sock.close()
        waiting = [client for client in clients if client not in answered]
        for client in waiting:
            client.sock.settimeout(5)
            self.assertEqual(client.answer().body, b"v1")
            client.sock.close()
        _, log = server.end()
        self.assertNotIn("Traceback", log)
        self.assertEqual(log.count("no connection can be accepted"), 1)


@unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
class StalledCrowdTest(DataDirCase):
    def test_clients_that_do_not_read_cost_next_to_nothing(self):
        self.put_image("v1", bytes(50_000))
        self.set_target("v1")
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        for number in range(150):
            client = Client(server.port, receive_buffer=4096)
            self.addCleanup(client.sock.close)
            device = {**DEVICE, "_br_mac_": f"0200000003{number:02x}"}
            client.request(
                "/firmware.bin", {**device, "Connection": "close"} if number % 3 else device
            )
            if number % 3 == 2:
                client.sock.shutdown(socket.SHUT_WR)
            client.sock.recv(1, socket.MSG_PEEK)
        # Of the first second each asks its socket often whether the client has read on.
        select.select([], [], [], 0.5)
        self.assertLess(cpu_seconds_within(server.process.pid, 1.0), 0.2)


def cpu_seconds_within(pid: int, seconds: float) -> float:
    """Return the processor time that a process takes in a span of real time."""
    before = cpu_seconds(pid)
    select.select([], [], [], seconds)
    return cpu_seconds(pid) - before


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
