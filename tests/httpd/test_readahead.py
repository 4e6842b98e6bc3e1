"""Images that the kernel has dropped from its memory."""

import os
import random
import subprocess
import unittest

from ota_server.httpd.readahead import WINDOW_BYTES, ReadAhead, is_in_memory
from tests.support import DataDirCase, ServerCase, until

MIB = 1024 * 1024


def held_pages(descriptor: int) -> int:
    """Count the pages of a file in the kernel's memory, without a read.

    A read that may not wait still has the kernel read ahead, 8 MiB on some disks.
    """
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    command = ["fincore", "--noheadings", "--output", "PAGES", path]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def forget(descriptor: int) -> bool:
    """Have the kernel drop what it holds of a file; it keeps what it is still writing."""

    def is_cold() -> bool:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return held_pages(descriptor) == 0

    return until(is_cold)


@unittest.skipUnless(hasattr(os, "RWF_NOWAIT"), "only Linux can say what is in memory")
class ReadAheadTest(DataDirCase):
    def test_what_was_dropped_is_read_into_memory(self):
        path = self.put_image("v1", random.Random(1).randbytes(3 * MIB))
        ahead = ReadAhead()
        self.addCleanup(ahead.close)
        with path.open("rb") as file:
            descriptor = file.fileno()
            self.assertTrue(forget(descriptor))
            reading = ahead.begin(file, descriptor, MIB)
            self.assertTrue(until(lambda: reading.is_done))
            self.assertTrue(is_in_memory(descriptor, MIB, MIB + WINDOW_BYTES - 1))

    def test_the_kernel_is_asked_once_in_a_moment_for_a_piece_that_many_send(self):
        path = self.put_image("v1", random.Random(3).randbytes(2 * MIB))
        ahead = ReadAhead()
        with path.open("rb") as file:
            piece = file.fileno(), 0, MIB - 1
            self.assertTrue(forget(file.fileno()))
            self.assertTrue(ahead.needs(*piece, now=0.0))
            file.read()
            self.assertFalse(ahead.needs(*piece, now=0.01))
            self.assertTrue(forget(file.fileno()))
            self.assertFalse(ahead.needs(*piece, now=0.02))
            self.assertTrue(ahead.needs(*piece, now=1.0))

    def test_a_part_beyond_the_end_is_done_at_once(self):
        path = self.put_image("v1", b"short")
        ahead = ReadAhead()
        self.addCleanup(ahead.close)
        with path.open("rb") as file:
            reading = ahead.begin(file, file.fileno(), 10 * MIB)
            self.assertTrue(until(lambda: reading.is_done))


@unittest.skipUnless(hasattr(os, "RWF_NOWAIT"), "only Linux can say what is in memory")
class ColdImageTest(ServerCase):
    def test_an_image_that_is_not_in_memory_is_served_whole(self):
        content = random.Random(2).randbytes(5 * MIB)
        self.put_image("v1.0.1", content)
        self.assertEqual(self.get("/firmware.bin").body, content)
        image = self.server.service.store.image("v1.0.1")
        for path in ("/firmware.bin", "/firmware/firmware_v1.0.1.bin"):
            with self.subTest(path):
                self.assertTrue(forget(image.copy.descriptor))
                self.assertEqual(self.get(path).body, content)
