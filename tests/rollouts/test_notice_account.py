"""What one receiver was told: what waits, and that nothing is told while it is being told."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ota_server.model.notice import Delivery
from ota_server.rollouts.notice_account import NoticeAccount
from ota_server.rollouts.told_record import HOLD, JOURNAL, NoticeState
from tests.support import DataDirCase, until

FAILED = Delivery(False, "no")
NOTICE = {"event": "hold_begun", "id": "1"}
STATE = "2026-11-29T12:00:00.000Z"


class AccountTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.name, self.key, self.first_pause_seconds = "somebody", "", 0.0
        self.has_room = True
        self.ends: list[Callable[[Delivery], None]] = []
        self.account = NoticeAccount(self, self.data_dir / "log")
        self.account.begin(dict)

    def tell(
        self,
        notice: Mapping[str, Any],
        is_alarm: bool = False,
        when_ended: Callable[[Delivery], None] | None = None,
    ) -> bool:
        """Take a notice, as the receiver that this test is; what comes of it is in `ends`."""
        if self.has_room and when_ended is not None:
            self.ends.append(when_ended)
        return self.has_room

    def look(self, key: str = HOLD, state: NoticeState = STATE) -> bool:
        """Look as the watch does; return whether there was room."""
        self.account.forget_failed(time.monotonic())
        if self.account.seen.get(key) == state:
            return True
        return self.account.tell(key, state, [NOTICE])

    def end(self, delivery: Delivery) -> None:
        self.ends.pop(0)(delivery)

    def test_what_is_being_told_again_is_told_no_third_time_meanwhile(self):
        self.look()
        self.end(FAILED)
        self.assertTrue(until(lambda: self.look() and len(self.ends) == 1))
        for _ in range(5):
            self.look()
        self.assertEqual(len(self.ends), 1)
        self.end(Delivery(True))
        for _ in range(5):
            self.look()
        self.assertEqual(self.ends, [])

    def test_what_waits_is_what_is_being_told_was_refused_or_failed(self):
        self.assertEqual(self.account.waiting, 0)
        self.has_room = False
        self.assertFalse(self.look())
        self.assertEqual(self.account.waiting, 1)
        self.has_room = True
        self.look()
        self.look(JOURNAL, True)
        self.assertEqual(self.account.waiting, 2)
        self.end(FAILED)
        self.assertEqual(self.account.waiting, 2)
        self.end(Delivery(True))
        self.assertEqual(self.account.waiting, 1)

    def test_what_failed_waits_no_more_once_something_newer_was_told(self):
        self.look(JOURNAL, True)
        self.end(FAILED._replace(wait_seconds=3600.0))
        self.look(JOURNAL, False)
        self.end(Delivery(True))
        self.assertEqual(self.account.waiting, 0)

    def test_what_failed_still_waits_if_something_older_was_told_after_it(self):
        self.look(JOURNAL, True)
        self.look(JOURNAL, False)
        older, newer = self.ends
        newer(FAILED)
        older(Delivery(True))
        self.assertEqual(self.account.waiting, 1)

    def test_a_receiver_that_was_reached_is_told_before_its_pause_is_over(self):
        self.look()
        self.end(FAILED._replace(wait_seconds=3600.0))
        self.look()
        self.look()
        self.assertEqual(self.ends, [])
        self.account.try_again_now()
        self.look()
        self.assertEqual(len(self.ends), 1)

    def test_a_journal_that_fails_is_not_on_record(self):
        self.look(JOURNAL, True)
        self.end(Delivery(True))
        self.look()
        self.end(Delivery(True))
        again = NoticeAccount(self, self.data_dir / "log")
        again.begin(dict)
        self.assertEqual(again.seen, {HOLD: STATE})
