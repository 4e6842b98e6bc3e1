"""The file of the device index: made, opened, refused."""

import sqlite3
from contextlib import closing

from ota_server.operations.index_schema import (
    Unusable,
    boot_id,
    delete,
    get_meta,
    is_damage,
    make,
    open_to_read,
    open_to_write,
    path_of,
    put_meta,
)
from ota_server.system.data_dir import product_dir
from tests.support import DataDirCase


class FileTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = path_of(self.data_dir)

    def test_products_have_that_of_their_server(self):
        (self.data_dir / "products" / "plug").mkdir(parents=True)
        self.assertEqual(path_of(product_dir(self.data_dir, "plug")), self.path)

    def test_what_was_put_on_record_is_there_for_the_next_one(self):
        with closing(make(self.path)) as written:
            put_meta(written, "name", "value")
            self.assertEqual(get_meta(written, "boot"), boot_id())
        for opened in (open_to_write(self.path), open_to_read(self.path)):
            with closing(opened):
                self.assertEqual(get_meta(opened, "name"), "value")
                self.assertIsNone(get_meta(opened, "other"))

    def test_a_reader_holds_up_no_writer_and_cannot_write(self):
        with closing(make(self.path)) as written, closing(open_to_read(self.path)) as read:
            read.execute("BEGIN")
            self.assertIsNone(get_meta(read, "name"))
            put_meta(written, "name", "value")
            self.assertIsNone(get_meta(read, "name"))
            read.execute("COMMIT")
            self.assertEqual(get_meta(read, "name"), "value")
            with self.assertRaises(sqlite3.OperationalError):
                put_meta(read, "name", "other")

    def test_a_log_that_was_left_behind_is_not_taken_for_that_of_a_new_file(self):
        with closing(make(self.path)) as written:
            put_meta(written, "name", "value")
            left = [self.path.with_name(f"{self.path.name}{end}") for end in ("-wal", "-shm")]
            contents = [path.read_bytes() for path in left]
        self.path.unlink()
        for path, content in zip(left, contents, strict=True):
            path.write_bytes(content)
        with self.assertRaises(Unusable):
            open_to_write(self.path)
        with closing(make(self.path)) as made:
            self.assertIsNone(get_meta(made, "name"))

    def test_deleting_what_is_not_there_is_no_failure(self):
        delete(self.path)
        self.assertEqual([*self.path.parent.iterdir()], [])

    def test_a_disk_that_is_full_or_a_file_in_use_is_no_damage(self):
        for code, is_one in (
            (sqlite3.SQLITE_FULL, False),
            (sqlite3.SQLITE_BUSY, False),
            (sqlite3.SQLITE_IOERR, False),
            (sqlite3.SQLITE_CORRUPT, True),
            (sqlite3.SQLITE_CORRUPT_INDEX, True),
            (sqlite3.SQLITE_NOTADB, True),
        ):
            problem = sqlite3.DatabaseError("x")
            problem.sqlite_errorcode = code
            with self.subTest(code=code):
                self.assertEqual(is_damage(problem), is_one)
        self.assertTrue(is_damage(sqlite3.OperationalError("no such table: devices")))
