"""Places for downloads: how many devices may download at once, and who is next. Pure.

A device that is offered a release has a place for a minute; its download keeps that until it is
whole. Who finds none comes again at its next poll, and the third time it has been refused it goes
before those that were refused less: shortly before it comes, by its own rhythm, a place that is
free is left free for it. One that does not come blocks nothing.

Times are seconds of one monotonic clock. No lock: the caller holds one.
"""

from collections import OrderedDict
from typing import NamedTuple

from ota_server.scan import number_of

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
# 300 bytes each. Beyond that those that were not heard of for the longest time begin anew.
MOST_REFUSED = 100_000


class _Place:
    """A place that is taken: until a time, or for as long as transfers run."""

    __slots__ = ("is_whole", "transfers", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.transfers = 0
        self.is_whole = False


class _Refused(NamedTuple):
    """A device that found no place: how many times, when last, and in which slot it comes."""

    times: int
    at: float
    slot: int | None

    @property
    def rank(self) -> int:
        return min(self.times // REFUSALS_A_RANK, _TOP_RANK)


class Places:
    """The places of one server."""

    def __init__(self, limit: int, most_refused: int = MOST_REFUSED) -> None:
        self._limit = limit
        self._most_refused = most_refused
        self._taken: dict[str, _Place] = {}
        self._next_until = float("inf")
        self._refused: OrderedDict[int, _Refused] = OrderedDict()
        self._slots: dict[int, list[int]] = {}

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

    def ask(self, mac: str, now: float) -> bool:
        """Say whether a device has a place, and keep that for a minute from now."""
        self._let_lapse(now)
        place = self._taken.get(mac)
        if place is not None:
            place.until = max(place.until, now + RESERVED_SECONDS)
            return True
        number = number_of(mac)
        refused = self._refused.get(number)
        free = self._limit - len(self._taken)
        if free <= 0 or (self._slots and free <= self._expected(refused, now)):
            self._refuse(number, refused, now)
            return False
        if refused is not None:
            self._forget(number, refused)
        self._taken[mac] = _Place(now + RESERVED_SECONDS)
        self._next_until = min(self._next_until, now + RESERVED_SECONDS)
        return True

    def begin(self, mac: str, now: float) -> bool:
        """Say whether a device has a place, and note that a transfer of it begins if so."""
        if not self.ask(mac, now):
            return False
        self._taken[mac].transfers += 1
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
        place.until = now + RESERVED_SECONDS
        self._next_until = min(self._next_until, place.until)

    def _let_lapse(self, now: float) -> None:
        """Free the places whose time is over; they are looked at only when one may be."""
        if now < self._next_until:
            return
        idle = [(mac, place) for mac, place in self._taken.items() if not place.transfers]
        for mac, place in idle:
            if place.until <= now:
                del self._taken[mac]
        self._next_until = min(
            (place.until for _, place in idle if place.until > now), default=float("inf")
        )

    def _expected(self, refused: _Refused | None, now: float) -> int:
        """Return how many devices of a higher rank come about now."""
        above = (0 if refused is None else refused.rank) + 1
        slot = int(now // _SLOT_SECONDS)
        near = range(slot - _SOON_SLOTS, slot + _SOON_SLOTS + 1)
        return sum(sum(self._slots[at][above:]) for at in near if at in self._slots)

    def _refuse(self, number: int, before: _Refused | None, now: float) -> None:
        if before is None:
            refused = _Refused(1, now, None)
        else:
            self._forget(number, before)
            refused = _Refused(before.times + 1, now, None)
            if refused.rank:
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
