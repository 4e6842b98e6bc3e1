"""Places for downloads: how many devices may download at once, and who is next. Pure.

A device that is offered a release has a place for a minute; its download keeps that until it is
whole. Who finds none comes again at its next poll, and the third time it has been refused it goes
before those that were refused less: shortly before it comes, by its own rhythm, a place that is
free is left free for it. One that does not come blocks nothing.

A place that its device lets lapse without a transfer was not worth having: that device goes behind
the others, the longer the more often it does so. And while others want places, one address gets no
more than a quarter of all for devices that have not begun.

Times are seconds of one monotonic clock. No lock: the caller holds one.
"""

from collections import Counter, OrderedDict
from itertools import islice
from typing import NamedTuple

from ota_server.model.device import number_of

# A device begins its download seconds after it was told; after a cut it needs some to connect.
RESERVED_SECONDS = 60.0
# So many refusals put a device before those that have fewer, so many more before these, and so on.
REFUSALS_A_RANK = 3
_TOP_RANK = 7
# How long before a device is expected a place is left free for it, and how long after. Longer
# leaves places empty, shorter misses devices whose clocks are bad.
SOON_SECONDS = 15.0
_SLOT_SECONDS = 5.0
_SOON_SLOTS = int(SOON_SECONDS / _SLOT_SECONDS)
# For so long a device that was refused is taken to want a place still: most poll more often.
_WANTED_SECONDS = 3600.0
# Of the places that nobody has begun to use, one address gets one of so many.
_SITE_SHARE = 4
# How long a device is behind that let a place lapse, twice as long each time, up to 32 minutes:
# one that polls each hour is not kept out by that.
_BEHIND_SECONDS = 60.0
_MOST_DOUBLINGS = 5
# Of those that were refused last, to know whether a place that is free is wanted.
_MOST_LOOKED_AT = 1000
# 300 bytes each. Beyond that those that were not heard of for the longest time begin anew.
MOST_REFUSED = 100_000


class _Place:
    """A place that is taken: until a time, or for as long as transfers run.

    Attributes:
        site: where its device is, while no transfer has begun; None: nobody knows, or one has.
        is_used: a transfer has begun.
        may_ask_on: the next check keeps it for longer; then there has to be another transfer.
    """

    __slots__ = ("is_used", "is_whole", "may_ask_on", "site", "transfers", "until")

    def __init__(self, until: float, site: int | None) -> None:
        self.until = until
        self.site = site
        self.transfers = 0
        self.is_used = self.is_whole = self.may_ask_on = False


class _Refused(NamedTuple):
    """A device that found no place: how many times, when last, and in which slot it comes."""

    times: int
    at: float
    slot: int | None

    @property
    def rank(self) -> int:
        return min(self.times // REFUSALS_A_RANK, _TOP_RANK)


class _Lapses(NamedTuple):
    """A device that let places lapse: how many since its last transfer; until when it is behind."""

    times: int
    until: float


class Places:
    """The places of one server."""

    def __init__(self, limit: int, most_refused: int = MOST_REFUSED) -> None:
        self._limit = limit
        self._most_refused = most_refused
        self._taken: dict[str, _Place] = {}
        self._next_until = float("inf")
        self._refused: OrderedDict[int, _Refused] = OrderedDict()
        self._slots: dict[int, list[int]] = {}
        self._unused: Counter[int] = Counter()  # places by site that no transfer has begun in
        self._wanting: OrderedDict[int, float] = OrderedDict()  # the two sites refused last
        self._lapses: OrderedDict[int, _Lapses] = OrderedDict()

    @property
    def limit(self) -> int:
        """How many devices may download at once."""
        return self._limit

    @property
    def downloading(self) -> int:
        """How many devices download at this moment."""
        return sum(place.transfers > 0 for place in self._taken.values())

    @property
    def waiting(self) -> int:
        """How many devices were refused, and have had no place since."""
        return len(self._refused)

    def has(self, mac: str, now: float) -> bool:
        """Say whether a device has a place, and leave all as it is."""
        place = self._taken.get(mac)
        return place is not None and (place.transfers > 0 or now < place.until)

    def holders(self, now: float) -> list[str]:
        """Return the devices that have a place."""
        return [mac for mac in self._taken if self.has(mac, now)]

    def ask(self, mac: str, now: float, site: int | None = None) -> bool:
        """Say whether a device has a place, which is kept for a minute.

        Asking again does not keep it for longer, unless a transfer was cut meanwhile.

        Args:
            site: the address that it asks from, or its network; None: nobody knows.
        """
        self._let_lapse(now)
        place = self._taken.get(mac)
        if place is not None:
            if place.may_ask_on:
                place.may_ask_on = False
                place.until = max(place.until, now + RESERVED_SECONDS)
            return True
        number = number_of(mac)
        refused = self._refused.get(number)
        free = self._limit - len(self._taken)
        is_behind = self._has_share(site, now) or self._is_behind(number, free, now)
        if free <= 0 or is_behind or (self._slots and free <= self._expected(refused, now)):
            self._refuse(number, refused, now, has_turn=not is_behind)
            if site is not None and number not in self._lapses:
                self._note_wanting(site, now)
            return False
        if refused is not None:
            self._forget(number, refused)
        self._taken[mac] = _Place(now + RESERVED_SECONDS, site)
        if site is not None:
            self._unused[site] += 1
        self._next_until = min(self._next_until, now + RESERVED_SECONDS)
        return True

    def begin(self, mac: str, now: float, site: int | None = None) -> bool:
        """Say whether a device has a place, and note that a transfer of it begins if so."""
        if not self.ask(mac, now, site):
            return False
        place = self._taken[mac]
        place.transfers += 1
        place.until = max(place.until, now + RESERVED_SECONDS)
        if not place.is_used:
            place.is_used = True
            self._lapses.pop(number_of(mac), None)
            self._leave_share(place)
        return True

    def end(self, mac: str, now: float, is_last: bool) -> None:
        """Note that a transfer has ended.

        Args:
            is_last: the device has all of it, the last byte of the image included.
        """
        place = self._taken[mac]
        place.transfers -= 1
        place.is_whole = place.is_whole or is_last
        if place.transfers:
            return  # others of its parts are still under way
        if place.is_whole:
            del self._taken[mac]
            return
        place.until, place.may_ask_on = now + RESERVED_SECONDS, True
        self._next_until = min(self._next_until, place.until)

    def _let_lapse(self, now: float) -> None:
        """Free the places whose time is over; they are looked at only when one may be."""
        if now < self._next_until:
            return
        idle = [(mac, place) for mac, place in self._taken.items() if not place.transfers]
        for mac, place in idle:
            if place.until <= now:
                del self._taken[mac]
                if not place.is_used:
                    self._leave_share(place)
                    self._note_lapse(number_of(mac), now)
        self._next_until = min(
            (place.until for _, place in idle if place.until > now), default=float("inf")
        )

    def _note_lapse(self, number: int, now: float) -> None:
        before = self._lapses.pop(number, None)
        times = 1 if before is None else min(before.times + 1, _MOST_DOUBLINGS)
        self._lapses[number] = _Lapses(times, now + _BEHIND_SECONDS * (1 << times))
        if len(self._lapses) > self._most_refused:
            self._lapses.popitem(last=False)

    def _is_behind(self, number: int, free: int, now: float) -> bool:
        """Say whether a device that let places lapse has to leave those that are free to others."""
        lapses = self._lapses.get(number)
        if lapses is None or now >= lapses.until or free <= 0:
            return False
        latest = islice(reversed(self._refused.items()), _MOST_LOOKED_AT)
        others = (refused for each, refused in latest if each not in self._lapses)
        last = next(islice(others, free - 1, None), None)
        return last is not None and now - last.at < _WANTED_SECONDS

    def _has_share(self, site: int | None, now: float) -> bool:
        """Say whether an address has its share of the places, and another one wants some too."""
        if site is None or self._unused[site] < max(1, self._limit // _SITE_SHARE):
            return False
        return any(
            other != site and now - at < _WANTED_SECONDS for other, at in self._wanting.items()
        )

    def _leave_share(self, place: _Place) -> None:
        """Count a place no longer among those that nobody has begun to use."""
        if place.site is not None:
            self._unused[place.site] -= 1
            if not self._unused[place.site]:
                del self._unused[place.site]
            place.site = None

    def _note_wanting(self, site: int, now: float) -> None:
        self._wanting[site] = now
        self._wanting.move_to_end(site)
        if len(self._wanting) > 2:
            self._wanting.popitem(last=False)

    def _expected(self, refused: _Refused | None, now: float) -> int:
        """Return how many devices of a higher rank come about now."""
        above = (0 if refused is None else refused.rank) + 1
        slot = int(now // _SLOT_SECONDS)
        near = range(slot - _SOON_SLOTS, slot + _SOON_SLOTS + 1)
        return sum(sum(self._slots[at][above:]) for at in near if at in self._slots)

    def _refuse(self, number: int, before: _Refused | None, now: float, has_turn: bool) -> None:
        """Note a refusal. With `has_turn` a place is left free for it when it comes again."""
        if before is None:
            refused = _Refused(1, now, None)
        else:
            self._forget(number, before)
            refused = _Refused(before.times + 1, now, None)
            if refused.rank and has_turn:
                # It comes again after as long as it took this time.
                slot = int((2 * now - before.at) // _SLOT_SECONDS)
                refused = refused._replace(slot=slot)
                self._slots.setdefault(slot, [0] * (_TOP_RANK + 1))[refused.rank] += 1
        self._refused[number] = refused
        if len(self._refused) > self._most_refused:
            self._forget(*next(iter(self._refused.items())))

    def _forget(self, number: int, refused: _Refused) -> None:
        del self._refused[number]
        if refused.slot is not None:
            counts = self._slots[refused.slot]
            counts[refused.rank] -= 1
            if not any(counts):
                del self._slots[refused.slot]
