"""Feedback without a feedback message: what became of each device under one rollout. Pure.

Folded from the records of the journal, in the order of their lines. What a device did is a `Case`;
when any device was heard from is in `PollHistory`; who fell silent is asked of `Silence`.
"""

import marshal
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from ota_server.evaluation.contested import listen
from ota_server.evaluation.counting import WaveCounter
from ota_server.evaluation.device_case import Account, Case, Terms
from ota_server.evaluation.poll_history import FORGOTTEN, NEVER, NO_WAVE, PollHistory
from ota_server.evaluation.silence import Silence
from ota_server.evaluation.tally import Tally
from ota_server.evaluation.uptime import Uptime
from ota_server.journal.record import FORGET, SNAPSHOT
from ota_server.journal.record_fields import is_count, is_of, number_in, time_in
from ota_server.model.address import site_of
from ota_server.model.device import mac_of, number_of
from ota_server.model.timestamp import parse_time
from ota_server.model.version import meaning
from ota_server.policy.decision import cohort_percent
from ota_server.policy.rollout_plan import RolloutPlan

_DAY_MS = 24 * 3600 * 1000
_WEEK_MS = 7 * _DAY_MS
_EVENTS = ("check", "begin", "download", "report")
_INTERVALS_TO_APPLY = 2
_MOST_SPELLINGS = 1000
_CHECKPOINT = 5  # the form of a checkpoint; another number for each other form


Record = Mapping[str, Any]


class BadCheckpoint(ValueError):
    """A checkpoint cannot be used: fold the journal from its beginning."""


class RolloutScope(NamedTuple):
    """What the fold has to know besides the journal; MACs in lower-case pairs with colons.

    Attributes:
        members: of the group that the rollout is for; None: it is for the whole fleet.
        first_group: members of the group that makes the first wave.
        left_out: devices that the rollout does not reach, such as those that are pinned.
        releases: the meanings of the versions that are releases, stones among them.
        aliases: the version of a release by what its devices report (`Policy.aliases`).
        completion_unknown: devices are behind something that buffers whole images.
        stones: the meanings of the releases that devices run on the way to that of the rollout.
    """

    members: frozenset[str] | None = None
    first_group: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    releases: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = {}
    completion_unknown: bool = False
    stones: frozenset[str] = frozenset()


class Feedback:
    """The devices of one rollout, by what they told without knowing it.

    Begin with the oldest line that is kept, long before the rollout began: from those lines come
    poll gaps and which devices are old enough to count. A device is, if a time on record of it is a
    day older than the rollout. Of older records, which do not say when it was first seen, one that
    is a `device` line before the first marker will do: it was known before what is kept began.
    """

    def __init__(self, plan: RolloutPlan, known: RolloutScope, wave: int, opened_ms: int) -> None:
        """Begin with an empty fold, at a wave that opened at a time.

        Raises:
            ValueError: the plan is none.
        """
        self._polls = PollHistory(
            int.from_bytes(sha256(plan.id.encode("utf-8")).digest()[:8], "big")
        )
        self._cases: dict[int, Account] = {}
        self._uptime = Uptime()
        self._spelled: dict[str, str] = {}  # as devices spell them, versions by their meaning
        self._in_head = True
        self._has_begun = False
        self._wave = wave
        self._opened_ms: int | None = opened_ms  # until a record is as young
        self._opened_up_ms = 0
        self._take(plan, known)

    def _take(self, plan: RolloutPlan, known: RolloutScope) -> None:
        self._plan = plan
        self._known = known
        self._start_ms = parse_time(plan.time)
        self._release = meaning(plan.version)
        soak_ms = plan.soak_seconds * 1000
        self._terms = Terms(self._release, known.releases, soak_ms, known.completion_unknown)

    def change(self, plan: RolloutPlan, known: RolloutScope) -> None:
        """Take a plan with other limits, other groups, pins or releases, in mid rollout."""
        before, self_known = self._plan, self._known
        self._take(plan, known)
        if known[:3] != self_known[:3] or plan.waves != before.waves:
            for row, number in enumerate(self._polls.rows):
                if self._polls.wave[row] != FORGOTTEN:
                    self._polls.wave[row] = self._wave_of(mac_of(number))

    def _wave_of(self, mac: str) -> int:
        """Return the first wave that holds a device."""
        known, plan = self._known, self._plan
        if mac in known.left_out or not (known.members is None or mac in known.members):
            return NO_WAVE
        if mac in known.first_group:
            return 0
        percent = cohort_percent(plan.version, mac)
        return next(
            (wave for wave in range(plan.wave_count) if percent < plan.percent(wave)), NO_WAVE
        )

    def observe(self, record: Record) -> None:
        """Take one record as it stands in the journal; what makes no sense is ignored."""
        event = record.get("event")
        if event == SNAPSHOT:
            self._in_head = False
            return
        number, time_ms = number_in(record.get("mac")), time_in(record.get("time"))
        version, address = record.get("firmware_version"), record.get("address")
        if number is None or time_ms is None or record.get("product", "") != "":
            return
        if not isinstance(version, str) or not isinstance(address, str):
            return
        site, running = site_of(address[:64]), self._meaning(version[:64])
        if event == FORGET:
            self._forget(number)
        elif event == "device":
            self._remember(number, time_ms, site, running, record)
        elif event in _EVENTS:
            self._uptime.advance(time_ms)
            self._note_times(time_ms)
            self._heard(event, number, time_ms, site, running, record)

    def _meaning(self, reported: str) -> str:
        aliases = self._known.aliases
        return meaning(aliases.get(reported, reported))

    def _note_times(self, time_ms: int) -> None:
        """Note the first record of the rollout, and of the wave that opened."""
        if not self._has_begun and time_ms >= self._start_ms:
            self._has_begun = True
            self._polls.watched_ms = self._uptime.up_ms
        if self._opened_ms is not None and time_ms >= self._opened_ms:
            self._opened_ms, self._opened_up_ms = None, self._uptime.up_ms

    def _row(self, number: int, time_ms: int, site: int, record: Record) -> int:
        polls = self._polls
        row = polls.rows.get(number)
        if row is not None and polls.wave[row] != FORGOTTEN:
            return row
        wave = self._wave_of(mac_of(number))
        counts = self._plan.count_new or self._is_old(time_ms, record)
        if row is None:
            return polls.add(number, site, wave, counts)
        polls.wave[row], polls.counts[row] = wave, counts
        return row

    def _forget(self, number: int) -> None:
        """Count a device no more; should it ask again it is a new one."""
        row = self._polls.rows.get(number)
        if row is not None:
            self._polls.forget(row)
            self._cases.pop(row, None)

    def _is_old(self, time_ms: int, record: Record) -> bool:
        """Say whether a device was known a day before the rollout, by the first record of it."""
        old_ms = self._start_ms - _DAY_MS
        first_seen_ms = time_in(record.get("first_seen_time"))
        if first_seen_ms is not None:
            return first_seen_ms <= old_ms
        names = ("last_seen_time", "update_time", "download_request_time")
        times = (time_ms, *(time_in(record.get(name)) for name in names))
        return any(each is not None and each <= old_ms for each in times)

    def _remember(self, number: int, time_ms: int, site: int, running: str, record: Record) -> None:
        """Take a line that repeats what is known of a device: no word from it."""
        row = self._row(number, time_ms, site, record)
        polls = self._polls
        if self._in_head and "first_seen_time" not in record:
            polls.counts[row] = 1
        last_seen_ms = time_in(record.get("last_seen_time"))
        is_recent = last_seen_ms is not None and time_ms - last_seen_ms < _WEEK_MS
        if polls.seen[row] == NEVER and is_recent:
            polls.seen[row] = 0  # before what is kept of the journal, and not long before
        account = self._cases.get(row)
        if account is not None and running != account.case.runs:
            # It told so while nothing could be written.
            now_ms = self._uptime.up_ms
            case = listen(account, polls, row, (site, running, self._release), now_ms)
            if case is not None:
                self._report(case, row, running)

    def _heard(
        self, event: str, number: int, time_ms: int, site: int, running: str, record: Record
    ) -> None:
        row = self._row(number, time_ms, site, record)
        polls, now_ms = self._polls, self._uptime.up_ms
        is_end = event == "download" and "release_version" in record
        is_poll = event == "check" or (record.get("image_only") is True and not is_end)
        account = self._cases.get(row)
        # From the start on a home stays where it is.
        if is_poll and (not self._has_begun or site == polls.home[row]):
            polls.poll(row, now_ms, site)
        is_home = site == polls.home[row]
        if (
            account is None
            and self._has_begun
            and self._is_concerned(row, is_home, running, record)
        ):
            account = self._cases[row] = Account(Case(running if is_home else "", self._release))
            if len(self._spelled) < _MOST_SPELLINGS:
                self._spelled.setdefault(running, record["firmware_version"][:64])
        if is_end and record.get("complete") is not True:
            # Nobody said anything: it was the server that gave up.
            if account is not None:
                case = account.case if is_home else account.away
                self._end(case, row, record)
            return
        polls.seen[row] = now_ms
        polls.site[row] = site
        if account is None:
            return
        case = listen(account, polls, row, (site, running, self._release), now_ms)
        if case is None:
            # Nobody listens to what it says there; what it fetches, the server knows by itself.
            self._transfer(account.away, row, event, is_end, record)
            return
        if is_end:
            self._end(case, row, record)
        else:
            self._follow(case, row, event, running, record)
        case.hear(now_ms, self._uptime.anew_ms, self._terms)

    def _transfer(
        self, case: Case | None, row: int, event: str, is_end: bool, record: Record
    ) -> None:
        if is_end:
            self._end(case, row, record)
        elif case is not None and event == "begin" and is_of(record, "download", self._goals(row)):
            self._begin(case, row, record)

    def _is_concerned(self, row: int, is_home: bool, running: str, record: Record) -> bool:
        if self._polls.wave[row] <= self._wave and self._opened_ms is None:
            return True
        if not is_home:
            return False  # or one address could fill the memory with all devices that there are
        goals = (self._release,)
        return running in goals or self._told(record) in goals or is_of(record, "download", goals)

    def _goals(self, row: int) -> Collection[str]:
        """Return what a device is told to run because of the rollout: it, or stones before it."""
        if self._known.stones and self._polls.wave[row] <= self._wave:
            return self._known.stones | {self._release}
        return (self._release,)

    def _told(self, record: Record) -> str:
        told = record.get("target_version")
        return self._meaning(told[:64]) if isinstance(told, str) else ""

    def _follow(self, case: Case, row: int, event: str, running: str, record: Record) -> None:
        """Take a request of a device."""
        self._report(case, row, running)
        goals = self._goals(row)
        case.told = self._told(record)
        if case.told in goals and running not in (case.told, self._release):
            now_ms = self._uptime.up_ms
            case.offer(now_ms, self._terms, self._grace_ms(row), event == "check")
        if event == "begin" and is_of(record, "download", goals):
            self._begin(case, row, record)

    def _report(self, case: Case, row: int, running: str) -> None:
        grace_ms = self._grace_ms(row) if case.is_waited_for(self._terms) else 0.0
        case.report(running, self._uptime.up_ms, self._terms, grace_ms)

    def _grace_ms(self, row: int) -> float:
        """Return how long a device may take to apply an image and say so."""
        interval_ms = self._polls.interval_ms(row)
        return max(self._plan.grace_seconds * 1000, _INTERVALS_TO_APPLY * interval_ms)

    def _begin(self, case: Case, row: int, record: Record) -> None:
        size = record.get("download_size")
        if record.get("method") == "HEAD" or not is_count(size) or size == 0:
            return
        start = record.get("range_start")
        if start is not None and not is_count(start):
            return
        sha256_text = record["download_sha256"][:64]
        site = self._polls.site[row]
        case.begin(sha256_text, size, start, self._uptime.up_ms, self._terms, site)

    def _end(self, case: Case | None, row: int, record: Record) -> None:
        start, sent = record.get("range_start") or 0, record.get("bytes_sent")
        is_ours = is_of(record, "release", self._goals(row))
        if case is not None and is_ours and is_count(start) and is_count(sent):
            sha256_text = record["release_sha256"][:64]
            complete = record.get("complete") is True
            site = self._polls.site[row]
            case.end(sha256_text, start, start + sent, complete, self._uptime.up_ms, site)

    def open_wave(self, wave: int, now_ms: int) -> None:
        """Note that a wave opens now; one that is open already is opened anew."""
        self._wave = wave
        self._opened_ms, self._opened_up_ms = None, self._uptime.at(now_ms)

    def note_outage(self, from_ms: int, to_ms: int) -> None:
        """Note that the server did not answer, such as between two of its processes.

        Call it before the records after `to_ms` are observed.
        """
        self._uptime.outage(from_ms, to_ms)

    def note_clock_jump(self, now_ms: int) -> None:
        """Note that the server's clock jumped to `now_ms`: soak and silence begin anew."""
        self._uptime.jump(now_ms)

    @property
    def clock_jumps(self) -> int:
        """How often the clock jumped, those jumps among them that only the records show."""
        return self._uptime.jumps

    def tally(self, now_ms: int, accepted: Iterable[str] = ()) -> Tally:
        """Count. This looks at each device that was offered the release: some µs for each.

        Args:
            accepted: MACs of devices that a person goes on without.
        """
        self._note_times(now_ms)
        polls, uptime = self._polls, self._uptime
        up_ms, anew_ms = uptime.at(now_ms), uptime.anew_ms
        since_ms = self._opened_up_ms if self._opened_ms is None else up_ms
        quiet = Silence(
            polls, up_ms, since_ms, anew_ms, self._terms.soak_ms, uptime.unheard_ms(now_ms)
        )
        found = (polls.rows.get(number_of(mac)) for mac in accepted)
        rows = {row for row in found if row is not None}
        chosen_wave = NO_WAVE if self._plan.first_group is None else 0
        counting = WaveCounter(polls, quiet, self._terms, self._wave, chosen_wave, rows, up_ms)
        tally = counting.tally(self._cases)
        return tally._replace(
            parts={self._spelled.get(old, old): each for old, each in tally.parts.items()},
            bad=self._named(tally.bad),
            stuck=self._named(tally.stuck),
            age_ms=up_ms - max(since_ms, anew_ms),
        )

    def _named(self, rows: Mapping[Any, str]) -> dict[Any, str]:
        """Return by their MACs what is said of devices by their rows."""
        return {mac_of(self._polls.rows.number_at(row)): each for row, each in rows.items()}

    def dump(self) -> bytes:
        """Return all of it as bytes; the same records before make the same bytes."""
        cases = {row: account.state() for row, account in self._cases.items()}
        mine = (self._in_head, self._has_begun, self._wave, self._opened_ms, self._opened_up_ms)
        parts: tuple[Any, ...] = (
            mine,
            self._uptime.state(),
            self._polls.state(),
            self._spelled,
            cases,
        )
        # Version 2 of the form: later ones say which objects are the same, and that may differ.
        content = marshal.dumps((_CHECKPOINT, self._plan.id, *parts), 2)
        return sha256(content).digest() + content

    def load(self, content: bytes) -> None:
        """Go on where `dump` was called, in place of all that was folded here.

        Raises:
            BadCheckpoint: it is torn, of another rollout or of another version of this program.
        """
        digest, content = content[:32], content[32:]
        if sha256(content).digest() != digest:
            raise BadCheckpoint("the checkpoint is torn")
        form, plan_id, *parts = marshal.loads(content)
        if form != _CHECKPOINT or plan_id != self._plan.id:
            raise BadCheckpoint("the checkpoint is of another rollout or program")
        mine, uptime, polls, spelled, cases = parts
        self._in_head, self._has_begun, self._wave, self._opened_ms, self._opened_up_ms = mine
        self._uptime.restore(uptime)
        self._polls.restore(polls)
        self._spelled = spelled
        self._cases = {row: Account.from_state(state) for row, state in cases.items()}
