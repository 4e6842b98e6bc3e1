"""`version/` and `firmware/` as operators treat them: the target, images, links, bad files."""

import hashlib
import logging
import os
import socket
import sys
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from ota_server.model.device import Download
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.hashing import Hasher, Unreadable
from ota_server.releases.image import Copies
from ota_server.releases.store import Image, NoImage, NotHashed, Store
from ota_server.system.files import find, open_found, replace
from tests.support import TIMEOUT_SECONDS, DataDirCase, until

LOGGER = "ota_server.releases.fleet_target"


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_in_place(path: Path, content: bytes) -> None:
    """Rewrite a file as an editor without care does, with a time of change that shows it."""
    before = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.truncate(len(content))
        file.write(content)
    os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))


class StoreCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.firmware = self.data_dir / "firmware"
        self.version_path = self.data_dir / "version" / "version.txt"
        self.store = self.open()

    def open(self, settle_seconds: float = 0.0) -> Store:
        store = Store(self.data_dir, settle_seconds)
        self.addCleanup(store.close)
        return store

    def image(self, version: str) -> Image:
        """Return an image, hashed."""
        return self.settled(lambda: self.store.image(version))

    def pinned(self, version: str, content: bytes) -> Image:
        """Return the image that holds `content`, for a download that was begun as `version`."""
        download = Download(version, sha256_of(content), len(content), 0)
        return self.settled(lambda: self.store.pinned_image(download))

    def settled(self, ask: Callable[[], Image]) -> Image:
        while True:
            try:
                return ask()
            except NotHashed as not_ready:
                self.assertTrue(not_ready.hashing.done.wait(TIMEOUT_SECONDS))

    def assert_no_image(self, version: str) -> None:
        with self.assertRaises(NoImage):
            self.image(version)


class ImageTest(StoreCase):
    def test_an_image_comes_with_its_digests(self):
        self.put_image("v1", b"image")
        image = self.image("v1")
        self.assertEqual((image.version, image.size, image.read(1, 3)), ("v1", 5, b"mag"))
        self.assertEqual(image.sha256, sha256_of(b"image"))
        self.assertEqual(image.md5, hashlib.md5(b"image", usedforsecurity=False).hexdigest())
        self.assertEqual(image.etag, f'"{image.sha256[:32]}"')

    def test_an_image_is_hashed_once_and_stays_open_while_it_is_asked_for(self):
        self.put_image("v1", b"image")
        self.assertIs(self.image("v1"), self.image("v1"))

    def test_a_missing_or_empty_image_is_none(self):
        self.assert_no_image("v1")
        self.put_image("v1", b"")
        self.assert_no_image("v1")

    def test_the_exact_name_goes_before_the_one_that_is_equal_in_meaning(self):
        self.put_image("1.0", b"without")
        self.assertEqual(self.image("v1.0").read(0, 9), b"without")
        self.assertEqual(self.image("v1.0").version, "1.0")
        self.put_image("v1.0", b"with")
        self.assertEqual(self.image("v1.0").read(0, 9), b"with")
        self.assertEqual(self.image("1.0").read(0, 9), b"without")
        self.assert_no_image("vv1.0")

    def test_an_empty_image_of_the_exact_name_is_not_passed_over(self):
        self.put_image("1.0", b"without")
        self.put_image("v1.0", b"")
        self.assert_no_image("v1.0")

    def test_an_image_replaced_by_rename_is_new_for_new_requests_and_old_for_old_ones(self):
        self.put_image("v1", b"old bytes")
        old = self.image("v1")
        self.put_image("v1", b"new bytes")
        new = self.image("v1")
        self.assertEqual((new.sha256, new.read(0, 9)), (sha256_of(b"new bytes"), b"new bytes"))
        self.assertEqual((old.sha256, old.read(0, 9)), (sha256_of(b"old bytes"), b"old bytes"))
        self.assertTrue(old.is_unchanged())

    def test_an_image_rewritten_in_place_gets_a_new_hash_and_is_told_to_have_changed(self):
        path = self.put_image("v1", b"old bytes")
        old = self.image("v1")
        for content in (b"new bytes", b"longer than before", b"short"):
            with self.subTest(content):
                write_in_place(path, content)
                self.assertFalse(old.is_unchanged())
                self.assertEqual(self.image("v1").sha256, sha256_of(content))

    def test_a_link_made_after_a_rewrite_hides_it_from_nobody_who_has_no_copy(self):
        path = self.put_image("v1", b"old bytes")
        for has_copy in (True, False):
            with self.subTest(has_copy):
                image = self.image("v1")
                if not has_copy:
                    image.copy = None
                times = path.stat()
                path.write_bytes(path.read_bytes()[::-1])
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
                os.link(path, path.with_name(f"backup {has_copy}"))
                # The copy is of one piece, whatever happened to the file.
                self.assertIs(image.is_unchanged(), has_copy)
                self.assertEqual(self.image("v1").sha256, sha256_of(path.read_bytes()))

    def test_an_image_that_is_cut_gives_what_is_left(self):
        path = self.put_image("v1", b"0123456789")
        image = self.image("v1")
        os.truncate(path, 4)
        self.assertEqual((image.read(0, 10), image.read(6, 4)), (b"0123", b""))
        self.assertFalse(image.is_unchanged())

    def test_the_image_of_the_target_keeps_its_copy_whatever_else_is_asked_for(self):
        self.put_image("v1", b"image of the fleet")
        self.set_target("v1")
        self.assertIsNotNone(self.image("v1").copy)
        self.store.target()
        for number in range(2, 30):
            self.put_image(f"v{number}", b"image %d" % number)
            self.image(f"v{number}")
        self.assertIsNotNone(self.image("v1").copy)

    def test_an_image_that_was_pushed_out_gets_a_copy_again(self):
        for number in range(20):
            self.put_image(f"v{number}", b"image %d" % number)
            self.image(f"v{number}")
        self.assertTrue(until(lambda: self.image("v0").copy is not None))

    def test_an_image_that_was_deleted_or_replaced_holds_no_room_on_the_disk(self):
        path = self.put_image("v1", b"old")
        descriptor = self.image("v1").copy.descriptor
        self.put_image("v2", b"kept")
        kept = self.image("v2")
        path.unlink()
        self.store.look_after()
        with self.assertRaises(OSError):
            os.fstat(descriptor)
        self.assertIs(self.image("v2"), kept)

    def test_images_that_nobody_asks_for_are_closed(self):
        for number in range(60):
            self.put_image(f"v{number}", b"%d" % number)
        self.image("v0")
        before = len(os.listdir("/dev/fd"))
        for number in range(60):
            self.image(f"v{number}")
        self.assertLess(len(os.listdir("/dev/fd")), before + 20)

    def test_an_image_may_be_gone_before_it_is_hashed(self):
        path = self.put_image("v1", b"image")
        with self.assertRaises(NotHashed):
            self.open(settle_seconds=60.0).image("v1")
        self.store = self.open(settle_seconds=0.1)
        with self.assertRaises(NotHashed) as raised:
            self.store.image("v1")
        path.unlink()
        self.assertTrue(raised.exception.hashing.done.wait(TIMEOUT_SECONDS))
        self.assert_no_image("v1")

    def test_an_image_that_cannot_be_read_is_none(self):
        with self.unreadable(self.put_image("v1", b"image")):
            self.assert_no_image("v1")


class KindOfFileTest(StoreCase):
    NAME = "firmware_v1.bin"

    def test_a_link_to_a_regular_file_in_the_folder_is_followed(self):
        self.put_image("v2", b"image")
        (self.firmware / "nightly").mkdir()
        (self.firmware / "nightly" / "build").write_bytes(b"nightly")
        for target, content in (
            ("firmware_v2.bin", b"image"),
            (str(self.firmware / "firmware_v2.bin"), b"image"),
            ("nightly/build", b"nightly"),
            ("../firmware/firmware_v2.bin", b"image"),
        ):
            with self.subTest(target):
                self.link(target)
                self.assertEqual(self.image("v1").read(0, 99), content)

    def test_a_link_out_of_the_folder_is_not_followed(self):
        self.set_target("v1")
        sibling = self.data_dir / "firmware-other"
        sibling.mkdir()
        (sibling / "image").write_bytes(b"image")
        (self.firmware / "outside").symlink_to(sibling)
        (self.firmware / "chain").symlink_to(sibling / "image")
        for target in (
            *("/etc/passwd", "../version/version.txt", "../firmware-other/image", "outside/image"),
            *("chain", str(sibling / "image"), "/dev/zero", "/proc/self/mem", "/dev/stdin"),
        ):
            with self.subTest(target):
                self.link(target)
                self.assert_no_image("v1")

    def test_what_is_no_regular_file_is_none_and_does_not_hang(self):
        path = self.firmware / self.NAME
        path.mkdir()
        self.assert_no_image("v1")
        path.rmdir()
        os.mkfifo(path)
        self.assert_no_image("v1")
        path.unlink()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
            self.assert_no_image("v1")
        os.mkfifo(self.firmware / "pipe")
        for target in ("pipe", self.NAME, "missing", ".", "..", "pipe/x", "/"):
            with self.subTest(target):
                self.link(target)
                self.assert_no_image("v1")

    def test_a_folder_that_is_a_link_itself_is_the_folder(self):
        real = self.data_dir / "real"
        self.firmware.rename(real)
        self.firmware.symlink_to(real)
        self.put_image("v1", b"image")
        (real / "firmware_v2.bin").symlink_to("firmware_v1.bin")
        for version in ("v1", "v2"):
            with self.subTest(version):
                self.assertEqual(self.image(version).read(0, 9), b"image")

    def test_a_missing_folder_holds_no_image(self):
        self.firmware.rmdir()
        self.assert_no_image("v1")
        self.firmware.write_bytes(b"")
        self.assert_no_image("v1")
        with self.assertRaises(NoImage):
            self.pinned("v1", b"image")

    def test_a_folder_that_may_not_be_searched_is_no_flood_in_the_log(self):
        self.put_image("v1", b"image")
        with (
            self.assertLogs(LOGGER, logging.ERROR) as logged,
            self.unreadable(self.firmware),
        ):
            for _ in range(3):
                self.assert_no_image("v1")
        self.assertEqual(len(logged.records), 2)  # one for each spelling

    def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(self):
        path = self.put_image("v1", b"image")
        found = find(self.firmware, path.name)
        assert found is not None
        path.unlink()
        os.mkfifo(path)
        os.close(open_found(found))
        path.unlink()
        path.symlink_to("/etc/passwd")
        with self.assertRaises(OSError):
            open_found(found)

    def link(self, target: str) -> None:
        path = self.firmware / self.NAME
        path.unlink(missing_ok=True)
        path.symlink_to(target)


class PinnedTest(StoreCase):
    def test_the_bytes_that_a_device_began_are_found_under_their_name(self):
        self.put_image("v1", b"image")
        self.assertEqual(self.pinned("v1", b"image").read(0, 9), b"image")

    def test_the_bytes_that_a_device_began_are_found_under_another_name(self):
        self.put_image("v1", b"other")
        self.put_image("v2", b"wrong")
        self.put_image("v3", b"image")
        self.assertEqual(self.pinned("v1", b"image").version, "v3")

    def test_bytes_that_are_gone_are_none_though_others_have_their_name_and_size(self):
        self.put_image("v1", b"other")
        with self.assertRaises(NoImage):
            self.pinned("v1", b"image")

    def test_files_of_another_kind_do_not_count(self):
        (self.firmware / "image.bin").write_bytes(b"image")
        (self.firmware / "firmware_v1.bin.new").write_bytes(b"image")
        os.mkfifo(self.firmware / "firmware_v2.bin")
        (self.firmware / "firmware_v3.bin").mkdir()
        with self.assertRaises(NoImage):
            self.pinned("v1", b"image")

    def test_a_file_of_that_size_that_cannot_be_read_is_passed_over(self):
        bad = self.put_image("v1", b"other")
        self.put_image("v2", b"image")
        with self.unreadable(bad):
            self.assertEqual(self.pinned("v1", b"image").version, "v2")

    def test_a_file_that_may_hold_them_is_waited_for(self):
        self.put_image("v2", b"image")
        self.store = self.open(settle_seconds=60.0)
        with self.assertRaises(NotHashed):
            self.store.pinned_image(Download("v1", sha256_of(b"image"), 5, 0))
        with self.assertRaises(NoImage):
            self.store.pinned_image(Download("v1", sha256_of(b"longer"), 6, 0))


class TargetTest(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1", b"one")
        self.put_image("v2", b"two")

    def good(self, version: str) -> None:
        """Make a version the target, with its image hashed."""
        self.set_target(version)
        self.assertEqual(self.store.target().version, version)
        self.image(version)
        self.store.target()

    def test_the_target_is_what_version_txt_says_with_its_image(self):
        self.set_target("v1\n")
        target = self.store.target()
        self.assertEqual(
            (target.version, target.end, target.image_name, target.image_size),
            ("v1", "\n", "firmware_v1.bin", 3),
        )

    def test_a_new_content_of_version_txt_counts_at_once_however_it_is_written(self):
        self.set_target("v1")
        for turn in range(40):
            version = ("v2", "v1")[turn % 2]
            self.version_path.write_text(version)
            self.assertEqual(self.store.target().version, version)
        self.set_target("v2")
        self.assertEqual(self.store.target().version, "v2")

    def test_a_version_txt_that_was_settled_is_read_again_when_it_changes(self):
        self.set_target("v1")
        with mock.patch(
            "ota_server.releases.fleet_target.time.time", return_value=time.time() + 60
        ):
            self.store.target()
            self.store.target()
        write_in_place(self.version_path, b"v2")
        self.assertEqual(self.store.target().version, "v2")

    def test_the_last_good_target_stays_and_the_log_says_so_once(self):
        self.good("v1")
        for name, content in {
            "empty": b"",
            "no version": b"not a version",
            "several lines": b"v1\nv2\n",
            "too long": b"v" * 300,
            "not UTF-8": b"\xff\xfe",
            "names no image": b"v3",
            "path": b"../v2",
        }.items():
            with self.subTest(name), self.assertLogs(LOGGER, logging.ERROR) as logged:
                self.set_target(content)
                for _ in range(3):
                    self.assertEqual(self.store.target().version, "v1")
                self.assertEqual(len(logged.records), 1)
                self.assertIn("v1 stays the target", logged.output[0])

    def test_the_last_good_target_stays_without_a_regular_version_txt(self):
        self.good("v1")
        self.version_path.unlink()
        with self.assertLogs(LOGGER, logging.ERROR):
            self.assert_stays()
        self.version_path.mkdir()
        self.assert_stays()
        self.version_path.rmdir()
        os.mkfifo(self.version_path)
        self.assert_stays()
        self.version_path.unlink()
        (self.data_dir / "outside.txt").write_text("v2")
        self.version_path.symlink_to("../outside.txt")
        self.assert_stays()

    def assert_stays(self) -> None:
        self.assertEqual(self.store.target().version, "v1")

    def test_the_last_good_target_stays_where_its_successor_is_empty_or_gone(self):
        self.good("v1")
        self.put_image("v2", b"")
        self.set_target("v2")
        with self.assertLogs(LOGGER, logging.ERROR):
            self.assert_stays()
        (self.firmware / "firmware_v2.bin").unlink()
        self.assert_stays()

    def test_the_last_good_target_stays_where_its_successor_cannot_be_read(self):
        self.good("v1")
        self.set_target("v2")
        with (
            self.assertLogs(LOGGER, logging.ERROR) as logged,
            self.unreadable(self.firmware / "firmware_v2.bin"),
        ):
            self.store.target()
            self.assert_no_image("v2")
            for _ in range(3):
                self.assert_stays()
            later = time.monotonic() + 60
            with mock.patch("ota_server.releases.hashing.time.monotonic", return_value=later):
                self.assert_stays()
                self.assert_no_image("v2")
                self.assert_stays()
            self.assertEqual(len(logged.records), 1)
        os.utime(self.firmware / "firmware_v2.bin")
        self.good("v2")

    def test_a_target_whose_own_image_cannot_be_read_any_more_is_not_taken_back(self):
        self.good("v1")
        self.good("v2")
        path = self.firmware / "firmware_v2.bin"
        write_in_place(path, b"TWO")
        with self.assertLogs(LOGGER, logging.ERROR), self.unreadable(path):
            self.store.target()
            self.assert_no_image("v2")
            self.assertEqual(self.store.target().version, "v2")

    def test_a_target_that_was_told_stays_though_its_image_was_not_hashed_yet(self):
        self.good("v1")
        self.store.close()
        self.store = self.open(settle_seconds=60.0)
        for version in ("v1", "v2"):
            self.set_target(version)
            self.store.target()
        with self.assertLogs(LOGGER, logging.ERROR):
            self.set_target("")
            self.assertEqual(self.store.target().version, "v2")

    def test_a_good_target_takes_the_place_of_the_last_one_after_a_mistake(self):
        self.good("v1")
        with self.assertLogs(LOGGER, logging.ERROR):
            self.set_target("")
            self.store.target()
        self.good("v2")
        self.set_target("")
        with self.assertLogs(LOGGER, logging.ERROR):
            self.assertEqual(self.store.target().version, "v2")

    def test_going_back_is_just_another_target(self):
        for version in ("v2", "v1", "v2"):
            self.good(version)

    def test_without_a_good_target_since_the_start_there_is_none(self):
        for content in (None, b"", b"no version", b"\xff"):
            with self.subTest(content), self.assertLogs(LOGGER, logging.ERROR):
                if content is not None:
                    self.set_target(content)
                with self.assertRaises(NoTarget):
                    self.open().target()

    def test_a_first_target_without_an_image_is_told_all_the_same(self):
        self.set_target("v3")
        with self.assertLogs(LOGGER, logging.ERROR) as logged:
            for _ in range(3):
                target = self.store.target()
        self.assertEqual((target.version, target.image_name), ("v3", None))
        self.assertEqual(len(logged.records), 1)
        self.assert_no_image("v3")
        self.put_image("v3", b"three")
        self.assertEqual(self.store.target().image_name, "firmware_v3.bin")

    def test_an_image_under_a_name_of_the_same_meaning_is_that_of_the_target(self):
        self.set_target("2")
        self.assertEqual(self.store.target().image_name, "firmware_v2.bin")


class SettlingTest(StoreCase):
    SETTLE_SECONDS = 0.2
    # The clock that stamps files runs a few milliseconds behind.
    LEAST_SECONDS = 0.15

    def setUp(self) -> None:
        super().setUp()
        # Files come while it runs: those that are there at its start are another matter.
        self.store = self.open(settle_seconds=self.SETTLE_SECONDS)
        self.begin = time.monotonic()

    def seconds_until(self, expected: bytes) -> float:
        """Return after how long the image is served, which must hold these bytes."""
        self.assertEqual(self.image("v1").sha256, sha256_of(expected))
        return time.monotonic() - self.begin

    def test_a_file_is_hashed_when_it_has_been_unchanged_for_a_while(self):
        self.put_image("v1", b"image")
        self.assertGreater(self.seconds_until(b"image"), self.LEAST_SECONDS)

    def test_an_old_time_of_modification_does_not_make_a_fresh_copy_settled(self):
        os.utime(self.put_image("v1", b"image"), (0, 0))
        self.assertGreater(self.seconds_until(b"image"), self.LEAST_SECONDS)

    def test_a_file_that_is_still_being_copied_is_hashed_when_that_is_done(self):
        path = self.put_image("v1", b"the first")
        with self.assertRaises(NotHashed) as raised:
            self.store.image("v1")
        with path.open("ab") as file:
            file.write(b" and the second half")
        self.assertFalse(raised.exception.hashing.done.is_set())
        self.assertEqual(self.image("v1").sha256, sha256_of(b"the first and the second half"))

    def test_a_file_from_the_future_settles_by_being_watched(self):
        self.put_image("v1", b"image")
        with mock.patch("ota_server.releases.hashing.time.time", return_value=time.time() - 3600):
            self.assertGreater(self.seconds_until(b"image"), self.LEAST_SECONDS)

    def test_all_who_ask_wait_for_one_hashing(self):
        self.store = self.open(settle_seconds=60.0)
        self.put_image("v1", b"image")
        hashings = set()
        for _ in range(3):
            with self.assertRaises(NotHashed) as raised:
                self.store.image("v1")
            hashings.add(raised.exception.hashing)
        self.assertEqual(len(hashings), 1)

    def test_who_waits_when_the_store_closes_is_told(self):
        store = self.open(settle_seconds=60.0)
        self.put_image("v1", b"image")
        with self.assertRaises(NotHashed) as raised:
            store.image("v1")
        store.close()
        self.assertTrue(raised.exception.hashing.done.is_set())

    def test_no_thread_is_left_when_the_store_is_closed(self):
        before = threading.active_count()
        self.put_image("v1", b"image")
        self.image("v1")
        self.store.close()
        self.assertEqual(threading.active_count(), before)


class HasherTest(StoreCase):
    def test_a_file_that_failed_is_not_tried_again_at_once(self):
        path = self.put_image("v1", b"image")
        found = find(self.firmware, path.name)
        assert found is not None
        hasher = Hasher(Copies(self.data_dir), 0.0)
        self.addCleanup(hasher.close)
        path.unlink()
        self.assertTrue(hasher.request(found).done.wait(TIMEOUT_SECONDS))
        with self.assertRaises(Unreadable):
            hasher.known(found.stamp)
        with mock.patch(
            "ota_server.releases.hashing.time.monotonic", return_value=time.monotonic() + 60
        ):
            self.assertIsNone(hasher.known(found.stamp))


class ReplaceTest(DataDirCase):
    def test_a_file_is_replaced_whole_or_not_at_all(self):
        path = self.data_dir / "file"
        replace(path, b"one")
        replace(path, b"two")
        self.assertEqual(path.read_bytes(), b"two")
        path.unlink()
        path.mkdir()
        with self.assertRaises(OSError):
            replace(path, b"three")
        self.assertTrue(path.is_dir())


@unittest.skipUnless(sys.platform == "linux", "needs the leases of Linux")
class FreshStartTest(StoreCase):
    """Who copies an image in and starts the server at once does not wait."""

    def test_a_file_that_nothing_writes_to_any_more_is_served_at_once(self):
        self.put_image("v1", b"image")
        self.store = self.open(settle_seconds=3600.0)
        self.assertEqual(self.image("v1").sha256, sha256_of(b"image"))

    def test_one_that_something_may_still_write_to_is_waited_for(self):
        path = self.put_image("v1", b"image")
        with path.open("ab"):
            self.store = self.open(settle_seconds=3600.0)
            with self.assertRaises(NotHashed) as raised:
                self.store.image("v1")
            self.assertFalse(raised.exception.hashing.done.wait(0.3))
        self.assertTrue(raised.exception.hashing.done.wait(TIMEOUT_SECONDS))

    def test_one_that_changes_after_the_start_is_left_alone_for_a_while(self):
        path = self.put_image("v1", b"image")
        with path.open("ab", buffering=0) as file:
            self.store = self.open(settle_seconds=3600.0)
            started_ns = time.time_ns()
            with self.assertRaises(NotHashed) as raised:
                self.store.image("v1")
            # The clock of a file system is some milliseconds behind that of the program.
            while path.stat().st_ctime_ns <= started_ns:
                file.write(b" and more")
        self.assertFalse(raised.exception.hashing.done.wait(0.3))
