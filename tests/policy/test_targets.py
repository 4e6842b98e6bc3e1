"""The files of targets: version.txt in every state, the image of a version, releases refused."""

import json

from ota_server.model.refusal import Refused
from ota_server.policy.targets import (
    VersionFile,
    find_image,
    read_target,
    read_version_file,
    release_here,
    set_stopped,
    write_target,
)
from tests.support import DataDirCase


class TargetsCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.data_dir / "version" / "version.txt"
        self.path.unlink(missing_ok=True)
        self.firmware = self.data_dir / "firmware"


class VersionFileTest(TargetsCase):
    def test_what_it_says_comes_with_its_end(self):
        for content, said in (
            (b"v1", VersionFile("v1")),
            (b"v1\n", VersionFile("v1", "\n")),
            (b"\xef\xbb\xbfv1 \r\n", VersionFile("v1", "\n")),
            (b"", VersionFile(None, problem="is empty")),
            (b"\n", VersionFile(None, "\n", "is empty")),
            (b"\xff\n", VersionFile(None, "\n", "is not UTF-8")),
        ):
            with self.subTest(content):
                self.path.write_bytes(content)
                self.assertEqual(read_version_file(self.data_dir), said)

    def test_a_missing_file_is_told_from_one_that_is_of_another_kind(self):
        missing = read_version_file(self.data_dir)
        self.assertEqual((missing.problem, missing.is_there), ("is missing", False))
        self.path.mkdir()
        folder = read_version_file(self.data_dir)
        self.assertTrue(folder.is_there)
        self.assertEqual(folder.problem, "is not a regular file in its folder")

    def test_where_it_cannot_be_used_there_is_no_target(self):
        self.assertIsNone(read_target(self.data_dir))
        self.path.write_bytes(b"no version at all")
        self.assertIsNone(read_target(self.data_dir))

    def test_another_target_leaves_the_end_of_the_file_as_it_was(self):
        for before, after in ((b"v1", b"v2"), (b"v1\n", b"v2\n"), (b"two\nlines\n", b"v2\n")):
            with self.subTest(before):
                self.path.write_bytes(before)
                write_target(self.data_dir, "v2")
                self.assertEqual(self.path.read_bytes(), after)

    def test_a_target_is_written_where_there_was_none(self):
        write_target(self.data_dir, "v2")
        self.assertEqual(self.path.read_bytes(), b"v2")


class ImageTest(TargetsCase):
    def name_of(self, version: str) -> str | None:
        image = find_image(self.firmware, version)
        return None if image is None else image[0]

    def test_the_exact_name_goes_before_the_one_that_is_equal_in_meaning(self):
        self.assertIsNone(self.name_of("v9"))
        self.put_image("9", b"without")
        self.assertEqual(self.name_of("v9"), "firmware_9.bin")
        self.put_image("v9", b"with")
        self.assertEqual(self.name_of("v9"), "firmware_v9.bin")

    def test_an_empty_image_of_the_exact_name_is_not_passed_over(self):
        self.put_image("9", b"without")
        self.put_image("v9", b"")
        self.assertIsNone(self.name_of("v9"))

    def test_the_name_of_a_link_is_its_own_not_that_of_the_file_behind_it(self):
        (self.firmware / "build").write_bytes(b"image")
        (self.firmware / "firmware_v9.bin").symlink_to("build")
        self.assertEqual(self.name_of("v9"), "firmware_v9.bin")


class ReleaseHereTest(TargetsCase):
    def test_a_release_is_called_as_its_image_is_named(self):
        self.put_image("9", b"image")
        self.assertEqual(release_here(self.data_dir, "v9"), "9")

    def test_without_an_image_it_is_refused(self):
        with self.assertRaisesRegex(Refused, "v9 is not a release here: .*publish it first"):
            release_here(self.data_dir, "v9")

    def test_a_withdrawn_release_is_refused_with_the_reason(self):
        self.put_image("v9", b"image")
        entry = {"state": "withdrawn", "instead_of": None, "reason": "it bricks"}
        set_stopped(self.data_dir, "9", entry)
        with self.assertRaisesRegex(Refused, r"v9 was withdrawn \(it bricks\), .*another release"):
            release_here(self.data_dir, "v9")

    def test_a_release_whose_rollout_was_aborted_may_be_used(self):
        self.put_image("v9", b"image")
        set_stopped(self.data_dir, "v9", {"state": "aborted", "instead_of": None})
        self.assertEqual(release_here(self.data_dir, "v9"), "v9")
        stopped = json.loads((self.data_dir / "version" / "stopped.json").read_bytes())
        self.assertEqual(stopped["v9"]["state"], "aborted")
