"""How many wrong tokens came from each source address, so that guessing is slow. Pure.

Nobody guesses 32 random bytes. The limit keeps the server's log short, and shows whoever has a
wrong token in a script that something is wrong. A right token is never held back.
"""

from collections import OrderedDict
from math import ceil

MOST_IN_A_MINUTE = 10
_MINUTE_SECONDS = 60.0
# Beyond that the address is forgotten whose minute began first.
_MOST_SOURCES = 4096


class WrongTokens:
    """Counts wrong tokens. Used by one thread at a time."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        """How many addresses are counted."""
        return len(self._counts)

    def count(self, source: int, now_seconds: float) -> int:
        """Count one more; return 0, or in how many seconds this source may try again.

        Args:
            source: as of `model.address.source_of`: an IPv6 /64 is one.
        """
        began, count = self._counts.get(source, (now_seconds, 0))
        passed = now_seconds - began
        if not 0 <= passed < _MINUTE_SECONDS:  # a clock may be set back
            began, count, passed = now_seconds, 0, 0.0
        if not count:
            self._counts.pop(source, None)
            while len(self._counts) >= _MOST_SOURCES:
                self._counts.popitem(last=False)
        self._counts[source] = (began, count + 1)
        return ceil(_MINUTE_SECONDS - passed) if count >= MOST_IN_A_MINUTE else 0
