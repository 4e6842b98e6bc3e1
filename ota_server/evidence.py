"""Evidence: how many devices say what of a release, and how much that may decide. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ota_server.binomial import most_by_chance
from ota_server.cases import NOT_FAILED, Account, Case, Terms
from ota_server.polls import Polls
from ota_server.silence import Quiet
from ota_server.sites import SharedSites, capped, crowded, most_of_each

# A transfer that has not ended on record after this time was cut by the server's own end.
_MOST_TRANSFER_MS = 24 * 3600 * 1000
_NO_EVIDENCE = ("duplicate", "too_new")
_BAD = ("failed", "silent", "mislabelled")

_Places = Counter[tuple[str, int]]  # devices by the version before and the site
_Reading = tuple[str, bool, str]  # the state of a device, if it has soaked, the version before


class Evidence(NamedTuple):
    """What decides whether a release is bad, of all devices or of those from one version.

    Numbers of devices, after `sites.capped`.

    Attributes:
        base: those heard from since the wave opened, or waited for.
        failed: those that failed in a way that they told.
        silent: those not heard from since they downloaded it, where that is not everybody's
            silence.
        mislabelled: those that report a third version, which is no release.
        excused: of `silent`, as many as would have been silent without the release, and by far.
    """

    base: int = 0
    failed: int = 0
    silent: int = 0
    mislabelled: int = 0
    excused: int = 0


class Tally(NamedTuple):
    """What became of the devices in the wave that is open, and in those before it.

    The counts of devices are for people; what `waves.advance` decides by is `overall`, `versions`,
    `undecided` of `active`, `fresh`, `to_come`, `soaked` and `crowded`.

    Attributes:
        active: devices heard from since the wave opened, or waited for; the two kinds that count
            for nothing are not among them.
        offered: of these, told to run the release, and nothing more.
        downloading: a transfer of it is under way.
        cut: every transfer ended before the last byte; the network's fault.
        undecided: all of it was acknowledged, and it is not yet known what came of it.
        updated: they report the release, and are not silent.
        failed: they told that it failed; `silent` and `mislabelled` are not among them.
        mislabelled: they report a third version, which is no release.
        silent: not heard from since they downloaded it, whoever's fault that is.
        duplicate: two devices share one MAC; they count for nothing.
        too_new: not known for a day before the rollout began; they count for nothing.
        capped: devices that updated or failed but do not count, since too many share an address.
        overall: the evidence of all that count.
        versions: the same by the version that devices ran before, where some are bad.
        fresh: active devices that this wave added.
        to_come: devices on record that this wave added, heard from or not.
        fresh_updated: of `fresh`, on the release, after `capped`.
        soaked: of `fresh_updated`, heard from when they had run it for the soak.
        reach: devices on record in this wave and those before it that count, heard from or not.
        crowded: devices that failed where one address holds over a quarter of all, unshared.
        silence_rate: the share of devices that would have been silent without it; 0 to 1.
        age_ms: how long the wave has been open, counting time in which the server answered alone.
    """

    active: int = 0
    offered: int = 0
    downloading: int = 0
    cut: int = 0
    undecided: int = 0
    updated: int = 0
    failed: int = 0
    mislabelled: int = 0
    silent: int = 0
    duplicate: int = 0
    too_new: int = 0
    capped: int = 0
    overall: Evidence = Evidence()
    versions: Mapping[str, Evidence] = {}
    fresh: int = 0
    to_come: int = 0
    fresh_updated: int = 0
    soaked: int = 0
    reach: int = 0
    crowded: int = 0
    silence_rate: float = 0.0
    age_ms: int = 0


class Counting:
    """Counts the cases of a wave, at one moment."""

    def __init__(
        self, polls: Polls, quiet: Quiet, terms: Terms, wave: int, shared: SharedSites, now_ms: int
    ) -> None:
        self._polls = polls
        self._quiet = quiet
        self._terms = terms
        self._wave = wave
        self._shared = shared
        self._now_ms = now_ms
        self._states: Counter[str] = Counter()
        self._base: _Places = Counter()
        self._bad: dict[str, _Places] = {state: Counter() for state in _BAD}
        self._silent: dict[int, Case] = {}
        self._silent_at: dict[int, tuple[int, int]] = {}
        self._on_their_way: set[int] = set()
        self._at_risk: list[tuple[str, int]] = []  # with their row
        self._shares: dict[str | None, list[float]] = defaultdict(list)
        self._accounts: Mapping[int, Account] = {}
        self._crowd: Counter[int] = Counter()
        self._crowd_bad: Counter[int] = Counter()
        self._fresh = 0
        self._updated: Counter[int] = Counter()
        self._soaked: Counter[int] = Counter()

    def tally(self, accounts: Mapping[int, Account]) -> Tally:
        """Return the counts of these devices, by their rows."""
        self._accounts = accounts
        quiet, waves = self._quiet, self._polls.wave
        contested: dict[int, Account] = {}
        for row, account in accounts.items():
            is_waited_for = any(case.is_on_its_way(self._terms) for case in account.cases())
            if is_waited_for:
                self._on_their_way.add(row)
            if waves[row] <= self._wave and (
                quiet.is_heard(row) or (is_waited_for and quiet.is_expected(row))
            ):
                if account.without:
                    contested[row] = account
                else:
                    self._count(row, account.case, account.case.site)
        for row, case, site in self._settled(contested):
            self._count(row, case, site)
        if self._silent:
            self._weigh_silence()
        return self._sum_up()

    def _settled(self, contested: Mapping[int, Account]) -> Iterator[tuple[int, Case, int]]:
        """Yield what is believed of devices that several addresses speak for, and on whose word.

        Of all that is decided by an address, none decides more than a quarter. The other devices
        are read as if it had said nothing; so are they then for the address that spoke last.
        """
        deciders = self._deciders(contested)
        sites = Counter(site for site, _ in deciders.values())
        most = most_of_each(sites, self._shared)
        speaking = _speaking(contested)
        believed: Counter[int] = Counter()
        doubted: list[tuple[int, Case]] = []
        for row, account in contested.items():
            case = account.case
            if row not in deciders:
                told = self._reading(row, case)
                same = (each for each in account.cases() if self._reading(row, each) == told)
                yield row, case, min((each.site for each in same), key=speaking.__getitem__)
                continue
            site, otherwise = deciders[row]
            believed[site] += 1
            if believed[site] <= most:
                yield row, case, site
            else:
                doubted.append((row, otherwise))
        last = [case.site for row, case in doubted if case.site != contested[row].home]
        most = most_of_each(Counter(last), self._shared)
        believed.clear()
        for row, case in doubted:
            believed[case.site] += 1
            account = contested[row]
            is_believed = case.site == account.home or case.site in self._shared
            if not is_believed and believed[case.site] > most and account.alone is not None:
                case = account.alone
            yield row, case, case.site

    def _deciders(self, contested: Mapping[int, Account]) -> dict[int, tuple[int, Case]]:
        """Return the address that decides each device, and what the device is without its word.

        An address decides where a device would be read otherwise without what it said. Where
        several do, it is the one that decides the most devices: one that moves has not met the
        others, and who forges has. Where none but its home does, which by itself says otherwise
        than all together, it is the one of the others that speaks for the fewest devices.
        """
        deciders: dict[int, tuple[int, Case]] = {}
        crowd: Counter[int] = Counter()
        speaking = _speaking(contested)
        alone: dict[int, list[int]] = {}
        for row, account in contested.items():
            told = self._reading(row, account.case)
            without = account.without
            alone[row] = [site for site in without if self._reading(row, without[site]) != told]
            crowd.update(alone[row])
            others = [site for site in without if site != account.home]
            if account.alone is None or not others or not {*others}.isdisjoint(alone[row]):
                continue
            if self._reading(row, account.alone) != told:
                alone[row] = []
                if not any(site in self._shared for site in others):
                    deciders[row] = min(others, key=speaking.__getitem__), account.alone
        for row, sites in alone.items():
            if sites := [site for site in sites if site not in self._shared]:
                site = max(sites, key=crowd.__getitem__)
                deciders[row] = site, contested[row].without[site]
        return deciders

    def _reading(self, row: int, case: Case) -> _Reading:
        return self._state(row, case), case.confirmed, case.old

    def _weigh_silence(self) -> None:
        for row in self._quiet.blamed(self._silent_at, self._on_their_way):
            self._note_bad(row, "silent", self._silent[row].old, self._silent_at[row][0])
        share = self._quiet.shares(self._on_their_way)
        for old, row in self._at_risk:
            self._shares[old].append(share(row))
        self._shares[None] = [each for shares in self._shares.values() for each in shares]

    def _count(self, row: int, case: Case, site: int) -> None:
        state = self._state(row, case)
        self._states[state] += 1
        if state in _NO_EVIDENCE:
            return
        self._base[case.old, site] += 1
        self._crowd[site] += self._is_at_home(row, site)
        if row in self._on_their_way or (case.confirmed and self._polls.wave[row] == self._wave):
            # Those that were confirmed since could have fallen silent too. Without them only those
            # that fall asleep would be left, as others leave.
            self._at_risk.append((case.old, row))
        if state == "silent":
            self._silent[row] = case
            self._silent_at[row] = case.site, case.seen
        elif state in _BAD:
            self._note_bad(row, state, case.old, site)
        if self._polls.wave[row] == self._wave:
            self._fresh += 1
            if state == "updated":
                self._updated[site] += 1
                self._soaked[site] += case.confirmed

    def _note_bad(self, row: int, state: str, old: str, site: int) -> None:
        self._bad[state][old, site] += 1
        self._crowd_bad[site] += self._is_at_home(row, site)

    def _is_at_home(self, row: int, site: int) -> bool:
        """Say whether a device is where it was before: who speaks for others is no crowd."""
        account = self._accounts[row]
        return account.home == site and not account.without

    def _state(self, row: int, case: Case) -> str:
        """Return what became of a device, in a word."""
        if case.is_duplicate:
            return "duplicate"
        if not self._polls.counts[row]:
            return "too_new"
        if case.failing != NOT_FAILED:
            return "failed"
        if case.is_mislabelled:
            return "mislabelled"
        if case.is_on_its_way(self._terms) and self._quiet.is_silent(row, case.seen):
            return "silent"
        if case.updated >= 0:
            return "updated"
        if case.exposed(self._terms) >= 0:
            return "undecided"
        if case.asked >= 0:
            is_recent = self._now_ms - case.asked < _MOST_TRANSFER_MS
            return "downloading" if case.under_way and is_recent else "cut"
        return "offered" if case.offered >= 0 else "waiting"

    def _sum_up(self) -> Tally:
        waiting, states = self._states.pop("waiting", 0), dict(self._states)
        active = waiting + sum(n for name, n in states.items() if name not in _NO_EVIDENCE)
        bad = self._bad["failed"] + self._bad["silent"] + self._bad["mislabelled"]
        uncapped = bad.total() + self._updated.total()
        updated = capped(self._updated, self._shared)
        overall = self._evidence(None)
        counted = overall.failed + overall.silent + overall.mislabelled + updated
        by_wave = self._polls.wave
        reach = self._reach() - states.get("duplicate", 0)
        return Tally(
            active=active,
            capped=uncapped - counted,
            overall=overall,
            versions={old: self._evidence(old) for old in sorted({old for old, _ in bad}) if old},
            fresh=self._fresh,
            to_come=by_wave.count(self._wave),
            fresh_updated=updated,
            soaked=capped(self._soaked, self._shared),
            reach=reach,
            crowded=crowded(self._crowd, self._crowd_bad, self._shared, reach),
            silence_rate=_mean(self._shares[None]),
            **states,
        )

    def _reach(self) -> int:
        """Return how many devices on record the open wave and those before it are for."""
        # By bits, since a loop over a million devices would take as long as all the rest.
        is_in = bytes(wave <= self._wave for wave in range(256))
        reached = int.from_bytes(self._polls.wave.translate(is_in), "big")
        return (reached & int.from_bytes(self._polls.counts, "big")).bit_count()

    def _evidence(self, old: str | None) -> Evidence:
        """Return the evidence of devices that ran a version before; None: of all."""
        failed = _sites(self._bad["failed"], old)
        failed_or_silent = failed + _sites(self._bad["silent"], old)
        mislabelled = capped(_sites(self._bad["mislabelled"], old), self._shared)
        bad, told = capped(failed_or_silent, self._shared), capped(failed, self._shared)
        base = capped(_sites(self._base, old), self._shared)
        shares = self._shares[old]
        excused = min(bad - told, most_by_chance(len(shares), _mean(shares)))
        return Evidence(max(base, bad + mislabelled), told, bad - told, mislabelled, excused)


def _speaking(contested: Mapping[int, Account]) -> Counter[int]:
    """Return for how many devices each address speaks."""
    return Counter(site for account in contested.values() for site in account.without)


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


def _sites(places: _Places, old: str | None) -> Counter[int]:
    """Return devices by their sites alone."""
    sites: Counter[int] = Counter()
    for (version, site), devices in places.items():
        if old is None or version == old:
            sites[site] += devices
    return sites
