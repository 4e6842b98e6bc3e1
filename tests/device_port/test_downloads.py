"""Downloads: which bytes a device gets, and what goes on record of them."""

import hashlib
import os
import random
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from ota_server.device_port.admission import Admission
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.wiring import open_service
from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer
from ota_server.releases.store import NotHashed
from tests.support import (
    DEVICE,
    MAC,
    Client,
    DataDirCase,
    Process,
    ServerCase,
    parse_reply_head,
    request_head,
    until,
)

KIB = 1024
MIB = 1024 * KIB
SMALL_BUFFER = 4 * KIB


def part(first: int, last: int | str = "", **more: str) -> dict[str, str]:
    """Return the fields of a device that asks for a range."""
    return {**DEVICE, "Range": f"bytes={first}-{last}", **more}


class ContinuedTest(ServerCase):
    """A device finishes the image that it began, whatever the target is meanwhile."""

    NEW = b"new image " * 9000

    def switch(self) -> None:
        self.put_image("v2", self.NEW)
        self.set_target("v2")

    def test_a_range_keeps_the_image_that_a_get_began(self):
        with Client(self.port) as client:
            client.request("/firmware.bin")
            client.read_until(b"\r\n\r\n")
        self.switch()
        answer = self.get("/firmware.bin", part(1000))
        self.assertEqual((answer.status, answer.body), (206, self.IMAGE[1000:]))
        self.assertEqual(answer.fields["x-firmware-version"], "v1.0.1")

    def test_a_range_keeps_the_image_that_a_head_began(self):
        self.get("/firmware.bin", method="HEAD")
        self.switch()
        for first in (0, 64 * KIB):
            with self.subTest(first=first):
                self.assertEqual(self.get("/firmware.bin", part(first)).body, self.IMAGE[first:])

    def test_a_range_keeps_the_image_that_a_range_began(self):
        self.get("/firmware.bin", part(0, 99))
        self.switch()
        for first in (100, 0, 5000):
            with self.subTest(first=first):
                answer = self.get("/firmware.bin", part(first, first + 99))
                self.assertEqual(answer.body, self.IMAGE[first : first + 100])

    def test_a_get_without_range_begins_the_target_anew(self):
        self.get("/firmware.bin", part(0, 99))
        self.switch()
        self.assertEqual(self.get("/firmware.bin").body, self.NEW)
        self.assertEqual(self.get("/firmware.bin", part(100)).body, self.NEW[100:])

    def test_a_head_begins_the_target_anew(self):
        self.get("/firmware.bin", part(0, 99))
        self.switch()
        head = self.get("/firmware.bin", method="HEAD")
        self.assertEqual(head.fields["content-length"], str(len(self.NEW)))
        self.assertEqual(self.get("/firmware.bin", part(100)).body, self.NEW[100:])

    def test_a_check_does_not_end_the_download_that_is_under_way(self):
        self.get("/firmware.bin", part(0, 99))
        self.switch()
        self.assertEqual(self.get("/version.txt").body, b"v2")
        self.assertEqual(self.get("/firmware.bin", part(100)).body, self.IMAGE[100:])

    def test_each_device_has_its_own_download(self):
        other = {"_br_mac_": "00:11:22:33:44:66", "_br_fwv_": "v1.0.0"}
        self.get("/firmware.bin", part(0, 99))
        self.switch()
        answer = self.get("/firmware.bin", part(100) | other)
        self.assertEqual(answer.body, self.NEW[100:])
        self.assertEqual(self.get("/firmware.bin", part(100)).body, self.IMAGE[100:])

    def test_if_range_of_the_image_that_was_begun_continues_it(self):
        etag = self.get("/firmware.bin", part(0, 99)).fields["etag"]
        self.switch()
        answer = self.get("/firmware.bin", part(100, **{"If-Range": etag}))
        self.assertEqual((answer.status, answer.body), (206, self.IMAGE[100:]))

    def test_if_range_of_another_image_gets_the_whole_target(self):
        etag = self.get("/firmware.bin", part(0, 99)).fields["etag"]
        self.switch()
        for if_range in ('"other"', f"W/{etag}", "Mon, 23 Nov 2026 12:00:00 GMT"):
            with self.subTest(if_range=if_range):
                self.get("/firmware.bin", part(0, 99, **{"If-Range": etag}))
                answer = self.get("/firmware.bin", part(100, **{"If-Range": if_range}))
                self.assertEqual((answer.status, answer.body), (200, self.NEW))

    def test_bytes_that_are_gone_are_404_and_never_another_image(self):
        path = self.data_dir / "firmware" / "firmware_v1.0.1.bin"
        for what, make in (
            ("deleted", path.unlink),
            ("replaced by other bytes", lambda: self.put_image("v1.0.1", self.IMAGE[::-1])),
            ("replaced by a shorter one", lambda: self.put_image("v1.0.1", b"short")),
            ("emptied", lambda: self.put_image("v1.0.1", b"")),
        ):
            with self.subTest(what=what):
                self.put_image("v1.0.1", self.IMAGE)
                self.set_target("v1.0.1")
                self.get("/firmware.bin", method="HEAD")
                self.set_target("v1.0.0")
                make()
                for first in (0, 100, 76799, 76800):
                    answer = self.get("/firmware.bin", part(first))
                    self.assertEqual(answer.status, 404)
                    self.assertEqual(answer.body, b"Firmware version not found.")

    def test_bytes_that_were_renamed_are_found(self):
        self.get("/firmware.bin", part(0, 99))
        self.switch()
        folder = self.data_dir / "firmware"
        (folder / "firmware_v1.0.1.bin").rename(folder / "firmware_v1.0.1-old.bin")
        self.assertEqual(self.get("/firmware.bin", part(100)).body, self.IMAGE[100:])

    def test_a_range_beyond_the_image_that_was_begun_is_416_of_that_image(self):
        self.get("/firmware.bin", part(0, 99))
        self.switch()
        answer = self.get("/firmware.bin", part(80000))
        self.assertEqual(answer.fields["content-range"], "bytes */76800")

    def test_parallel_segments_are_of_one_image(self):
        self.get("/firmware.bin", method="HEAD")
        self.switch()
        size = len(self.IMAGE)
        bounds = [(n * size // 4, (n + 1) * size // 4) for n in range(4)]
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(
                lambda bound: self.get("/firmware.bin", part(bound[0], bound[1] - 1)), bounds
            )
            self.assertEqual(b"".join(answer.body for answer in answers), self.IMAGE)


class SwitchTest(ServerCase):
    """The target changes under a hundred downloads."""

    DEVICES = 100
    PIECE = 64 * KIB
    OLD_TARGET = random.Random(1).randbytes(5 * 64 * KIB + 17)
    NEW_TARGET = random.Random(2).randbytes(5 * 64 * KIB + 17)

    def test_no_device_ends_with_a_mixture(self):
        self.put_image("v1.0.1", self.OLD_TARGET)
        self.put_image("v2", self.NEW_TARGET)
        self.get("/version.txt")
        half_way = threading.Barrier(self.DEVICES + 1)
        switched = threading.Event()

        def half_way_there() -> None:
            half_way.wait()
            switched.wait()

        with ThreadPoolExecutor(self.DEVICES) as pool:
            images = [
                pool.submit(self.download, number, half_way_there) for number in range(self.DEVICES)
            ]
            half_way.wait()
            self.set_target("v2")
            self.assertEqual(self.get("/version.txt").body, b"v2")
            switched.set()
            found = [hashlib.sha256(image.result()).hexdigest() for image in images]
        self.assertEqual(set(found), {hashlib.sha256(self.OLD_TARGET).hexdigest()})

    def download(self, number: int, half_way_there: Callable[[], None]) -> bytes:
        """Fetch one image as a real client does: half by HEAD first, a third in four segments."""
        device = {"_br_mac_": f"0200000000{number:02x}", "_br_fwv_": "v1.0.0"}
        if number % 2:
            head = self.get("/firmware.bin", device, "HEAD")
            size = int(head.fields["content-length"])
        else:
            first = self.get("/firmware.bin", {**device, "Range": "bytes=0-0"})
            size = int(first.fields["content-range"].split("/")[1])
        if number % 3 == 0:
            return self.in_segments(device, size, half_way_there)
        image = b""
        with Client(self.port) as client:
            while len(image) < size:
                last = min(len(image) + self.PIECE, size) - 1
                client.request("/firmware.bin", {**device, "Range": f"bytes={len(image)}-{last}"})
                image += client.answer().body
                if len(image) == 2 * self.PIECE:
                    half_way_there()
        return image

    def in_segments(
        self, device: dict[str, str], size: int, half_way_there: Callable[[], None]
    ) -> bytes:
        starts = [size * n // 4 for n in range(4)] + [size]
        clients = [Client(self.port) for _ in range(4)]
        for client, first, stop in zip(clients, starts, starts[1:], strict=False):
            if client is clients[2]:
                half_way_there()
            client.request("/firmware.bin", {**device, "Range": f"bytes={first}-{stop - 1}"})
        image = b"".join(client.answer().body for client in clients)
        for client in clients:
            client.sock.close()
        return image


class FirstSegmentsTest(ServerCase):
    def test_segments_that_begin_a_download_at_once_are_of_one_image_while_targets_change(self):
        images = {v: random.Random(v).randbytes(40 * KIB) for v in ("v1.0.0", "v1.0.1")}
        for version, content in images.items():
            self.put_image(version, content)
            self.get(f"/firmware/firmware_{version}.bin", {})
        ended = threading.Event()

        def change_targets() -> None:
            while not ended.is_set():
                for version in images:
                    self.set_target(version)

        def fetch(number: int, segment: int) -> bytes:
            device = {"_br_mac_": f"0200000002{number:02x}", "_br_fwv_": "v0"}
            first = segment * 10 * KIB
            fields = {**device, "Range": f"bytes={first}-{first + 10 * KIB - 1}"}
            return self.get("/firmware.bin", fields).body

        changing = threading.Thread(target=change_targets)
        changing.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                for number in range(60):
                    found = b"".join(pool.map(fetch, [number] * 4, range(4)))
                    self.assertIn(found, images.values())
        finally:
            ended.set()
            changing.join()


class KilledServerTest(DataDirCase):
    """What a device began outlives kill -9."""

    def test_a_range_after_a_kill_keeps_the_image_though_the_target_was_switched(self):
        images = {v: random.Random(v).randbytes(300 * KIB) for v in ("v1", "v2")}
        for version, content in images.items():
            self.put_image(version, content)
        self.set_target("v1")
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        begun = {}
        for number, method in enumerate(("GET", "HEAD", "RANGE"), start=1):
            device = {"_br_mac_": f"02000000000{number}", "_br_fwv_": "v0"}
            with Client(server.port) as client:
                more = {"Range": "bytes=0-9"} if method == "RANGE" else {}
                client.request(
                    "/firmware.bin", {**device, **more}, "HEAD" if method == "HEAD" else "GET"
                )
                client.read_until(b"\r\n\r\n")
            begun[method] = device
        server.kill()
        self.set_target("v2")
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        for method, device in begun.items():
            with self.subTest(method=method), Client(server.port) as client:
                client.request("/firmware.bin", {**device, "Range": "bytes=1000-"})
                answer = client.answer()
                self.assertEqual((answer.status, answer.body), (206, images["v1"][1000:]))
                client.request("/firmware.bin", {**device, "Range": "bytes=0-"})
                self.assertEqual(client.answer().body, images["v1"])
                client.request("/version.txt", device)
                self.assertEqual(client.answer().body, b"v2")


class ChangedUnderTest(ServerCase):
    """The file of an image changes while clients read it."""

    def begin(self, content: bytes, buffer: int | None = SMALL_BUFFER) -> tuple[Path, Client]:
        """Serve `content` and return its file and a client that has the head of the reply."""
        path = self.put_image("v1.0.1", content)
        client = Client(self.port, receive_buffer=buffer)
        self.addCleanup(client.sock.close)
        client.request("/firmware.bin", {**DEVICE, "Connection": "close"})
        status, fields = parse_reply_head(client.read_until(b"\r\n\r\n"))
        self.assertEqual((status, int(fields["content-length"])), (200, len(content)))
        return path, client

    def test_no_client_of_an_image_rewritten_in_place_ends_with_a_whole_wrong_file(self):
        for size in (50 * KIB, 1 * MIB, 8 * MIB):
            old, new = (random.Random(f"{size}{n}").randbytes(size) for n in "ab")
            for read_first in (0, size // 2, size - 30 * KIB):
                with self.subTest(size=size, read_first=read_first):
                    path, client = self.begin(old)
                    got = client.read(read_first)
                    with path.open("r+b") as file:
                        file.write(new)
                    got += client.read_all()
                    client.sock.close()
                    self.assertTrue(len(got) < size or got == old, "a whole file, and wrong")
                    self.assertLessEqual(len(got), size)

    def test_a_whole_reply_is_what_its_head_says_while_the_file_is_written_over_and_over(self):
        for size in (50 * KIB, 1 * MIB):
            with self.subTest(size=size):
                self.stop()
                # A file counts as an image when it has been unchanged for this long.
                self.start(service={"settle_seconds": 0.03})
                path = self.put_image("v1.0.1", bytes(size))
                ended = threading.Event()
                writer = threading.Thread(target=self.rewrite, args=(path, size, ended))
                writer.start()
                try:
                    with ThreadPoolExecutor(4) as pool:
                        list(pool.map(self.fetch_whole, range(40)))
                finally:
                    ended.set()
                    writer.join()

    def rewrite(self, path: Path, size: int, ended: threading.Event) -> None:
        order = random.Random(size)
        contents = [order.randbytes(size) for _ in range(4)]
        while not ended.is_set():
            content = order.choice(contents)
            with path.open("r+b") as file:
                for at in range(0, size, size // 8):
                    file.write(content[at : at + size // 8])
                    file.flush()
            ended.wait(order.uniform(0.03, 0.15))

    def fetch_whole(self, _: int) -> None:
        with Client(self.port, receive_buffer=SMALL_BUFFER) as client:
            client.request("/firmware.bin", {**DEVICE, "Connection": "close"})
            status, fields = parse_reply_head(client.read_until(b"\r\n\r\n"))
            body = client.read_all()
        if status == 200 and len(body) >= int(fields["content-length"]):
            self.assertEqual(fields["etag"], f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def test_an_image_that_is_cut_under_a_download_ends_it_without_padding(self):
        for size, cut in (
            (300 * KIB, 0),
            (8 * MIB, 10),
            (8 * MIB, 4 * MIB),
            (8 * MIB, 8 * MIB - 1),
        ):
            with self.subTest(size=size, cut=cut):
                content = random.Random(size).randbytes(size)
                path, client = self.begin(content)
                got = client.read(1000)
                os.truncate(path, cut)
                got += client.read_all()
                client.sock.close()
                self.assertTrue(content.startswith(got), "padded or mixed")
                # What the kernel had taken before the cut arrives; that is never 8 MiB.
                self.assertLess(len(got), 8 * MIB)

    def test_a_download_that_was_cut_is_on_record_as_incomplete(self):
        path, client = self.begin(random.Random(0).randbytes(8 * MIB))
        os.truncate(path, 0)
        got = client.read_all()
        self.stop()
        (record,) = self.records(event="download")
        self.assertFalse(record["complete"])
        self.assertLessEqual(record["bytes_sent"], len(got))

    def test_an_image_that_is_replaced_by_rename_goes_on_as_the_old_one(self):
        content = random.Random(4).randbytes(8 * MIB)
        _, client = self.begin(content)
        self.put_image("v1.0.1", b"another one")
        self.assertEqual(client.read(len(content)), content)

    def test_an_image_that_is_deleted_goes_on_to_its_end(self):
        content = random.Random(5).randbytes(8 * MIB)
        path, client = self.begin(content)
        path.unlink()
        self.assertEqual(client.read(len(content)), content)


class UnrecordedTest(DataDirCase):
    def test_a_download_that_cannot_be_recorded_keeps_no_slot(self):
        self.put_image("v1", b"image")
        self.set_target("v1")
        admission = Admission(DownloadSlots(1))
        service = open_service(self.data_dir, settle_seconds=0.0, admission=admission)
        self.addCleanup(service.close)
        request, _ = read_request(request_head("/firmware.bin")) or self.fail()
        peer = Peer("127.0.0.1", True)
        try:
            service.store.image("v1")
        except NotHashed as not_hashed:
            not_hashed.hashing.done.wait()
        year_10000 = 26 * 10**19  # has no time in the journal
        with (
            mock.patch("time.time_ns", return_value=year_10000),
            self.assertLogs("ota_server.device_port.service", "ERROR"),
        ):
            self.assertEqual(service.respond(request, peer).status, 500)
        self.assertEqual(admission.downloading, 0)
        self.assertEqual(service.fleet.transfers.counts, {})


class RecordTest(ServerCase):
    """One record when a download begins, one when it ends, however it ends."""

    def ended(self) -> dict[str, object]:
        """Return the one record of an end, as soon as it is there."""
        self.assertTrue(until(lambda: bool(self.records(event="download"))))
        (record,) = self.records(event="download")
        return record

    def test_a_begin_is_on_record_before_the_first_byte(self):
        with Client(self.port) as client:
            client.request("/firmware.bin", part(10, 19))
            client.sock.recv(1, socket.MSG_PEEK)
            (begin,) = self.records(event="begin")
        self.assertEqual(
            (begin["event"], begin["status"], begin["range_start"], begin["download_version"]),
            ("begin", 206, 10, "v1.0.1"),
        )

    def test_a_whole_download_is_complete_as_soon_as_the_client_goes_on(self):
        for fields in ({"Connection": "close"}, {}):
            with self.subTest(fields=fields), Client(self.port) as client:
                before = len(self.records(event="download")) if self.server else 0
                client.request("/firmware.bin", {**DEVICE, **fields})
                client.answer()
                if fields:
                    client.sock.close()
                else:
                    client.request("/healthz")
                    client.answer()
                self.assertTrue(
                    until(lambda: len(self.records(event="download")) > before)  # noqa: B023
                )
                record = self.records(event="download")[-1]
                self.assertEqual(
                    (record["status"], record["bytes_sent"], record["complete"]),
                    (200, len(self.IMAGE), True),
                )
                self.assertNotIn("range_start", record)
                self.assertGreaterEqual(record["duration_seconds"], 0)
                self.assertLess(record["duration_seconds"], 5)

    def test_a_whole_download_is_complete_though_the_client_stays_and_says_nothing(self):
        for connection in ("close", "keep-alive"):
            with self.subTest(connection=connection), Client(self.port) as client:
                before = len(self.records(event="download")) if self.server else 0
                client.request("/firmware.bin", {**DEVICE, "Connection": connection})
                client.answer()
                self.assertTrue(
                    until(lambda: len(self.records(event="download")) > before)  # noqa: B023
                )
                self.assertTrue(self.records(event="download")[-1]["complete"])

    def test_a_part_is_on_record_with_where_it_began(self):
        self.get("/firmware.bin", part(1000, 1999))
        self.stop()
        (record,) = self.records(event="download")
        self.assertEqual(
            (record["status"], record["range_start"], record["bytes_sent"], record["complete"]),
            (206, 1000, 1000, True),
        )

    def test_a_head_begins_and_sends_nothing(self):
        self.get("/firmware.bin", method="HEAD")
        self.stop()
        self.assertEqual([record["event"] for record in self.records()], ["begin"])

    def test_pipelined_downloads_are_each_on_record(self):
        with Client(self.port) as client:
            for first in range(10):
                client.request("/firmware.bin", part(first, 9999))
            for first in range(10):
                self.assertEqual(client.answer().body, self.IMAGE[first:10000])
        self.stop()
        found = {(r["range_start"], r["bytes_sent"]) for r in self.records(event="download")}
        self.assertEqual(found, {(first, 10000 - first) for first in range(10)})
        self.assertTrue(all(r["complete"] for r in self.records(event="download")))

    def test_a_reset_after_the_client_closed_its_side_ends_the_download_at_once(self):
        self.put_image("v9", bytes(3_000_000))
        self.set_target("v9")
        with Client(self.port, receive_buffer=4096) as client:
            client.request("/firmware.bin", {**DEVICE, "Connection": "close"})
            client.read(1000)
            client.sock.shutdown(socket.SHUT_WR)
            client.reset()
            self.assertTrue(until(lambda: bool(self.records(event="download")), 5.0))
        self.assertIs(self.records(event="download")[0]["complete"], False)

    def test_a_client_that_reads_nothing_and_resets_has_no_complete_download(self):
        for size in (50 * KIB, 5 * MIB):
            for buffer in (SMALL_BUFFER, None):
                with self.subTest(size=size, buffer=buffer):
                    self.stop()
                    (self.data_dir / "log" / "devices.jsonl").unlink(missing_ok=True)
                    self.put_image("v1.0.1", random.Random(size).randbytes(size))
                    client = Client(self.port, receive_buffer=buffer)
                    client.request("/firmware.bin")
                    client.sock.recv(1, socket.MSG_PEEK)
                    client.reset()
                    record = self.ended()
                    self.assertFalse(record["complete"])
                    if buffer:
                        self.assertLess(record["bytes_sent"], size)

    def test_the_bytes_on_record_are_those_that_were_acknowledged(self):
        size = 5 * MIB
        self.put_image("v1.0.1", random.Random(size).randbytes(size))
        client = Client(self.port, receive_buffer=SMALL_BUFFER)
        client.request("/firmware.bin")
        client.read_until(b"\r\n\r\n")
        client.read(1 * MIB)
        client.reset()
        sent = self.ended()["bytes_sent"]
        # More than was read by what stands in the client's buffers, and no more than that.
        self.assertGreaterEqual(sent, 1 * MIB)
        self.assertLess(sent, 1 * MIB + 128 * KIB)

    def test_a_client_that_closes_half_way_has_an_incomplete_download(self):
        self.put_image("v1.0.1", random.Random(6).randbytes(5 * MIB))
        with Client(self.port, receive_buffer=SMALL_BUFFER) as client:
            client.request("/firmware.bin")
            client.read(100 * KIB)
        self.assertFalse(self.ended()["complete"])

    def test_a_client_that_closed_its_side_and_reads_on_has_a_complete_download(self):
        size = 5 * MIB
        content = random.Random(7).randbytes(size)
        self.put_image("v1.0.1", content)
        with Client(self.port, receive_buffer=SMALL_BUFFER) as client:
            client.request("/firmware.bin")
            client.sock.shutdown(socket.SHUT_WR)
            self.assertEqual(client.answer().body, content)
            record = self.ended()
        self.assertEqual((record["bytes_sent"], record["complete"]), (size, True))

    def test_the_record_of_an_end_is_a_whole_device_record(self):
        self.get("/version.txt")
        self.get("/firmware.bin")
        self.stop()
        record = self.records(event="download")[0]
        self.assertEqual(
            (record["mac"], record["firmware_version"], record["target_version"]),
            (MAC, "v1.0.0", "v1.0.1"),
        )
        self.assertEqual(record["release_version"], "v1.0.1")
        self.assertEqual(record["release_sha256"], hashlib.sha256(self.IMAGE).hexdigest())
