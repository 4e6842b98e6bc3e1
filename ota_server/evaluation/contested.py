"""Whose word on a device counts, and for how much: what guards against forged evidence. Pure.

Anybody can send any MAC, but not from any address. The *home* of a device is the source address (of
IPv6 the /64) from which it was heard before the rollout began. Each rule has an example.

1. All that is said of devices from their home counts, however many live there.
   *Sixty devices behind one NAT are sixty devices.*
2. The home has the last word: when it speaks, what was said elsewhere is dropped, except for what
   was downloaded. Where that said otherwise, the device is *contradicted*, and status names who.
   *Somebody says that ten devices went back; at their next polls they are where they were.*
3. While a home is quiet, another address may speak for its devices. Good news counts at once; bad
   news counts when the home, or who spoke before, has missed a poll. One address decides for a
   quarter of these devices, or for one.
   *Forty devices that turn up at forty new addresses have moved; at one address, one has.*
4. Where an address has had its quarter, devices that have missed a poll at home are *displaced*:
   neither well nor failed. Where they are many, the rollout pauses and names that address.
   *Somebody polls in the name of thirty bricked devices: nobody takes them for alive.*
5. Where most devices of one home, and of no other, turn up at one new address, and none at the old
   one after that, they live there when two have missed a poll, and one is not at risk. Such a home
   is never large. *A provider gives an office of twenty devices another address each night.*
6. Of one home, as many devices count in a wave as of others, by its size, and two standard
   deviations more, or three. *Twenty forged MACs, chosen for the first wave of 1 %: three count.*
7. Of the failures that halt a release one home gives a quarter, or one, unless three tenths of the
   fleet live there. Where the rest would have halted it, it pauses and names the address.
   *The twenty forged MACs fail in a fleet of a hundred: a person is asked.*
8. That a device downloaded an image and did not apply it is evidence from the address that
   downloaded it; where another address downloads it again, it is no evidence (`Case.begin`).
   *Somebody downloads it in the name of forty devices, which do not know of that.*

Where devices prove who they are (`Terms.devices_proven`), nothing is contested. Then the home of a
device is wherever it speaks from (`Feedback`), so that nobody speaks from elsewhere, and rules 2 to
5 find nothing to do; rules 6 to 8 are left out. No server asks devices for a proof yet, so there is
no option for that: device authentication will set `ServerFacts.devices_proven`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

from ota_server.evaluation.device_case import AFTER_DOWNLOAD, NOT_FAILED, Case, Terms
from ota_server.evaluation.poll_history import FORGOTTEN, GAPS_TO_MISS, NEVER, PollHistory
from ota_server.model.address import address_of

# Of all evidence, the share that one address may give: a quarter.
QUARTER = 4
_LEAST_TO_MOVE = 2  # one device may have moved alone
_LEAST_OF_HOME = 3  # so few may all be in one wave by chance
_LARGE = 0.3  # over a quarter, for forged MACs may be that; under a third, for three addresses
_SAMPLE = 4096  # shares need no more devices
OfRow = Callable[[int], bool]
OfAccount = Callable[[int, "Account"], bool]
Accounts = Mapping[int, "Account"]


class Account:
    """What is said of one device, and from where.

    Attributes:
        case: by its home.
        away: by other addresses since its home spoke last, going on from that; None: by none.
        away_source, away_since: which of them spoke last; when the first one did.
        contradicted_by: the address that said last what its home did not confirm; None: none did.
    """

    __slots__ = ("away", "away_since", "away_source", "case", "contradicted_by")

    def __init__(self, case: Case) -> None:
        self.case = case
        self.away: Case | None = None
        self.away_source, self.away_since = 0, NEVER
        self.contradicted_by: int | None = None

    def case_that_hears(
        self, polls: PollHistory, row: int, source: int, running: str, release: str, now_ms: int
    ) -> Case | None:
        """Return the case that is told what is said from an address; None: nobody listens.

        Rules 2 and 3.

        Args:
            running: the version that the device is said to run.
        """
        away = self.away
        if source == polls.home[row]:
            if away is not None:
                if away.runs not in (running, self.case.runs):
                    self.contradicted_by = self.away_source
                self.case.take_download(away)
            self.away = None
            return self.case
        if away is None:
            self.away_since = now_ms
        elif source != self.away_source:
            has_missed = now_ms - away.seen > GAPS_TO_MISS * polls.longest_ms(row, 0.0)
            if running != release and not has_missed:
                return None
            if running != release or away.runs != release or away.failing != NOT_FAILED:
                # What was said there is not its story; what was downloaded is.
                before, away = away, (self.case if self.case.runs else away).unreported()
                away.take_download(before)
        self.away, self.away_source = away or self.case.copy(), source
        return self.away

    def lives_at(self, source: int) -> bool:
        """Take what was said from an address for what its home said; False: nothing was."""
        if self.away is None or self.away_source != source:
            return False
        self.case, self.away = self.away, None
        return True

    def cases(self) -> tuple[Case, ...]:
        """Return what is said of it, by its home and elsewhere."""
        return (self.case,) if self.away is None else (self.case, self.away)

    def as_tuple(self) -> tuple[Any, ...]:
        """Return all of it, for `from_tuple`."""
        away = None if self.away is None else self.away.as_tuple()
        return self.case.as_tuple(), away, self.away_source, self.away_since, self.contradicted_by

    @classmethod
    def from_tuple(cls, state: tuple[Any, ...]) -> "Account":
        """Return the account that a tuple was taken from."""
        account = cls(Case.from_tuple(state[0]))
        account.away = None if state[1] is None else Case.from_tuple(state[1])
        account.away_source, account.away_since, account.contradicted_by = state[2:]
        return account


# Where a home is


def poll_elsewhere(polls: PollHistory, row: int, now_ms: int, source: int) -> None:
    """Record a poll from an address that is not a device's home, before the rollout begins.

    Anybody can poll in its name, as often as they like, to have it thought silent too soon. So its
    home is where it was, until it has missed a poll there. Of the polls from elsewhere there counts
    one for each from its home, and that only where it is no sooner than half of its usual interval.
    """
    before = polls.polled[row]
    gap_ms = now_ms - max(before, 0)
    is_first = not polls.was_away[row]
    if gap_ms > polls.trusted_ms(row) * GAPS_TO_MISS:
        polls.home[row] = source
        if not is_first:
            polls.polled[row] = NEVER  # the gap was measured when it was first heard from elsewhere
        polls.poll(row, now_ms)
    elif before >= 0 and is_first and gap_ms * 2 >= polls.interval_ms(row):
        polls.was_away[row] = 1
        polls.measure(row, gap_ms)


def move_homes(
    polls: PollHistory,
    accounts: Accounts,
    has_missed: OfAccount,
    is_expected: OfRow,
    is_at_risk: OfRow,
) -> None:
    """Take a new address for the home of devices that have moved there together (rule 5)."""
    moves = _moves(polls, accounts, has_missed)
    there: Counter[int] = Counter()
    well: set[int] = set()  # homes of which a device is there that the release did not reach
    rows = [row for row, home in enumerate(polls.home) if home in moves] if moves else []
    for row in rows:
        home, (source, since_ms) = polls.home[row], moves[polls.home[row]]
        if polls.seen[row] < since_ms:
            there[home] -= is_expected(row)
        elif polls.source[row] == home:
            there[home] -= len(rows)  # it has stayed, and so it is a home
        elif polls.source[row] == source:
            there[home] += 1
            well |= set() if is_at_risk(row) else {home}
        else:
            there[home] -= 1
    for row in (row for row in rows if there[polls.home[row]] > 0 and polls.home[row] in well):
        polls.home[row] = source = moves[polls.home[row]][0]
        polls.moved.add(source)
        if row in accounts and accounts[row].lives_at(source):
            polls.polled[row] = max(polls.polled[row], accounts[row].case.seen)


def _moves(
    polls: PollHistory, accounts: Accounts, has_missed: OfAccount
) -> dict[int, tuple[int, int]]:
    """Return to which address devices of a home may have moved together, and since when."""
    since: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, account in accounts.items():
        if account.away is not None:
            # Who speaks for devices of a home that is there has not taken over another one.
            times = since[account.away_source][polls.home[row]]
            times += [account.away_since] * has_missed(row, account)
    return {
        home: (source, min(times))
        for source, homes in since.items()
        for home, times in homes.items()
        if len(homes) == 1 and len(times) >= _LEAST_TO_MOVE
    }


# Who is believed, and for how many devices


def believed(
    accounts: Accounts, may_speak: OfAccount, has_missed: OfAccount
) -> Iterator[tuple[int, Case | None, bool]]:
    """Yield each row, its case, and whether that is by its home (rules 1, 3, 4); None: displaced.

    `may_speak`: another address may speak for a device, as far as it has its quarter.
    """
    away = {row for row, each in accounts.items() if each.away and may_speak(row, each)}
    most = most_of_each(Counter(accounts[row].away_source for row in away))
    spoken: Counter[int] = Counter()
    for row, account in accounts.items():
        spoken[account.away_source] += row in away
        if row in away and spoken[account.away_source] <= most:
            yield row, account.away, False
        elif row in away and has_missed(row, account):
            yield row, None, False
        else:
            yield row, account.case, True


def surplus_of(polls: PollHistory, rows: Sequence[int], wave: int, terms: Terms) -> Iterator[int]:
    """Yield those of these devices that are more of one home than count (rule 6)."""
    if terms.devices_proven:
        return
    many = {home for home, n in Counter(polls.home[row] for row in rows).items() if n > 1}
    most = most_in_wave(polls, many, wave) if many else {}
    counted: Counter[int] = Counter()
    for row in rows:
        home = polls.home[row]
        counted[home] += 1
        if counted[home] > most.get(home, 1):
            yield row


def most_in_wave(polls: PollHistory, homes: Collection[int], wave: int) -> dict[int, int]:
    """Return how many devices of each home count in the waves up to one (rule 6)."""
    masks = polls.in_waves(FORGOTTEN - 1), polls.in_waves(wave)
    fleet, reached = map(sum, masks)
    living, in_wave = (Counter(filter(homes.__contains__, compress(polls.home, m))) for m in masks)
    most = {}
    for home, devices in living.items():
        others = (reached - in_wave[home]) / (fleet - devices) if fleet > devices else 1.0
        most[home] = max(int(devices * others + 2 * math.sqrt(devices * others)), _LEAST_OF_HOME)
    return most


def heard_at(case: Case, source: int, terms: Terms) -> int:
    """Return the address that answers for what became of a device (rule 8).

    Args:
        source: who is believed.
    """
    if case.failing in AFTER_DOWNLOAD and case.whole >= 0 and not terms.devices_proven:
        return case.fetched_at
    return source


def large_homes(
    polls: PollHistory, in_wave: Counter[int], is_there: OfRow, terms: Terms
) -> Collection[int] | None:
    """Return the homes that may give more than a quarter of the evidence (rule 7); None: all.

    Three tenths of all that are there live at such a home, and a quarter of the wave.
    """
    if terms.devices_proven:
        return None
    total = in_wave.total()
    large = {home for home, count in in_wave.items() if count * QUARTER > total}
    reached = polls.in_waves(FORGOTTEN - 1)
    sample = range(0, len(polls), max(len(polls) // _SAMPLE, 1)) if large else ()
    living = Counter(polls.home[row] for row in sample if reached[row] and is_there(row))
    return {h for h in large - polls.moved if living[h] > _LARGE * living.total()}


def capped(devices: Counter[int], free: Container[int]) -> int:
    """Return how many devices count of those at each address.

    No address gives more than a quarter of what is returned, but each gives one; a free one gives
    all that it has.
    """
    total = devices.total()
    if not devices or max(devices.values()) * QUARTER <= total:
        return total
    most = most_of_each(devices, free)
    return sum(n if source in free else min(n, most) for source, n in devices.items())


def most_of_each(devices: Counter[int], free: Container[int] = ()) -> int:
    """Return how many devices count at most of those at each address that is not free."""
    alone = [count for source, count in devices.items() if source not in free]
    others = devices.total() - sum(alone)
    most = max(alone, default=1)
    while most > 1:
        total = others + sum(min(count, most) for count in alone)
        if most * QUARTER <= total:
            return most
        most = min(most - 1, total // QUARTER)
    return 1


def largest(sources: Counter[int]) -> tuple[str, int]:
    """Return the address that most devices are at, and how many."""
    if not sources:
        return "", 0
    ((source, count),) = sources.most_common(1)
    return address_of(source), count
