"""The ids of notices."""

import unittest

from ota_server.model.notice import notice_id


class NoticeIdTest(unittest.TestCase):
    def test_it_is_the_same_for_the_same_parts_and_has_no_full_stop(self):
        self.assertEqual(notice_id("a", 1, ("b",)), notice_id("a", 1, ("b",)))
        self.assertRegex(notice_id("a"), r"^[0-9a-f]{24}$")

    def test_no_other_parts_have_it(self):
        parts = (("a", "b"), ("ab",), ("a,b",), ('a","b',), ("a", 1), ("a", "1"), ("a", ("b",)))
        self.assertEqual(len({notice_id(*each) for each in parts}), len(parts))
