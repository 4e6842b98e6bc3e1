"""Ranges and conditions, by the tables of RFC 9110 sections 13 and 14."""

import time
import unittest

from ota_server.httpd.byterange import (
    MAX_RANGES,
    Precondition,
    RangeSpec,
    Span,
    Unsatisfiable,
    from_byte_zero,
    if_range_matches,
    parse_date,
    parse_ranges,
    precondition,
    resolve,
)

SIZE = 10_000
TAG = '"abc"'
MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
EARLIER = b"Sun, 06 Nov 1994 08:49:36 GMT"
SAME = b"Sun, 06 Nov 1994 08:49:37 GMT"
LATER = b"Sun, 06 Nov 1994 08:49:38 GMT"
SECONDS = 0.5


def spans(value: bytes, size: int = SIZE) -> tuple[Span, ...]:
    """Return what a Range field asks for of an image of `size` bytes."""
    specs = parse_ranges(value)
    return resolve(specs, size) if specs else ()


class RangeTest(unittest.TestCase):
    def test_ranges_are_resolved_as_rfc_9110_has_them(self):
        for value, expected in (
            (b"bytes=0-499", [(0, 500)]),
            (b"bytes=500-999", [(500, 1000)]),
            (b"bytes=-500", [(9500, 10000)]),
            (b"bytes=9500-", [(9500, 10000)]),
            (b"bytes=0-0,-1", [(0, 1), (9999, 10000)]),
            (b"bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
            (b"bytes=0-", [(0, 10000)]),
            (b"bytes=0-0", [(0, 1)]),
            (b"bytes=9999-9999", [(9999, 10000)]),
            (b"bytes=0-99999", [(0, 10000)]),
            (b"bytes=-99999", [(0, 10000)]),
            (b"bytes=0005-0009", [(5, 10)]),
            (b"BYTES=1-2", [(1, 3)]),
            (b"bytes=1-2 ,\t5-6", [(1, 3), (5, 7)]),
        ):
            with self.subTest(value):
                self.assertEqual(spans(value), tuple(expected))

    def test_several_ranges_keep_the_order_that_was_asked_for(self):
        self.assertEqual(spans(b"bytes=700-799,100-199"), ((700, 800), (100, 200)))
        self.assertEqual(spans(b"bytes=100-199,200-299"), ((100, 200), (200, 300)))

    def test_no_byte_is_sent_twice(self):
        for value, expected in (
            (b"bytes=500-600,601-999", [(500, 601), (601, 1000)]),
            (b"bytes=500-700,601-999", [(500, 1000)]),
            (b"bytes=601-999,500-700", [(500, 1000)]),
            (b"bytes=0-,0-", [(0, 10000)]),
            (b"bytes=0-9999,5-6,-1", [(0, 10000)]),
            (b"bytes=5-6,0-9,20-29", [(0, 10), (20, 30)]),
        ):
            with self.subTest(value):
                self.assertEqual(spans(value), tuple(expected))

    def test_ranges_outside_of_the_image_are_left_out_while_one_lies_in_it(self):
        self.assertEqual(spans(b"bytes=10000-,3-4,99999-100000"), ((3, 5),))

    def test_ranges_that_all_lie_outside_of_the_image_cannot_be_satisfied(self):
        for value in (b"bytes=10000-", b"bytes=10000-10001", b"bytes=-0", b"bytes=-0,10000-"):
            with self.subTest(value), self.assertRaises(Unsatisfiable):
                spans(value)
        with self.assertRaises(Unsatisfiable):
            spans(b"bytes=0-", size=0)

    def test_a_malformed_range_or_one_in_another_unit_is_ignored(self):
        for value in (
            *(b"", b"bytes", b"bytes=", b"bytes=-", b"bytes=a-b", b"bytes=1", b"bytes=1-2-3"),
            *(b"bytes=5-4", b"bytes=+1-2", b"bytes=1_0-20", b"bytes=1 -2", b"bytes=1- 2"),
            *(b"bytes=0x1-2", b"bytes=1.0-2", b"bytes=--1", b"bytes=0-1;2-3", b"bytes 0-1/2"),
            *(b"bytes:0-1", b"items=0-1", b"byte=0-1", b"bytes=0-1,", b"bytes=,0-1", b"bytes=*"),
            *(b"bytes=0-1,x", b"bytes=0-1, bytes=2-3", b"bytes=5-4,0-1", "bytes=\u0661-".encode()),
            *(b"bytes=\xb2-", b" bytes=0-1", b"bytes =0-1", b"bytes=0-1\x00", b"bytes=1-2\n"),
        ):
            with self.subTest(value):
                self.assertEqual(parse_ranges(value), ())
        self.assertEqual(parse_ranges(None), ())

    def test_more_ranges_than_an_update_needs_are_ignored(self):
        def value(count: int) -> bytes:
            return b"bytes=" + b",".join(b"%d-%d" % (n * 9, n * 9) for n in range(count))

        self.assertEqual(len(spans(value(MAX_RANGES))), MAX_RANGES)
        self.assertEqual(parse_ranges(value(MAX_RANGES + 1)), ())

    def test_numbers_beyond_any_file_are_taken_for_what_they_mean(self):
        huge = b"9" * 8000
        self.assertEqual(spans(b"bytes=5-" + huge), ((5, SIZE),))
        self.assertEqual(spans(b"bytes=-" + huge), ((0, SIZE),))
        self.assertEqual(spans(b"bytes=" + b"0" * 8000 + b"5-6"), ((5, 7),))
        for value in (b"bytes=" + huge + b"-", b"bytes=" + huge + b"-" + huge):
            with self.subTest(value[:12]), self.assertRaises(Unsatisfiable):
                spans(value)

    def test_a_range_begins_at_byte_zero_where_one_of_its_parts_does(self):
        for value, expected in (
            (b"bytes=0-", True),
            (b"bytes=0-0", True),
            (b"bytes=5-,0-1", True),
            (b"bytes=1-", False),
            (b"bytes=-5", False),
            (b"", False),
        ):
            with self.subTest(value):
                self.assertIs(from_byte_zero(parse_ranges(value)), expected)

    def test_spans_lie_in_the_image_and_apart_whatever_is_asked_for(self):
        edges: list[int | None] = [None, 0, 1, 4, 5, 6, 10**18]
        one = [(a, b) for a in edges for b in edges if (a, b) != (None, None)]
        one = [(a, b) for a, b in one if a is None or b is None or a <= b]
        for first in one:
            for second in one:
                self.assert_spans((first, second), 5)

    def assert_spans(self, specs: tuple[RangeSpec, ...], size: int) -> None:
        wanted = set()
        for first, last in specs:
            if first is None:
                wanted |= set(range(max(0, size - (last or 0)), size))
            else:
                wanted |= set(range(first, size if last is None else min(size, last + 1)))
        try:
            found = [byte for span in resolve(specs, size) for byte in range(*span)]
        except Unsatisfiable:
            found = []
        self.assertEqual(sorted(found), sorted(wanted), specs)


class PreconditionTest(unittest.TestCase):
    def assert_conditions(self, table: list[tuple[dict[bytes, bytes], Precondition]]) -> None:
        for fields, expected in table:
            with self.subTest(fields):
                self.assertIs(precondition(fields, TAG, MODIFIED), expected)

    def test_if_match_is_met_by_the_strong_tag_alone(self):
        met, failed = Precondition.MET, Precondition.FAILED
        self.assert_conditions(
            [
                ({b"if-match": b'"abc"'}, met),
                ({b"if-match": b"*"}, met),
                ({b"if-match": b'"x", "abc"'}, met),
                ({b"if-match": b'"x","abc"\t,"y"'}, met),
                ({b"if-match": b'W/"abc"'}, failed),
                ({b"if-match": b'"x"'}, failed),
                ({b"if-match": b'"x, "abc"'}, failed),
                ({b"if-match": b"abc"}, failed),
                ({b"if-match": b""}, failed),
                ({b"if-match": b'"ABC"'}, failed),
            ]
        )

    def test_if_none_match_compares_weakly(self):
        met, not_modified = Precondition.MET, Precondition.NOT_MODIFIED
        self.assert_conditions(
            [
                ({b"if-none-match": b'"abc"'}, not_modified),
                ({b"if-none-match": b'W/"abc"'}, not_modified),
                ({b"if-none-match": b'"x", W/"abc"'}, not_modified),
                ({b"if-none-match": b"*"}, not_modified),
                ({b"if-none-match": b" * "}, not_modified),
                ({b"if-none-match": b'"x"'}, met),
                ({b"if-none-match": b"abc"}, met),
                ({b"if-none-match": b'w/"abc"'}, met),
                ({b"if-none-match": b'"a,"abc",b"'}, met),
                ({b"if-none-match": b'"x,"'}, met),
                ({b"if-none-match": b""}, met),
            ]
        )

    def test_a_tag_that_holds_a_comma_is_one_tag(self):
        fields = {b"if-none-match": b'"a,b", "c"'}
        self.assertIs(precondition(fields, '"a,b"', None), Precondition.NOT_MODIFIED)
        self.assertIs(precondition(fields, '"b"', None), Precondition.MET)

    def test_empty_elements_of_a_list_of_tags_are_ignored(self):
        for value in (b'"abc",', b',"abc"', b'"x", ,"abc"', b'"x",,"abc" , '):
            with self.subTest(value):
                fields = {b"if-none-match": value}
                self.assertIs(precondition(fields, TAG, None), Precondition.NOT_MODIFIED)

    def test_dates_are_compared_with_the_time_of_the_last_change(self):
        met, failed = Precondition.MET, Precondition.FAILED
        not_modified = Precondition.NOT_MODIFIED
        self.assert_conditions(
            [
                ({b"if-modified-since": EARLIER}, met),
                ({b"if-modified-since": SAME}, not_modified),
                ({b"if-modified-since": LATER}, not_modified),
                ({b"if-modified-since": b"yesterday"}, met),
                ({b"if-unmodified-since": EARLIER}, failed),
                ({b"if-unmodified-since": SAME}, met),
                ({b"if-unmodified-since": LATER}, met),
                ({b"if-unmodified-since": b"yesterday"}, met),
                ({b"if-unmodified-since": b"Mon, 05 Jan 1959 00:00:00 GMT"}, failed),
            ]
        )

    def test_conditions_are_evaluated_in_the_order_of_rfc_9110(self):
        met, failed = Precondition.MET, Precondition.FAILED
        not_modified = Precondition.NOT_MODIFIED
        self.assert_conditions(
            [
                ({b"if-match": b'"abc"', b"if-unmodified-since": EARLIER}, met),
                ({b"if-match": b'"x"', b"if-none-match": b'"abc"'}, failed),
                ({b"if-match": b'"abc"', b"if-none-match": b'"abc"'}, not_modified),
                ({b"if-none-match": b'"x"', b"if-modified-since": LATER}, met),
                ({b"if-none-match": b'"abc"', b"if-modified-since": EARLIER}, not_modified),
                ({b"if-unmodified-since": EARLIER, b"if-none-match": b'"abc"'}, failed),
                ({b"if-unmodified-since": LATER, b"if-modified-since": LATER}, not_modified),
                ({}, met),
            ]
        )

    def test_dates_are_ignored_where_the_image_has_none(self):
        for fields in ({b"if-modified-since": LATER}, {b"if-unmodified-since": EARLIER}):
            with self.subTest(fields):
                self.assertIs(precondition(fields, TAG, None), Precondition.MET)


class IfRangeTest(unittest.TestCase):
    def test_a_range_is_honoured_where_the_tag_is_strong_and_the_same(self):
        for value, expected in (
            (None, True),
            (b'"abc"', True),
            (b' "abc"\t', True),
            (b'W/"abc"', False),
            (b'"x"', False),
            (b'"abc", "x"', False),
            (b"abc", False),
            (b"*", False),
            (b"", False),
        ):
            with self.subTest(value):
                self.assertIs(if_range_matches(value, TAG, MODIFIED, MODIFIED + 60), expected)

    def test_a_date_must_be_that_of_the_last_change_itself(self):
        for value, expected in ((EARLIER, False), (SAME, True), (LATER, False), (b"soon", False)):
            with self.subTest(value):
                self.assertIs(if_range_matches(value, TAG, MODIFIED, MODIFIED + 60), expected)

    def test_a_date_is_no_strong_validator_within_its_own_second(self):
        self.assertIs(if_range_matches(SAME, TAG, MODIFIED, MODIFIED), False)
        self.assertIs(if_range_matches(SAME, TAG, MODIFIED, MODIFIED + 1), True)

    def test_a_date_never_matches_where_dates_are_ignored(self):
        self.assertIs(if_range_matches(SAME, TAG, None, MODIFIED + 60), False)


class DateTest(unittest.TestCase):
    def test_all_three_forms_of_a_date_are_read(self):
        for value in (
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ):
            with self.subTest(value):
                self.assertEqual(parse_date(value), MODIFIED)

    def test_times_at_the_edges_are_read(self):
        for value, seconds in (
            (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
            (b"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
            (b"Thu, 29 Feb 2024 00:00:00 GMT", 1709164800),
            (b"Friday, 31-Dec-99 23:59:59 GMT", 946684799),
            (b"Saturday, 01-Jan-00 00:00:00 GMT", 946684800),
        ):
            with self.subTest(value):
                self.assertEqual(parse_date(value), seconds)

    def test_what_is_no_date_is_none(self):
        for value in (
            *(None, b"", b"0", b"784111777", b"now", b"Sun, 06 Nov 1994 08:49:37"),
            *(b"Sun, 06 Nov 1994 08:49:37 UTC", b"Sun, 06 Nov 1994 08:49:37 +0000"),
            *(b"Sun, 6 Nov 1994 08:49:37 GMT", b"sun, 06 nov 1994 08:49:37 gmt"),
            *(b"Sun, 06 Nov 94 08:49:37 GMT", b"Sun, 06 Nov 1994 24:00:00 GMT"),
            *(b"Sun, 06 Nov 1994 08:60:37 GMT", b"Sun, 06 Nov 1994 08:49:61 GMT"),
            *(b"Sun, 00 Nov 1994 08:49:37 GMT", b"Sun, 32 Nov 1994 08:49:37 GMT"),
            *(b"Sun, 06 Nov 0000 08:49:37 GMT", b"Sun, 06 Xxx 1994 08:49:37 GMT"),
            *(b"Sun, 06 Nov 19944 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:37 GMT\n"),
            *(b" Sun, 06 Nov 1994 08:49:37 GMT", b"Sun Nov 06  08:49:37 1994"),
            *("Sun, \u0660\u0666 Nov 1994 08:49:37 GMT".encode(), b"\xff" * 29, b"\0" * 29),
        ):
            with self.subTest(value):
                self.assertIsNone(parse_date(value))

    def test_no_day_of_any_month_fails(self):
        for month in b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split():
            for day in range(100):
                for year in (0, 1, 1582, 1970, 9999):
                    parse_date(b"Sun, %02d %b %04d 08:49:37 GMT" % (day, month, year))
                parse_date(b"Sun %b %2d 08:49:37 0000" % (month, day))


class CostTest(unittest.TestCase):
    def test_no_field_takes_long(self):
        room = 16_000
        for name, call in (
            ("ranges", lambda: parse_ranges(b"bytes=" + b"1-2," * (room // 4))),
            ("commas", lambda: parse_ranges(b"bytes=" + b"," * room)),
            ("blanks", lambda: parse_ranges(b"bytes=" + b" " * room + b"x")),
            ("digits", lambda: spans(b"bytes=0-" + b"1" * room)),
            ("tags", lambda: self.match(b'"a" ,' * (room // 5) + b"x")),
            ("blanks after a tag", lambda: self.match(b'"a"' + b" " * room + b"x")),
            ("blanks after a comma", lambda: self.match(b'"a",' + b" " * room + b"x")),
            ("blanks and commas", lambda: self.match(b'"a"' + b" ," * (room // 2) + b"x")),
            ("commas in tags", lambda: self.match(b'"a"' + b"," * room + b"x")),
            ("quotes", lambda: self.match(b'"' * room)),
            ("open tag", lambda: self.match(b'"' + b"a" * room)),
            ("weak marks", lambda: self.match(b"W/" * (room // 2))),
            ("If-Range", lambda: if_range_matches(b'"' + b" " * room, TAG, 0, 0)),
            ("date", lambda: parse_date(b"Sun, " + b" " * room)),
        ):
            with self.subTest(name):
                begin = time.process_time()
                call()
                self.assertLess(time.process_time() - begin, SECONDS)

    def test_more_ranges_than_are_honoured_are_not_even_read(self):
        field = b"bytes=" + b"1-2," * 4000
        begin = time.process_time()
        for _ in range(200):
            self.assertEqual(parse_ranges(field), ())
        self.assertLess(time.process_time() - begin, SECONDS / 5)

    def match(self, value: bytes) -> Precondition:
        return precondition({b"if-none-match": value}, TAG, None)
