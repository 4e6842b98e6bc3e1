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
5. A download that takes longer than at 4 KB/s has no right to its slot while others wait: it goes
   on, and the slot is for somebody else. A client that reads slowly would hold it for ever.
6. While devices at another source address wait, the devices at one address that have not begun to
   download can have at most a quarter of all slots.
7. One address has three quarters of the slots at most while others want them:
   a. It leaves one of the rest for each device elsewhere that waits by rule 2.
   b. No slot is kept by rule 2 for devices at an address that has so many.
   c. If it has more, because it came first, others that ask may have the slots of its downloads
      that are older than a minute. These go on. Of a single slot there is no share.

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
from collections import OrderedDict
from typing import NamedTuple

from ota_server.device_port.address_shares import RANKS, AddressShares
from ota_server.model.identity import number_of

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
# 340 bytes each. Beyond that the refusals of those refused the longest ago are forgotten.
MOST_REFUSED = 100_000
# What a device on a poor mobile link gets; below that a slot is free for others.
SLOWEST_BYTES_A_SECOND = 4096.0
_LOOK_SECONDS = 1.0


class _Slot:
    """A slot that a device has.

    Attributes:
        address: where the device asked from; None if unknown, or if its download is too slow.
        begun_at: when its download began; infinity if it has not.
        slow_at: from when on its download is too slow.
        may_extend: the next check extends the minute after a cut.
        is_taken: it is for others, and does not count any more.
    """

    __slots__ = (
        "address",
        "begun_at",
        "is_taken",
        "is_whole",
        "may_extend",
        "slow_at",
        "transfers",
    )

    def __init__(self, address: int | None) -> None:
        self.address = address
        self.transfers = 0
        self.is_whole = self.may_extend = self.is_taken = False
        self.begun_at = self.slow_at = math.inf

    @property
    def has_begun(self) -> bool:
        return self.begun_at < math.inf


class _Wait(NamedTuple):
    """Until when a device waits, where it asked from, and its rank."""

    until: float
    address: int | None
    rank: int


class _Behind(NamedTuple):
    """Until when a device is behind: until so many downloads have begun, or until a time."""

    begun: int
    until: float


class DownloadSlots:
    """The download slots of one server."""

    def __init__(
        self,
        limit: int,
        most_refused: int = MOST_REFUSED,
        slowest: float = SLOWEST_BYTES_A_SECOND,
    ) -> None:
        """Begin with all slots free.

        Args:
            slowest: the bytes a second below which a download has no right to its slot.
        """
        self._limit = limit
        self._slowest = slowest
        self._taken = 0  # slots of downloads that go on, while others may have the slot
        self._look_at = self._look_at_large_at = 0.0
        self._quarter = max(1, limit // _QUARTER)
        self._shares = AddressShares(limit, self._quarter)
        self._waiting_seconds = WAITING_SECONDS if limit >= _QUARTER else WAITING_FOR_FEW_SECONDS
        self._most_refused = most_refused
        self._slots: dict[str, _Slot] = {}
        self._ends: OrderedDict[str, float] = OrderedDict()  # when slots without transfers end
        self._begun = 0  # downloads since the server started
        self._refusals: OrderedDict[int, int] = OrderedDict()  # in the order of the last one
        self._waiting: OrderedDict[int, _Wait] = OrderedDict()  # which of these wait
        self._waiting_by_rank = [0] * RANKS
        self._behind: OrderedDict[int, _Behind] = OrderedDict()

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

    def has(self, key: str, now: float) -> bool:
        """Return whether a device has a slot; changes nothing."""
        return key in self._slots and now < self._ends.get(key, math.inf)

    def holders(self, now: float) -> list[str]:
        """Return the devices that have a slot."""
        return [key for key in self._slots if self.has(key, now)]

    def has_free_slot(self, now: float) -> bool:
        """Return whether rules 1 and 2 give a slot to a device that was never refused."""
        self._expire(now)
        return self._room > min(self._quarter, sum(self._waiting_by_rank[1:]))

    @property
    def _room(self) -> int:
        return self._limit - len(self._slots) + self._taken

    def ask(self, key: str, now: float, address: int | None = None) -> bool:
        """Return whether a device has a slot now. A new one is reserved for a minute.

        Args:
            address: the source address that it asks from, as a number; None if unknown.
        """
        self._expire(now)
        slot = self._slots.get(key)
        if slot is not None:
            if slot.may_extend:
                slot.may_extend = False
                self._end_later(key, now)
            return True
        number = number_of(key)
        is_behind = self._is_behind(number)
        left = self._left_to_others(number, is_behind, address)
        if self._room <= left:
            self._take_for_others(now, address)
        if self._room <= left:
            if not is_behind:
                self._refuse(number, now, address)
            return False
        if self._shares.has_share(address, now):
            return False  # slots are free, so this is not a refusal that gives rights
        self._give(key, number, now, address)
        return True

    def begin(
        self, key: str, now: float, address: int | None = None, size: float = math.inf
    ) -> bool:
        """Return whether a device has a slot now; if it has one, a transfer of it begins.

        Args:
            size: of the image, in bytes.
        """
        if not self.ask(key, now, address):
            return False
        slot = self._slots[key]
        slot.transfers += 1
        self._ends.pop(key, None)
        if not slot.has_begun:
            slot.begun_at = now
            slot.slow_at = now + RESERVED_SECONDS + size / self._slowest
            self._begun += 1
            self._shares.use(slot.address)
        return True

    def end(self, key: str, now: float, is_last: bool) -> None:
        """Record that a transfer has ended.

        Args:
            is_last: the device has all of it, including the last byte of the image.
        """
        slot = self._slots[key]
        slot.transfers -= 1
        slot.is_whole = slot.is_whole or is_last
        if slot.transfers:
            return  # other parts of the image are still under way
        if slot.is_whole:
            self._free(key)
        else:
            slot.may_extend = True
            self._end_later(key, now)

    def _take_for_others(self, now: float, asking: int | None) -> None:
        """Let others have slots of downloads that go on (rules 5 and 7)."""
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            for slot in self._slots.values():
                if now >= slot.slow_at:
                    self._take(slot)
                    self._leave_share(slot)
        # Apart from the above, or one address could keep others from this by asking all the time.
        address = self._shares.with_too_many(asking)
        if address is None or now < self._look_at_large_at:
            return
        self._look_at_large_at = now + _LOOK_SECONDS
        theirs = [s for s in self._slots.values() if s.address == address and not s.is_taken]
        if len(theirs) > self._limit - self._quarter:
            oldest = min(theirs, key=lambda slot: slot.begun_at)
            if now >= oldest.begun_at + RESERVED_SECONDS:
                self._take(oldest)

    def _take(self, slot: _Slot) -> None:
        self._taken += not slot.is_taken
        slot.is_taken = True

    def _left_to_others(self, number: int, is_behind: bool, address: int | None) -> int:
        """Return how many free slots a device must leave to others.

        1. It is behind: as many as devices wait.
        2. Waiting devices have a better right to the kept slots: one for each, at most all kept;
           none for those at another address that has a large share of the slots.
        3. There are no such devices: none.
        """
        if is_behind:
            return len(self._waiting)
        least = _rank(self._refusals.get(number, 0)) + 1
        better = sum(self._waiting_by_rank[least:]) - self._shares.kept_out(address, least)
        return min(self._quarter, better)

    def _give(self, key: str, number: int, now: float, address: int | None) -> None:
        self._forget(number)
        self._behind.pop(number, None)
        self._slots[key] = _Slot(address)
        self._shares.give(address)
        self._end_later(key, now)

    def _end_later(self, key: str, now: float) -> None:
        self._ends[key] = now + RESERVED_SECONDS
        self._ends.move_to_end(key)

    def _free(self, key: str) -> None:
        slot = self._slots.pop(key)
        self._taken -= slot.is_taken
        if not slot.has_begun:
            self._shares.use(slot.address)
        self._leave_share(slot)

    def _leave_share(self, slot: _Slot) -> None:
        """Stop counting a slot among those of its address."""
        self._shares.leave(slot.address)
        slot.address = None

    def _expire(self, now: float) -> None:
        """End everything whose time is over: slots, waiting, and being behind."""
        while self._waiting and next(iter(self._waiting.values())).until <= now:
            self._stop_waiting(next(iter(self._waiting)))
        while self._ends and (end := next(iter(self._ends.values()))) <= now:
            key, _ = self._ends.popitem(last=False)
            if not self._slots[key].has_begun:
                self._put_behind(number_of(key), end)
            self._free(key)
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
        wait = _Wait(now + self._waiting_seconds, address, _rank(refusals))
        self._waiting[number] = wait
        self._waiting_by_rank[wait.rank] += 1
        self._shares.wait(address, wait.rank, wait.until)
        if len(self._refusals) > self._most_refused:
            self._forget(next(iter(self._refusals)))

    def _forget(self, number: int) -> None:
        """Forget that a device was refused."""
        self._stop_waiting(number)
        self._refusals.pop(number, None)

    def _stop_waiting(self, number: int) -> None:
        """Stop keeping a slot for a device; its number of refusals is still known."""
        wait = self._waiting.pop(number, None)
        if wait is not None:
            self._waiting_by_rank[wait.rank] -= 1
            self._shares.stop_waiting(wait.address, wait.rank)


def _rank(refusals: int) -> int:
    """Return 0 for a device without a right to the kept slots, 1 with one, 2 with a better one."""
    return (refusals >= KEPT_FROM) + (refusals >= FIRST_FROM)
