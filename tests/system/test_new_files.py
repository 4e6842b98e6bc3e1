"""New files and folders, and the spare files that are made in advance."""

import os
import stat
from pathlib import Path

from ota_server.system.files import replace
from ota_server.system.new_files import (
    make_folder,
    make_spares,
    open_or_make,
    put_in_spare,
    renew_time,
)
from tests.journal.test_writer import file_size_limit
from tests.support import DataDirCase


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class MakingTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = self.data_dir / "version"

    def test_folders_above_are_made_too_and_the_umask_does_not_count(self):
        self.addCleanup(os.umask, os.umask(0o077))
        path = self.data_dir / "a" / "b" / "c"
        make_folder(path)
        make_folder(path)
        for each in (path, path.parent, path.parent.parent):
            self.assertEqual(mode_of(each), 0o755)

    def test_where_no_folder_can_be_made_that_is_one_error(self):
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        deleted = self.data_dir / "deleted"
        deleted.mkdir()
        os.chdir(deleted)
        deleted.rmdir()
        for each in (Path("/proc/x"), Path("/proc/x/version"), Path("version")):
            with self.subTest(each), self.assertRaises(FileNotFoundError) as raised:
                make_folder(each)
            self.assertIn(raised.exception.filename, map(str, (each, each.parent)))

    def test_what_is_no_folder_is_an_error_that_names_it(self):
        path = self.folder / "file"
        path.touch()
        for each in (path, path / "below"):
            with self.subTest(each.name), self.assertRaises(OSError) as raised:
                make_folder(each)
            self.assertEqual(str(raised.exception.filename), str(each))

    def test_a_file_that_is_there_keeps_its_mode(self):
        path = self.folder / "file"
        self.addCleanup(os.umask, os.umask(0o077))
        os.close(open_or_make(path, os.O_RDWR))
        self.assertEqual(mode_of(path), 0o644)
        path.chmod(0o600)
        os.close(open_or_make(path, os.O_RDWR))
        self.assertEqual(mode_of(path), 0o600)

    def test_a_link_to_a_file_that_is_missing_makes_that_file(self):
        (self.folder / "link").symlink_to(self.folder / "target")
        os.close(open_or_make(self.folder / "link", os.O_RDWR))
        self.assertTrue((self.folder / "target").is_file())

    def test_a_file_for_which_there_is_no_room_is_named_and_nothing_else(self):
        path = self.folder / "pins.json"
        with file_size_limit(1), self.assertRaises(OSError) as raised:
            replace(path, b"content")
        self.assertRegex(str(raised.exception), f"^[^']*'{path}'$")

    def test_a_folder_gets_another_time_each_time(self):
        times = []
        for _ in range(3):
            renew_time(self.folder)
            times.append(self.folder.stat().st_mtime_ns)
        self.assertEqual(times, sorted(set(times)))


class SparesTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = self.data_dir / "version"
        self.path = self.folder / "hold.json"

    def test_a_spare_file_becomes_the_file_and_ends_where_its_content_does(self):
        make_spares(self.folder)
        count = len(list(self.folder.iterdir()))
        self.assertTrue(put_in_spare(self.path, b"{}"))
        self.assertEqual(self.path.read_bytes(), b"{}")
        self.assertEqual(len(list(self.folder.iterdir())), count + 1)  # there is room for another

    def test_without_a_spare_file_nothing_changes(self):
        self.path.write_bytes(b"before")
        self.assertFalse(put_in_spare(self.path, b"{}"))
        self.assertEqual(self.path.read_bytes(), b"before")

    def test_content_that_does_not_fit_leaves_the_old_file(self):
        make_spares(self.folder)
        self.path.write_bytes(b"before")
        with file_size_limit(16 * 1024):
            self.assertFalse(put_in_spare(self.path, bytes(17 * 1024)))
        self.assertEqual(self.path.read_bytes(), b"before")

    def test_one_that_was_cut_is_made_whole_again(self):
        make_spares(self.folder)
        (spare, *_) = sorted(self.folder.glob(".spare*"))
        os.truncate(spare, 5)
        make_spares(self.folder)
        self.assertEqual(spare.stat().st_size, 16 * 1024)
