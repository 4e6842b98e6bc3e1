"""The parts of a release: made and put on record at publish, found missing, deleted with it."""

import gzip
import hashlib
import struct
import tracemalloc

from ota_server.model.parts import Part
from ota_server.releases.inventory import get_release, problem_with
from ota_server.releases.withdraw import remove
from tests.releases.test_publish import NOW_MS, PublishCase, esp_image

MIB = 1024 * 1024


def esp8266_image(filler: bytes = b"code") -> bytes:
    """Return an image for an ESP8266, as far as its head goes."""
    head = struct.pack("<BBBBI", 0xE9, 1, 0, 0x40, 0x40100000)
    return head + struct.pack("<II", 0x40201010, 256) + filler * 1000


def record_of(content: bytes) -> dict[str, object]:
    """Return what a manifest has about a part of this content."""
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
        "size": len(content),
    }


class PartsCase(PublishCase):
    def problem(self, version: str = "v1") -> str:
        """Return what `release verify` says of a release."""
        return problem_with(get_release(self.data_dir, version), lambda *_: None)

    def names(self) -> list[str]:
        """Return the names of the files in firmware/."""
        return sorted(path.name for path in self.firmware.iterdir())


class FilesystemTest(PartsCase):
    def setUp(self) -> None:
        super().setUp()
        self.filesystem = self.build(b"littlefs", "fs.bin")

    def test_it_stands_beside_the_image_and_is_on_record(self):
        self.publish(b"an image", "v1", filesystem=self.filesystem)
        path = self.firmware / "filesystem_v1.bin"
        self.assertEqual(path.read_bytes(), b"littlefs")
        self.assertEqual(self.manifest_of("v1")["filesystem"], record_of(b"littlefs"))
        self.assertEqual(self.problem(), "")

    def test_it_can_be_added_to_a_release_that_is_published(self):
        self.publish(b"an image", "v1", notes="the first")
        published = self.publish(b"an image", "v1", filesystem=self.filesystem)
        self.assertEqual((published.outcome, published.updated), ("updated", ("filesystem",)))
        self.assertEqual(self.manifest_of("v1")["notes"], "the first")
        self.assertEqual(self.problem(), "")

    def test_publishing_it_again_changes_nothing(self):
        self.publish(b"an image", "v1", filesystem=self.filesystem)
        before = self.snapshot()
        self.assertEqual(
            self.publish(b"an image", "v1", filesystem=self.filesystem).outcome, "there"
        )
        self.assertEqual(self.publish(b"an image", "v1").outcome, "there")
        self.assertEqual(self.snapshot(), before)

    def test_one_that_is_missing_or_was_altered_is_found_and_restored(self):
        path = self.firmware / "filesystem_v1.bin"
        self.publish(b"an image", "v1", filesystem=self.filesystem)
        for harm, wanted in (
            (path.unlink, "filesystem_v1.bin is missing"),
            (lambda: path.write_bytes(b"x"), "filesystem_v1.bin was altered"),
        ):
            harm()
            with self.subTest(wanted):
                self.assertIn(wanted, self.problem())
                self.publish(b"an image", "v1", filesystem=self.filesystem)
                self.assertEqual(self.problem(), "")

    def test_a_large_one_is_not_read_into_memory(self):
        with open(self.filesystem, "wb") as file:
            file.truncate(64 * MIB)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.publish(b"an image", "v1", filesystem=self.filesystem)
        self.assertLess(tracemalloc.get_traced_memory()[1], 16 * MIB)

    def test_firmware_is_not_taken_for_a_file_system(self):
        sketch = self.build(esp_image("v1"), "fs.bin")
        message = self.refused(b"an image", "v1", filesystem=sketch)
        self.assertIn("fs.bin is no image of a file system: it is firmware for ESP32", message)
        self.assertEqual(self.names(), [])

    def test_an_empty_one_is_refused(self):
        self.assertIn("empty", self.refused(b"image", "v1", filesystem=self.build(b"", "fs.bin")))

    def test_it_is_deleted_with_its_release(self):
        self.publish(b"an image", "v1", filesystem=self.filesystem)
        remove(self.data_dir, "v1", NOW_MS, lambda *_: None)
        self.assertEqual(self.names(), [])

    def test_one_that_was_left_there_does_not_become_a_part_of_a_new_release(self):
        (self.firmware / "filesystem_v1.bin").write_bytes(b"of a deleted one")
        self.publish(b"an image", "v1")
        self.assertEqual(self.names(), ["firmware_v1.bin", "firmware_v1.json"])

    def test_nothing_is_left_of_it_if_the_image_is_refused(self):
        self.publish(b"an image", "v1")
        self.refused(b"another image", "v1", filesystem=self.filesystem)
        self.assertEqual(self.names(), ["firmware_v1.bin", "firmware_v1.json"])


class GzipTest(PartsCase):
    def test_an_image_for_the_esp8266_is_compressed_too(self):
        image = esp8266_image()
        self.publish(image, "v1")
        packed = (self.firmware / "firmware_v1.bin.gz").read_bytes()
        self.assertEqual(gzip.decompress(packed), image)
        self.assertEqual(self.manifest_of("v1")[Part.GZIP], record_of(packed))

    def test_the_same_image_becomes_the_same_bytes(self):
        self.publish(esp8266_image(), "v1")
        self.publish(esp8266_image(), "v2")
        one, other = ((self.firmware / f"firmware_v{n}.bin.gz").read_bytes() for n in (1, 2))
        self.assertEqual(one, other)
        self.assertEqual(self.publish(esp8266_image(), "v1").outcome, "there")

    def test_no_other_image_is_compressed(self):
        self.publish(esp_image("v1"), "v1")
        self.assertEqual(self.names(), ["firmware_v1.bin", "firmware_v1.json"])
