"""Cursors of lists: what was written is read, and nothing else."""

import unittest

from ota_server.operations.device_filter import BadCursor
from ota_server.operator_port.list_place import part_after, read_place, write_place


class ListPlaceTest(unittest.TestCase):
    def test_a_place_is_read_as_it_was_written(self):
        for place in (0, 10**15, "", "id:a/b ü"):
            with self.subTest(place):
                self.assertEqual(read_place(write_place(place), type(place)), place)
        self.assertIsNone(read_place(None, int))

    def test_what_was_not_written_here_is_refused(self):
        for cursor in ("", "x", "!", "W10", "WzEsMl0", "bnVsbA", "W3RydWVd", "A" * 5000):
            with self.subTest(cursor), self.assertRaises(BadCursor):
                read_place(cursor, int)

    def test_each_item_that_stays_is_visited_once_while_others_come_and_go(self):
        items = [("", "b"), ("", "d"), ("p", "a"), ("p", "c")]
        shown, cursor = part_after(items, tuple, None, 2)
        self.assertEqual(shown, items[:2])
        items = [("", "a"), ("", "b"), ("", "e"), ("p", "a"), ("p", "c")]  # one comes, one goes
        shown, cursor = part_after(items, tuple, cursor, 2)
        self.assertEqual(shown, items[2:4])
        self.assertEqual(part_after(items, tuple, cursor, 2), (items[4:], None))
        self.assertEqual(part_after([], tuple, cursor, 2), ([], None))
        with self.assertRaises(BadCursor):
            part_after([("b",)], tuple, cursor, 2)

    def test_the_cursor_of_a_list_of_another_kind_is_refused(self):
        with self.assertRaises(BadCursor):
            read_place(write_place("a"), int)
