"""Actions: which state follows from what the server wants, and from what the device says."""

import json
import unittest

from ota_server.journal.record import format_record, parse_record
from ota_server.model.action import (
    Action,
    ActionState,
    PinnedImage,
    action_fields,
    action_in,
    cancel_fed_back,
    fed_back,
    not_wanted,
    offered,
    wait_until_ms,
)
from ota_server.model.device import Device, Download, flatten, unflatten

IMAGE = PinnedImage("v2", "ab" * 32, 1000)
OTHER = PinnedImage("v3", "cd" * 32, 1000)
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
OPEN = offered(None, IMAGE, NOW_MS)


def in_state(state: ActionState) -> Action:
    """Return the same action in another state."""
    return OPEN._replace(state=state)


class ActionTest(unittest.TestCase):
    def test_an_id_is_new_for_each_attempt_and_suits_all_clients(self):
        action, ids = OPEN, []
        for attempt in range(30):
            ids.append(action.id)
            action = fed_back(action, "closed", "failure", NOW_MS)
            action = offered(action, IMAGE, NOW_MS + attempt % 3)
        self.assertEqual(len({*ids}), 30)
        self.assertEqual([each for each in ids if not 100 <= each < 2**31 or each % 10 == 0], [])
        self.assertTrue(all(action.knows(each) for each in ids))
        self.assertFalse(action.knows(action.id + 1))

    def test_a_clock_that_was_set_back_brings_no_id_again(self):
        ended = fed_back(OPEN, "closed", "success", NOW_MS)
        self.assertGreater(offered(ended, OTHER, 1_000_000).id, OPEN.id)

    def test_a_device_that_was_forgotten_gets_another_id(self):
        self.assertGreater(offered(None, IMAGE, NOW_MS + 2000).id, OPEN.id)

    def test_an_action_stays_on_offer_until_it_is_closed(self):
        begun = fed_back(OPEN, "proceeding", "none", NOW_MS)
        self.assertIs(begun.state, ActionState.BEGUN)
        for execution in ("proceeding", "resumed", "download", "scheduled", "canceled", "x", ""):
            self.assertEqual(fed_back(begun, execution, "none", NOW_MS + 1), begun)
        self.assertEqual(offered(begun, IMAGE, NOW_MS + 1), begun)

    def test_only_closed_with_failure_has_failed(self):
        for finished, state in (
            ("failure", ActionState.FAILED),
            ("success", ActionState.SUCCEEDED),
            ("none", ActionState.SUCCEEDED),
        ):
            # A device may refuse to cancel what it is about to finish.
            for before in ActionState:
                if before in (ActionState.SUCCEEDED, ActionState.FAILED):
                    continue
                with self.subTest(finished, before=before):
                    after = fed_back(in_state(before), "closed", finished, NOW_MS)
                    self.assertIs(after.state, state)

    def test_what_is_ended_stays_so(self):
        for state in (ActionState.SUCCEEDED, ActionState.FAILED, ActionState.CANCELED):
            ended = in_state(state)
            if state is not ActionState.CANCELED:
                for finished in ("success", "failure", "none"):
                    self.assertEqual(fed_back(ended, "closed", finished, NOW_MS), ended)
            self.assertEqual(fed_back(ended, "proceeding", "none", NOW_MS), ended)
            self.assertEqual(not_wanted(ended, NOW_MS), ended)
            self.assertEqual(cancel_fed_back(ended, "closed", NOW_MS), ended)
            self.assertNotEqual(offered(ended, IMAGE, NOW_MS).id, ended.id)

    def test_each_answer_to_an_order_to_cancel_ends_it(self):
        cancel = not_wanted(OPEN, NOW_MS)
        self.assertIs(cancel.state, ActionState.CANCELING)
        for execution in ("closed", "rejected", "canceled"):
            after = cancel_fed_back(cancel, execution, NOW_MS)
            self.assertIs(after.state, ActionState.CANCELED)
        self.assertEqual(cancel_fed_back(cancel, "proceeding", NOW_MS), cancel)
        self.assertEqual(fed_back(cancel, "proceeding", "none", NOW_MS), cancel)

    def test_a_device_that_fails_again_and_again_waits_longer_each_time(self):
        action, waits = OPEN, []
        for _ in range(8):
            action = fed_back(offered(action, IMAGE, NOW_MS), "closed", "failure", NOW_MS)
            until = wait_until_ms(action, IMAGE.sha256, None)
            waits.append((until - NOW_MS) // HOUR_MS if until else 0)
        self.assertEqual(waits, [0, 1, 2, 4, 8, 16, 24, 24])
        self.assertEqual(wait_until_ms(action, OTHER.sha256, None), 0)
        self.assertEqual(wait_until_ms(action, IMAGE.sha256, NOW_MS), 0)
        self.assertNotEqual(wait_until_ms(action, IMAGE.sha256, NOW_MS - 1), 0)
        self.assertEqual(offered(action, OTHER, NOW_MS).failures, 0)


TEXTS = ("action_version", "action_installed", "action_attribute")


class RecordTest(unittest.TestCase):
    DEVICE = Device(NOW_MS, "-", NOW_MS, None, "v2", "127.0.0.1", False, None, NOW_MS)

    def test_the_newest_line_of_a_device_has_its_action(self):
        download = Download("v2", "ab" * 32, 1000, NOW_MS)
        for before in (None, download, download._replace(attempts=2, attempt_ms=NOW_MS)):
            device = self.DEVICE._replace(download=before, action=OPEN)
            key, read = parse_record(format_record("check", "/gw-1", device).rstrip())
            self.assertEqual((key, read), ("/gw-1", device))
            self.assertEqual(unflatten(flatten(device)), device)

    def test_a_broken_action_does_not_hide_the_line(self):
        action = OPEN._replace(failures=2, installed="v1", attribute="build 7")
        fields = action_fields(action)
        self.assertEqual(action_in(fields), action)
        without = {name: value for name, value in fields.items() if name != "action_attribute"}
        self.assertEqual(action_in(without), action._replace(attribute=""))
        for name in fields:
            for wrong in (None, -1, 10**30, "x", True, [], "é" * 64, 0.5):
                if wrong != "x" or name not in TEXTS:
                    self.assertIsNone(action_in({**fields, name: wrong}), (name, wrong))
        line = format_record("check", "/gw-1", self.DEVICE._replace(action=OPEN))
        broken = json.dumps({**json.loads(line), "action_state": 5}).encode()
        self.assertEqual(parse_record(broken), ("/gw-1", self.DEVICE))
