"""Feedback without a feedback message: what became of each device under one rollout. Pure.

Folded from the records of the journal, in the order of their lines. What a device did is a `Case`,
and what is said of it an `Account`; when each was heard from is in `PollHistory`. `WaveCounter`
counts.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from ota_server.evaluation import transfers
from ota_server.evaluation.checkpoint import seal, unseal
from ota_server.evaluation.contested import Account, poll_elsewhere
from ota_server.evaluation.counting import WaveCounter
from ota_server.evaluation.device_case import Case, Terms
from ota_server.evaluation.outcomes import DeviceOutcome
from ota_server.evaluation.poll_history import FORGOTTEN, NEVER, NO_WAVE, PollHistory
from ota_server.evaluation.scope import RolloutScope, is_old, keep_spelling
from ota_server.evaluation.silence import Silence
from ota_server.evaluation.tally import Tally
from ota_server.evaluation.unfit import UnfitDevices
from ota_server.evaluation.uptime import Uptime
from ota_server.journal.record import FORGET, SNAPSHOT
from ota_server.journal.record_fields import is_of, key_in, time_in
from ota_server.model.address import source_of
from ota_server.model.identity import key_of_name, name_of, number_of, product_of
from ota_server.model.timestamp import parse_time
from ota_server.model.version import meaning
from ota_server.policy.rollout_plan import RolloutPlan

_WEEK_MS = 7 * 24 * 3600 * 1000
_EVENTS = ("check", "begin", "download", "report", "feedback")
_INTERVALS_TO_APPLY = 2
# The forms of checkpoints: where devices prove who they are, others are believed.
_FORM, _FORM_PROVEN = 11, 12

Record = Mapping[str, Any]


class Feedback:
    """The devices of one rollout, by what they told, mostly without knowing it.

    Begin with the oldest line that is kept, long before the rollout began: from those lines come
    poll gaps and which devices are old enough to count. A device is, if a time on record of it is a
    day older than the rollout. Of older records, which do not say when it was first seen, one that
    is a `device` line before the first marker will do: it was known before what is kept began.
    """

    def __init__(
        self,
        plan: RolloutPlan,
        scope: RolloutScope,
        wave: int,
        opened_ms: int,
        devices_proven: bool = False,
    ) -> None:
        """Begin with an empty fold, at a wave that opened at a time.

        Args:
            devices_proven: devices prove who they are: nothing guards against forged evidence.

        Raises:
            ValueError: the time of the plan is not a time.
        """
        self._devices_proven = devices_proven
        self._form = _FORM_PROVEN if devices_proven else _FORM
        self._polls = PollHistory(int.from_bytes(sha256(plan.id.encode("utf-8")).digest()[:8]))
        self.names = self._polls.names  # which keys the numbers of devices are
        self._accounts: dict[int, Account] = {}
        self._unfit = UnfitDevices(plan.version, scope.fit)
        self._uptime = Uptime()
        self._spelled: dict[str, str] = {}  # as devices spell them, versions by their meaning
        self._in_head = True
        self._has_begun = False
        self._wave = wave
        self._opened_ms: int | None = opened_ms  # until a record is as young
        self._opened_up_ms, self.free_since_ms = 0, opened_ms  # since then devices may move
        self._take(plan, scope)

    def _take(self, plan: RolloutPlan, scope: RolloutScope) -> None:
        self._plan, self._scope = plan, scope
        self._start_ms = parse_time(plan.time)
        self._release = meaning(plan.version)
        self._unfit.judge_by(plan.version, scope.fit)
        soak_ms = plan.soak_seconds * 1000
        self._terms = Terms(
            self._release, scope.releases, soak_ms, scope.completion_unknown, self._devices_proven
        )

    def change(self, plan: RolloutPlan, scope: RolloutScope) -> None:
        """Take a plan with other limits, other groups, pins or releases, in mid rollout."""
        plan_before, scope_before = self._plan, self._scope
        self._take(plan, scope)
        if plan.waves != plan_before.waves or not scope.has_same_devices(scope_before):
            for row, number in enumerate(self._polls.rows):
                if self._polls.wave[row] != FORGOTTEN:
                    self._polls.wave[row] = self._wave_of(number)

    def observe(self, record: Record) -> None:
        """Take one record as it stands in the journal; one that cannot be read is ignored."""
        event = record.get("event")
        if event == SNAPSHOT:
            self._in_head = False
            return
        key, time_ms = key_in(record), time_in(record.get("time"))
        version, address = record.get("firmware_version"), record.get("address")
        if key is None or time_ms is None or product_of(key) != self._scope.product:
            return
        if not isinstance(version, str) or not isinstance(address, str):
            return
        number = self._polls.names.number_of(key)
        source, running = source_of(address[:64]), self._meaning(version[:64])
        if event == FORGET:
            self._forget(number)
        elif event == "device":
            self._remember(number, time_ms, source, running, record)
        elif event in _EVENTS:
            self._uptime.advance(time_ms)
            self._note_times(time_ms)
            self._heard(event, number, time_ms, source, running, record)

    def _meaning(self, reported: str) -> str:
        return meaning(self._scope.aliases.get(reported, reported))

    def _note_times(self, time_ms: int) -> None:
        """Take note of the first record of the rollout, and of the wave that opened."""
        if not self._has_begun and time_ms >= self._start_ms:
            self._has_begun = True
            self._polls.watched_ms = self._uptime.up_ms
        if self._opened_ms is not None and time_ms >= self._opened_ms:
            self._opened_ms, self._opened_up_ms = None, self._uptime.up_ms

    def _wave_of(self, number: int) -> int:
        return self._scope.wave_of(self._plan, self._polls.names.key_of(number))

    def _row(self, number: int, time_ms: int, source: int, record: Record) -> int:
        polls = self._polls
        row = polls.rows.get(number)
        if row is not None and self._devices_proven:
            polls.home[row] = source
        if row is not None and polls.wave[row] != FORGOTTEN:
            return row
        wave = self._wave_of(number)
        counts = self._plan.count_new or is_old(record, time_ms, self._start_ms)
        if row is None:
            return polls.add(number, source, wave, counts)
        polls.wave[row], polls.counts[row] = wave, counts
        return row

    def _forget(self, number: int) -> None:
        """Count a device no longer; where it asks again it is a new one."""
        row = self._polls.rows.get(number)
        if row is not None:
            self._polls.forget(row)
            self._accounts.pop(row, None)
            self._unfit.forget(row)

    def _remember(
        self, number: int, time_ms: int, source: int, running: str, record: Record
    ) -> None:
        """Take a line that repeats what is known of a device, which did not say it now."""
        row = self._row(number, time_ms, source, record)
        polls = self._polls
        self._unfit.hear(row, record)
        if self._in_head and "first_seen_time" not in record:
            polls.counts[row] = 1
        last_seen_ms = time_in(record.get("last_seen_time"))
        is_recent = last_seen_ms is not None and time_ms - last_seen_ms < _WEEK_MS
        if polls.seen[row] == NEVER and is_recent:
            polls.seen[row] = 0  # before what is kept of the journal, and not long before
        account = self._accounts.get(row)
        if account is not None and running != account.case.runs:
            # It said so while nothing could be written.
            now_ms = self._uptime.up_ms
            case = account.case_that_hears(polls, row, source, running, self._release, now_ms)
            if case is not None:
                self._report(case, row, running)

    def _heard(
        self, event: str, number: int, time_ms: int, source: int, running: str, record: Record
    ) -> None:
        row = self._row(number, time_ms, source, record)
        polls, now_ms = self._polls, self._uptime.up_ms
        is_end = event == "download" and "release_version" in record
        is_poll = event == "check" or (record.get("image_only") is True and not is_end)
        account = self._accounts.get(row)
        if is_poll and source == polls.home[row]:
            polls.poll(row, now_ms)
        elif is_poll and not self._has_begun:  # from then on a home stays where it is
            poll_elsewhere(polls, row, now_ms, source)
        is_home = source == polls.home[row]
        is_new = account is None and self._has_begun
        if is_new and self._is_concerned(row, is_home, running, record):
            account = self._accounts[row] = Account(Case(running if is_home else "", self._release))
            keep_spelling(self._spelled, running, record)
        if is_end and record.get("complete") is not True:
            # The device said nothing: it was the server that gave up.
            if account is not None:
                case = account.case if is_home else account.away
                transfers.end(case, record, self._goals(row), now_ms, polls.source[row])
            return
        polls.seen[row] = now_ms
        polls.source[row] = source
        if is_home and not is_end:
            self._unfit.hear(row, record)
        if account is None:
            return
        case = account.case_that_hears(polls, row, source, running, self._release, now_ms)
        if case is None:
            # Nobody listens to what it says there; what it downloads, the server sees itself.
            self._fetch(account.away, row, event, is_end, record)
            return
        if not is_end:
            self._report(case, row, running)
            if case.is_mislabelled:
                keep_spelling(self._spelled, running, record)
            self._note_offer(case, row, event, running, record)
        if event != "check":
            self._fetch(case, row, event, is_end, record)
        case.hear(now_ms, self._uptime.restarted_ms, self._terms)

    def _fetch(self, case: Case | None, row: int, event: str, is_end: bool, record: Record) -> None:
        is_failure = event == "feedback" and record.get("action_state") == "failed"
        now_ms, source = self._uptime.up_ms, self._polls.source[row]
        if is_end:
            transfers.end(case, record, self._goals(row), now_ms, source)
        elif event == "begin" and is_of(record, "download", self._goals(row)):
            transfers.begin(case, record, now_ms, self._terms, source)
        elif case is not None and is_failure and is_of(record, "action", self._goals(row)):
            case.say_failed()

    def _is_concerned(self, row: int, is_home: bool, running: str, record: Record) -> bool:
        if self._polls.wave[row] <= self._wave and self._opened_ms is None:
            return True
        if not is_home:
            return False  # or one address could fill the memory with all devices that there are
        goals = (self._release,)
        return running in goals or self._told(record) in goals or is_of(record, "download", goals)

    def _goals(self, row: int) -> Collection[str]:
        """Return what the rollout has a device run: its release, or stepping stones before it."""
        if self._scope.stepping_stones and self._polls.wave[row] <= self._wave:
            return self._scope.stepping_stones | {self._release}
        return (self._release,)

    def _told(self, record: Record) -> str:
        told = record.get("target_version")
        return self._meaning(told[:64]) if isinstance(told, str) else ""

    def _note_offer(self, case: Case, row: int, event: str, running: str, record: Record) -> None:
        """Record what a device was told to run."""
        case.told = self._told(record)
        is_due = case.told in self._goals(row) if case.told != running else case.whole >= 0
        if is_due and running != self._release:
            case.offer(self._uptime.up_ms, self._terms, self._grace_ms(row), event == "check")

    def _report(self, case: Case, row: int, running: str) -> None:
        grace_ms = self._grace_ms(row) if case.is_waited_for(self._terms) else 0.0
        case.report(running, self._uptime.up_ms, self._terms, grace_ms)

    def _grace_ms(self, row: int) -> float:
        """Return how long a device may take to apply an image and say so."""
        interval_ms = self._polls.interval_ms(row)
        return max(self._plan.grace_seconds * 1000, _INTERVALS_TO_APPLY * interval_ms)

    def open_wave(self, wave: int, now_ms: int) -> None:
        """Record that a wave opens now; one that is open already opens again."""
        self._wave = wave
        self._opened_ms, self._opened_up_ms = None, self._uptime.at(now_ms)
        self.free_since_ms = now_ms

    def note_outage(self, from_ms: int, to_ms: int) -> None:
        """Record that the server did not answer, such as between two of its processes.

        Call it before the records after `to_ms` are observed.
        """
        self._uptime.outage(from_ms, to_ms)

    def note_clock_jump(self, now_ms: int) -> None:
        """Record that the server's clock jumped to `now_ms`: soak and silence begin again."""
        self._uptime.jump(now_ms)

    @property
    def clock_jumps(self) -> int:
        """How often the clock jumped, those jumps among them that only the records show."""
        return self._uptime.jumps

    def tally(self, now_ms: int, accepted: Iterable[str] = ()) -> Tally:
        """Count the devices. It takes some µs for each that was offered the release.

        Args:
            accepted: names of devices that a person goes on without.
        """
        return self.count(now_ms, accepted)[1]

    def count(self, now_ms: int, accepted: Iterable[str] = ()) -> tuple[WaveCounter, Tally]:
        """Do as `tally`, and return what has counted as well: it has the devices in groups."""
        counter, tally = self._count(now_ms, accepted)
        return counter, tally._replace(
            parts={self._spelled.get(old, old): each for old, each in tally.parts.items()},
            label=self._spelled.get(tally.label, tally.label),
            bad=self._named(tally.bad),
            stuck=self._named(tally.stuck),
        )

    def outcomes(self, now_ms: int) -> Iterator[DeviceOutcome]:
        """Yield what became of each device in the waves that are open; `tally` counts these."""
        for group in self._count(now_ms, ())[0].outcomes().groups():
            yield from group.outcomes(self.names.key_of)

    def _count(self, now_ms: int, accepted: Iterable[str]) -> tuple[WaveCounter, Tally]:
        self._note_times(now_ms)
        polls, uptime = self._polls, self._uptime
        up_ms, restarted_ms = uptime.at(now_ms), uptime.restarted_ms
        since_ms = self._opened_up_ms if self._opened_ms is None else up_ms
        soak_ms, free_ms = self._terms.soak_ms, now_ms - self.free_since_ms
        unheard_ms = uptime.unheard_ms(now_ms)
        silence = Silence(polls, up_ms, since_ms, restarted_ms, soak_ms, unheard_ms, free_ms)
        keys = (key_of_name(self._scope.product, name) for name in accepted)
        rows = {row for key in keys if (row := polls.rows.get(number_of(key))) is not None}
        chosen_wave = NO_WAVE if self._plan.first_group is None else 0
        counter = WaveCounter(polls, silence, self._terms, self._wave, chosen_wave, rows, up_ms)
        tally = counter.tally(self._accounts, self._unfit.causes())
        return counter, tally._replace(age_ms=up_ms - max(since_ms, restarted_ms))

    def _named(self, rows: Mapping[Any, str]) -> dict[Any, str]:
        return {name_of(self._polls.key_at(row)): each for row, each in rows.items()}

    def dump(self) -> bytes:
        """Return all that is known as bytes; the same records before make the same bytes."""
        accounts = {row: account.as_tuple() for row, account in self._accounts.items()}
        mine = (self._in_head, self._has_begun, self._wave, self._opened_ms, self._opened_up_ms)
        states = self._uptime.state(), self._polls.state(), self._unfit.state()
        return seal(self._form, self._plan.id, (mine, *states, self._spelled, accounts))

    def load(self, content: bytes) -> None:
        """Go on where `dump` was called, in place of all that was folded here.

        Raises:
            BadCheckpoint: it is torn, of another rollout or of another version of this program.
        """
        found = unseal(content, self._form, self._plan.id)
        mine, uptime, polls, unfit, self._spelled, accounts = found
        self._unfit.restore(unfit)
        self._in_head, self._has_begun, self._wave, self._opened_ms, self._opened_up_ms = mine
        self._uptime.restore(uptime)
        self._polls.restore(polls)
        self._accounts = {row: Account.from_tuple(each) for row, each in accounts.items()}
