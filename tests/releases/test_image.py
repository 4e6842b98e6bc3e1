"""Private copies of images: what sendfile is used on, and what happens where there is none."""

import gc
import os
import random
from unittest import mock

from ota_server.releases.image import Copies
from tests.support import Client, DataDirCase, ServerCase

MIB = 1024 * 1024


class CopiesTest(DataDirCase):
    def test_a_copy_holds_what_was_written_and_has_no_name(self):
        copy = Copies(self.data_dir).begin(10)
        copy.write(b"01234")
        copy.write(b"56789")
        self.assertEqual(os.pread(copy.descriptor, 20, 0), b"0123456789")
        self.assertEqual(sorted(os.listdir(self.data_dir)), ["firmware", "log", "version"])

    def test_copies_take_no_more_than_their_budget_and_give_it_back(self):
        copies = Copies(self.data_dir, budget_bytes=10)
        first = copies.begin(6)
        self.assertIsNone(copies.begin(5))
        self.assertIsNotNone(copies.begin(4))
        del first
        gc.collect()
        self.assertIsNotNone(copies.begin(10))

    def test_there_is_no_copy_where_the_disk_has_no_room_or_no_folder(self):
        self.assertIsNone(Copies(self.data_dir, 10**20).begin(10**19))
        self.assertIsNone(Copies(self.data_dir / "none").begin(1))

    def test_why_there_is_none_is_said_once(self):
        said_before = mock.patch("ota_server.system.wished._said", set())
        with said_before, self.assertLogs("ota_server.system.wished", "WARNING") as said:
            for _ in range(3):
                Copies(self.data_dir / "none").begin(1)
        (line,) = said.output
        self.assertIn("a private copy of an image is refused (No such file or directory)", line)


class ServedTest(ServerCase):
    """The same bytes by sendfile and without it."""

    def fetched(self) -> tuple[bytes, bool]:
        """Return an image as a client gets it, and whether it had a private copy."""
        content = random.Random(7).randbytes(3 * MIB)
        self.put_image("v1.0.1", content)
        body = self.get("/firmware.bin").body
        copy = self.server.service.store.image("v1.0.1").copy
        self.assertEqual(body, content)
        return body, copy is not None

    def test_an_image_is_served_from_its_copy(self):
        _, has_copy = self.fetched()
        self.assertTrue(has_copy)

    def test_an_image_without_a_copy_is_served_all_the_same(self):
        (self.data_dir / "log").rename(self.data_dir / "elsewhere")
        (self.data_dir / "log").symlink_to("elsewhere")
        self.start()
        (self.data_dir / "log").unlink()
        # A file in its place, or the journal makes the folder again, within a tenth of a second.
        (self.data_dir / "log").touch()
        _, has_copy = self.fetched()
        self.assertFalse(has_copy)

    def test_a_client_that_reads_slowly_does_not_hold_the_loop(self):
        self.put_image("v1.0.1", bytes(8 * MIB))
        with Client(self.port, receive_buffer=4096) as slow:
            slow.request("/firmware.bin")
            slow.read_until(b"\r\n\r\n")
            self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
            self.assertEqual(len(slow.read(8 * MIB)), 8 * MIB)
