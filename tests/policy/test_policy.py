"""The files of the policy, parsed and changed: good ones, broken ones, hostile ones."""

import json
import unittest
from collections.abc import Callable
from datetime import UTC, datetime

from ota_server.model.refusal import BadPolicy
from ota_server.policy.parse import (
    groups_by_key,
    parse_group,
    parse_pins,
    parse_stopped,
    parse_targets,
)
from ota_server.policy.policy import Pin, Stopped, is_group_name, make_policy
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    format_plan,
    in_force,
    parse_plan,
    parse_progress,
)
from ota_server.policy.text import (
    Who,
    parse_hold,
    parse_until,
    parse_who,
    with_members,
    with_pin,
    without_members,
    without_pin,
)

MAC = "00:11:22:33:44:55"
OTHER = "a0:b1:c2:d3:e4:f5"
PLAN = RolloutPlan("id1", "v1.2", "", (1.0, 100.0), "2026-11-24T12:00:00.000Z", "v1.1")
PROGRESS = RolloutProgress("id1", "running", 0, "2026-11-24T12:00:00.000Z")
# What is no file of ours whatever it should hold.
NO_OBJECTS = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"\xff\xfe{}",
    b"\0" * 100,
    b"{} {}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{'a': 1}",
)
NO_TIMES = (
    "5",
    '""',
    '"tomorrow"',
    '"2026-11-24"',
    '"2026-11-24T12:00:00"',
    '"0001-01-01T00:00:00+23:59"',
    '"9999-12-31T23:59:59-23:59"',
    '"1969-12-31T00:00:00Z"',
    "[]",
    "true",
)


def pinned(value: str) -> bytes:
    return f'{{"devices": {{"{MAC}": {value}}}}}'.encode()


class ParsingCase(unittest.TestCase):
    def assert_bad(self, parse: Callable[[bytes], object], *contents: bytes) -> None:
        for content in contents:
            with self.subTest(content[:80]), self.assertRaises(BadPolicy) as raised:
                parse(content)
            self.assertLess(len(str(raised.exception)), 300)


class PinsTest(ParsingCase):
    def test_pins_are_by_mac_and_by_group(self):
        content = (
            b'\xef\xbb\xbf{"devices": {"001122334455": {"version": "v1", "until": null}},'
            b' "groups": {"beta": {"version": "v2", "until": "2027-01-31T00:00:00Z", "x": 1}}}'
        )
        until_ms = int(datetime(2027, 1, 31, tzinfo=UTC).timestamp()) * 1000
        expected = ({MAC: Pin("v1", None)}, {"beta": Pin("v2", until_ms)})
        self.assertEqual(parse_pins(content), expected)

    def test_none_of_either_is_fine(self):
        for content in (b"{}", b'{"devices": {}, "groups": {}}', b'{"comment": "x"}'):
            with self.subTest(content):
                self.assertEqual(parse_pins(content), ({}, {}))

    def test_what_is_no_object_is_refused(self):
        self.assert_bad(parse_pins, *NO_OBJECTS)

    def test_wrong_pins_are_refused(self):
        self.assert_bad(
            parse_pins,
            b'{"devices": []}',
            b'{"groups": null}',
            *map(pinned, ("null", "[]", '"v1"', "{}", '{"version": null}', '{"version": 1}')),
            *map(pinned, ('{"version": ""}', '{"version": "../x"}', '{"version": "v1\\n"}')),
            *(pinned(f'{{"version": "v1", "until": {time}}}') for time in NO_TIMES),
            b'{"devices": {"00:11": {"version": "v1"}}}',
            b'{"devices": {"00:00:00:00:00:00": {"version": "v1"}}}',
            b'{"groups": {"../beta": {"version": "v1"}}}',
            b'{"groups": {"": {"version": "v1"}}}',
        )

    def test_a_device_that_is_pinned_twice_is_refused(self):
        pin = '{"version": "v1"}'
        self.assert_bad(
            parse_pins,
            f'{{"devices": {{"{MAC}": {pin}, "{MAC}": {pin}}}}}'.encode(),
            f'{{"devices": {{"{MAC}": {pin}, "00-11-22-33-44-55": {pin}}}}}'.encode(),
        )


class TargetsAndStoppedTest(ParsingCase):
    def test_targets_are_by_group(self):
        self.assertEqual(parse_targets(b'{"beta": "v1"}'), {"beta": "v1"})

    def test_wrong_targets_are_refused(self):
        self.assert_bad(
            parse_targets, *NO_OBJECTS, b'{"beta": null}', b'{"beta": ""}', b'{"B": "v1"}'
        )

    def test_what_was_stopped_is_by_meaning(self):
        content = b'{"v1.1": {"state": "withdrawn"}, "x": {"state": "aborted", "instead_of": "w"}}'
        expected = {"1.1": Stopped("v1.1", True, None), "x": Stopped("x", False, "w")}
        self.assertEqual(parse_stopped(content), expected)

    def test_wrong_ones_are_refused(self):
        self.assert_bad(
            parse_stopped,
            *NO_OBJECTS,
            b'{"v1": null}',
            b'{"v1": {}}',
            b'{"v1": {"state": "running"}}',
            b'{"v1": {"state": ["withdrawn"]}}',
            b'{"v1": {"state": "withdrawn", "instead_of": 5}}',
            b'{"": {"state": "withdrawn"}}',
            b'{"v1": {"state": "withdrawn"}, "1": {"state": "aborted"}}',
        )


class GroupTest(ParsingCase):
    def test_a_mac_a_line_in_any_spelling_with_blanks_and_comments(self):
        content = (
            "\ufeff# the lab\r\n001122334455\r\n\r\n  A0-B1-C2-D3-E4-F5  # window \u2028 x\n"
            "a0b1.c2d3.e4f5"
        ).encode()
        self.assertEqual(parse_group(content), [MAC, OTHER, OTHER])

    def test_an_empty_file_is_an_empty_group(self):
        for content in (b"", b"\n\n", b"# nobody", b"\xef\xbb\xbf"):
            with self.subTest(content):
                self.assertEqual(parse_group(content), [])

    def test_a_wrong_line_is_refused_by_its_number(self):
        for line in (b"00:11:22:33:44", b"all", b"ff:ff:ff:ff:ff:ff", b"\0", b"00:11 " * 9999):
            with (
                self.subTest(line[:40]),
                self.assertRaisesRegex(BadPolicy, "^line 2 is not a MAC address: .{0,60}$"),
            ):
                parse_group(MAC.encode() + b"\n" + line)

    def test_what_is_no_text_is_refused(self):
        self.assert_bad(parse_group, b"\xff\xfe0\x000\x00", b"\x80")

    def test_names_of_groups_are_narrow(self):
        for name in ("beta", "b", "site-7_north", "a" * 32):
            with self.subTest(name):
                self.assertTrue(is_group_name(name))
        for name in ("", "Beta", "7", "a" * 33, "../x", "a/b", "a.b", "a\n", "é", "-a", "a b"):
            with self.subTest(name):
                self.assertFalse(is_group_name(name))

    def test_a_device_in_several_groups_has_them_in_alphabetical_order_and_once(self):
        members = {"c": [MAC], "a": [MAC, OTHER, MAC], "b": []}
        self.assertEqual(groups_by_key("", members), {MAC: ("a", "c"), OTHER: ("a",)})


class PlainTest(unittest.TestCase):
    def test_a_policy_in_which_nothing_is_decided_is_plain(self):
        self.assertTrue(make_policy(images=frozenset("1"), groups={MAC: ("beta",)}).is_plain)

    def test_each_decision_makes_it_another(self):
        for decided in (
            {"problem": "x"},
            {"is_held": True},
            {"pins": ({MAC: Pin("v1", None)}, {})},
            {"pins": ({}, {"beta": Pin("v1", None)})},
            {"group_targets": {"beta": "v1"}},
            {"stopped": {"1": Stopped("v1", True, None)}},
            {"unusable": {"1": "is not JSON"}},
        ):
            with self.subTest(decided):
                self.assertFalse(make_policy(**decided).is_plain)


class PlanTest(ParsingCase):
    def broken(self, plan: RolloutPlan | RolloutProgress, **fields: object) -> bytes:
        return json.dumps({**plan._asdict(), **fields}).encode()

    def test_a_plan_and_a_progress_are_read_as_they_were_written(self):
        self.assertEqual(parse_plan(format_plan(PLAN)), PLAN)
        self.assertEqual(parse_progress(format_plan(PROGRESS)), PROGRESS)

    def test_fields_that_are_not_known_are_ignored(self):
        self.assertEqual(parse_plan(self.broken(PLAN, further=1)), PLAN)

    def test_what_is_no_object_is_neither(self):
        self.assert_bad(parse_plan, *NO_OBJECTS, b"{}")
        self.assert_bad(parse_progress, *NO_OBJECTS, b"{}")

    def test_wrong_plans_are_refused(self):
        wrong: dict[str, tuple[object, ...]] = {
            "id": (None, 5, ["x"]),
            "version": (None, 5, "", "../x", ["v1"]),
            "group": (None, 5, 0, "B", ["beta"]),
            "first_group": (5, "B"),
            "instead_of": (5, "", ["v1"]),
            "waves": (None, [], 5, "1", [0, 100], [10], [50, 10, 100], [100, 100], [None], [101]),
            "time": (None, 5, "", "2026-11-24", "9999-12-31T23:59:59-23:59"),
            "wanted": (None, "go", ["run"]),
            "held_unknown": ("drop", 1),
            "promoted": ("1", None, 1.5, True),
            "max_failures": (None, "2", -1, 100, float("nan"), float("inf")),
            "min_devices": (0, 10**9, "20", float("nan")),
            "soak_seconds": (-1, "1h", 10**12, float("nan")),
            "groups_too": (None, 1, "no"),
            "counted": (5, ["x"], [1.5], [-1], [True]),
        }
        for name, values in wrong.items():
            self.assert_bad(parse_plan, *(self.broken(PLAN, **{name: each}) for each in values))

    def test_a_number_beyond_all_bounds_is_refused(self):
        huge = b"1" + b"0" * 400
        for name in ("waves", "max_failures", "min_devices", "soak_seconds"):
            value = b"[%b]" % huge if name == "waves" else huge
            content = format_plan(PLAN._replace(**{name: 0})).replace(
                b'"%b": 0' % name.encode(), b'"%b": %b' % (name.encode(), value)
            )
            self.assert_bad(parse_plan, content)

    def test_wrong_progresses_are_refused(self):
        wrong: dict[str, tuple[object, ...]] = {
            "state": (None, "done!", ["running"]),
            "wave": (-1, True, 1.5, "1", None),
            "wave_time": (None, 5, "", "2026-11-24"),
        }
        for name, values in wrong.items():
            self.assert_bad(
                parse_progress, *(self.broken(PROGRESS, **{name: each}) for each in values)
            )

    def test_what_the_controller_has_not_seen_yet_offers_nothing(self):
        for progress in (None, PROGRESS._replace(id="another"), PROGRESS._replace(wave=999)):
            with self.subTest(progress):
                found = in_force(PLAN, progress)
                self.assertEqual((found.state, found.percent), ("paused", 0.0))

    def test_what_is_over_is_in_force_no_more(self):
        for state in ("halted", "done", "aborted"):
            with self.subTest(state):
                self.assertIsNone(in_force(PLAN, PROGRESS._replace(state=state)))
        self.assertIsNone(in_force(PLAN._replace(wanted="abort"), PROGRESS))


class WhoAndWhenTest(unittest.TestCase):
    def test_a_mac_is_a_device_though_it_could_name_a_group(self):
        for text, who in (
            ("00-11-22-33-44-55", Who("devices", MAC)),
            ("a0b1c2d3e4f5", Who("devices", OTHER)),
            ("beta", Who("groups", "beta")),
            ("00:11:22", None),
            ("Beta", None),
            ("", None),
        ):
            with self.subTest(text):
                self.assertEqual(parse_who(text), who)

    def test_a_date_is_its_beginning_in_utc_unless_it_has_an_offset(self):
        for text, moment in (
            ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
            ("2027-01-31Z", datetime(2027, 1, 31, tzinfo=UTC)),
            ("2027-01-31+02:00", datetime(2027, 1, 30, 22, tzinfo=UTC)),
            ("2027-01-31T18:30:00-01:00", datetime(2027, 1, 31, 19, 30, tzinfo=UTC)),
            ("2027-01-31t18:30:00.5z", datetime(2027, 1, 31, 18, 30, 0, 500_000, tzinfo=UTC)),
        ):
            with self.subTest(text):
                self.assertEqual(parse_until(text), round(moment.timestamp() * 1000))

    def test_what_is_no_time_is_refused(self):
        for text in (
            "",
            "tomorrow",
            "2027-02-30",
            "2027-1-31",
            "2027-01-31T18:30:00",
            "20270131",
            "2027-W05-1",
            "٢٠٢٧-01-31",
            "2027-01-31T25:00:00Z",
            "1969-01-31",
            "9999-12-31T23:59:59-23:59",
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                parse_until(text)


class ChangedPinsTest(unittest.TestCase):
    def test_a_pin_is_added_replaced_in_any_spelling_and_removed(self):
        first = with_pin(b"", Who("devices", MAC), "v1", None)
        self.assertEqual(parse_pins(first), ({MAC: Pin("v1", None)}, {}))
        by_hand = first.replace(MAC.encode(), b"00-11-22-33-44-55")
        second = with_pin(by_hand, Who("devices", MAC), "v2", 0)
        self.assertEqual(parse_pins(second), ({MAC: Pin("v2", 0)}, {}))
        self.assertEqual(parse_pins(without_pin(by_hand, Who("devices", MAC))), ({}, {}))

    def test_what_else_is_in_the_file_stays(self):
        content = b'{"comment": "ask Ann", "groups": {"beta": {"version": "v1", "why": "x"}}}'
        after = json.loads(with_pin(content, Who("devices", MAC), "v2", None))
        self.assertEqual(after["comment"], "ask Ann")
        self.assertEqual(after["groups"], {"beta": {"version": "v1", "why": "x"}})

    def test_a_broken_file_is_not_changed(self):
        for content in (b"{", b'{"devices": []}'):
            with self.subTest(content), self.assertRaises(BadPolicy):
                with_pin(content, Who("groups", "beta"), "v1", None)


class ChangedGroupTest(unittest.TestCase):
    BY_HAND = b"# the lab\r\n001122334455 # door\r\n\r\nA0-B1-C2-D3-E4-F5"

    def test_new_devices_go_to_the_end_and_the_rest_stays_as_it_is(self):
        after, added = with_members(self.BY_HAND, [MAC, "02:00:00:00:00:01", "02:00:00:00:00:01"])
        self.assertEqual(after, self.BY_HAND + b"\r\n02:00:00:00:00:01\r\n")
        self.assertEqual(added, ["02:00:00:00:00:01"])

    def test_nothing_new_changes_nothing(self):
        self.assertEqual(with_members(self.BY_HAND, [MAC, OTHER]), (self.BY_HAND, []))

    def test_the_line_of_a_device_goes_and_the_rest_stays_as_it_is(self):
        after, removed = without_members(self.BY_HAND, [MAC, "02:00:00:00:00:01"])
        self.assertEqual((after, removed), (b"# the lab\r\n\r\nA0-B1-C2-D3-E4-F5", [MAC]))

    def test_each_line_of_a_device_goes(self):
        content = b"\xef\xbb\xbf001122334455\n00:11:22:33:44:55\n"
        self.assertEqual(without_members(content, [MAC]), (b"", [MAC]))

    def test_a_comment_with_a_strange_line_end_stays_a_comment(self):
        content = f"{MAC}\n{OTHER} # a\u2028b\x0bc\x85d\n".encode()
        after, _ = without_members(content, [MAC])
        self.assertEqual(parse_group(after), [OTHER])

    def test_a_broken_list_is_not_changed(self):
        for change in (with_members, without_members):
            with self.subTest(change.__name__), self.assertRaises(BadPolicy):
                change(b"all of them\n", [MAC])


class HoldTest(unittest.TestCase):
    def test_the_reason_is_read_where_there_is_one(self):
        for content, reason in (
            (b'{"reason": "it reboots"}', "it reboots"),
            (b"", ""),
            (b"{", ""),
            (b"[]", ""),
            (b'{"reason": 5}', ""),
            (b"\xff", ""),
            (b"[" * 100_000, ""),
        ):
            with self.subTest(content[:40]):
                self.assertEqual(parse_hold(content).reason, reason)
