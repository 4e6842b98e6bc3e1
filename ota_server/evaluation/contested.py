"""Homes: whose word on a device counts, and for how much. Pure.

Anybody can send any MAC, but not from anywhere. The *home* of a device is the source address (of
IPv6 the /64) from which it was heard before the rollout began.

1. All that is said of devices from their home counts, however many live there.
   *Sixty devices behind one NAT are sixty devices.*
2. The home has the last word: when it speaks, what was said elsewhere is dropped, but for what was
   fetched. Where that said otherwise, the device is *contradicted*; status names the address.
   *Somebody says that ten devices went back; at their next polls they are where they were.*
3. While a home is quiet, another address may speak for its devices: good news counts at once, bad
   news once home, and who spoke before, missed a poll. One address decides a quarter of it, or one.
   *Forty devices that turn up at forty new addresses have moved; at one address, one has.*
4. Where an address has had its quarter, devices that have missed a poll at home are *displaced*:
   neither well nor failed. Where they are many, the rollout pauses and names that address.
   *Somebody polls in the name of thirty bricked devices: nobody takes them for alive.*
5. Where most devices of one home, and of no other, turn up at one new address, and none at the old
   one after that, they live there once two have missed a poll, and one is not at risk. Such a home
   is never large. *A provider gives an office of twenty devices another address each night.*
6. Of one home there count in a wave as many devices as of others, by its size, and two standard
   deviations, or three. *Twenty forged MACs, chosen to be in the first wave of 1 %: three count.*
7. Of the failures that halt a release one home gives a quarter, or one, unless three tenths of the
   fleet live there. Where the rest would have halted it, it pauses and names the address.
   *The twenty forged MACs fail in a fleet of a hundred: a person is asked.*
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import compress

from ota_server.evaluation.address_caps import QUARTER, most_of_each
from ota_server.evaluation.device_case import NOT_FAILED, Account, Case
from ota_server.evaluation.poll_history import FORGOTTEN, GAPS_TO_MISS, PollHistory

_LEAST_TO_MOVE = 2  # one device may have moved alone
_LEAST_OF_HOME = 3  # so few may all be in one wave by chance
_LARGE = 0.3  # over a quarter, for forged MACs may be that; under a third, for three addresses
_SAMPLE = 4096  # shares need no more devices
OfRow = Callable[[int], bool]
OfAccount = Callable[[int, Account], bool]
Accounts = Mapping[int, Account]
Heard = tuple[int, str, str]


def listen(
    account: Account, polls: PollHistory, row: int, heard: Heard, now_ms: int
) -> Case | None:
    """Return the case to be told what is heard: at a site, which version runs, and the release.

    None: nobody listens (rules 2 and 3).
    """
    (site, version, release), away = heard, account.away
    if site == polls.home[row]:
        if away is not None:
            if away.runs not in (version, account.case.runs):
                account.contradicted_by = account.away_site
            account.case.take_download(away)
        account.away = None
        return account.case
    if away is None:
        account.away_since = now_ms
    elif site != account.away_site:
        has_missed = now_ms - away.seen > GAPS_TO_MISS * polls.longest_ms(row, 0.0)
        if version != release and not has_missed:
            return None
        if version != release or away.runs != release or away.failing != NOT_FAILED:
            # What was said there is not its story; what was fetched is.
            before, away = away, (account.case if account.case.runs else away).unreported()
            away.take_download(before)
    account.away, account.away_site = away or account.case.copy(), site
    return account.away


def believed(
    accounts: Accounts, may_speak: OfAccount, has_missed: OfAccount
) -> Iterator[tuple[int, Case | None, bool]]:
    """Yield each row, its case, and whether that is by its home (rules 1, 3, 4); None: displaced.

    `may_speak`: another address may speak for a device, as far as it has its quarter.
    """
    away = {row for row, each in accounts.items() if each.away and may_speak(row, each)}
    most = most_of_each(Counter(accounts[row].away_site for row in away))
    spoken: Counter[int] = Counter()
    for row, account in accounts.items():
        spoken[account.away_site] += row in away
        if row in away and spoken[account.away_site] <= most:
            yield row, account.away, False
        elif row in away and has_missed(row, account):
            yield row, None, False
        else:
            yield row, account.case, True


def move_homes(
    polls: PollHistory,
    accounts: Accounts,
    has_missed: OfAccount,
    is_expected: OfRow,
    is_at_risk: OfRow,
) -> None:
    """Take a new address for the home of devices that have moved there together (rule 5)."""
    since: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, account in accounts.items():
        if account.away is not None:
            # Who speaks for devices of a home that is there has not taken over another one.
            times = since[account.away_site][polls.home[row]]
            times += [account.away_since] * has_missed(row, account)
    moves = {  # of a home: to which site, and since when
        home: (site, min(times))
        for site, homes in since.items()
        for home, times in homes.items()
        if len(homes) == 1 and len(times) >= _LEAST_TO_MOVE
    }
    there: Counter[int] = Counter()
    well: set[int] = set()  # homes of which a device is there that the release did not reach
    rows = [row for row, home in enumerate(polls.home) if home in moves] if moves else []
    for row in rows:
        home, (site, since_ms) = polls.home[row], moves[polls.home[row]]
        if polls.seen[row] < since_ms:
            there[home] -= is_expected(row)
        elif polls.site[row] == home:
            there[home] -= len(rows)  # it has stayed, and so it is a home
        elif polls.site[row] == site:
            there[home] += 1
            well |= set() if is_at_risk(row) else {home}
        else:
            there[home] -= 1
    for row in (row for row in rows if there[polls.home[row]] > 0 and polls.home[row] in well):
        polls.home[row] = site = moves[polls.home[row]][0]
        polls.moved.add(site)
        if row in accounts and accounts[row].lives_at(site):
            polls.polled[row] = max(polls.polled[row], accounts[row].case.seen)


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


def large_homes(polls: PollHistory, in_wave: Counter[int], is_there: OfRow) -> Collection[int]:
    """Return where three tenths of all that are there live, and a quarter of the wave (rule 7)."""
    total = in_wave.total()
    large = {home for home, count in in_wave.items() if count * QUARTER > total}
    reached = polls.in_waves(FORGOTTEN - 1)
    sample = range(0, len(polls), max(len(polls) // _SAMPLE, 1)) if large else ()
    living = Counter(polls.home[row] for row in sample if reached[row] and is_there(row))
    return {h for h in large - polls.moved if living[h] > _LARGE * living.total()}
