"""Maintenance windows: when downloads may begin, by the local time of one time zone. Pure.

A window is open whenever the local time is in it. So the hour that occurs twice in autumn counts
twice, and the hour that is skipped in spring is missing: a window within that hour does not open on
that day. Downloads never begin at a time that was not named.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from ota_server.model.identity import compact, expand

_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")
_DAY_MINUTES = 24 * 60
# A window opens every day, except a day on which its hour is skipped.
_DAYS_AHEAD = 3
# Zones change their offset only at a quarter of an hour of UTC.
_QUARTER = timedelta(minutes=15)
# New rules of a time zone, or a clock that was set, are noticed within this time.
_KEPT_MS = 3_600_000
_NEVER_BEFORE_MS = -(2**62)
_SPREAD_SECONDS = 3600
# 200 bytes each. Further devices wait without being counted until others are removed.
MOST_WAITING = 100_000


class Window(NamedTuple):
    """A period of the day, in minutes after midnight, without `closes`; may cross midnight."""

    opens: int
    closes: int

    def __str__(self) -> str:
        opens, closes = (f"{each // 60:02}:{each % 60:02}" for each in self)
        return f"{opens}-{closes}"


def parse_window(text: str) -> Window:
    """Read a window such as 01:00-05:00, or 22:00-04:00 across midnight.

    Raises:
        ValueError: it is not a window.
    """
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a window such as 01:00-05:00")
    opens = int(match[1]) * 60 + int(match[2])
    closes = _DAY_MINUTES if match[3] is None else int(match[3]) * 60 + int(match[4])
    if opens == closes:
        raise ValueError(f"{text!r} is empty; for the whole day leave the window out")
    return Window(opens, closes)


def is_open(windows: Sequence[Window], local: datetime) -> bool:
    """Return whether a local time is in one of the windows."""
    minute = local.hour * 60 + local.minute
    return any(
        opens <= minute < closes if opens < closes else minute >= opens or minute < closes
        for opens, closes in windows
    )


def next_change(
    windows: Sequence[Window], moment: datetime, zone: tzinfo | None
) -> datetime | None:
    """Return when the windows open or close next, or None if not within days.

    Args:
        moment: with a time zone.
        zone: that of the windows; None for that of the system.
    """
    is_now = is_open(windows, moment.astimezone(zone))
    later = sorted(at for at in _edges(windows, moment, zone) if at > moment)
    return next((at for at in later if is_open(windows, at.astimezone(zone)) != is_now), None)


def _edges(windows: Sequence[Window], moment: datetime, zone: tzinfo | None) -> Iterator[datetime]:
    """Yield all moments at which windows may open or close."""
    midnight = datetime.combine(moment.astimezone(zone).date(), datetime.min.time())
    for day in range(-1, _DAYS_AHEAD + 1):
        for minutes in {minutes for window in windows for minutes in window}:
            local = midnight + timedelta(days=day, minutes=minutes)
            for fold in (0, 1):
                yield local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    at = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    offset = at.astimezone(zone).utcoffset()
    for _ in range(_DAYS_AHEAD * 24 * 4):
        at += _QUARTER
        before, offset = offset, at.astimezone(zone).utcoffset()
        if offset != before:
            yield at


class Standing(NamedTuple):
    """Which devices a server lets in.

    Attributes:
        max_downloads: how many devices may download at once; None if unlimited.
        window: when downloads may begin, as text of `Hours`; "" if at any time.
        is_open: downloads may begin now.
        unmet: how many devices have waited for the window for more than a day.
        proxy_sign: what shows that a proxy is in front of it that it was not told of; "": nothing.
    """

    max_downloads: int | None = None
    window: str = ""
    is_open: bool = True
    unmet: int = 0
    proxy_sign: str = ""


class Hours:
    """The windows of one server, computed again only when they open or close. No lock."""

    def __init__(self, windows: Sequence[Window], zone: tzinfo | None) -> None:
        self._windows = windows
        self._zone = zone
        self._is_open = False
        self._from_ms = self._until_ms = _NEVER_BEFORE_MS
        self._opens_ms = 0
        self._spread_seconds = 0.0
        self._name = f"{', '.join(map(str, windows))} ({zone or 'the time of the server'})"

    def __str__(self) -> str:
        return self._name

    def are_open(self, now_ms: int) -> bool:
        """Return whether downloads may begin."""
        if not self._from_ms <= now_ms < self._until_ms:
            self._look(now_ms)
        return self._is_open

    def were_open(self, moment_ms: int) -> bool:
        """Return whether downloads were allowed to begin at another time."""
        return is_open(self._windows, _moment(moment_ms).astimezone(self._zone))

    def retry_seconds(self, now_ms: int, share: float) -> int:
        """Return after how many seconds to ask again: soon after the windows open next.

        Args:
            share: from 0 up to 1; it spreads devices over the first half of the window, or over its
                first hour if that is shorter.
        """
        self.are_open(now_ms)
        return int((self._opens_ms - now_ms) / 1000 + share * self._spread_seconds) + 1

    def _look(self, now_ms: int) -> None:
        moment = _moment(now_ms)
        self._is_open = is_open(self._windows, moment.astimezone(self._zone))
        change = next_change(self._windows, moment, self._zone)
        self._from_ms, self._until_ms = now_ms, now_ms + _KEPT_MS
        if change is None:
            return
        change_ms = round(change.timestamp() * 1000)
        self._until_ms = min(self._until_ms, change_ms)
        closes = next_change(self._windows, change, self._zone) or change
        self._opens_ms = change_ms
        self._spread_seconds = min(_SPREAD_SECONDS, (closes - change).total_seconds() / 2)


def _moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms / 1000, UTC)


class Waiting:
    """Devices that wait for a window, and since when. No lock; times of one monotonic clock.

    Only in memory: after a restart all begin to wait again.
    """

    def __init__(self, overdue_seconds: float | None, most: int = MOST_WAITING) -> None:
        self._overdue_seconds = overdue_seconds
        self._most = most
        # A device that does not come back once it would be let in is gone.
        self._kept_seconds = 30 * 86400.0 if overdue_seconds is None else 2 * overdue_seconds
        self._since: OrderedDict[int | str, float] = OrderedDict()

    def is_overdue(self, key: str, now: float) -> bool:
        """Return whether a device that asks outside the windows has waited for too long."""
        number = compact(key)
        since = self._since.get(number)
        if since is None:
            self._forget_old(now)
            if len(self._since) < self._most:
                self._since[number] = now
            return False
        return self._overdue_seconds is not None and now - since >= self._overdue_seconds

    def end(self, key: str) -> None:
        """Record that a device no longer waits: it asked in a window, or has the image."""
        self._since.pop(compact(key), None)

    def longer_than(self, seconds: float, now: float) -> int:
        """Return how many devices have waited for longer than that."""
        self._forget_old(now)
        count = 0
        for since in self._since.values():  # the longest first
            if now - since <= seconds:
                break
            count += 1
        return count

    def overdue(self, now: float, most: int) -> list[str]:
        """Return up to `most` devices that are let in outside the windows."""
        if self._overdue_seconds is None:
            return []
        keys: list[str] = []
        for number, since in self._since.items():  # the longest first
            if now - since < self._overdue_seconds or len(keys) == most:
                break
            keys.append(expand(number))
        return keys

    def _forget_old(self, now: float) -> None:
        while self._since:
            number, since = next(iter(self._since.items()))
            if now - since <= self._kept_seconds:
                return
            del self._since[number]
