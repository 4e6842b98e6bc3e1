"""An image before it is published: what `publish` would say, with nothing changed."""

import hashlib
from pathlib import Path

from ota_server.model.refusal import Refused
from ota_server.operations.inspect_image import ImageReport, inspect
from tests.releases.test_publish import PublishCase, esp_image, mcuboot_image


class InspectCase(PublishCase):
    def inspect(self, content: bytes, version: str | None = None) -> ImageReport:
        """Return the report of an image; fails if anything was changed by that."""
        path = self.build(content)
        before = self.snapshot()
        report = inspect(self.data_dir, Path(path), version)
        self.assertEqual(self.snapshot(), before)
        return report


class InspectTest(InspectCase):
    def test_what_an_image_says_of_itself_and_the_version_that_it_would_have(self):
        content = esp_image("v1.2.0", "ESP32-S3")
        report = self.inspect(content)
        self.assertEqual(
            (report.size, report.sha256), (len(content), hashlib.sha256(content).hexdigest())
        )
        self.assertEqual((report.chip, report.project), ("ESP32-S3", "blink"))
        self.assertEqual((report.said_version, report.version), ("v1.2.0", "v1.2.0"))
        self.assertIn("ESP32-S3 image", report.image or "")
        self.assertEqual((report.refused, report.doubts, report.is_there), ((), (), False))

    def test_one_that_says_no_version_needs_one(self):
        for content, said in (
            (b"plain", None),
            (mcuboot_image(0, 0, 0, 0), "0.0.0"),
            (esp_image("1/2"), "1/2"),
        ):
            with self.subTest(said):
                report = self.inspect(content)
                self.assertEqual((report.version, report.said_version), (None, said))
                self.assertIn("--version VERSION", report.version_problem)
                self.assertEqual(self.inspect(content, "v9").version, "v9")

    def test_the_same_bytes_elsewhere_and_here_are_said(self):
        self.publish(b"image", "v1")
        report = self.inspect(b"image", "v2")
        self.assertEqual((report.same_as, report.is_there), (("v1",), False))
        self.assertIn("v2 has the same bytes as v1", report.remarks[0])
        self.assertTrue(self.inspect(b"image", "v1").is_there)
        self.assertEqual(self.inspect(b"image").same_as, ("v1",))

    def test_publish_refuses_what_the_report_says_and_nothing_else(self):
        self.publish(esp_image("v1"), "v1")
        self.set_target("v1")
        for content, version in (
            (esp_image("v2"), "v2"),
            (esp_image("v2"), "v3"),
            (esp_image("v2", "ESP32-S3"), "v2"),
            (esp_image("v2", project=b"other"), "v2"),
            (b"unknown", "v2"),
            (esp_image("1"), "1"),
            (esp_image("v1") + b"x", "v1"),
            (b"x", "a/b"),
        ):
            with self.subTest(version=version, content=content[:40]):
                report = self.inspect(content, version)
                said = [*report.refused, *report.doubts]
                if not said:
                    self.publish(content, version)
                    continue
                with self.assertRaises(Refused) as caught:
                    self.publish(content, version)
                self.assertIn(str(caught.exception).partition("; --force")[0], "; ".join(said))

    def test_what_cannot_be_an_image_is_refused(self):
        self.assertRaisesRegex(Refused, "is empty", self.inspect, b"")
        folder = self.builds / "folder"
        folder.mkdir()
        self.assertRaisesRegex(Refused, "not a regular file", inspect, self.data_dir, folder)
