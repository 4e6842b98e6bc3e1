"""How many bytes an image for an ESP8266 or ESP32 has at least."""

import struct
import unittest

from ota_server.model.esp_size import esp_size
from tests.support.images import esp32_image, esp8266_image


def size_of(image: bytes, chip: str) -> int | None:
    return esp_size(lambda offset, length: image[offset : offset + length], chip)


def image(*lengths: int, is_hashed: bool = False) -> bytes:
    """Return an image for an ESP32 with segments of these lengths, without what follows them."""
    head = struct.pack("<BBBBI15xB", 0xE9, len(lengths), 0, 0x20, 0, is_hashed)
    return head + b"".join(struct.pack("<II", 0, each) + bytes(each) for each in lengths)


class EspSizeTest(unittest.TestCase):
    def test_one_byte_at_least_is_added_up_to_a_multiple_of_16(self):
        for lengths, size in (((0,), 48), ((12,), 48), ((16,), 64), ((4, 20), 80)):
            for is_hashed in (False, True):
                found = size_of(image(*lengths, is_hashed=is_hashed), "ESP32-S3")
                self.assertEqual(found, size + 32 * is_hashed)

    def test_a_whole_image_is_not_smaller(self):
        self.assertEqual(size_of(esp32_image("v1"), "ESP32"), len(esp32_image("v1")))
        self.assertLessEqual(size_of(esp8266_image("v1"), "ESP8266") or 0, 3000)

    def test_one_that_was_cut_is(self):
        whole = image(400, 400, is_hashed=True)
        for size in (24, 31, 100, 435, 800):
            self.assertGreater(size_of(whole[:size], "ESP32") or 0, size)
        self.assertGreater(size_of(esp8266_image("v1")[:1500], "ESP8266") or 0, 1500)

    def test_what_is_not_such_an_image_has_none(self):
        for other in (b"", b"\xe9", b"\xea" * 100):
            self.assertIsNone(size_of(other, "ESP32"))
