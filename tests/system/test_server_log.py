"""The server's log, where nobody reads it."""

import logging
import os
import select
import sys
import time
from pathlib import Path
from unittest import mock

from ota_server.system.hints import hints
from ota_server.system.server_log import LogThread, _Formatter
from tests.support import DEVICE, Client, DataDirCase, Process, ServerCase, until


class LogThreadTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.reader, writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.addCleanup(os.close, writer)
        self.written = LogThread(writer)
        self.addCleanup(self.drain)
        self.written.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def drain(self) -> None:
        """Read until the thread has ended: it must not write to whatever gets its number next."""
        self.written._queue.put(None)

        def has_ended() -> bool:
            if select.select([self.reader], [], [], 0)[0]:
                os.read(self.reader, 65536)
            return not self.written._thread.is_alive()

        self.assertTrue(until(has_ended))

    def test_commands_of_ours_can_be_pasted_and_what_a_stranger_sent_stays_as_it_is(self):
        self.enterContext(mock.patch.object(hints, "data_dir", Path("/srv/100%")))
        self.enterContext(mock.patch.object(sys, "argv", ["/opt/5%d/ota-server"]))
        for text, arguments in (
            ("%s: `retry %s` ends that", ("`release activate v9` x", "MAC")),
            ("100 %: `unhold` ends that", ()),
        ):
            self.written.emit(logging.LogRecord("x", logging.INFO, "", 0, text, arguments, None))
        self.written.end()
        pasted = "`/opt/5%d/ota-server {} --data-dir /srv/100%` ends that"
        self.assertEqual(
            os.read(self.reader, 65536).decode().splitlines(),
            [
                f"INFO `release activate v9` x: {pasted.format('retry MAC')}",
                f"INFO 100 %: {pasted.format('unhold')}",
            ],
        )

    def record(self, text: str) -> logging.LogRecord:
        return logging.LogRecord("ota_server", logging.INFO, "", 0, text, None, None)

    def test_records_are_written_in_their_order(self):
        for number in range(5):
            self.written.emit(self.record(f"line {number}"))
        self.written.end()
        self.assertEqual(
            os.read(self.reader, 65536), b"".join(b"INFO line %d\n" % n for n in range(5))
        )

    def test_times_are_in_utc_with_a_z_wherever_the_machine_stands(self):
        zone = mock.patch.dict(os.environ, TZ="Asia/Tokyo")
        with zone:
            time.tzset()
            written = LogThread(os.dup(1))
            self.addCleanup(written.end)
            record = self.record("hello")
            record.created = 1_800_000_000.5
            line = written.format(record)
        time.tzset()
        self.assertEqual(line, "2027-01-15T08:00:00.500Z INFO hello")

    def test_no_text_forges_a_line_or_moves_the_cursor(self):
        plain = _Formatter("%(message)s")
        self.written.setFormatter(plain)
        self.written.emit(self.record("held: a\x1b[2Jb\nc\x85d\u2028e \udcff"))
        self.written.emit(self.record("x" * 100_000))
        try:
            raise ValueError("wrong\n2027-01-01T00:00:00.000Z INFO forged\x1b[2J")
        except ValueError:
            record = self.record("failed")
            record.exc_info = sys.exc_info()
            self.written.emit(record)
        self.written.end()
        lines = os.read(self.reader, 65536).decode().splitlines()
        self.assertEqual(lines[0], r"held: a\x1b[2Jb\nc\x85d\u2028e \udcff")
        self.assertEqual(lines[1], "x" * 2000 + " ...")
        self.assertEqual(lines[2:4], ["failed", "  Traceback (most recent call last):"])
        self.assertEqual(lines[-1], r"  2027-01-01T00:00:00.000Z INFO forged\x1b[2J")

    def test_a_log_that_nobody_reads_holds_up_nobody_and_says_what_it_lost(self):
        for _ in range(5000):
            self.written.emit(self.record("x" * 100))
        content = b""

        def is_said() -> bool:
            nonlocal content
            if select.select([self.reader], [], [], 0)[0]:
                content += os.read(self.reader, 65536)
            self.written.emit(self.record("once more"))
            return b" lines of the log were lost" in content

        self.assertTrue(until(is_said))


class StrangersTextTest(DataDirCase):
    def test_what_clients_send_is_logged_as_they_sent_it(self):
        self.set_target("v1.0.1")
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        sent = "`release activate v9`"
        with Client(server.port) as client:
            client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{sent}\r\n\r\n".encode())
            self.assertEqual(client.answer().status, 400)
        for version in (sent, "v1.0.1"):
            with Client(server.port) as client:
                client.request("/version.txt", {**DEVICE, "_br_fwv_": version})
                self.assertEqual(client.answer().status, 200)
        written = server.end()[1]
        self.assertIn(f"malformed field line '{sent}' ", written)
        self.assertIn(f"ran {sent} before", written)
        self.assertIn(f"devices --rejected --data-dir {self.data_dir}`", written)


class StuckLogTest(ServerCase):
    def test_a_standard_error_that_nobody_empties_does_not_stop_the_server(self):
        # A pipe that is full from the start.
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        try:
            while os.write(writer, bytes(4096)):
                continue
        except BlockingIOError:
            os.set_blocking(writer, True)
        code = (
            f"import os, sys; os.dup2({writer}, 2)\n"
            "from ota_server.server import main\nsys.exit(main())"
        )
        server = Process("--data-dir", str(self.data_dir), code=code, pass_fds=(writer,))
        self.addCleanup(server.kill)
        os.close(writer)
        for _ in range(3):
            with Client(server.port) as client:
                client.request("/version.txt", {})
                self.assertEqual(client.answer().status, 401)
                client.request("/version.txt", DEVICE)
                self.assertEqual(client.answer().body, b"v1.0.1")
        self.assertEqual(server.end()[0], 0)
