"""At the limits of the machine and of the settings: files, threads, log lines, devices, digests."""

import logging
import resource
import select
import socket
import threading

from tests.support import (
    DEVICE,
    ROOT,
    TIMEOUT_SECONDS,
    Client,
    DataDirCase,
    Process,
    ServerCase,
    until,
)


class Lines(logging.Handler):
    """Keeps what the server logged."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.levels.append(record.levelno)
        self.found.append(record.getMessage())


class LogCase(ServerCase):
    """A server whose log is looked at."""

    def setUp(self) -> None:
        super().setUp()
        self.lines = Lines()
        log = logging.getLogger("ota_server")
        level = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self.lines)
        self.addCleanup(log.removeHandler, self.lines)
        self.addCleanup(log.setLevel, level)


class ClientFrom(Client):
    """A client with an address of its own."""

    def __init__(self, port: int, address: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS, (address, 0))
        self._buffer = bytearray()


def addresses(count: int) -> list[str]:
    """Return so many addresses of this machine."""
    return [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]


class LogLineTest(LogCase):
    ADDRESSES = 1200
    LEAVING = 300
    MOST_LINES = 60

    def test_rejected_requests_from_many_addresses_are_no_flood_of_lines(self):
        self.start()
        for address in addresses(self.ADDRESSES):
            with ClientFrom(self.port, address) as client:
                client.request("/version.txt", {})
                self.assertEqual(client.answer().status, 401)
        self.stop()
        self.assertGreater(len(self.lines.found), 0)
        self.assertLess(len(self.lines.found), self.MOST_LINES)

    def test_downloads_that_many_addresses_leave_are_no_flood_of_lines(self):
        self.put_image("v1.0.1", bytes(8 * 1024 * 1024))
        self.start()
        for number, address in enumerate(addresses(self.LEAVING)):
            client = ClientFrom(self.port, address)
            client.request("/firmware.bin", {**DEVICE, "_br_mac_": f"02{number:010x}"})
            client.read_until(b"\r\n\r\n")
            client.reset()
        self.stop()
        self.assertEqual(len(self.records(event="download")), self.LEAVING)
        self.assertLess(len(self.lines.found), self.MOST_LINES)


class AcceptTest(LogCase):
    def test_a_listening_socket_that_accepts_nothing_any_more_is_said_once(self):
        self.start().socket.shutdown(socket.SHUT_RDWR)
        self.assertTrue(until(lambda: len(self.lines.found) > 0))
        self.stop()
        (line,) = self.lines.found
        self.assertIn("no connection can be accepted: Invalid argument", line)


class DeviceLimitTest(LogCase):
    def test_devices_that_found_no_room_are_said_once(self):
        self.start(service={"max_devices": 1})
        for number in range(5):
            answer = self.get("/version.txt", {**DEVICE, "_br_mac_": f"02000000000{number}"})
            self.assertEqual(answer.body, b"v1.0.1")
        self.assertTrue(until(self.is_said, 5.0), self.lines.found)
        self.stop()
        (line,) = [line for line in self.lines.found if "--max-devices" in line]
        self.assertIn("device forget --unseen 90d", line)

    def is_said(self) -> bool:
        return any("--max-devices" in line for line in self.lines.found)


class DigestLimitTest(ServerCase):
    # More than were once kept: each look then took the digests away that the last one had made.
    IMAGES = 1200

    # So that hashing one takes longer than looking at it.
    SIZE = 64 * 1024

    def test_a_download_whose_bytes_are_gone_is_answered_404_however_many_images_there_are(self):
        begun = self.put_image("v1.0.1", bytes(self.SIZE))
        self.start()
        self.assertEqual(self.get("/firmware.bin").status, 200)
        begun.unlink()
        for number in range(self.IMAGES):
            path = self.data_dir / "firmware" / f"firmware_v2.{number}.bin"
            with open(path, "wb") as image:
                image.write(b"%d" % number)
                image.truncate(self.SIZE)
        # The first may be told to come back while they are hashed.
        fields = {**DEVICE, "Range": "bytes=1-"}
        statuses = [self.get("/firmware.bin", fields).status for _ in range(2)]
        self.assertEqual(statuses[-1], 404, statuses)


class ThreadLimitTest(LogCase):
    def test_images_are_hashed_once_there_is_room_for_the_thread_again(self):
        # Without a target nothing but the request below asks for a digest.
        (self.data_dir / "version" / "version.txt").unlink()
        self.start()
        with Client(self.port) as client:
            client.request("/healthz", {})
            client.answer()
            # No thread finds room for such a stack.
            before = threading.stack_size(1 << 47)
            try:
                client.request("/firmware/firmware_v1.0.1.bin", {})
                self.assertTrue(until(lambda: logging.ERROR in self.lines.levels))
            finally:
                threading.stack_size(before)
            self.assertEqual(self.get("/firmware/firmware_v1.0.1.bin", {}).status, 200)
            self.assertIn(client.answer().status, (200, 503))


class FileLimitTest(ServerCase):
    """A file that is there is never said to be gone because the server is out of descriptors."""

    def ask_without_descriptors(self, path: str, fields: dict[str, str]) -> int:
        """Return the status of an answer at a moment when no file can be opened."""
        with Client(self.port) as client:
            client.request("/healthz", {})
            client.answer()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            # Open files stay open; each new one would get a number beyond the limit.
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                client.request(path, fields)
                return client.answer().status
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_a_named_image_is_there_though_it_cannot_be_opened(self):
        path = "/firmware/firmware_v1.0.0.bin"
        self.assertEqual(self.get(path, {}).status, 200)
        # So many others that it is no longer open.
        for number in range(20):
            self.put_image(f"v2.{number}", b"%d" % number)
            self.get(f"/firmware/firmware_v2.{number}.bin", {})
        self.assertEqual(self.ask_without_descriptors(path, {}), 503)
        self.assertEqual(self.get(path, {}).status, 200)

    def test_the_bytes_of_a_download_are_there_though_the_folder_cannot_be_read(self):
        self.get("/firmware.bin")
        self.put_image("v9", self.IMAGE)
        self.get("/firmware/firmware_v9.bin", {})
        (self.data_dir / "firmware" / "firmware_v1.0.1.bin").unlink()
        fields = {**DEVICE, "Range": "bytes=1-"}
        self.assertEqual(self.ask_without_descriptors("/firmware.bin", fields), 503)
        answer = self.get("/firmware.bin", fields)
        self.assertEqual((answer.status, answer.body), (206, self.IMAGE[1:]))


class CrowdTest(DataDirCase):
    FILES = 200
    CROWD = 300
    # Files that are there for long: a fresh one is hashed only when it is two seconds old.
    FIRMWARE = ROOT / "ota_server" / "firmware"
    CODE = f"""\
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}))
from ota_server.server import main
sys.exit(main())
"""

    def setUp(self) -> None:
        super().setUp()
        (self.data_dir / "firmware").rmdir()
        (self.data_dir / "firmware").symlink_to(self.FIRMWARE)
        self.set_target("v1.0.1")
        self.server = Process("--data-dir", str(self.data_dir), code=self.CODE)
        self.addCleanup(self.server.kill)
        for line in self.server.process.stdout:
            if "SHA-256" in line:
                break

    def test_an_image_is_there_though_connections_take_all_descriptors(self):
        with Client(self.server.port) as begun, Client(self.server.port) as named:
            begun.request("/firmware.bin")
            self.assertEqual(begun.answer().status, 200)
            named.request("/healthz", {})
            named.answer()
            crowd = [
                socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(self.CROWD)
            ]
            for connection in crowd:
                self.addCleanup(connection.close)
            self.assertTrue(until(lambda: self.count_refused(crowd) >= 50))
            named.request("/firmware/firmware_v1.0.0.bin", {})
            begun.request("/firmware.bin", {**DEVICE, "Range": "bytes=1-"})
            answers = named.answer(), begun.answer()
        for answer, status, body in zip(
            answers,
            (200, 206),
            (self.content("v1.0.0"), self.content("v1.0.1")[1:]),
            strict=True,
        ):
            if answer.status == 503:
                self.assertIn("retry-after", answer.fields)
            else:
                self.assertEqual((answer.status, answer.body), (status, body))
        self.assertEqual(self.server.end()[0], 0)

    def content(self, version: str) -> bytes:
        return (self.FIRMWARE / f"firmware_{version}.bin").read_bytes()

    def count_refused(self, crowd: list[socket.socket]) -> int:
        poll = select.poll()
        for connection in crowd:
            poll.register(connection, select.POLLIN)
        return len(poll.poll(0))
