"""Rows of the device index: a device survives its way through one, and what is made of it."""

import random
import unittest
from ipaddress import ip_address

from ota_server.model.action import Action, ActionState, PinnedImage
from ota_server.model.device import first_seen_hour
from ota_server.operations.device_filter import Stage
from ota_server.operations.index_row import (
    NO_MARKS,
    NO_STATE,
    IndexedState,
    cause_of,
    device_of,
    interval_after,
    make_row,
    order_of_address,
    restated,
)
from ota_server.policy.device_state import Condition
from ota_server.policy.reason import Cause, Reason
from tests.support.index import HOUR_MS, SHA, a_device, any_device, key_of

NOW_MS = 1_800_000_000_000
ACTION = Action(
    101, 101, ActionState.FAILED, PinnedImage("v2", SHA, 9), NOW_MS - 5, 2, "v1", "attribute"
)


def state(condition: Condition, cause: Cause) -> IndexedState:
    return IndexedState(condition, cause, "v1.0", Stage.TOLD, True, False, None, None)


class RowTest(unittest.TestCase):
    def test_a_device_survives_its_way_through_a_row(self):
        chance = random.Random(1)
        for number in range(200):
            device = any_device(chance, NOW_MS)
            action = chance.choice((None, ACTION))
            device = device._replace(action=action, image_only=chance.random() < 0.3)
            row = make_row(key_of(number), device, NO_STATE, NO_MARKS, None, NOW_MS)
            self.assertEqual(device_of(row), device._replace(time_ms=device.last_seen_ms))
            self.assertEqual(row.first_ms, first_seen_hour(device) or 0)

    def test_a_cause_survives_its_way_through_a_row(self):
        target = Cause(Reason.TARGET)
        for cause in (
            target,
            Cause(Reason.HELD_BACK),
            Cause(Reason.HELD_BACK, behind=target),
            Cause(Reason.REPEATED, "v1", times=4, until_ms=NOW_MS),
            Cause(Reason.STEPPING_STONE, "v2", behind=Cause(Reason.PAUSED, behind=target)),
        ):
            with self.subTest(cause=cause):
                row = make_row(
                    key_of(1),
                    a_device(NOW_MS),
                    state(Condition.HELD_BACK, cause),
                    NO_MARKS,
                    None,
                    NOW_MS,
                )
                self.assertEqual(cause_of(row), cause)
        self.assertIsNone(make_row("/x", a_device(1), NO_STATE, NO_MARKS, None, 1).cause)

    def test_the_key_of_any_device_is_in_its_row(self):
        for key in (key_of(1), "/gw-1", f"plug/{key_of(1)}", "plug/a b", "/02"):
            row = make_row(key, a_device(NOW_MS), NO_STATE, NO_MARKS, None, NOW_MS)
            self.assertEqual(row.key, key)

    def test_the_time_of_a_condition_is_that_of_its_change(self):
        behind, failed = (
            state(each, Cause(Reason.TARGET)) for each in (Condition.BEHIND, Condition.FAILED)
        )
        first = make_row(key_of(1), a_device(NOW_MS - HOUR_MS), behind, NO_MARKS, None, NOW_MS)
        self.assertEqual(first.since_ms, NOW_MS - HOUR_MS)
        self.assertEqual(restated(first, behind, NO_MARKS, NOW_MS + 5).since_ms, first.since_ms)
        self.assertEqual(restated(first, failed, NO_MARKS, NOW_MS + 5).since_ms, NOW_MS + 5)


class IntervalTest(unittest.TestCase):
    def test_it_follows_the_gaps_and_no_single_one_moves_it_far(self):
        self.assertEqual(interval_after(0, 600), 600)
        self.assertEqual(interval_after(600, 600), 600)
        self.assertEqual(interval_after(600, 0), 600)
        self.assertEqual(interval_after(600, -50), 600)
        self.assertLessEqual(interval_after(600, 10**9), 1050)
        self.assertGreaterEqual(interval_after(600, 1), 550)
        interval = 600
        for _ in range(20):
            interval = interval_after(interval_after(interval, 3600), 1)
        self.assertGreater(interval, 3600 / 2)  # it asks twice whenever it wakes
        for _ in range(40):
            interval = interval_after(interval, 3600)
        self.assertAlmostEqual(interval, 3600, delta=10)


class AddressTest(unittest.TestCase):
    def test_addresses_are_sorted_as_numbers(self):
        texts = ["", "x", "1.2.3.4", "10.0.0.1", "9.255.255.255", "2001:db8::1", "::1", "fe80::1%e"]
        for one in texts:
            for other in texts:
                numbers = [self.number(each) for each in (one, other)]
                with self.subTest(one=one, other=other):
                    self.assertEqual(
                        order_of_address(one) < order_of_address(other), numbers[0] < numbers[1]
                    )

    def number(self, text: str) -> tuple[int, int]:
        try:
            address = ip_address(text)
        except ValueError:
            return 0, 0
        return address.version, int(address)

    def test_what_reads_like_an_address_only_to_others_is_none(self):
        for text in ("1.2.3", "01.2.3.4", "256.1.1.1", "1.2.3.4.5", "\u0661.2.3.4", "1.2.3.4 "):
            with self.subTest(text):
                self.assertEqual(order_of_address(text), b"")
