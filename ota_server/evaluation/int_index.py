"""An index of numbers: for each, the position at which it was added. Pure.

A dictionary takes a hundred bytes for a device that has thirty bytes of its own; this takes twenty.
"""

from array import array
from collections.abc import Iterator

_FIRST_SLOTS = 1024
_WORD = (1 << 64) - 1


class IntIndex:
    """Positions of numbers of up to 64 bits, from 0 on: open addressing, half full at most."""

    def __init__(self, salt: int = 0) -> None:
        """Begin empty. Without the `salt` nobody can choose numbers that collide."""
        self._numbers = array("Q")
        self._factor = (0x9E3779B97F4A7C15 ^ salt << 1) & _WORD | 1
        self._slots = array("I")
        self._make_slots(_FIRST_SLOTS)

    def _make_slots(self, slots: int) -> None:
        self._shift = 64 - (slots.bit_length() - 1)
        self._mask = slots - 1
        self._slots = array("I", bytes(self._slots.itemsize * slots))
        for position, number in enumerate(self._numbers):
            self._slots[self._free_slot(number)] = position + 1

    def __len__(self) -> int:
        """Return how many numbers there are."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers in their order."""
        return iter(self._numbers)

    def numbers(self) -> "array[int]":
        """Return a copy of the numbers in their order."""
        return self._numbers[:]

    def get(self, number: int) -> int | None:
        """Return the position of a number, or None if it was not added."""
        slots, numbers = self._slots, self._numbers
        slot = (number * self._factor & _WORD) >> self._shift
        while after := slots[slot]:
            if numbers[after - 1] == number:
                return after - 1
            slot = (slot + 1) & self._mask
        return None

    def number_at(self, position: int) -> int:
        """Return the number at a position."""
        return self._numbers[position]

    def add(self, number: int) -> int:
        """Add a number that is not there; return its position."""
        self._numbers.append(number)
        count = len(self._numbers)
        if 2 * count > len(self._slots):
            self._make_slots(2 * len(self._slots))
        else:
            self._slots[self._free_slot(number)] = count
        return count - 1

    def _free_slot(self, number: int) -> int:
        slot = (number * self._factor & _WORD) >> self._shift
        while self._slots[slot]:
            slot = (slot + 1) & self._mask
        return slot

    def state(self) -> bytes:
        """Return all that is known, for `restore`."""
        return self._numbers.tobytes()

    def restore(self, state: bytes) -> None:
        """Take all that `state` returned, in place of what is known here."""
        self._numbers = array("Q", state)
        self._make_slots(max(_FIRST_SLOTS, 1 << (2 * len(self._numbers)).bit_length()))
