"""Looks once a second for what notices tell of, and has each receiver told. I/O.

It runs beside the requests, in the thread of chores. `log/told.json` holds what the command was
told last, `log/told_<key>.json` what a URL was; each receiver is told by itself (`notice_account`).

1. What differs from that is told, at the start too: it happened while no server ran, or a server
   was killed before the notice was told.
2. A notice counts as told when its receiver has taken it: the command has ended well, the URL has
   answered 2xx. What is too much for now is told at the next look, as it stands then.
3. A server that is killed between that and the writing of the file tells it twice. Its id is the
   same then.
4. A journal that fails is not on record: it may be on the same full disk.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ota_server.model.notice import notice_id
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import (
    OVER,
    RolloutPlan,
    RolloutProgress,
    plan_name,
    progress_name,
)
from ota_server.rollouts.files import groups_with_plan, read_end, read_plan, read_progress
from ota_server.rollouts.hold_watch import HoldWatch, SeenHold
from ota_server.rollouts.notice_account import NoticeAccount, Teller
from ota_server.rollouts.notices import hold_notice, journal_notice, rollout_notices
from ota_server.rollouts.told_record import HOLD, JOURNAL, NoticeState, forget_others
from ota_server.system import clock
from ota_server.system.data_dir import log_dir, product_at
from ota_server.system.files import Found, find
from ota_server.system.hints import hints

_EVERY_SECONDS = 1.0
# Of so many notices the time is known at which they were noticed first.
_MOST_TIMES = 1000

# Of a plan and its progress.
_Stamps = tuple[Found | None, Found | None]


class NoticeWatch:
    """Compares what it sees with what each receiver was told."""

    def __init__(
        self, data_dir: Path, is_journal_failing: Callable[[], bool], receivers: Iterable[Teller]
    ) -> None:
        """Read what was told before; if nothing ever was, what is there now is no event."""
        self._data_dir = data_dir
        self._product = product_at(data_dir)
        self._is_journal_failing = is_journal_failing
        self._hold = HoldWatch(data_dir)
        self._look_at = 0.0
        self._read: dict[str, tuple[_Stamps, RolloutPlan | None, RolloutProgress | None]] = {}
        self._journal_failing = False
        self._journal_since_ms = 0
        self._times: OrderedDict[str, str] = OrderedDict()
        logs = log_dir(data_dir)
        self.accounts: Mapping[str, NoticeAccount] = {
            each.key: NoticeAccount(each, logs) for each in receivers
        }
        for account in self.accounts.values():
            account.begin(self._there)
        forget_others(logs, self.accounts.keys())

    def _there(self) -> dict[str, NoticeState]:
        there: dict[str, NoticeState] = {
            group: progress for group, _, progress in self._rollouts() if progress is not None
        }
        return {**there, HOLD: self._hold.look().state}

    def look_after(self) -> None:
        """Look, once a second at most."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _EVERY_SECONDS
            self.look_again()

    def look_again(self) -> int:
        """Look, and tell what has happened; return how much could not be told yet."""
        # The journal is one for all products.
        is_failing = not self._product and self._is_journal_failing()
        if is_failing != self._journal_failing:
            self._journal_failing, self._journal_since_ms = is_failing, clock.now_ms()
        hold = self._hold.look()
        rollouts = list(self._rollouts())
        refused = 0
        for account in self.accounts.values():
            account.forget_failed(time.monotonic())
            refused += not self._tell_journal(account)
            refused += not self._tell_hold(account, hold)
            refused += sum(not self._tell_rollout(account, *each) for each in rollouts)
        return refused

    def _tell_journal(self, account: NoticeAccount) -> bool:
        if account.seen.get(JOURNAL, False) == self._journal_failing:
            return True
        notice = journal_notice(self._journal_failing)
        notice["id"] = notice_id(notice["event"], self._journal_since_ms)
        return account.tell(JOURNAL, self._journal_failing, [self._notice(notice)])

    def _tell_hold(self, account: NoticeAccount, hold: SeenHold) -> bool:
        before = str(account.seen.get(HOLD, ""))
        if bool(before) == bool(hold.state):
            return True
        if hold.is_told_by_default(before):
            account.count_as_told(HOLD, hold.state)
            return True
        notice = hold_notice(hold.hold)
        notice["id"] = notice_id(notice["event"], before or hold.state, self._product)
        return account.tell(HOLD, hold.state, [self._notice(notice)])

    def _tell_rollout(
        self,
        account: NoticeAccount,
        group: str,
        plan: RolloutPlan,
        progress: RolloutProgress | None,
    ) -> bool:
        """Tell what has become of the rollouts to a group; False: it is too much for now."""
        known = account.seen.get(group)
        if known is not None and known is progress:
            return True  # with a thousand groups and five receivers that saves much
        if isinstance(known, RolloutProgress) and known.id != plan.id and known.state not in OVER:
            # Another one took its place before its end was seen.
            end = read_end(log_dir(self._data_dir), known.id)
            if end is not None and not self._tell_step(account, group, *end):
                return False
        return progress is None or self._tell_step(account, group, plan, progress)

    def _tell_step(
        self, account: NoticeAccount, group: str, plan: RolloutPlan, progress: RolloutProgress
    ) -> bool:
        known = account.seen.get(group)
        before = known if isinstance(known, RolloutProgress) else None
        notices = [self._notice(each) for each in rollout_notices(before, plan, progress)]
        return account.tell(group, progress, notices)

    def _notice(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return a notice as it is told, with the time at which it was noticed."""
        product = self._product
        texts = {
            name: hints.paste(said[name], product) for name in ("text", "reason") if name in said
        }
        if said["id"] not in self._times:
            self._times[said["id"]] = format_time(clock.now_ms())
            if len(self._times) > _MOST_TIMES:
                self._times.popitem(last=False)
        notice = {"time": self._times[said["id"]], **said, **texts}
        if product:
            notice |= {"product": product, "text": f"product {product}: {texts['text']}"}
        return notice

    def _rollouts(self) -> Iterator[tuple[str, RolloutPlan, RolloutProgress | None]]:
        """Yield the rollouts on record; one that cannot be read is as it was until it can be."""
        folder = self._data_dir / "version"
        try:
            groups = groups_with_plan(self._data_dir)
        except OSError:
            return
        for group in groups:
            try:
                now = find(folder, plan_name(group)), find(folder, progress_name(group))
                # With a thousand groups it takes half a second to read all of them.
                known = self._read.get(group)
                if known is None or known[0] != now:
                    plan = read_plan(self._data_dir, group)
                    progress = None if plan is None else read_progress(self._data_dir, plan)
                    known = self._read[group] = now, plan, progress
                if known[1] is not None:
                    yield group, known[1], known[2]
            except (BadPolicy, OSError):
                continue  # its reader logs what is wrong with it
