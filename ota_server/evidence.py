"""Evidence: how many devices say what of a release, and how much that may decide. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from ota_server.binomial import most_by_chance
from ota_server.cases import NOT_FAILED, Case, Terms
from ota_server.polls import Polls
from ota_server.silence import Quiet
from ota_server.sites import SharedSites, capped, crowded

# A transfer that has not ended on record after this time was cut by the server's own end.
_MOST_TRANSFER_MS = 24 * 3600 * 1000
_NO_EVIDENCE = ("duplicate", "too_new")
_BAD = ("failed", "silent", "mislabelled")

_Places = Counter[tuple[str, int]]  # devices by the version before and the site


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
        self._silent: dict[int, str] = {}  # the version before, by row
        self._on_their_way: set[int] = set()
        self._at_risk: list[tuple[str, int]] = []  # with their row
        self._shares: dict[str | None, list[float]] = defaultdict(list)
        self._fresh = 0
        self._updated: Counter[int] = Counter()
        self._soaked: Counter[int] = Counter()

    def tally(self, cases: Mapping[int, Case]) -> Tally:
        """Return the counts of these cases, by their rows."""
        quiet, waves = self._quiet, self._polls.wave
        for row, case in cases.items():
            is_waited_for = case.is_on_its_way(self._terms)
            if is_waited_for:
                self._on_their_way.add(row)
            if waves[row] <= self._wave and (
                quiet.is_heard(row) or (is_waited_for and quiet.is_expected(row))
            ):
                self._count(row, case)
        if self._silent:
            self._weigh_silence()
        return self._sum_up()

    def _weigh_silence(self) -> None:
        for row in self._quiet.blamed(list(self._silent), self._on_their_way):
            self._bad["silent"][self._silent[row], self._polls.site[row]] += 1
        share = self._quiet.shares(self._on_their_way)
        for old, row in self._at_risk:
            self._shares[old].append(share(row))
        self._shares[None] = [each for shares in self._shares.values() for each in shares]

    def _count(self, row: int, case: Case) -> None:
        state = self._state(row, case)
        self._states[state] += 1
        if state in _NO_EVIDENCE:
            return
        site = self._polls.site[row]
        self._base[case.old, site] += 1
        if row in self._on_their_way or (case.confirmed and self._polls.wave[row] == self._wave):
            # Those that were confirmed since could have fallen silent too. Without them only those
            # that fall asleep would be left, as others leave.
            self._at_risk.append((case.old, row))
        if state == "silent":
            self._silent[row] = case.old
        elif state in _BAD:
            self._bad[state][case.old, site] += 1
        if self._polls.wave[row] == self._wave:
            self._fresh += 1
            if state == "updated":
                self._updated[site] += 1
                self._soaked[site] += case.confirmed

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
        if row in self._on_their_way and self._quiet.is_silent(row):
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
        return Tally(
            active=active,
            capped=uncapped - counted,
            overall=overall,
            versions={old: self._evidence(old) for old in sorted({old for old, _ in bad}) if old},
            fresh=self._fresh,
            to_come=by_wave.count(self._wave),
            fresh_updated=updated,
            soaked=capped(self._soaked, self._shared),
            reach=self._reach() - states.get("duplicate", 0),
            crowded=crowded(_sites(self._base, None), _sites(bad, None), self._shared),
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


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


def _sites(places: _Places, old: str | None) -> Counter[int]:
    """Return devices by their sites alone."""
    sites: Counter[int] = Counter()
    for (version, site), devices in places.items():
        if old is None or version == old:
            sites[site] += devices
    return sites
