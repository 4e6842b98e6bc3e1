"""Which hashes a device reports of the image that it runs."""

import hashlib
import unittest

from ota_server.releases.reported_hashes import ReportedHashes
from tests.support.images import esp32_image, esp8266_image


def reported(image: bytes, chunk: int = 1000) -> tuple[str, ...]:
    hashes = ReportedHashes(lambda offset, length: image[offset : offset + length])
    for start in range(0, len(image), chunk):
        hashes.take(image[start : start + chunk])
    return hashes.result()


class ReportedHashesTest(unittest.TestCase):
    def test_an_esp8266_reports_the_md5_with_the_flash_mode_of_its_chip(self):
        image = esp8266_image("v1", mode=2)
        others = (image[:2] + bytes([mode]) + image[3:] for mode in (0, 1, 3))
        self.assertEqual(reported(image), tuple(hashlib.md5(each).hexdigest() for each in others))

    def test_an_esp32_reports_the_digest_that_is_appended_to_its_image(self):
        image = esp32_image("v1", "ESP32-S3")
        for chunk in (1000, 2990, 3008):  # also where the end is in two pieces
            self.assertEqual(reported(image, chunk), (hashlib.sha256(image[:-32]).hexdigest(),))

    def test_where_the_header_says_that_none_is_appended_there_is_none(self):
        image = bytearray(esp32_image("v1"))
        image[23] = 0
        self.assertEqual(reported(bytes(image)), ())

    def test_what_is_not_the_digest_of_the_bytes_before_it_is_not_reported(self):
        image = esp32_image("v1")
        for other in (image[:2000], image[:-1] + b"x", image[:30]):
            for chunk in (1000, 2990, 4000):
                self.assertEqual(reported(other, chunk), ())

    def test_what_follows_the_digest_such_as_a_signature_does_not_hide_it(self):
        image = esp32_image("v1")
        for after in (b"", b"x", b"\xff" * 64, b"\xff" * 5000):
            for chunk in (1000, 2990, 3008, 3010, 9000):
                self.assertEqual(reported(image + after, chunk), (image[-32:].hex(),))

    def test_of_other_images_only_their_own_hashes_are_reported(self):
        for image in (b"", b"an image", b"\xe9", b"\xe9" * 3000):
            self.assertEqual(reported(image), ())
