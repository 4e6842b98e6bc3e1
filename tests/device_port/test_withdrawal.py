"""What was withdrawn goes no further: transfers under way end, and nothing of it is offered."""

import json
import random
import time
from contextlib import AbstractContextManager
from pathlib import Path

from ota_server.httpd.transports import TRANSPORTS
from tests.device_port.test_ddi import PROCEEDING
from tests.device_port.test_ddi import Device as Gateway
from tests.journal.test_writer import file_size_limit
from tests.support import DEVICE, Client, ServerCase, until


def withdraw(data_dir: Path, version: str) -> None:
    """Stop a release, as `release withdraw` does."""
    stopped = {version: {"state": "withdrawn", "instead_of": None}}
    temporary = data_dir / "version" / "stopped.new"
    temporary.write_text(json.dumps(stopped))
    temporary.replace(data_dir / "version" / "stopped.json")


class EventLoopTest(ServerCase):
    TRANSPORT = TRANSPORTS[0]
    BIG_IMAGE: bytes

    @classmethod
    def setUpClass(cls):
        # Not when the tests are loaded: all processes of a run would hold it.
        cls.BIG_IMAGE = random.Random(0).randbytes(16 * 1024 * 1024)
        cls.addClassCleanup(delattr, cls, "BIG_IMAGE")

    def setUp(self):
        super().setUp()
        self.put_image("v2.0.0", self.BIG_IMAGE)
        self.put_image("v1.0.1", self.BIG_IMAGE[::-1])
        self.set_target("v2.0.0")

    def reader(self, path: str) -> Client:
        """Return a client that has read the head and the first bytes of an image."""
        client = Client(self.port, receive_buffer=8192)
        self.addCleanup(client.sock.close)
        client.request(path, {**DEVICE, "Connection": "close"})
        self.assertIn(b" 200 ", client.read_until(b"\r\n\r\n"))
        return client

    def rest_of(self, client: Client) -> int:
        """Return how many bytes come until the connection ends, by a reset or not."""
        length = len(client.read(1))
        length += len(client._take(len(client._buffer)))
        try:
            while part := client.sock.recv(65536):
                length += len(part)
        except ConnectionResetError:
            pass
        return length

    def test_a_download_that_is_read_slowly_ends_within_a_second(self):
        client = self.reader("/firmware.bin")
        began = time.monotonic()
        withdraw(self.data_dir, "v2.0.0")
        self.assertTrue(until(lambda: bool(self.records(event="download"))))
        self.assertLess(time.monotonic() - began, 1.5)
        (record,) = self.records(event="download")
        self.assertFalse(record["complete"])
        self.assertLess(self.rest_of(client), len(self.BIG_IMAGE) // 2)

    def test_a_download_that_is_read_fast_ends_before_its_last_byte(self):
        clients = [self.reader("/firmware.bin"), self.reader("/firmware/firmware_v2.0.0.bin")]
        withdraw(self.data_dir, "v2.0.0")
        self.assertTrue(until(lambda: self.server.service.offers.withdrawals == 1))
        for client in clients:
            self.assertLess(self.rest_of(client), len(self.BIG_IMAGE) - 2000)

    def test_downloads_of_other_releases_go_on(self):
        other = self.reader("/firmware/firmware_v1.0.1.bin")
        self.reader("/firmware.bin")
        withdraw(self.data_dir, "v2.0.0")
        self.assertTrue(until(lambda: bool(self.records(event="download"))))
        self.assertEqual(self.rest_of(other), len(self.BIG_IMAGE))

    def test_resumes_and_the_name_are_answered_404(self):
        self.reader("/firmware.bin")
        withdraw(self.data_dir, "v2.0.0")
        self.assertTrue(until(lambda: bool(self.records(event="download"))))
        resumed = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=500000-"})
        named = self.get("/firmware/firmware_v2.0.0.bin")
        self.assertEqual((resumed.status, named.status), (404, 404))


class ThreadsTest(EventLoopTest):
    TRANSPORT = "threads"


class PollTest(EventLoopTest):
    TRANSPORT = "poll"


class NothingOnRecordTest(ServerCase):
    def setUp(self):
        super().setUp()
        version_dir = self.data_dir / "version"
        self.set_target("v1.0.0")
        moment = "2026-11-24T12:00:00.000Z"
        plan = {"id": "1", "version": "v1.0.1", "group": "", "waves": [100], "time": moment}
        progress = {"id": "1", "state": "running", "wave": 0, "wave_time": moment}
        (version_dir / "rollout.json").write_text(json.dumps({**plan, "instead_of": "v1.0.0"}))
        (version_dir / "progress.json").write_text(json.dumps(progress))

    def full_disk(self) -> AbstractContextManager[None]:
        """Let the journal grow no more, once nothing but requests would write to it."""
        journal = self.server.service.fleet.journal
        self.assertTrue(until(lambda: not journal.needs_snapshot))
        return file_size_limit((self.data_dir / "log" / "devices.jsonl").stat().st_size)

    def test_a_rollout_offers_nothing_new_while_the_journal_cannot_be_written(self):
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        with self.full_disk():
            # By this the server learns of it: an offer that nobody has on record does not leave.
            with Client(self.port) as client:
                client.request("/version.txt")
                self.assertEqual(client.read_all(), b"")
            self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        self.assertTrue(until(lambda: self.get("/version.txt").body == b"v1.0.1"))

    def test_no_image_of_a_rollout_leaves_without_a_record(self):
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        with self.full_disk():
            with Client(self.port) as client:
                client.request("/firmware.bin")
                self.assertEqual(client.read_all(), b"")
            self.assertEqual(self.server.service.fleet.transfers.counts, {})

    def test_who_is_told_its_own_version_is_answered_all_the_same(self):
        running = {**DEVICE, "_br_fwv_": "v1.0.1", "X-Uncommon": "1"}
        self.assertEqual(self.get("/version.txt", running).body, b"v1.0.1")
        for fields in (running, {**DEVICE, "_br_fwv_": "v1.0.1"}):
            with self.subTest(fields=fields):
                with self.full_disk():
                    self.assertEqual(self.get("/version.txt", fields).body, b"v1.0.1")
                    self.assertTrue(self.server.service.fleet.journal.failing)
                self.assertTrue(until(lambda: not self.server.service.fleet.journal.failing))

    def test_without_a_rollout_the_target_is_told_all_the_same(self):
        self.set_target("v1.0.1")
        (self.data_dir / "version" / "rollout.json").unlink()
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        with self.full_disk():
            self.assertEqual(self.get("/version.txt").body, b"v1.0.1")

    def test_an_update_that_a_gateway_has_begun_is_not_canceled_meanwhile(self):
        self.start()
        gateway = Gateway(self, "/DEFAULT/controller/v1/gw-1")
        gateway.links()
        found = gateway.deployment()
        gateway.say(PROCEEDING, found["id"])
        fleet = self.server.service.fleet
        with self.full_disk():
            with fleet.lock:
                fleet.record("device", "/gw-1", fleet.get("/gw-1"))
            fleet.journal.flush()
            self.assertTrue(fleet.journal.failing)
            self.get("/healthz")  # the server notices, in whose turn nobody has to be cut off
            self.assertEqual(gateway.deployment(), found)

    def test_a_device_that_there_is_no_room_to_keep_is_offered_no_rollout(self):
        self.start(service={"max_devices": 1})
        fields = {**DEVICE, "_br_mac_": "a0:b1:c2:d3:e4:f5"}
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        for more in ({}, {"X-Uncommon": "1"}):
            with self.subTest(more=more):
                self.assertEqual(self.get("/version.txt", {**fields, **more}).body, b"v1.0.0")
                self.assertEqual(self.get("/version.txt", {**DEVICE, **more}).body, b"v1.0.1")
        for each, expected in ((fields, "v1.0.0"), (DEVICE, "v1.0.1")):
            image = self.get("/firmware.bin", each)
            self.assertEqual(image.fields["x-firmware-version"], expected)


class NothingOnRecordThreadsTest(NothingOnRecordTest):
    TRANSPORT = "threads"
