"""Which slots and which waiting devices each source address has, and when that is its share. Pure.

These are rules 6 and 7 of `slots`. An address is a number; None is not known, and has no limit.
"""

from collections import Counter, OrderedDict
from typing import TypeVar

# By how often a device was refused: without a right to the kept slots, with one, with a better one.
RANKS = 3
_Key = TypeVar("_Key")


class AddressShares:
    """The shares of all addresses. The caller holds a lock."""

    def __init__(self, limit: int, quarter: int) -> None:
        self._limit = limit
        self._quarter = quarter
        self._large = max(1, limit - quarter)
        self._held: Counter[int] = Counter()  # slots
        self._unused: Counter[int] = Counter()  # slots of devices that have not begun
        self._largest: int | None = None  # which had three quarters of the slots last
        self._waiting = 0  # devices with a right to the kept slots
        self._waiting_at: Counter[tuple[int | None, int]] = Counter()  # by address and rank
        self._wanting: OrderedDict[int, float] = OrderedDict()  # the two addresses refused last

    def has_share(self, address: int | None, now: float) -> bool:
        """Return whether an address has all slots that others leave to it."""
        if address is None:
            return False
        if self._held[address] >= max(1, self._limit - min(self._quarter, self._others(address))):
            return True
        return self._unused[address] >= self._quarter and any(
            each != address and now < until for each, until in self._wanting.items()
        )

    def with_too_many(self, asking: int | None) -> int | None:
        """Return the address that has more than three quarters of the slots, if another asks."""
        largest = self._largest
        is_too_many = largest not in (None, asking) and self._held[largest] > self._large
        return largest if is_too_many else None

    def kept_out(self, address: int | None, least: int) -> int:
        """Return how many devices wait at another address that has three quarters of the slots.

        Args:
            least: the lowest rank that counts.
        """
        largest = self._largest
        if largest is None or largest == address or self._held[largest] < self._large:
            return 0
        return self._waiting_from(largest, least)

    def give(self, address: int | None) -> None:
        """Record that a device at an address has a slot."""
        if address is not None:
            self._unused[address] += 1
            self._held[address] += 1
            if self._held[address] >= self._large:
                self._largest = address

    def use(self, address: int | None) -> None:
        """Record that it has begun its download, or will not."""
        _decrease(self._unused, address)

    def leave(self, address: int | None) -> None:
        """Record that it has no slot any more, or one that does not count."""
        _decrease(self._held, address)

    def wait(self, address: int | None, rank: int, until: float) -> None:
        """Record that a device at an address was refused, and waits."""
        self._waiting += rank > 0
        self._waiting_at[address, rank] += 1
        if address is not None:
            self._wanting[address] = until
            self._wanting.move_to_end(address)
            if len(self._wanting) > 2:
                self._wanting.popitem(last=False)

    def stop_waiting(self, address: int | None, rank: int) -> None:
        """Record that it waits no longer."""
        self._waiting -= rank > 0
        _decrease(self._waiting_at, (address, rank))

    def _others(self, address: int) -> int:
        """Return how many devices with a right to the kept slots wait at other addresses."""
        return self._waiting - self._waiting_from(address, 1)

    def _waiting_from(self, address: int, least: int) -> int:
        return sum(self._waiting_at[address, rank] for rank in range(least, RANKS))


def _decrease(counter: Counter[_Key], key: _Key | None) -> None:
    """Count one less of a key; keys without any are not kept, or they would fill the memory."""
    if key is not None:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
