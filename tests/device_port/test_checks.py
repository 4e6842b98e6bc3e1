"""The fast path of a common check gives the same answers and records as the general one."""

import json
import random
import unittest
from collections import Counter
from unittest import mock

from ota_server.device_port.admission import Admission
from ota_server.device_port.caller import caller_of
from ota_server.device_port.checks import read_common_check, read_common_image
from ota_server.device_port.products import Common, ProductPort, Products
from ota_server.device_port.service import Service
from ota_server.device_port.slots import DownloadSlots
from ota_server.httpd.connection import Connection
from ota_server.httpd.http1 import BadRequest, read_request
from ota_server.httpd.reply import ImageSpan, Outgoing, Peer
from ota_server.journal.device_table import DeviceTable
from ota_server.journal.rejected import Rejected
from ota_server.journal.writer import Journal
from ota_server.model.device import Report
from ota_server.policy.files import PolicyFiles
from ota_server.releases.store import NotHashed, Store
from tests.support import DataDirCase

LINES = (
    b"Host: ota.example:7777",
    b"host:10.0.0.1",
    b"_br_mac_: 00:11:22:33:44:55",
    b"_br_fwv_: v1.0.0",
    b"_br_fwv_:a b",
    b"Connection: close",
    b"connection:keep-alive",
    b"User-Agent: device/1.0 (x; y)",
    b"Accept: */*",
    b"Cache-Control: no-cache",
    b"Accept-Encoding: gzip, deflate",
    b"user-agent: x",
    b"Pragma: no-cache",
)
ODD_LINES = (
    b"_br_mac_: 00-11-22-33-44-55",
    b"_br_mac_: 00:11:22:aA:Bb:CC",
    b"_br_mac_: 00:00:00:00:00:00",
    b"_br_mac_: FF:fF:ff:FF:ff:ff",
    b"_br_mac_: ff:ff:ff:ff:ff:ff",
    b"_br_mac_:  00:11:22:33:44:56",
    b"_BR_MAC_: 00:11:22:33:44:57",
    b"_br_fwv_: ",
    b"_br_fwv_: trailing ",
    b"_br_fwv_: " + b"x" * 65,
    b"Host: ",
    b"Host: a b",
    b"Host: [::1]:7777",
    b"Host: x:70000",
    b"Host: x:65536",
    b"Connection: close, x",
    b"Connection: Close",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Range: bytes=0-1",
    b"If-None-Match: *",
    b"User-Agent: \xff",
    b"User-Agent: tab\there",
    b" folded",
    b"no colon",
    b"Host : x",
)
REQUEST_LINES = (b"GET /version.txt HTTP/1.1", b"GET /firmware.bin HTTP/1.1") * 5 + (
    b"GET /version.txt HTTP/1.0",
    b"HEAD /version.txt HTTP/1.1",
    b"GET /version.txt?x HTTP/1.1",
    b"GET  /version.txt HTTP/1.1",
    b"GET /firmware.bin/ HTTP/1.1",
)
ROUNDS = 30_000
WITHOUT_MEANING = {b"host", b"connection", b"user-agent", b"accept", b"accept-encoding"}
WITHOUT_MEANING |= {b"cache-control", b"pragma"}


def make_head(source: random.Random) -> bytes:
    """Return a head that is common, or nearly so."""
    lines = [LINES[0], LINES[2], LINES[3], *source.sample(LINES[6:], source.randint(0, 4))]
    if source.random() < 0.2:
        lines.append(source.choice(LINES))
    if source.random() < 0.2:
        lines.append(source.choice(ODD_LINES))
    if source.random() < 0.1:
        del lines[source.randrange(len(lines))]
    source.shuffle(lines)
    head = bytearray(b"\r\n".join([source.choice(REQUEST_LINES), *lines, b"", b""]))
    if source.random() < 0.3:
        at = source.randrange(len(head))
        head[at : at + source.randint(0, 1)] = bytes([source.choice(b"\r\n\0 :\t\x7f\x80aA0")])
    return bytes(head) + source.choice((b"", b"GET / HTTP/1.1\r\n", b"\r\n"))


def read_common(buffer: bytes) -> tuple[Report, bool, int] | None:
    """Return what a common reader finds: report, whether the connection is kept, bytes read."""
    check = read_common_check(buffer)
    if check is not None:
        return *check, len(buffer)
    image = read_common_image(buffer)
    if image is None:
        return None
    request, length = image
    return caller_of(request).report, request.keep_alive, length


class CommonCheckTest(unittest.TestCase):
    def test_what_it_takes_the_careful_reader_reads_the_same(self):
        source = random.Random(20261123)
        taken = Counter()
        for _ in range(ROUNDS):
            buffer = make_head(source)
            common = read_common(buffer)
            if common is None:
                continue
            report, keep_alive, length = common
            try:
                found = read_request(buffer)
            except BadRequest as problem:
                self.fail(f"{problem}: {buffer!r}")
            assert found is not None, buffer
            request, request_length = found
            taken[request.path] += 1
            self.assertEqual(caller_of(request).report, report, buffer)
            self.assertEqual((request.method, request.content_length), ("GET", 0), buffer)
            self.assertEqual((request.query, request.minor_version), (b"", 1), buffer)
            self.assertEqual(request.keep_alive, keep_alive, buffer)
            self.assertEqual(length, request_length, buffer)
            # What is left out changes no answer.
            self.assertFalse(request.fields.keys() - report.as_fields().keys() - WITHOUT_MEANING)
            if image := read_common_image(buffer):
                self.assertEqual(image[0].path, request.path)
        self.assertGreater(taken[b"/version.txt"], ROUNDS // 20)
        self.assertGreater(taken[b"/firmware.bin"], ROUNDS // 8)

    def test_it_takes_what_real_clients_send(self):
        for client in (
            b"Host: localhost:7777\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n",
            b"Host: 10.0.0.1:7777\r\nUser-Agent: ESP32 HTTP Client/1.0\r\nConnection: close\r\n",
            b"Host: ota\r\ncache-control: no-cache\r\nConnection: keep-alive\r\n",
        ):
            # Arduino's WiFi.macAddress() has upper-case digits.
            for mac in (b"00:11:22:33:44:ab", b"00:11:22:33:44:AB"):
                head = b"GET /version.txt HTTP/1.1\r\n" + client
                head += b"_br_mac_: " + mac + b"\r\n_br_fwv_: v1.0.0\r\n\r\n"
                common = read_common_check(head)
                self.assertIsNotNone(common, head)
                self.assertEqual(common[0], Report("00:11:22:33:44:ab", "v1.0.0"))

    def test_no_input_takes_it_long(self):
        # Each would take years if the pattern tried its parts in all ways.
        for hostile in (
            b"GET /version.txt HTTP/1.1\r\n" + b"User-Agent: " + b" " * 16_000 + b"\x01\r\n\r\n",
            b"GET /version.txt HTTP/1.1\r\n" + b"Accept: a\r\n" * 1_400 + b"x",
            b"GET /version.txt HTTP/1.1\r\n_br_fwv_: " + b"a " * 8_000 + b"\r\n\r\n",
        ):
            self.assertIsNone(read_common_check(hostile))
            self.assertIsNone(read_common_image(hostile.replace(b"/version.txt", b"/firmware.bin")))


class Careful:
    """A service without its short ways."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __getattr__(self, name: str) -> object:
        return getattr(self._service, name)

    def answer_quickly(self, _data: bytes, _peer: Peer) -> None:
        """Answer nothing."""

    read_request = staticmethod(read_request)


class TwoWaysTest(DataDirCase):
    """Two servers on the same files are asked the same, one by either way."""

    STARTS = 4
    STEPS = 1_000  # after each
    VERSIONS = ("v1.0.0", "v1.0.0", "1.0.0", "v1.0.1", "v2.0.0", "x y~")
    MACS = tuple(f"02:00:00:00:00:{number:02X}" for number in range(12))
    MOMENT = "2026-11-24T12:00:00.000Z"

    def setUp(self) -> None:
        super().setUp()
        for version in ("v1.0.0", "v1.0.1", "v2.0.0"):
            self.put_image(version, version.encode() * 100)
        self.set_target("v1.0.1")
        self.now_ms = 1_795_000_000_000
        self.store = Store(self.data_dir, settle_seconds=0.0)
        self.policies = PolicyFiles(self.data_dir)
        for version in ("v1.0.0", "v1.0.1", "v2.0.0"):
            try:
                self.store.image(version)
            except NotHashed as not_ready:
                not_ready.done.wait()
        clock = mock.patch(
            "ota_server.httpd.connection.time.time", side_effect=lambda: self.now_ms / 1000
        )
        clock.start()
        self.addCleanup(clock.stop)

    def make_service(self, name: str, places: int | None) -> Service:
        """Return a service with a journal of its own."""
        log_dir = self.data_dir / name
        log_dir.mkdir(exist_ok=True)
        fleet = DeviceTable(Journal(log_dir), log_dir, lambda: self.now_ms, max_devices=10)
        limit = None if places is None else DownloadSlots(places)
        admission = None if limit is None else Admission(limit, clock=lambda: self.now_ms / 1000)
        common = Common(fleet, lambda: self.now_ms, admission)
        default = ProductPort(self.data_dir, self.store, self.policies, common)
        products = Products(self.data_dir, common)
        return Service(default, products, fleet, Rejected(log_dir), lambda: self.now_ms)

    def change_something(self, source: random.Random) -> None:
        """Do what an operator does, or let time go by."""
        self.now_ms += source.choice((0, 7, 1_000, 40_000, 700_000, 90_000_000))
        chance = source.random()
        if chance < 0.1:
            self.set_target(source.choice(("v1.0.0", "v1.0.1\n", "v2.0.0")))
        elif chance < 0.14:
            self.write("hold.json", {})
        elif chance < 0.2:
            (self.data_dir / "version" / "hold.json").unlink(missing_ok=True)
        elif chance < 0.26:
            plan = {"id": "1", "version": "v2.0.0", "group": "", "time": self.MOMENT}
            plan |= {"waves": [50, 100], "instead_of": "v1.0.0"}
            state = {"id": "1", "state": "running", "wave": 0, "wave_time": self.MOMENT}
            self.write("progress.json", state)
            self.write("rollout.json", plan)
        elif chance < 0.32:
            (self.data_dir / "version" / "rollout.json").unlink(missing_ok=True)

    def write(self, name: str, content: object) -> None:
        path = self.data_dir / "version" / name
        path.with_suffix(".new").write_text(json.dumps(content))
        path.with_suffix(".new").replace(path)

    def head(self, source: random.Random) -> bytes:
        """Return a request, a common check most of the time."""
        mac = source.choice(self.MACS)
        if source.random() < 0.1:
            self.running[mac] = source.choice(self.VERSIONS)
        lines = ["Host: ota:7777", f"_br_mac_: {mac}"]
        lines.append(f"_br_fwv_: {self.running.get(mac, self.VERSIONS[0])}")
        if source.random() < 0.5:
            lines.append(source.choice(("Connection: close", "Accept: */*", "X-Uncommon: 1")))
        source.shuffle(lines)
        method = "HEAD" if source.random() < 0.02 else "GET"
        # Some devices ask for little but the image.
        is_image = source.random() < (0.8 if mac < self.MACS[4] else 0.1)
        path = "/firmware.bin" if is_image else "/version.txt"
        return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("ascii")

    def ask(self, app: Service | Careful, data: bytes, peer: Peer) -> tuple[bytes, bool, bool]:
        """Return the reply, whether the connection is kept, and whether it needs its record."""
        if quick := app.answer_quickly(data, peer):
            self.taken += 1
            return quick
        connection = Connection(app, peer, 15.0, 0.0)
        connection.receive(data, 0.0)
        outgoing = connection.next_reply(0.0, may_wait=False)
        assert outgoing is not None
        content = sent_bytes(outgoing)
        connection.acknowledged(len(content), 0.0)
        connection.close(was_reset=False)
        return content, not outgoing.close, outgoing.needs_record

    def records(self, folder: str) -> list[object]:
        lines = (self.data_dir / folder / "devices.jsonl").read_bytes().splitlines()
        # How long a download took is not by the clock of this test.
        return [{**json.loads(line), "duration_seconds": None} for line in lines]

    def compare(self, seed: int, places: int | None) -> Counter[bytes]:
        """Ask both the same, over and over; return how often which status line was answered."""
        source, self.taken = random.Random(seed), 0
        self.running: dict[str, str] = {}
        statuses: Counter[bytes] = Counter()
        for _ in range(self.STARTS):  # after the first with all devices on disk
            quick = self.make_service(f"quick{seed}", places)
            careful = Careful(self.make_service(f"careful{seed}", places))
            for _ in range(self.STEPS):
                if source.random() < 0.1:
                    self.change_something(source)
                quick.begin_turn()  # for both: they have their files together
                data, peer = self.head(source), Peer("192.0.2.7", source.random() < 0.5)
                answer = self.ask(quick, data, peer)
                self.assertEqual(answer, self.ask(careful, data, peer), data)
                statuses[answer[0].partition(b"\r\n")[0]] += 1
            quick.fleet.close()
            careful.fleet.close()
        self.assertEqual(self.records(f"quick{seed}"), self.records(f"careful{seed}"))
        self.assertGreater(self.taken, self.STARTS * self.STEPS // 3)
        return statuses

    def test_both_ways_give_the_same_bytes_and_the_same_records(self):
        self.addCleanup(self.store.close)
        statuses = self.compare(1, places=None) + self.compare(2, places=2)
        self.assertGreater(statuses[b"HTTP/1.1 200 OK"], self.STARTS * self.STEPS)
        self.assertGreater(statuses[b"HTTP/1.1 503 Service Unavailable"], 0)


def sent_bytes(outgoing: Outgoing) -> bytes:
    """Return all that is sent for a reply."""
    parts = (
        part.image.read(part.start, part.stop - part.start) if isinstance(part, ImageSpan) else part
        for part in outgoing.parts
    )
    return outgoing.head + b"".join(parts)
