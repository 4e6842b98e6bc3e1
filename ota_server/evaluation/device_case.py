"""Cases: what became of one device that a release was offered to. Pure.

Versions are meanings (`release.meaning`); times are milliseconds of `Uptime`, or NEVER.
"""

from typing import Any, NamedTuple

from ota_server.evaluation.poll_history import NEVER
from ota_server.model.device import RESTART_AFTER_MS

# How a device has failed. The first two are undone when it reports the release after all.
NOT_FAILED, STILL_OLD, BEGAN_ANEW, WENT_BACK = range(4)
AFTER_DOWNLOAD = _UNDONE = (STILL_OLD, BEGAN_ANEW)
# Where completion is unknown: so many offers after the grace, and it will not come.
_VAIN_OFFERS = 3
# What is known of a download.
_DOWNLOAD = ("offered", "asked", "whole", "fetched_at", "sha256", "size", "spans", "under_way")
# Pieces of an image that do not touch. A client that fetches more at once has no image for long.
_MOST_SPANS = 256


class Terms(NamedTuple):
    """By what cases are judged.

    Attributes:
        release: what is rolled out.
        releases: all versions that are releases.
        soak_ms: how long a device must have run it.
        completion_unknown: what the server sent may have gone to a proxy alone.
    """

    release: str
    releases: frozenset[str]
    soak_ms: float
    completion_unknown: bool


class Case:
    """One device under one rollout.

    Attributes:
        old: the version that it ran before; "": none that is known.
        came_from: the version from which it was brought to the stone that it runs; "": none.
        runs: the version that it reported last.
        told: the version that it was told to run, last.
        offered: when it was first told to run the release.
        asked: its newest request for the image.
        whole: when every byte was acknowledged.
        fetched_at: the site where that was.
        updated: when it first reported the release.
        confirmed: it was heard from on the release after the soak.
        failing: how it has failed.
        is_mislabelled: it reports a third version, which is no release.
        under_way: transfers that have not ended.
        seen: when it was heard from last.
    """

    __slots__ = (
        "asked",
        "came_from",
        "confirmed",
        "failing",
        "fetched_at",
        "is_mislabelled",
        "offered",
        "offers",
        "old",
        "runs",
        "seen",
        "sha256",
        "size",
        "spans",
        "told",
        "under_way",
        "updated",
        "whole",
    )

    def __init__(self, version: str, release: str) -> None:
        """Begin with a device that reports a version; "": it has not reported any."""
        self.runs = version
        self.seen = NEVER
        self.told = ""
        self._begin_again("" if version == release else version)

    def _begin_again(self, old: str) -> None:
        self.old = old
        self.came_from = ""
        self.offered = self.asked = self.whole = self.updated = NEVER
        self.confirmed = self.is_mislabelled = False
        self.failing = NOT_FAILED
        self.offers = self.under_way = self.size = self.fetched_at = 0
        self.sha256 = ""
        self.spans: tuple[tuple[int, int], ...] = ()

    def copy(self) -> "Case":
        """Return another case that is the same."""
        return Case.from_state(self.state())

    def state(self) -> tuple[object, ...]:
        """Return all of it, for `from_state`."""
        return tuple(getattr(self, name) for name in self.__slots__)

    @classmethod
    def from_state(cls, state: tuple[object, ...]) -> "Case":
        """Return the case that `state` was taken from."""
        case = cls.__new__(cls)
        for name, value in zip(cls.__slots__, state, strict=True):
            setattr(case, name, value)
        return case

    def exposed(self, terms: Terms) -> int:
        """Return since when it may be on its way to the release."""
        return self.offered if terms.completion_unknown else self.whole

    def is_on_its_way(self, terms: Terms) -> bool:
        """Say whether it has the image, as far as can be known, and not run it for the soak."""
        return not self.confirmed and (self.updated >= 0 or self.exposed(terms) >= 0)

    def is_waited_for(self, terms: Terms) -> bool:
        """Say whether it has the image, as far as can be known, and not reported it yet."""
        return self.updated < 0 and self.failing == NOT_FAILED and self.exposed(terms) >= 0

    def report(self, version: str, now_ms: int, terms: Terms, grace_ms: float) -> None:
        """Take the version that a request says the device runs.

        Args:
            grace_ms: how long it may take to apply an image.
        """
        if not self.runs and version != terms.release:
            self.old = version  # its first word; it may have fetched the image elsewhere before
        if version == terms.release:
            self._runs_release(now_ms)
        elif self.updated >= 0:
            self._left_release(version)
        elif version == self.old:
            since = self.whole
            if not terms.completion_unknown and since >= 0 and now_ms - since > grace_ms:
                self._fail(STILL_OLD)
        elif version == self.came_from and version != self.told:
            self._begin_again(version)
            self._fail(WENT_BACK)
        elif self.exposed(terms) >= 0 and version not in terms.releases:
            self.is_mislabelled = True
        elif self.exposed(terms) >= 0 and version == self.told:
            self._runs_stone(version)
        else:
            self._begin_again(version)  # somebody else's doing
        self.runs = version

    def _runs_stone(self, version: str) -> None:
        before, has_gone_back = self.old, self.failing == WENT_BACK
        self._begin_again(version)
        self.came_from = before
        if has_gone_back:
            self._fail(WENT_BACK)

    def _runs_release(self, now_ms: int) -> None:
        if self.updated < 0:
            self.updated = now_ms
        if self.failing in _UNDONE:
            self.failing = NOT_FAILED
        self.is_mislabelled = False

    def _left_release(self, version: str) -> None:
        if version == self.told:
            self._begin_again(version)  # as an operator wanted
        else:
            self._fail(WENT_BACK)

    def _fail(self, how: int) -> None:
        if self.failing == NOT_FAILED:
            self.failing = how

    def hear(self, now_ms: int, anew_ms: int, terms: Terms) -> None:
        """Record that it was heard from, perhaps after the soak."""
        self.seen = now_ms
        if self.updated >= 0 and now_ms - max(self.updated, anew_ms) >= terms.soak_ms:
            self.confirmed = True

    def offer(self, now_ms: int, terms: Terms, grace_ms: float, is_check: bool) -> None:
        """Note that it was told to run the release, which it does not."""
        if self.offered < 0:
            self.offered = now_ms
        elif is_check and now_ms - self.offered > grace_ms and self.updated < 0:
            self.offers += 1
            if terms.completion_unknown and self.offers >= _VAIN_OFFERS:
                self._fail(STILL_OLD)

    def begin(
        self,
        sha256: str,
        size: int,
        range_start: int | None,
        now_ms: int,
        terms: Terms,
        site: int = 0,
    ) -> None:
        """Record that a transfer of the image begins; without `range_start`, of all of it."""
        is_anew = range_start is None
        if range_start == 0 and self.under_way <= 0:
            # Sooner, it goes on with what it has: some clients read byte 0 again.
            is_anew = now_ms - self.asked >= RESTART_AFTER_MS
        if sha256 != self.sha256:
            self.sha256, self.size, self.whole, self.spans = sha256, size, NEVER, ()
        elif is_anew:
            self.spans = ()
            if self.whole >= 0 and self.fetched_at != site:
                # Somebody else may have fetched it in its name: what followed from that is void.
                self.whole = NEVER
                self.failing = NOT_FAILED if self.failing in _UNDONE else self.failing
            elif self.whole >= 0 and self.updated < 0 and not terms.completion_unknown:
                self._fail(BEGAN_ANEW)
        self.asked = now_ms
        self.under_way += 1

    def unreported(self) -> "Case":
        """Return a copy without what was said of the release."""
        case = self.copy()
        case.updated, case.confirmed, case.failing = NEVER, False, NOT_FAILED
        case.is_mislabelled = False
        return case

    def take_download(self, other: "Case") -> None:
        """Take over what was downloaded elsewhere: that the server knows by itself."""
        if self.whole < 0 and other.asked > self.asked:
            for name in _DOWNLOAD:
                setattr(self, name, getattr(other, name))

    def end(
        self, sha256: str, start: int, stop: int, complete: bool, now_ms: int, site: int = 0
    ) -> None:
        """Record that a transfer ended; the bytes before `stop` were acknowledged, at a site."""
        if sha256 != self.sha256:
            return
        self.under_way = max(self.under_way - 1, 0)
        if not complete and stop >= self.size:
            stop = self.size - 1  # it reset the connection after the last byte: it did not take it
        self.spans = merged(self.spans, start, stop)
        is_whole = bool(self.spans) and self.spans[0][0] == 0 and self.spans[0][1] >= self.size
        if is_whole and self.whole < 0:
            self.whole, self.fetched_at = now_ms, site


class Account:
    """What is said of one device, and where; `homes` says what of that counts.

    Attributes:
        case: by its home.
        away: by other addresses since its home spoke last, going on from that; None: by none.
        away_site, away_since: which of them spoke last; when the first one did.
        contradicted_by: the site that said what its home did not confirm, last; None: none did.
    """

    __slots__ = ("away", "away_since", "away_site", "case", "contradicted_by")

    def __init__(self, case: Case) -> None:
        self.case = case
        self.away: Case | None = None
        self.away_site, self.away_since = 0, NEVER
        self.contradicted_by: int | None = None

    def lives_at(self, site: int) -> bool:
        """Take what was said at a site for what its home said; False where nothing was."""
        if self.away is None or self.away_site != site:
            return False
        self.case, self.away = self.away, None
        return True

    def cases(self) -> tuple[Case, ...]:
        """Return what is said of it, by its home and elsewhere."""
        return (self.case,) if self.away is None else (self.case, self.away)

    def state(self) -> tuple[Any, ...]:
        """Return all of it, for `from_state`."""
        away = None if self.away is None else self.away.state()
        return self.case.state(), away, self.away_site, self.away_since, self.contradicted_by

    @classmethod
    def from_state(cls, state: tuple[Any, ...]) -> "Account":
        """Return the account that `state` was taken from."""
        account = cls(Case.from_state(state[0]))
        account.away = None if state[1] is None else Case.from_state(state[1])
        account.away_site, account.away_since, account.contradicted_by = state[2:]
        return account


def merged(
    spans: tuple[tuple[int, int], ...], start: int, stop: int
) -> tuple[tuple[int, int], ...]:
    """Return spans of bytes, in order and apart, after another one; `stop` is exclusive."""
    if stop <= start:
        return spans
    if len(spans) == 1 and spans[0][0] <= start <= spans[0][1]:
        return ((spans[0][0], max(stop, spans[0][1])),)
    result: list[tuple[int, int]] = []
    for first, last in sorted((*spans, (start, stop))):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return tuple(result[:_MOST_SPANS])
