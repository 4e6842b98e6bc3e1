"""Filters and cursors of the device index: what a URL may hold, and what is made of it."""

import base64
import json
import unittest
from ipaddress import ip_network

from ota_server.operations.device_filter import (
    ALL_DEVICES,
    SORTS,
    BadCursor,
    DeviceFilter,
    Place,
    beyond,
    format_cursor,
    parse_cursor,
    where,
)
from ota_server.policy.device_state import Condition

NOW_MS = 1_800_000_000_000
VALUES = {str: "v1.0", int: 17, bytes: b"\x04\x00\x01\x02\x03"}


def made_of(fields: object) -> str:
    """Return any JSON as a cursor."""
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


class CursorTest(unittest.TestCase):
    def test_a_place_survives_its_way_through_a_url(self):
        for sort, column in SORTS.items():
            for is_backward in (False, True):
                with self.subTest(sort, back=is_backward):
                    place = Place(VALUES[column.kind], 2**62 + 5, is_backward)
                    text = format_cursor(place, ALL_DEVICES, sort, True)
                    self.assertRegex(text, r"\A[A-Za-z0-9_-]+\Z")
                    self.assertEqual(parse_cursor(text, ALL_DEVICES, sort, True), place)

    def test_it_holds_any_text(self):
        for label in ("", "Pümpe \U0001f600", "\u202egnp", "'; DROP TABLE devices; --", "\udc80"):
            text = format_cursor(Place(label, 1), ALL_DEVICES, "label", False)
            place = parse_cursor(text, ALL_DEVICES, "label", False)
            self.assertEqual(place.value, label.replace("\udc80", "?"))

    def test_a_cursor_of_another_list_is_refused(self):
        mine = format_cursor(Place("v1", 1), DeviceFilter(group="beta"), "version", False)
        for wanted, sort, descending in (
            (ALL_DEVICES, "version", False),
            (DeviceFilter(group="beta"), "target", False),
            (DeviceFilter(group="beta"), "version", True),
        ):
            with self.subTest(sort), self.assertRaises(BadCursor):
                parse_cursor(mine, wanted, sort, descending)

    def test_what_is_no_cursor_is_refused(self):
        right = json.loads(
            base64.urlsafe_b64decode(format_cursor(Place(17, 1), ALL_DEVICES, "seen", False) + "==")
        )
        digest = right[3]
        for text in (
            *("", "=", "a", "%", "\n", "é", "A" * 5000, made_of([]), made_of({}), made_of(7)),
            *(made_of([17, 1, 0]), made_of([17, 1, 0, "other"]), made_of(["17", 1, 0, digest])),
            *(made_of([17, "1", 0, digest]), made_of([17, 1, 7, digest]), "W" * 4000),
            *(made_of([True, 1, 0, digest]), made_of([1.5, 1, 0, digest])),
            *(made_of([2**63, 1, 0, digest]), made_of([1, -(2**70), 0, digest])),
            made_of([None, 1, 0, digest]),
        ):
            with self.subTest(text[:40]), self.assertRaises(BadCursor):
                parse_cursor(text, ALL_DEVICES, "seen", False)
        with self.assertRaises(BadCursor):
            parse_cursor(made_of(["zz", 1, 0, digest]), ALL_DEVICES, "address", False)

    def test_what_lies_beyond_depends_on_the_way(self):
        for descending, is_backward, sign in (
            (False, False, ">"),
            (False, True, "<"),
            (True, False, "<"),
            (True, True, ">"),
        ):
            same, other = beyond(Place(5, 7, is_backward), "seen", descending)
            self.assertEqual(same, (f"seen_ms = ? AND number {sign} ?", (5, 7)))
            self.assertEqual(other, (f"seen_ms {sign} ?", (5,)))


class WhereTest(unittest.TestCase):
    def test_what_was_typed_is_never_a_part_of_the_statement(self):
        hostile = "x'); DROP TABLE devices; --%_\\"
        wanted = DeviceFilter(
            text=hostile,
            versions=(hostile,),
            not_versions=(hostile,),
            families=(hostile,),
            product=hostile,
            group=hostile,
            label=hostile,
        )
        sql, values = where(wanted, NOW_MS)
        self.assertNotIn("DROP", sql)
        self.assertEqual(sql.count("?"), len(values))

    def test_a_filter_without_wishes_lets_all_through(self):
        self.assertEqual(where(ALL_DEVICES, NOW_MS), ("(condition < ?)", (9,)))
        self.assertTrue(ALL_DEVICES.is_all and DeviceFilter(product="plug").is_all)
        for wanted in (
            DeviceFilter(outdated=True),
            DeviceFilter(states=(Condition.AWAY,)),
            DeviceFilter(network=ip_network("10.0.0.0/8")),
        ):
            self.assertFalse(wanted.is_all)

    def test_any_number_of_seconds_is_a_time(self):
        for seconds in (0.0, -5.0, 1e300, float("inf")):
            _, values = where(DeviceFilter(not_seen_seconds=seconds), NOW_MS)
            self.assertTrue(all(-(2**63) <= value < 2**63 for value in values))
