"""What became of one device that a release was offered to. Pure.

Versions are meanings (`version.meaning`); times are milliseconds of `Uptime`, or NEVER. The states
of a device under a release (`DeviceState`):

    waiting --> offered --> downloading --> undecided --> updated       from undecided on it can
                             |       ^          |            |          fall silent at any time
                             v       |          v            v
                             +- cut -+    failed, mislabelled (or updated again)

    state        the device                                                       counts as
    -----------  ---------------------------------------------------------------  ---------
    waiting      was heard from, and has not been told of the release             active
    offered      was told to run the release                                      active
    downloading  has a transfer under way                                         active
    cut          has no transfer under way, and not the whole image               active
    undecided    has the whole image, and has not reported the release            active
                 since; or asked again, and says no version (`Case.is_unseen`)    no proof
    updated      reports the release                                              good
    failed       reports its old version after the time that it takes to install  bad
                 the release; or downloads all of it again; or left it; or says so
    mislabelled  reports a third version, which is not a release; one that then   bad
                 downloads all of it again counts with those that failed
    silent       was not heard from for too long after it had the whole image     bad, or excused
    too_new      was not known for a day before the rollout                       nothing
    surplus      is one of too many at one address (`contested`, rule 6)          nothing
    displaced    is heard where few are believed (`contested`, rule 4)            nothing
    not heard    was not heard from since the newest wave opened: no `Case`       nothing
      from       knows of that
    cannot take  is not given the release, as the server finds (`unfit`)          nothing
      it

A device that says no version says nothing of what it runs: neither that it runs the release nor
that it does not. What it said before that stands, but for the good.

A device that reports a stepping stone on its way, or a version that an operator wants it to run,
begins again with that version.
"""

from enum import StrEnum
from typing import NamedTuple

from ota_server.evaluation.poll_history import NEVER
from ota_server.evaluation.spans import merged
from ota_server.model.device import RESTART_AFTER_MS
from ota_server.model.version import UNKNOWN_VERSION

# How a device has failed. All but one are undone when it reports the release after all.
NOT_FAILED, STILL_OLD, BEGAN_AGAIN, WENT_BACK, SAID_SO = range(5)
AFTER_DOWNLOAD = (STILL_OLD, BEGAN_AGAIN)
# Where completion is unknown: so many checks after the grace, each after an offer or with the whole
# image as far as is known, and it will not come. A download that was cut takes one of them back.
_VAIN_CHECKS = 3
_DOWNLOAD = ("offered", "asked", "whole", "fetched_at", "sha256", "size", "spans", "under_way")
# A transfer that has not ended on record after this time was cut by the server's own end.
_MOST_TRANSFER_MS = 24 * 3600 * 1000


class DeviceState(StrEnum):
    """What became of a device under a release; the head of this file explains each."""

    WAITING = "waiting"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    CUT = "cut"
    UNDECIDED = "undecided"
    UPDATED = "updated"
    FAILED = "failed"
    MISLABELLED = "mislabelled"
    SILENT = "silent"
    TOO_NEW = "too_new"
    SURPLUS = "surplus"
    DISPLACED = "displaced"
    NOT_HEARD_FROM = "not_heard_from"
    CANNOT_TAKE_IT = "cannot_take_it"


BAD = (DeviceState.FAILED, DeviceState.SILENT, DeviceState.MISLABELLED)
NO_EVIDENCE = (DeviceState.TOO_NEW, DeviceState.SURPLUS, DeviceState.DISPLACED)
# Of a million devices: to look a member up in its class takes longer than the rest of `Case.state`.
_WAITING, _OFFERED = DeviceState.WAITING, DeviceState.OFFERED
_UNDECIDED, _UPDATED = DeviceState.UNDECIDED, DeviceState.UPDATED


class Terms(NamedTuple):
    """By what cases are judged.

    Attributes:
        release: what is rolled out.
        releases: all versions that are releases.
        soak_ms: how long a device must have run it.
        completion_unknown: what the server sent may have gone to a proxy alone.
        devices_proven: devices prove who they are; nobody else can speak for one.
    """

    release: str
    releases: frozenset[str]
    soak_ms: float
    completion_unknown: bool
    devices_proven: bool = False


class Case:
    """One device under one rollout.

    Attributes:
        old: the version that it ran before; "": that is not known.
        came_from: the version that it ran before the stepping stone that it runs; "": it runs none.
        runs: the version that it reported last.
        told: the version that it was told to run, last.
        offered: when it was first told to run the release.
        asked: its newest request for the image.
        whole: when every byte was acknowledged.
        fetched_at: the address that downloaded it.
        updated: when it first reported the release.
        confirmed: it was heard from on the release after the soak.
        failing: how it has failed.
        is_mislabelled: it reports a third version, which is not a release.
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
        "old",
        "runs",
        "seen",
        "sha256",
        "size",
        "spans",
        "told",
        "under_way",
        "updated",
        "vain_checks",
        "whole",
    )

    def __init__(self, version: str, release: str) -> None:
        """Begin with a device that reports a version; "": it has not reported any."""
        self.runs = version
        self.seen = NEVER
        self.told = ""
        self._restart("" if version in (release, UNKNOWN_VERSION) else version)

    def _restart(self, old: str) -> None:
        self.old = old
        self.came_from = ""
        self.offered = self.asked = self.whole = self.updated = NEVER
        self.confirmed = self.is_mislabelled = False
        self.failing = NOT_FAILED
        self.vain_checks = self.under_way = self.size = self.fetched_at = 0
        self.sha256 = ""
        self.spans: tuple[tuple[int, int], ...] = ()

    def copy(self) -> "Case":
        """Return another case that is the same."""
        return Case.from_tuple(self.as_tuple())

    def as_tuple(self) -> tuple[object, ...]:
        """Return all of it, for `from_tuple`."""
        return tuple(getattr(self, name) for name in self.__slots__)

    @classmethod
    def from_tuple(cls, state: tuple[object, ...]) -> "Case":
        """Return the case that a tuple was taken from."""
        case = cls.__new__(cls)
        for name, value in zip(cls.__slots__, state, strict=True):
            setattr(case, name, value)
        return case

    def state(self, terms: Terms, now_ms: int, is_silent: bool) -> DeviceState:
        """Return what became of it, where it counts."""
        if self.is_mislabelled and self.runs != self.old and self.failing != WENT_BACK:
            # Also once it has begun again: it is offered the release as long as it reports another.
            return DeviceState.MISLABELLED
        if self.failing != NOT_FAILED:
            return DeviceState.FAILED
        if is_silent:
            return DeviceState.SILENT
        if self.updated >= 0:
            return _UPDATED if self.runs != UNKNOWN_VERSION else _UNDECIDED
        if self.exposed(terms) >= 0:
            return _UNDECIDED
        if self.asked >= 0:
            is_recent = now_ms - self.asked < _MOST_TRANSFER_MS
            return DeviceState.DOWNLOADING if self.under_way and is_recent else DeviceState.CUT
        return _OFFERED if self.offered >= 0 else _WAITING

    def exposed(self, terms: Terms) -> int:
        """Return since when it may be on its way to the release."""
        return self.offered if terms.completion_unknown else self.whole

    def is_unseen(self, terms: Terms) -> bool:
        """Return whether it has asked again after it had the image, and says no version."""
        had_ms = max(self.exposed(terms), self.updated)
        return self.runs == UNKNOWN_VERSION and 0 <= had_ms < self.seen

    def is_on_its_way(self, terms: Terms) -> bool:
        """Return whether it has the image, as far as is known, and has not run it for the soak."""
        return not self.confirmed and (self.updated >= 0 or self.exposed(terms) >= 0)

    def is_waited_for(self, terms: Terms) -> bool:
        """Return whether it has the image, as far as is known, and has not reported it yet."""
        return self.updated < 0 and self.failing == NOT_FAILED and self.exposed(terms) >= 0

    def report(self, version: str, now_ms: int, terms: Terms, grace_ms: float) -> None:
        """Take the version that a request says the device runs.

        Args:
            grace_ms: how long it may take to apply an image.
        """
        if version == UNKNOWN_VERSION:
            self.runs = version
            return
        if not self.old and self.runs in ("", UNKNOWN_VERSION) and version != terms.release:
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
            self._restart(version)
            self._fail(WENT_BACK)
        elif self.exposed(terms) >= 0 and version not in terms.releases:
            self.is_mislabelled = True
        elif self.exposed(terms) >= 0 and version == self.told:
            self._runs_stepping_stone(version)
        else:
            self._restart(version)  # somebody else's doing
        self.runs = version

    def _runs_stepping_stone(self, version: str) -> None:
        before, has_gone_back = self.old, self.failing == WENT_BACK
        self._restart(version)
        self.came_from = before
        if has_gone_back:
            self._fail(WENT_BACK)

    def _runs_release(self, now_ms: int) -> None:
        if self.updated < 0:
            self.updated = now_ms
        if self.failing != WENT_BACK:
            self.failing = NOT_FAILED
        self.is_mislabelled = False

    def _left_release(self, version: str) -> None:
        if version == self.told:
            self._restart(version)  # as an operator wanted
        else:
            self._fail(WENT_BACK)

    def say_failed(self) -> None:
        """Record that the device says itself that its update failed: no inference outweighs it."""
        self.failing = SAID_SO

    def _fail(self, how: int) -> None:
        if self.failing == NOT_FAILED:
            self.failing = how

    def hear(self, now_ms: int, restarted_ms: int, terms: Terms) -> None:
        """Record that it was heard from, perhaps after the soak.

        Args:
            restarted_ms: when soaks began again (`Uptime`).
        """
        self.seen = now_ms
        if self.updated >= 0 and now_ms - max(self.updated, restarted_ms) >= terms.soak_ms:
            self.confirmed = True

    def offer(self, now_ms: int, terms: Terms, grace_ms: float, is_check: bool) -> None:
        """Record that it does not run the release, which it was told to run or has the image of."""
        if self.offered < 0:
            self.offered = now_ms
        elif is_check and now_ms - self.offered > grace_ms and self.updated < 0:
            self.vain_checks += 1
            is_vain = self.vain_checks >= _VAIN_CHECKS and self.runs != UNKNOWN_VERSION
            if terms.completion_unknown and is_vain:
                self._fail(STILL_OLD)

    def begin(
        self,
        sha256: str,
        size: int,
        range_start: int | None,
        now_ms: int,
        terms: Terms,
        source: int,
        says_end: bool = False,
    ) -> None:
        """Record that a transfer of the image begins; without `range_start`, of all of it.

        A device that says itself how its update ends, `says_end`, may begin again until then.
        """
        is_restart = range_start is None
        if range_start == 0 and self.under_way <= 0:
            # Sooner, it goes on with what it has: some clients read byte 0 again.
            is_restart = now_ms - self.asked >= RESTART_AFTER_MS
        if sha256 != self.sha256:
            self.sha256, self.size, self.whole, self.spans = sha256, size, NEVER, ()
        elif is_restart:
            self.spans = ()
            is_contested = self.fetched_at != source and not terms.devices_proven
            if self.whole >= 0 and is_contested:
                # Somebody else may have downloaded it in its name (`contested`, rule 8).
                self.whole = NEVER
                self.failing = NOT_FAILED if self.failing in AFTER_DOWNLOAD else self.failing
            elif self.is_waited_for(terms) and not (terms.completion_unknown or says_end):
                # One that says no version may do so at each poll, whatever it runs.
                self._fail(BEGAN_AGAIN if self.runs != UNKNOWN_VERSION else NOT_FAILED)
        self.asked = now_ms
        self.under_way += 1

    def unreported(self) -> "Case":
        """Return a copy without what was said of the release."""
        case = self.copy()
        case.updated, case.confirmed, case.failing = NEVER, False, NOT_FAILED
        case.is_mislabelled = False
        return case

    def take_download(self, other: "Case") -> None:
        """Take over what was downloaded elsewhere, since the server itself saw that."""
        if self.whole < 0 and other.asked > self.asked:
            for name in _DOWNLOAD:
                setattr(self, name, getattr(other, name))

    def end(
        self, sha256: str, start: int, stop: int, complete: bool, now_ms: int, source: int
    ) -> None:
        """Record that a transfer to an address ended; the bytes before `stop` were acknowledged."""
        if sha256 != self.sha256:
            return
        self.under_way = max(self.under_way - 1, 0)
        if not complete and stop > start:  # where a system does not say what arrived, none is
            self.vain_checks = max(self.vain_checks - 1, 0)  # that time it was the link
        if not complete and stop >= self.size:
            stop = self.size - 1  # it reset the connection after that, and has not taken it
        self.spans = merged(self.spans, start, stop)
        is_whole = bool(self.spans) and self.spans[0][0] == 0 and self.spans[0][1] >= self.size
        if is_whole and self.whole < 0:
            self.whole, self.fetched_at = now_ms, source
