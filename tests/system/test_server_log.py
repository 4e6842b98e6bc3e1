"""The server's log, where nobody reads it."""

import logging
import os
import select

from ota_server.system.server_log import LogThread
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

    def record(self, text: str) -> logging.LogRecord:
        return logging.LogRecord("ota_server", logging.INFO, "", 0, text, None, None)

    def test_records_are_written_in_their_order(self):
        for number in range(5):
            self.written.emit(self.record(f"line {number}"))
        self.written.end()
        self.assertEqual(
            os.read(self.reader, 65536), b"".join(b"INFO line %d\n" % n for n in range(5))
        )

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
