"""Download slots: how many devices may download at once, and who gets the next free slot. Pure.

The rule:

1. A slot goes to whoever asks first. A device has at most one slot, however often it asks.
2. A quarter of the slots is kept for devices that were refused three times or more and still wait:
   other devices must leave so many slots free, but not more than one for each such device. Among
   them, those that were refused six times or more have the same right over the others. A device
   waits until it gets a slot, or has not asked for two hours. Of fewer than four slots even one is
   more than a quarter: there a device waits for five minutes only, so that one that is gone does
   not keep the only slot from all others.
3. A slot that is not used ends after a minute and puts its device behind the others, once: it gets
   a slot only if more are free than devices wait. That ends when as many others have begun to
   download as waited when its slot ended, or after half an hour.
4. A slot that is used ends when the device has the whole image and none of its transfers runs, or
   a minute after its last transfer was cut. One check can extend that minute, further ones cannot.
5. While devices at another source address wait, the devices at one address that have not begun to
   download can have at most a quarter of all slots.

The states of a device:

| state       | what the device has   | what ends it                                             |
|-------------|-----------------------|----------------------------------------------------------|
| new         | nothing               | it asks: reserved, or refused and waiting                |
| waiting     | a number of refusals  | it asks: reserved, or refused once more                  |
| reserved    | a slot that is unused | it begins: downloading; after a minute: behind           |
| downloading | a slot, and transfers | it has the whole image: new; it is cut: paused           |
| paused      | a slot that was used  | it begins again: downloading; after a minute: new        |
| behind      | others go first       | it asks and enough slots are free: reserved; rule 3: new |

Times are seconds of one monotonic clock. Not locked: the caller holds a lock. In each table with
end times all entries last equally long, so that those that end first come first, and an answer
takes the same time however many devices wait.
"""

import math
from collections import Counter, OrderedDict
from typing import NamedTuple

from ota_server.model.device import number_of

# A device begins its download seconds after the offer, and reconnects seconds after a cut.
RESERVED_SECONDS = 60.0
# After so many refusals a device has a right to the kept slots, and a right before the others.
KEPT_FROM, FIRST_FROM = 3, 6
# One slot in so many is kept; the devices of one address can have one in so many.
_QUARTER = 4
# Devices that poll about once an hour still count as waiting at their next poll.
WAITING_SECONDS = 7200.0
WAITING_FOR_FEW_SECONDS = 300.0
# Devices that poll once an hour do not notice this.
BEHIND_SECONDS = 1800.0
# 300 bytes each. Beyond that the refusals of those refused the longest ago are forgotten.
MOST_REFUSED = 100_000


class _Slot:
    """A slot that a device has.

    Attributes:
        address: where the device asked from; None if unknown, or if the download has begun.
        may_extend: the next check extends the minute after a cut.
    """

    __slots__ = ("address", "has_begun", "is_whole", "may_extend", "transfers")

    def __init__(self, address: int | None) -> None:
        self.address = address
        self.transfers = 0
        self.has_begun = self.is_whole = self.may_extend = False


class _Behind(NamedTuple):
    """Until when a device is behind: until so many downloads have begun, or until a time."""

    begun: int
    until: float


class DownloadSlots:
    """The download slots of one server."""

    def __init__(self, limit: int, most_refused: int = MOST_REFUSED) -> None:
        self._limit = limit
        self._quarter = max(1, limit // _QUARTER)
        self._waiting_seconds = WAITING_SECONDS if limit >= _QUARTER else WAITING_FOR_FEW_SECONDS
        self._most_refused = most_refused
        self._slots: dict[str, _Slot] = {}
        self._ends: OrderedDict[str, float] = OrderedDict()  # when slots without transfers end
        self._begun = 0  # downloads since the server started
        self._refusals: OrderedDict[int, int] = OrderedDict()  # in the order of the last one
        self._waiting: OrderedDict[int, float] = OrderedDict()  # which of these wait, until when
        self._waiting_by_class = [0, 0, 0]
        self._behind: OrderedDict[int, _Behind] = OrderedDict()
        self._unused: Counter[int] = Counter()  # reserved slots by address
        self._wanting: OrderedDict[int, float] = OrderedDict()  # the two addresses refused last

    @property
    def limit(self) -> int:
        """How many devices may download at once."""
        return self._limit

    @property
    def downloading(self) -> int:
        """How many devices download at this moment."""
        return len(self._slots) - len(self._ends)

    @property
    def refused(self) -> int:
        """How many devices were refused and have not had a slot since."""
        return len(self._refusals)

    def has(self, mac: str, now: float) -> bool:
        """Return whether a device has a slot; changes nothing."""
        return mac in self._slots and now < self._ends.get(mac, math.inf)

    def holders(self, now: float) -> list[str]:
        """Return the devices that have a slot."""
        return [mac for mac in self._slots if self.has(mac, now)]

    def has_free_slot(self, now: float) -> bool:
        """Return whether rules 1 and 2 give a slot to a device that was never refused."""
        self._expire(now)
        return self._limit - len(self._slots) > min(self._quarter, sum(self._waiting_by_class[1:]))

    def ask(self, mac: str, now: float, address: int | None = None) -> bool:
        """Return whether a device has a slot now. A new one is reserved for a minute.

        Args:
            address: the source address that it asks from, as a number; None if unknown.
        """
        self._expire(now)
        slot = self._slots.get(mac)
        if slot is not None:
            if slot.may_extend:
                slot.may_extend = False
                self._end_later(mac, now)
            return True
        number = number_of(mac)
        is_behind = self._is_behind(number)
        if self._limit - len(self._slots) <= self._left_to_others(number, is_behind):
            if not is_behind:
                self._refuse(number, now, address)
            return False
        if self._has_share(address, now):
            return False  # slots are free, so this is not a refusal that gives rights
        self._give(mac, number, now, address)
        return True

    def begin(self, mac: str, now: float, address: int | None = None) -> bool:
        """Return whether a device has a slot now; if it has one, a transfer of it begins."""
        if not self.ask(mac, now, address):
            return False
        slot = self._slots[mac]
        slot.transfers += 1
        self._ends.pop(mac, None)
        if not slot.has_begun:
            slot.has_begun = True
            self._begun += 1
            self._leave_share(slot)
        return True

    def end(self, mac: str, now: float, is_last: bool) -> None:
        """Record that a transfer has ended.

        Args:
            is_last: the device has all of it, including the last byte of the image.
        """
        slot = self._slots[mac]
        slot.transfers -= 1
        slot.is_whole = slot.is_whole or is_last
        if slot.transfers:
            return  # other parts of the image are still under way
        if slot.is_whole:
            self._free(mac)
        else:
            slot.may_extend = True
            self._end_later(mac, now)

    def _left_to_others(self, number: int, is_behind: bool) -> int:
        """Return how many free slots a device must leave to others.

        1. It is behind: as many as devices wait.
        2. Waiting devices have a better right to the kept slots: one for each, at most all kept.
        3. There are no such devices: none.
        """
        if is_behind:
            return len(self._waiting)
        better = sum(self._waiting_by_class[_class(self._refusals.get(number, 0)) + 1 :])
        return min(self._quarter, better)

    def _has_share(self, address: int | None, now: float) -> bool:
        """Return whether an address has its share of the slots, and another address wants some."""
        if address is None or self._unused[address] < self._quarter:
            return False
        return any(each != address and now < until for each, until in self._wanting.items())

    def _give(self, mac: str, number: int, now: float, address: int | None) -> None:
        self._forget(number)
        self._behind.pop(number, None)
        self._slots[mac] = _Slot(address)
        if address is not None:
            self._unused[address] += 1
        self._end_later(mac, now)

    def _end_later(self, mac: str, now: float) -> None:
        self._ends[mac] = now + RESERVED_SECONDS
        self._ends.move_to_end(mac)

    def _free(self, mac: str) -> None:
        self._leave_share(self._slots.pop(mac))

    def _leave_share(self, slot: _Slot) -> None:
        """Stop counting a slot among the reserved slots of its address."""
        if slot.address is not None:
            self._unused[slot.address] -= 1
            if not self._unused[slot.address]:
                del self._unused[slot.address]
            slot.address = None

    def _expire(self, now: float) -> None:
        """End everything whose time is over: slots, waiting, and being behind."""
        while self._waiting and (wait := next(iter(self._waiting.items())))[1] <= now:
            self._stop_waiting(wait[0])
        while self._ends and (end := next(iter(self._ends.values()))) <= now:
            mac, _ = self._ends.popitem(last=False)
            if not self._slots[mac].has_begun:
                self._put_behind(number_of(mac), end)
            self._free(mac)
        while self._behind and next(iter(self._behind.values())).until <= now:
            self._behind.popitem(last=False)

    def _put_behind(self, number: int, now: float) -> None:
        self._behind[number] = _Behind(self._begun + len(self._waiting), now + BEHIND_SECONDS)
        if len(self._behind) > self._most_refused:
            self._behind.popitem(last=False)

    def _is_behind(self, number: int) -> bool:
        behind = self._behind.get(number)
        return behind is not None and self._begun < behind.begun

    def _refuse(self, number: int, now: float, address: int | None) -> None:
        refusals = self._refusals.get(number, 0) + 1
        self._forget(number)
        self._refusals[number] = refusals
        self._waiting[number] = now + self._waiting_seconds
        self._waiting_by_class[_class(refusals)] += 1
        if len(self._refusals) > self._most_refused:
            self._forget(next(iter(self._refusals)))
        if address is not None:
            self._wanting[address] = now + self._waiting_seconds
            self._wanting.move_to_end(address)
            if len(self._wanting) > 2:
                self._wanting.popitem(last=False)

    def _forget(self, number: int) -> None:
        """Forget that a device was refused."""
        self._stop_waiting(number)
        self._refusals.pop(number, None)

    def _stop_waiting(self, number: int) -> None:
        """Stop keeping a slot for a device; its number of refusals is still known."""
        if self._waiting.pop(number, None) is not None:
            self._waiting_by_class[_class(self._refusals[number])] -= 1


def _class(refusals: int) -> int:
    """Return 0 for a device without a right to the kept slots, 1 with one, 2 with a better one."""
    return (refusals >= KEPT_FROM) + (refusals >= FIRST_FROM)
