"""Publishing: what is refused, what is put on record, what a crash or another publisher leaves."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import unittest
from pathlib import Path

from ota_server.model.image_header import ImageHeader, read_header
from ota_server.model.manifest import parse_manifest
from ota_server.model.refusal import Misused, Refused
from ota_server.policy import audit
from ota_server.releases.activate import activate, rollback
from ota_server.releases.build_file import version_in
from ota_server.releases.inventory import same_bytes
from ota_server.releases.publish import Published, publish
from ota_server.releases.publish_request import PublishRequest, too_large
from tests.support import ROOT, TIMEOUT_SECONDS, DataDirCase, until
from tests.support.images import esp32_image, esp8266_image, rp2040_image

NOW_MS = 1_800_000_000_000
CHIPS = {"ESP32": 0, "ESP32-S3": 9}


def esp_image(version: str, chip: str = "ESP32", project: bytes = b"blink") -> bytes:
    """Return an image as ESP-IDF builds it, as far as its head goes."""
    head = struct.pack("<BBBBI", 0xE9, 1, 0, 0x20, 0x40080000)
    head += struct.pack("<4xH9xB", CHIPS[chip], 0) + struct.pack("<II", 0x3F400020, 256)
    head += struct.pack("<I12x32s32s16s16s", 0xABCD5432, version.encode(), project, b"", b"")
    return head + bytes(192)


def mcuboot_image(major: int, minor: int, revision: int, build: int) -> bytes:
    """Return an image as imgtool signs it, as far as its head goes."""
    head = struct.pack("<IIHHII", 0x96F3B83D, 0, 32, 0, 64, 0)
    return head + struct.pack("<BBHI", major, minor, revision, build) + bytes(68)


class TooLargeTest(unittest.TestCase):
    def test_an_image_that_is_larger_than_the_flash_it_was_built_for_is_remarked_on(self):
        flash = ImageHeader("ESP32 image", flash_size=4 << 20)
        for size, header, is_said in (
            (4 << 20, flash, False),
            ((4 << 20) + 1, flash, True),
            (12_000_080, read_header(esp_image("v1")), True),
            (12_000_080, ImageHeader("gzip"), False),
            (12_000_080, None, False),
        ):
            with self.subTest(size=size, header=header):
                self.assertEqual(bool(list(too_large(size, header))), is_said)


class PublishCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.firmware = self.data_dir / "firmware"
        self.builds = self.data_dir / "builds"
        self.builds.mkdir()

    def build(self, content: bytes, name: str = "app.bin") -> str:
        (self.builds / name).write_bytes(content)
        return str(self.builds / name)

    def publish(self, content: bytes, version: str, **options: object) -> Published:
        order = PublishRequest(self.build(content), version, **options)
        return publish(self.data_dir, order, NOW_MS, lambda done, size: None)

    def refused(self, content: bytes, version: str, **options: object) -> str:
        """Return why it is refused; fails unless nothing is changed."""
        before = self.snapshot()
        with self.assertRaises(Refused) as caught:
            self.publish(content, version, **options)
        self.assertEqual(self.snapshot(), before)
        return str(caught.exception)

    def snapshot(self) -> dict[str, bytes]:
        found = {path.name: path.read_bytes() for path in self.firmware.iterdir()}
        log = self.data_dir / "log" / audit.FILE_NAME
        found["audit"] = log.read_bytes() if log.exists() else b""
        return found

    def manifest_of(self, version: str) -> dict[str, object]:
        return json.loads((self.firmware / f"firmware_{version}.json").read_bytes())

    def signature_of(self, version: str) -> bytes:
        return (self.firmware / f"firmware_{version}.bin.sig").read_bytes()

    def image_of(self, version: str) -> bytes:
        return (self.firmware / f"firmware_{version}.bin").read_bytes()


class ChipTest(PublishCase):
    def test_an_image_that_no_pico_runs_is_refused_where_the_target_is_for_one(self):
        self.publish(rp2040_image("v1"), "v1")
        (self.data_dir / "version" / "version.txt").write_text("v1")
        said = self.refused(b"\x1f\x8b\x08 something", "v2")
        self.assertIn("does not begin like one for RP2040", said)
        forced = self.publish(b"\x1f\x8b\x08 something", "v2", is_forced=True).manifest
        self.assertEqual((forced.chip, forced.any_chip), (None, True))
        self.assertFalse(self.publish(rp2040_image("v3"), "v3", is_forced=True).manifest.any_chip)

    def test_an_image_that_is_there_can_be_forced_later(self):
        self.publish(esp_image("v1", "ESP32"), "v1")
        self.publish(esp_image("v2", "ESP32-S3"), "v2")
        (self.data_dir / "version" / "version.txt").write_text("v1")
        again = self.publish(esp_image("v2", "ESP32-S3"), "v2", is_forced=True)
        self.assertEqual((again.outcome, again.updated), ("updated", ("any-chip",)))
        self.assertIs(self.manifest_of("v2")["any_chip"], True)


class KindTest(PublishCase):
    """What is no image of a known kind may not go where the target has one, unless it is forced."""

    def test_what_is_of_no_known_format_or_of_another_kind_is_refused(self):
        self.set_target("v1")
        tar = bytes(257) + b"ustar" + bytes(300)
        swu = b"070701" + bytes(104) + b"sw-description\0" + bytes(64)
        squashfs = b"hsqs" + bytes(24) + b"\4\0" + bytes(100)
        u_boot = struct.pack(">4sI12xII64x", b"\xd0\x0d\xfe\xed", 64, 17, 16)
        uf2 = bytearray(b"UF2\n\x57\x51\x5d\x9e" + bytes(600))
        uf2[508:512] = b"\x30\x6f\xb1\x0a"
        esp8266 = esp8266_image("v1")
        gzip = b"\x1f\x8b\x08" + bytes(60)
        esp32, junk = esp_image("v1"), b"junk" * 100
        for target, said, refused, allowed in (
            (esp8266, "ESP8266 image", (junk, tar, swu, b"PK\3\4" * 9), (gzip, esp8266)),
            (esp32, "ESP32 image", (junk, tar, swu, gzip), (esp_image("v2"),)),
            (swu, "SWUpdate (cpio newc)", (junk, tar, squashfs), (swu + b"2",)),
            (squashfs, "squashfs", (junk, swu), (squashfs + b"2",)),
            (u_boot, "U-Boot FIT", (junk, tar), (u_boot + b"2",)),
            (bytes(uf2), "UF2", (junk,), (bytes(uf2) + b"2", tar)),
            (tar, "tar archive", (junk,), (tar + b"2", swu)),
            (junk, "", (), (junk + b"2", tar, esp8266)),
        ):
            self.put_image("v1", target)
            for content in refused:
                with self.subTest(target=target[:4], content=content[:4]):
                    why = self.refused(content, "v2")
                    self.assertIn("the image of v2 is of an", why)
                    self.assertIn(f"that of the current target ({said}", why.replace(" is not", ""))
            for content in allowed:
                with self.subTest(target=target[:4], content=content[:4]):
                    self.publish(content, "v2")
                for path in self.firmware.glob("*v2*"):
                    path.unlink()

    def test_it_is_published_if_that_is_forced(self):
        self.set_target("v1")
        self.put_image("v1", esp_image("v1"))
        published = self.publish(b"junk" * 9, "v2", is_forced=True)
        self.assertIn("of an unknown format", published.warnings[0])

    def test_a_known_format_where_that_of_the_target_is_unknown_is_remarked_on(self):
        self.set_target("v1")
        self.put_image("v1", b"an image")
        (remark,) = self.publish(esp_image("v2"), "v2").warnings
        self.assertIn("the image of v2 is of a known format (ESP32 image", remark)
        self.assertIn("that of the current target is not", remark)
        self.put_image("v1", (ROOT / "ota_server/firmware/firmware_v1.0.1.bin").read_bytes())
        self.assertEqual(self.publish(esp_image("v3"), "v3").warnings, ())

    def test_neither_is_it_activated_and_the_product_is_named(self):
        plug = self.data_dir / "products" / "plug"
        for name in ("version", "firmware", "log"):
            (plug / name).mkdir(parents=True)
        self.data_dir, self.firmware = plug, plug / "firmware"
        self.set_target("v1")
        self.put_image("v1", esp_image("v1"))
        self.put_image("v2", b"junk" * 9)
        said = self.refused(b"junk" * 9, "v3")
        with self.assertRaises(Refused) as caught:
            activate(self.data_dir, "v2", lambda done, size: None, is_forced=False)
        for why, version in ((said, "v3"), (str(caught.exception), "v2")):
            self.assertIn(f"the image of {version} is of an unknown format", why)
            self.assertIn("that of the current target of the product plug is not (ESP32 im", why)
            self.assertIn("--force", why)
        activate(self.data_dir, "v2", lambda done, size: None, is_forced=True)
        self.put_image("v4", b"more junk")
        activate(self.data_dir, "v4", lambda done, size: None, is_forced=False)


class PublishedTest(PublishCase):
    def test_the_image_is_copied_and_on_record(self):
        published = self.publish(b"an image", "v1.0.0", notes="the first")
        self.assertEqual(published.outcome, "published")
        self.assertEqual(self.image_of("v1.0.0"), b"an image")
        manifest = self.manifest_of("v1.0.0")
        self.assertEqual(manifest["sha256"], hashlib.sha256(b"an image").hexdigest())
        self.assertEqual(manifest["md5"], hashlib.md5(b"an image").hexdigest())
        self.assertEqual((manifest["size"], manifest["notes"]), (8, "the first"))

    def test_the_manifest_is_one_that_the_server_reads(self):
        published = self.publish(b"an image", "v1.0.0", reports_as="1.0.0-g3f")
        content = (self.firmware / "firmware_v1.0.0.json").read_bytes()
        self.assertEqual(parse_manifest(content, "v1.0.0"), published.manifest)

    def test_it_is_in_the_audit_log(self):
        self.publish(b"an image", "v1.0.0")
        (entry,) = audit.entries(self.data_dir / "log")
        self.assertEqual((entry["action"], entry["what"]), ("publish", "v1.0.0"))

    def test_nothing_else_is_left_in_the_folder(self):
        self.publish(b"an image", "v1.0.0")
        names = sorted(path.name for path in self.firmware.iterdir())
        self.assertEqual(names, ["firmware_v1.0.0.bin", "firmware_v1.0.0.json"])

    def test_a_data_directory_is_made_where_there_is_none(self):
        order = PublishRequest(self.build(b"an image"), "v1")
        publish(self.data_dir / "new", order, NOW_MS, lambda done, size: None)
        self.assertTrue((self.data_dir / "new" / "firmware" / "firmware_v1.bin").exists())

    def test_progress_is_told_up_to_the_end(self):
        told: list[tuple[int, int]] = []
        order = PublishRequest(self.build(bytes(3 << 20)), "v1")
        publish(self.data_dir, order, NOW_MS, lambda done, size: told.append((done, size)))
        self.assertEqual(told, [(n << 20, 3 << 20) for n in (1, 2, 3)])

    def test_what_the_image_says_of_itself_is_on_record(self):
        self.publish(esp_image("v1.2.0"), "v1.2.0")
        self.assertIn("project blink", str(self.manifest_of("v1.2.0")["image"]))

    def test_a_stone_is_on_record(self):
        self.publish(b"stone", "v1.9.0")
        self.publish(b"image", "v2.0.0", via="v1.9.0", direct_from=("v1.9.*",))
        manifest = self.manifest_of("v2.0.0")
        self.assertEqual((manifest["via"], manifest["direct_from"]), ("v1.9.0", ["v1.9.*"]))


class SaidTest(PublishCase):
    """The version that an image says it has."""

    def version(self, content: bytes) -> str:
        return version_in(Path(self.build(content)))

    def test_that_of_esp_idf_is_its_version(self):
        for version in ("v1.2.0", "1", "v1.2.0-3-gabc1234-dirty"):
            with self.subTest(version):
                self.assertEqual(self.version(esp_image(version)), version)

    def test_that_of_mcuboot_is_its_version_unless_nobody_gave_it_one(self):
        for numbers, version in (((1, 2, 3, 0), "1.2.3"), ((1, 2, 3, 4), "1.2.3+4")):
            with self.subTest(version):
                self.assertEqual(self.version(mcuboot_image(*numbers)), version)
        with self.assertRaisesRegex(Misused, "--version"):
            self.version(mcuboot_image(0, 0, 0, 0))

    def test_an_image_that_says_none_needs_one(self):
        for content in (b"text", esp_image(""), esp_image("x", project=b"arduino-lib-builder")):
            with self.subTest(content[:20]), self.assertRaisesRegex(Misused, "--version VERSION"):
                self.version(content)

    def test_a_version_that_cannot_name_a_release_is_what_devices_report(self):
        for said in ("my fw 1", "release/1.2", "-1"):
            with self.subTest(said), self.assertRaisesRegex(Misused, f"--reports-as .?{said}"):
                self.version(esp_image(said))

    def test_a_file_that_is_not_there_is_said_to_be(self):
        with self.assertRaisesRegex(Refused, "cannot be read"):
            version_in(self.builds / "nothing.bin")


class SameBytesTest(PublishCase):
    def test_equal_bytes_under_another_version_are_found_however_they_came(self):
        self.publish(b"a build", "v1.0.0")
        self.publish(b"a BUILD", "v0.9")
        self.put_image("v1.0.1", b"a build")
        published = self.publish(b"a build", "v1.0.2")
        self.assertEqual(same_bytes(self.data_dir, published.manifest), ["v1.0.0", "v1.0.1"])

    def test_the_same_version_in_another_spelling_is_no_other(self):
        published = self.publish(b"a build", "v1.0.0")
        self.put_image("1.0.0", b"a build")
        self.assertEqual(same_bytes(self.data_dir, published.manifest), [])


class AgainTest(PublishCase):
    def test_the_same_bytes_once_more_change_nothing(self):
        self.publish(b"an image", "v1.0.0")
        before = self.snapshot()
        self.assertEqual(self.publish(b"an image", "v1.0.0").outcome, "there")
        self.assertEqual(self.snapshot(), before)

    def test_what_is_said_of_the_same_bytes_is_taken_over_and_named(self):
        self.publish(b"stone", "v0.9.0")
        self.publish(b"an image", "v1.0.0", notes="the first", reports_as="abc")
        more = {"via": "v0.9.0", "direct_from": ("v0.9.*",), "notes": "fixes the clock"}
        again = self.publish(b"an image", "v1.0.0", **more)
        self.assertEqual(again.outcome, "updated")
        self.assertEqual(again.updated, ("notes", "via", "direct-from"))
        content = (self.firmware / "firmware_v1.0.0.json").read_bytes()
        self.assertEqual(parse_manifest(content, "v1.0.0"), again.manifest)
        manifest = self.manifest_of("v1.0.0")
        self.assertEqual((manifest["via"], manifest["direct_from"]), ("v0.9.0", ["v0.9.*"]))
        self.assertEqual((manifest["notes"], manifest["reports_as"]), ("fixes the clock", "abc"))
        self.assertEqual(audit.entries(self.data_dir / "log")[-1]["outcome"], "updated")
        self.assertEqual(self.publish(b"an image", "v1.0.0", **more).outcome, "there")
        self.assertEqual(self.publish(b"an image", "v1.0.0", via="v0.9.0").outcome, "there")

    def test_a_signature_that_is_given_later_is_kept_and_on_record(self):
        self.publish(b"an image", "v1.0.0", notes="as it was")
        signature = self.build(b"signature", "app.sig")
        again = self.publish(b"an image", "v1.0.0", signature=signature)
        self.assertEqual((again.outcome, again.updated), ("updated", ("signature",)))
        self.assertEqual(self.signature_of("v1.0.0"), b"signature")
        manifest = self.manifest_of("v1.0.0")
        self.assertEqual(manifest["signature"], "firmware_v1.0.0.bin.sig")
        self.assertEqual(manifest["signature_sha256"], hashlib.sha256(b"signature").hexdigest())
        self.assertEqual(manifest["notes"], "as it was")

    def test_a_signature_that_was_altered_or_deleted_is_restored(self):
        signature = self.build(b"signature", "app.sig")
        self.publish(b"an image", "v1.0.0", signature=signature)
        path = self.firmware / "firmware_v1.0.0.bin.sig"
        for spoil in (lambda: path.write_bytes(b"altered"), path.unlink):
            spoil()
            again = self.publish(b"an image", "v1.0.0", signature=signature)
            self.assertEqual((again.outcome, again.updated), ("updated", ("signature",)))
            self.assertEqual(self.signature_of("v1.0.0"), b"signature")
        again = self.publish(b"an image", "v1.0.0", signature=signature)
        self.assertEqual(again.outcome, "there")

    def test_a_stone_that_is_none_is_no_update(self):
        self.publish(b"an image", "v1.0.0")
        self.assertIn("no image of v9", self.refused(b"an image", "v1.0.0", via="v9"))

    def test_an_altered_image_is_restored_and_what_is_said_of_it_is_taken_over(self):
        self.publish(b"an image", "v1.0.0", notes="as it was")
        self.put_image("v1.0.0", b"altered!")
        again = self.publish(b"an image", "v1.0.0", reports_as="abc")
        self.assertEqual((again.outcome, again.updated), ("restored", ("reports-as",)))
        manifest = self.manifest_of("v1.0.0")
        self.assertEqual((manifest["notes"], manifest["reports_as"]), ("as it was", "abc"))

    def test_an_image_that_was_copied_by_hand_gets_its_record(self):
        self.put_image("v1.0.0", b"an image")
        self.assertEqual(self.publish(b"an image", "v1.0.0").outcome, "recorded")
        self.assertEqual(self.manifest_of("v1.0.0")["size"], 8)

    def test_a_manifest_that_cannot_be_used_is_written_again(self):
        self.publish(b"an image", "v1.0.0")
        (self.firmware / "firmware_v1.0.0.json").write_text("{")
        self.assertEqual(self.publish(b"an image", "v1.0.0").outcome, "recorded")
        self.assertEqual(self.manifest_of("v1.0.0")["size"], 8)

    def test_an_altered_image_is_restored_by_the_same_build(self):
        self.publish(b"an image", "v1.0.0", notes="as it was")
        self.put_image("v1.0.0", b"altered!")
        self.assertEqual(self.publish(b"an image", "v1.0.0").outcome, "restored")
        self.assertEqual(self.image_of("v1.0.0"), b"an image")
        self.assertEqual(self.manifest_of("v1.0.0")["notes"], "as it was")

    def test_an_altered_image_is_no_build_of_that_version(self):
        self.publish(b"an image", "v1.0.0")
        self.put_image("v1.0.0", b"altered!")
        self.assertIn("other bytes", self.refused(b"altered!", "v1.0.0"))

    def test_a_manifest_without_an_image_does_not_stand_in_the_way(self):
        self.publish(b"an image", "v1.0.0")
        (self.firmware / "firmware_v1.0.0.bin").unlink()
        self.assertEqual(self.publish(b"another", "v1.0.0").outcome, "published")
        self.assertEqual(self.manifest_of("v1.0.0")["size"], 7)

    def test_a_manifest_without_an_image_in_another_spelling_goes(self):
        self.publish(b"an image", "1.0.0")
        (self.firmware / "firmware_1.0.0.bin").unlink()
        self.publish(b"another", "v1.0.0")
        self.assertFalse((self.firmware / "firmware_1.0.0.json").exists())

    def test_an_empty_image_does_not_stand_in_the_way(self):
        self.put_image("v1.0.0", b"")
        self.assertEqual(self.publish(b"an image", "v1.0.0").outcome, "published")
        self.assertEqual(self.image_of("v1.0.0"), b"an image")


class RefusedTest(PublishCase):
    def test_an_empty_image(self):
        self.assertIn("is empty", self.refused(b"", "v1.0.0"))

    def test_a_folder_without_files(self):
        with self.assertRaisesRegex(Refused, "builds holds no files"):
            publish(self.data_dir, PublishRequest(str(self.builds), "v1"), NOW_MS, lambda *_: None)

    def test_a_pipe_is_not_waited_for(self):
        os.mkfifo(self.builds / "pipe")
        with self.assertRaisesRegex(Refused, "not a regular file"):
            publish(
                self.data_dir,
                PublishRequest(str(self.builds / "pipe"), "v1"),
                NOW_MS,
                lambda *_: None,
            )

    def test_a_file_that_is_not_there(self):
        with self.assertRaisesRegex(Refused, "No such file"):
            publish(self.data_dir, PublishRequest("nowhere.bin", "v1"), NOW_MS, lambda *_: None)

    def test_a_name_that_is_no_version(self):
        for version in ("", "v 1", "../v1", "-1", "v" * 65):
            with self.subTest(version), self.assertRaisesRegex(Misused, "is not a version"):
                self.publish(b"an image", version)

    def test_a_version_that_is_there_with_other_bytes_naming_both_hashes(self):
        self.publish(b"an image", "v1.0.0")
        problem = self.refused(b"another", "v1.0.0")
        for content in (b"an image", b"another"):
            self.assertIn(hashlib.sha256(content).hexdigest(), problem)

    def test_a_version_that_equals_another_by_meaning(self):
        self.publish(b"an image", "v1.0")
        self.assertIn("would mean the same release", self.refused(b"an image", "1.0"))
        self.assertIn("release remove v1.0", self.refused(b"an image", "1.0"))
        self.set_target("v1.0")
        self.assertNotIn("release remove", self.refused(b"an image", "1.0"))

    def test_a_disk_that_would_fill(self):
        source = self.builds / "huge.bin"
        with source.open("wb") as file:
            file.truncate(1 << 42)  # takes no room itself
        with self.assertRaisesRegex(Refused, "the disk would fill"):
            publish(self.data_dir, PublishRequest(str(source), "v1"), NOW_MS, lambda *_: None)
        self.assertEqual(list(self.firmware.iterdir()), [])

    def test_a_stone_without_an_image(self):
        self.assertIn("no image of v1.9", self.refused(b"an image", "v2.0", via="v1.9"))

    def test_a_stone_that_was_withdrawn(self):
        self.publish(b"stone", "v1.9")
        stopped = {"v1.9": {"state": "withdrawn"}}
        (self.data_dir / "version" / "stopped.json").write_text(json.dumps(stopped))
        self.assertIn("withdrawn", self.refused(b"an image", "v2.0", via="v1.9"))

    def test_a_way_over_stones_that_is_a_circle(self):
        self.publish(b"first", "v1.0")
        self.publish(b"second", "v2.0", via="v1.0")
        (self.firmware / "firmware_v1.0.bin").unlink()
        (self.firmware / "firmware_v1.0.json").unlink()
        self.assertIn("circle", self.refused(b"first", "v1.0", via="v2.0"))

    def test_its_own_stone(self):
        self.assertIn("circle", self.refused(b"first", "v1.0", via="1.0"))

    def test_direct_versions_without_a_stone(self):
        with self.assertRaisesRegex(Misused, "--via"):
            self.publish(b"an image", "v2.0", direct_from=("v1.*",))

    def test_a_direct_version_that_is_no_pattern(self):
        self.publish(b"stone", "v1.9")
        with self.assertRaisesRegex(Misused, "nor a pattern"):
            self.publish(b"an image", "v2.0", via="v1.9", direct_from=("v1 ?",))

    def test_what_no_device_can_report(self):
        for text in ("", " 1.0", "1.0 ", "1\n0", "é", "x" * 65):
            with self.subTest(text), self.assertRaisesRegex(Misused, "--reports-as"):
                self.publish(b"an image", "v2.0", reports_as=text)

    def test_what_another_release_reports_already(self):
        self.publish(b"an image", "v1.0", reports_as="abc")
        self.assertIn(
            "v1.0 already report 'abc'", self.refused(b"another", "v2.0", reports_as="abc")
        )

    def test_what_another_release_is_called(self):
        self.publish(b"an image", "v1.0")
        self.put_image("v1.5", b"copied by hand")
        for reported in ("v1.0", "1.0", "v1.5"):
            with self.subTest(reported):
                problem = self.refused(b"another", "v2.0", reports_as=reported)
                self.assertIn("the version of another release", problem)

    def test_a_version_that_another_release_reports(self):
        self.publish(b"an image", "v1.0", reports_as="v2.0")
        self.assertIn("v2.0 is what devices that run v1.0 report", self.refused(b"another", "v2.0"))

    def test_an_image_that_says_another_version_unless_forced(self):
        problem = self.refused(esp_image("v1.1.9"), "v1.2.0")
        self.assertIn("--reports-as v1.1.9", problem)
        self.assertIn("leave --version out to publish it as that", problem)
        published = self.publish(esp_image("v1.1.9"), "v1.2.0", is_forced=True)
        self.assertEqual(len(published.warnings), 1)

    def test_what_a_build_calls_itself_may_be_what_it_reports(self):
        self.publish(esp_image("v1.1.9-4-gabc"), "v1.2.0", reports_as="v1.1.9-4-gabc")
        self.publish(esp_image("1.3.0"), "v1.3.0")

    def test_what_arduino_writes_into_each_image_is_no_version_of_it(self):
        self.publish(esp_image("esp-idf: v4.4.6", project=b"arduino-lib-builder"), "v1.2.0")

    def test_an_image_for_another_chip_than_that_of_the_target_unless_forced(self):
        self.publish(esp_image("v1.0.0", "ESP32"), "v1.0.0")
        self.set_target("v1.0.0")
        problem = self.refused(esp_image("v1.1.0", "ESP32-S3"), "v1.1.0")
        self.assertIn("is for ESP32-S3, that of the current target for ESP32", problem)
        self.publish(esp_image("v1.1.0", "ESP32-S3"), "v1.1.0", is_forced=True)

    def test_an_image_of_another_project_than_that_of_the_target_unless_forced(self):
        self.publish(esp_image("v1.0.0", project=b"pump"), "v1.0.0")
        self.set_target("v1.0.0")
        problem = self.refused(esp_image("v1.1.0", project=b"street lamp"), "v1.1.0")
        self.assertIn(
            "of the project 'street lamp', and the current target is of the project pump", problem
        )
        self.publish(esp_image("v1.1.0", project=b"street lamp"), "v1.1.0", is_forced=True)
        self.publish(esp_image("v1.2.0", project=b"pump"), "v1.2.0")

    def test_what_names_no_project_is_of_none(self):
        self.publish(esp_image("v1.0.0", project=b"pump"), "v1.0.0")
        self.set_target("v1.0.0")
        for number, project in enumerate((b"arduino-lib-builder", b"", b"\xff\xfe")):
            with self.subTest(project):
                self.publish(esp_image(f"v1.{number}", project=project), f"v1.{number}")

    def test_an_image_that_was_copied_in_by_hand_and_is_for_other_devices_is_not_activated(self):
        self.publish(esp_image("v1.0.0", project=b"pump"), "v1.0.0")
        self.set_target("v1.0.0")
        for version, content, words in (
            ("v1.1.0", esp_image("v1.1.0", project=b"lamp"), "of the project lamp"),
            ("v1.2.0", esp_image("v1.2.0", "ESP32-S3", b"pump"), "for ESP32-S3"),
        ):
            with self.subTest(version):
                self.put_image(version, content)
                with self.assertRaisesRegex(Refused, f"{words}.*--force"):
                    activate(self.data_dir, version, lambda done, size: None, False)
                activate(self.data_dir, version, lambda done, size: None, True)
                back = rollback(self.data_dir, lambda done, size: None, False)
                self.assertEqual((back.version, back.previous), ("v1.0.0", version))

    def activate(self, version: str, is_forced: bool = False) -> None:
        activate(self.data_dir, version, lambda done, size: None, is_forced)

    def test_an_image_that_was_published_before_there_was_a_target_is_not_activated_either(self):
        self.publish(esp_image("v1.0.0", project=b"sensor"), "v1.0.0")
        self.publish(esp_image("v2.0.0", project=b"pump"), "v2.0.0")
        self.publish(esp_image("v3.0.0", "ESP32-S3", b"sensor"), "v3.0.0")
        self.activate("v1.0.0")
        for version, words in (("v2.0.0", "of the project pump"), ("v3.0.0", "for ESP32-S3")):
            with self.subTest(version), self.assertRaisesRegex(Refused, f"{words}.*--force"):
                self.activate(version)
        self.activate("v3.0.0", is_forced=True)

    def test_one_for_other_devices_than_a_group_has_is_not_activated_for_the_group_too(self):
        self.publish(esp_image("v1.0.0", project=b"sensor"), "v1.0.0")
        self.publish(esp_image("v1.1.0", project=b"sensor"), "v1.1.0")
        self.publish(esp_image("v2.0.0", project=b"pump"), "v2.0.0")
        self.set_target("v1.0.0")
        (self.data_dir / "version" / "targets.json").write_text('{"pumps": "v2.0.0"}')
        with self.assertRaisesRegex(
            Refused, "and the target of the group pumps is of the project pump"
        ):
            self.activate("v1.1.0")
        self.activate("v1.1.0", is_forced=True)

    def test_an_image_that_was_cut_unless_forced(self):
        bundle = struct.pack("<4s24xH10xQ", b"hsqs", 4, 4096) + bytes(64)
        self.assertIn("was cut", self.refused(bundle, "v1"))
        self.assertIn("was cut", self.refused(esp32_image("v1")[:2000], "v1"))
        self.assertIn("was cut", self.refused(esp8266_image("v1")[:1500], "v1"))

    def test_a_file_of_the_policy_that_cannot_be_read(self):
        (self.data_dir / "version" / "pins.json").write_text("{")
        with self.assertLogs("ota_server"):
            self.assertIn("pins.json", self.refused(b"an image", "v1"))


class InterruptedTest(PublishCase):
    def test_a_disk_that_fills_in_the_last_piece_leaves_nothing(self):
        source = self.build(bytes(3 << 20))
        limited = "import resource, signal, sys; from ota_server.cli import main; "
        limited += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (2500000, 2500000)); "
        limited += "sys.exit(main())"
        command = self.command(source, "v1")
        done = subprocess.run(
            [command[0], "-c", limited, *command[3:]], cwd=ROOT, capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("File too large", done.stderr)
        self.assertEqual(list(self.firmware.iterdir()), [])

    def command(self, source: str, version: str) -> list[str]:
        publishing = ["release", "publish", source, "--version", version]
        return [
            sys.executable, "-m", "ota_server", *publishing, "--data-dir", str(self.data_dir),
        ]  # fmt: skip

    def begin_large(self) -> subprocess.Popen[bytes]:
        """Start to publish what takes long, and return once it is being copied."""
        source = self.builds / "large.bin"
        with source.open("wb") as file:
            file.truncate(1 << 30)
        process = subprocess.Popen(
            self.command(str(source), "v2.0"), cwd=ROOT, stderr=subprocess.PIPE
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertTrue(until(lambda: any(p.stat().st_size for p in self.firmware.glob(".*.new"))))
        return process

    def test_what_kill_leaves_is_no_release_and_is_cleared_by_the_next_publication(self):
        process = self.begin_large()
        process.kill()
        process.wait(TIMEOUT_SECONDS)
        (left,) = self.firmware.iterdir()
        self.assertRegex(left.name, r"^\..*\.new$")
        self.publish(b"an image", "v1.0")
        names = sorted(path.name for path in self.firmware.iterdir())
        self.assertEqual(names, ["firmware_v1.0.bin", "firmware_v1.0.json"])

    def test_interrupt_leaves_nothing(self):
        process = self.begin_large()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT_SECONDS), 130)
        self.assertEqual(list(self.firmware.iterdir()), [])

    def test_a_publication_that_goes_on_is_no_leftover(self):
        process = self.begin_large()
        self.publish(b"an image", "v1.0")
        self.assertIsNone(process.poll())
        self.assertEqual(len(list(self.firmware.glob(".*.new"))), 1)

    def test_of_two_publishers_of_one_version_one_is_refused(self):
        sources = [self.build(bytes([n]) * (4 << 20), f"{n}.bin") for n in (1, 2)]
        processes = [
            subprocess.Popen(
                self.command(source, "v1"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for source in sources
        ]
        said = [process.communicate(timeout=TIMEOUT_SECONDS)[1] for process in processes]
        codes = [process.returncode for process in processes]
        self.assertEqual(sorted(codes), [0, 1], said)
        winner = codes.index(0)
        self.assertIn(b"is there with other bytes", said[1 - winner])
        self.assertEqual(self.image_of("v1"), Path(sources[winner]).read_bytes())
        sha256 = hashlib.sha256(self.image_of("v1")).hexdigest()
        self.assertEqual(self.manifest_of("v1")["sha256"], sha256)
        self.assertEqual(len(audit.entries(self.data_dir / "log")), 1)
