"""Pace: the rates are kept, everybody has a share, and slow on purpose is not stalled."""

import heapq
import os
import random
import time
import unittest
from argparse import ArgumentTypeError
from concurrent.futures import ThreadPoolExecutor

from ota_server.device_port.option_values import rate_argument
from ota_server.httpd.connection import STALL_SECONDS, Connection
from ota_server.httpd.pacing import Line, Pace, Pacing
from ota_server.httpd.reply import Peer
from ota_server.httpd.transports import TRANSPORTS
from tests.support import DEVICE, Client, ServerCase, request_head, until

KIB = 1024
# Microcontrollers give up after so long without a byte: an ESP after 8 s, ESPHome after 4.5 s.
IMPATIENT_SECONDS = 4.5


def send_all(paces: list[Pace], length: int, began: float = 100.0) -> list[float]:
    """Send so many bytes at each pace, as a loop would; return when each was done."""
    left = [length] * len(paces)
    done = [0.0] * len(paces)
    due = [(began, number) for number in range(len(paces))]
    while due:
        now, number = heapq.heappop(due)
        while left[number] and (allowed := paces[number].allowed(left[number], now)):
            paces[number].sent(allowed)
            left[number] -= allowed
        if left[number]:
            heapq.heappush(due, (paces[number].due, number))
        else:
            done[number] = now - began
    return done


def longest_silence(paces: list[Pace], seconds: float, began: float = 100.0) -> float:
    """Send without end at each pace for a while; return the longest time without a byte."""
    longest, last = 0.0, [began] * len(paces)
    due = [(began, number) for number in range(len(paces))]
    while due[0][0] < began + seconds:
        now, number = heapq.heappop(due)
        while allowed := paces[number].allowed(100_000_000, now):
            paces[number].sent(allowed)
            longest, last[number] = max(longest, now - last[number]), now
        heapq.heappush(due, (paces[number].due, number))
    return longest


class PaceTest(unittest.TestCase):
    def test_a_device_among_many_waits_so_long_for_a_byte_that_it_gives_up(self):
        for rate, count in (
            (100 * KIB, 200),
            (1000 * KIB, 1000),
            (1000 * KIB, 2000),
            (10_000 * KIB, 3000),
        ):
            for own_rate in (None, 20 * KIB):
                with self.subTest(rate=rate, downloads=count, own_rate=own_rate):
                    pacing = Pacing(rate, own_rate)
                    paces = [pacing.pace() for _ in range(count)]
                    self.assertLess(longest_silence(paces, 15.0), IMPATIENT_SECONDS)

    def test_one_download_takes_as_long_as_its_rate_says(self):
        for rate in (2 * KIB, 100 * KIB, 50 * KIB * KIB):
            with self.subTest(rate):
                (seconds,) = send_all([Pacing(None, rate).pace()], 10 * rate)
                self.assertAlmostEqual(seconds, 10.0, delta=0.8)

    def test_all_downloads_together_take_as_long_as_the_rate_says(self):
        pacing = Pacing(1000 * KIB, None)
        done = send_all([pacing.pace() for _ in range(50)], 200 * KIB)
        self.assertAlmostEqual(max(done), 10.0, delta=0.5)

    def test_each_has_its_share(self):
        pacing = Pacing(1000 * KIB, None)
        done = send_all([pacing.pace() for _ in range(50)], 2000 * KIB)
        self.assertGreater(min(done), 0.9 * max(done))

    def test_the_smaller_of_the_two_rates_counts(self):
        pacing = Pacing(1000 * KIB, 10 * KIB)
        done = send_all([pacing.pace() for _ in range(10)], 100 * KIB)
        self.assertAlmostEqual(max(done), 10.0, delta=0.8)

    def test_thousands_that_wait_have_small_portions(self):
        pacing = Pacing(1000 * KIB, None)
        paces = [pacing.pace() for _ in range(5000)]
        for pace in paces:
            pace.allowed(50 * KIB, 100.0)
        self.assertLess(max(pace.due for pace in paces), 100.0 + STALL_SECONDS / 2)

    def test_a_rest_is_not_made_up_for(self):
        line = Line(100 * KIB, 0.05)
        line.take(100 * KIB, 10.0)
        begins = [line.take(10 * KIB, 1000.0) for _ in range(10)]
        self.assertGreater(begins[-1], 1000.8)

    def test_what_a_portion_had_left_is_not_lost(self):
        pace = Pacing(None, 10 * KIB).pace()
        allowed = pace.allowed(100 * KIB, 100.0)
        pace.sent(allowed - 10)
        self.assertEqual(pace.allowed(100 * KIB, 100.0), 10)

    def test_a_new_download_among_old_ones_does_not_wait_for_their_ends(self):
        pacing = Pacing(100 * KIB, None)
        old = [pacing.pace() for _ in range(20)]
        source = random.Random(1)
        now = 100.0
        for _ in range(2000):
            now += 0.005
            each = source.choice(old)
            each.sent(each.allowed(1_000_000, now))
        new = pacing.pace()
        new.allowed(1_000_000, now)
        self.assertLess(new.due, now + 2.0)


class RateTest(unittest.TestCase):
    def test_rates_are_in_bytes_a_second_by_powers_of_1024(self):
        for text, rate in (("5000", 5000), ("500K", 512_000), ("10M", 10 * KIB**2), ("1g", KIB**3)):
            with self.subTest(text):
                self.assertEqual(rate_argument(text), rate)

    def test_what_is_no_rate_is_refused(self):
        for text in ("", "0", "1023", "-5K", "1.5M", "10MB", "K", "M10", "\u0661\u0660K"):
            with self.subTest(text), self.assertRaises(ArgumentTypeError):
                rate_argument(text)


class HeldBackTest(unittest.TestCase):
    def test_a_client_that_has_all_that_was_sent_does_not_stand_still(self):
        connection = Connection(None, Peer("192.0.2.1", False), 15.0, 0.0)
        connection.answered_quickly(1000, True, 0.0)  # of which 600 are sent by now
        connection.acknowledged(600, 1.0)
        connection.held_back(600, 100.0)
        self.assertFalse(connection.is_stalled(100.0 + STALL_SECONDS - 1))

    def test_a_client_that_has_not_does(self):
        connection = Connection(None, Peer("192.0.2.1", False), 15.0, 0.0)
        connection.answered_quickly(1000, True, 0.0)
        connection.acknowledged(500, 1.0)
        connection.held_back(600, 100.0)
        self.assertTrue(connection.is_stalled(100.0))


class ServerPaceTest(ServerCase):
    IMAGE = os.urandom(90 * KIB)

    def download(self, number: int = 0) -> float:
        """Download the image and return how long that took."""
        mac = (0x020000000000 + number).to_bytes(6).hex(":")
        began = time.monotonic()
        answer = self.get("/firmware.bin", {**DEVICE, "_br_mac_": mac})
        self.assertEqual((answer.status, answer.body), (200, self.IMAGE))
        return time.monotonic() - began

    def restart(self, transport: str, pacing: Pacing) -> None:
        self.stop()
        self.start(transport=transport, pacing=pacing)

    def test_each_download_is_as_slow_as_its_rate_says(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(None, 100 * KIB))
            self.assertTrue(0.6 <= self.download() <= 3.0)

    def test_all_together_are_as_slow_as_the_rate_says_and_none_is_left_behind(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(500 * KIB, None))
            with ThreadPoolExecutor(6) as pool:
                times = list(pool.map(self.download, range(6)))
            self.assertGreater(max(times), 0.9)  # 540 KiB at 500
            self.assertGreater(sorted(times)[1], 0.6 * max(times))  # one may be the first

    def test_a_part_is_paced_like_a_whole_image(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(None, 100 * KIB))
            began = time.monotonic()
            answer = self.get("/firmware.bin", {**DEVICE, "Range": f"bytes=0-{80 * KIB - 1}"})
            self.assertEqual(answer.body, self.IMAGE[: 80 * KIB])
            self.assertGreater(time.monotonic() - began, 0.5)

    def test_checks_are_not_paced(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(10 * KIB, 10 * KIB))
            with Client(self.port) as client:
                client.request("/firmware.bin")
                client.read(100)
                began = time.monotonic()
                for _ in range(50):
                    self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
                self.assertLess(time.monotonic() - began, 1.0)
                client.reset()

    def test_waiting_for_a_portion_takes_no_processor_time(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(None, 90 * KIB))
            before = time.process_time()
            self.download()  # nearly a second
            self.assertLess(time.process_time() - before, 0.3)

    def test_a_client_that_leaves_while_it_waits_is_noticed(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(None, 2 * KIB))
            with Client(self.port) as client:
                client.request("/firmware.bin")
                client.read(100)
                client.reset()
                self.assertTrue(until(lambda: bool(self.records(event="download")), 10.0))
            self.stop()
            (self.data_dir / "log" / "devices.jsonl").unlink()

    def test_what_a_client_sends_while_it_waits_is_answered_afterwards(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(None, 100 * KIB))
            with Client(self.port) as client:
                client.send(request_head("/firmware.bin"))
                client.send(request_head("/version.txt"))
                self.assertEqual(client.answer().body, self.IMAGE)
                self.assertEqual(client.answer().body, b"v1.0.1")

    def test_at_the_end_of_the_server_paced_downloads_have_the_grace_time(self):
        for transport in TRANSPORTS:
            self.restart(transport, Pacing(None, 120 * KIB))
            with Client(self.port) as client:
                client.request("/firmware.bin")
                client.read_until(b"\r\n\r\n")
                self.server.drain()
                self.assertEqual(client.read(len(self.IMAGE)), self.IMAGE)
