"""The socket on which a server says how it is: for its user alone, and it never waits."""

import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from ota_server.device_port.figures import FILE_NAME, FiguresSocket, read_figures
from ota_server.device_port.live_figures import LiveFigures, as_fields
from ota_server.system import wished
from tests.support import NOBODY, DataDirCase, until

FIGURES = LiveFigures(time_ms=1, pid=2, requests={"healthz": {"200": 3}})
# A chore is never late by so much, whatever its clients do.
AT_ONCE_SECONDS = 0.5


class SocketCase(DataDirCase):
    """A socket in the folder of a journal, looked after by a thread of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.logs = self.data_dir / "log"

    def make(self, logs: Path | None = None) -> FiguresSocket:
        """Make the socket."""
        made = FiguresSocket(logs or self.logs, lambda: as_fields(FIGURES))
        made.look_after()
        self.addCleanup(made.remove)
        return made

    def looked_after(self, made: FiguresSocket) -> None:
        """Look after it until the test ends."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.01):
                made.look_after()

        thread = threading.Thread(target=look)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(ended.set)

    def read(self, logs: Path | None = None) -> LiveFigures | None:
        """Read the figures while nobody but this thread looks after the socket."""
        return read_figures(logs or self.logs, 5.0)


class FiguresSocketTest(SocketCase):
    def test_whoever_asks_gets_the_figures(self):
        self.looked_after(self.make())
        self.assertEqual(self.read(), FIGURES)
        self.assertEqual(self.read(), FIGURES)

    def test_where_no_server_runs_there_are_none(self):
        self.assertIsNone(self.read())
        self.assertIsNone(self.read(self.data_dir / "nowhere"))

    def test_only_the_servers_user_can_connect(self):
        self.make()
        status = os.lstat(self.logs / FILE_NAME)
        self.assertTrue(stat.S_ISSOCK(status.st_mode))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o600)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give files away")
    def test_a_socket_that_root_makes_belongs_to_the_owner_of_the_folder(self):
        os.chown(self.logs, NOBODY, NOBODY)
        self.make()
        status = os.lstat(self.logs / FILE_NAME)
        self.assertEqual((status.st_uid, status.st_gid), (NOBODY, NOBODY))

    def test_the_socket_is_deleted_at_the_end(self):
        self.make().remove()
        self.assertEqual(os.listdir(self.logs), [])

    def test_what_a_killed_server_left_is_replaced(self):
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(self.logs / FILE_NAME))
        left.close()
        (self.logs / f".{FILE_NAME}.new").write_text("left")
        self.assertIsNone(self.read())
        self.looked_after(self.make())
        self.assertEqual(self.read(), FIGURES)
        self.assertEqual(os.listdir(self.logs), [FILE_NAME])

    def test_what_another_server_has_put_there_is_not_deleted(self):
        first = self.make()
        second = self.make()
        first.remove()
        self.looked_after(second)
        self.assertEqual(self.read(), FIGURES)

    def test_a_socket_that_was_deleted_is_made_again(self):
        made = self.make()
        (self.logs / FILE_NAME).unlink()
        self.looked_after(made)
        self.assertTrue(until((self.logs / FILE_NAME).exists))
        self.assertEqual(self.read(), FIGURES)

    def test_a_folder_that_is_gone_and_back_is_no_failure(self):
        made = self.make()
        shutil.rmtree(self.logs)
        with mock.patch.object(wished, "_said", set()), self.assertLogs("ota_server", "WARNING"):
            until(lambda: made.look_after() or wished._said)
        self.logs.mkdir()
        self.looked_after(made)
        self.assertTrue(until((self.logs / FILE_NAME).exists))
        self.assertEqual(self.read(), FIGURES)

    def test_clients_that_do_not_read_hold_up_nothing(self):
        fields = as_fields(FIGURES) | {"padding": "x" * 60_000}
        made = FiguresSocket(self.logs, lambda: fields)
        self.addCleanup(made.remove)
        made.look_after()
        clients = []
        for _ in range(6):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.connect(str(self.logs / FILE_NAME))
            clients.append(client)
        begin = time.monotonic()
        made.look_after()
        self.assertLess(time.monotonic() - begin, AT_ONCE_SECONDS)
        self.assertGreater(len(clients[0].recv(100_000)), 1000)

    def test_the_figures_are_made_once_for_all_who_ask_at_once(self):
        made_for = []
        made = FiguresSocket(self.logs, lambda: made_for.append(1) or as_fields(FIGURES))
        self.addCleanup(made.remove)
        made.look_after()
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.connect(str(self.logs / FILE_NAME))
        made.look_after()
        self.assertEqual(len(made_for), 1)

    def test_a_client_that_left_is_no_failure(self):
        made = self.make()
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.logs / FILE_NAME))
        client.close()
        made.look_after()
        self.looked_after(made)
        self.assertEqual(self.read(), FIGURES)

    def test_a_socket_that_cannot_be_made_is_said_once(self):
        with (
            mock.patch.object(wished, "_said", set()),
            self.assertLogs("ota_server", "WARNING") as logs,
        ):
            FiguresSocket(self.data_dir / "nowhere", dict).look_after()
            FiguresSocket(self.data_dir / "nowhere", dict).look_after()
        self.assertEqual(len(logs.output), 1)


class ReadFiguresTest(SocketCase):
    def listen(self) -> socket.socket:
        """Listen where a server would."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.logs / FILE_NAME))
        listener.listen()
        return listener

    def test_a_server_that_hangs_is_waited_for_no_longer_than_asked(self):
        self.listen()
        begin = time.monotonic()
        self.assertIsNone(read_figures(self.logs, 0.1))
        self.assertLess(time.monotonic() - begin, 2.0)

    def test_an_answer_that_is_no_figures_is_none(self):
        for content in (b"", b"{}", b"x" * 200_000, b'{"pid": 1'):
            with self.subTest(content[:10]):
                listener = self.listen()

                def answer(listener=listener, content=content) -> None:
                    with listener.accept()[0] as client:
                        try:
                            client.sendall(content)
                        except OSError:
                            return  # it has read enough

                thread = threading.Thread(target=answer)
                thread.start()
                self.assertIsNone(self.read())
                thread.join()
                listener.close()
                (self.logs / FILE_NAME).unlink()


@unittest.skipUnless(sys.platform == "linux", "only Linux has a short name for any folder")
class LongPathTest(SocketCase):
    def test_a_folder_with_a_long_path_has_a_socket_too(self):
        folder = Path(tempfile.mkdtemp(dir=self.data_dir)) / ("x" * 200)
        folder.mkdir()
        self.looked_after(self.make(folder))
        self.assertEqual(stat.S_IMODE(os.lstat(folder / FILE_NAME).st_mode), 0o600)
        self.assertEqual(self.read(folder), FIGURES)
