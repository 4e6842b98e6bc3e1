"""Sees that a product is put on hold, and that this ends, for notices. I/O.

`hold` of everything holds one product after another, the default one last; so does `unhold`. That
is told once, by the default product: the others wait for one more look, and then count their
hold as told if everything is on hold, or its end if the default product is not on hold either.
"""

from pathlib import Path
from typing import NamedTuple

from ota_server.policy.hold import current_hold, is_all_held, is_held
from ota_server.policy.text import Hold
from ota_server.system.data_dir import product_at, root_of

# The beginning of a hold that does not say when it began.
_ANY_TIME = "-"
# Before the time of a hold that the default product has told.
_OF_ALL = "~"


class SeenHold(NamedTuple):
    """What is seen of a hold.

    Attributes:
        state: when it began, after `~` if everything is on hold; "": none is on.
        hold: None: none is on.
        is_of_all: everything is on hold; of an end: the default product is not on hold either.
    """

    state: str = ""
    hold: Hold | None = None
    is_of_all: bool = False

    def is_told_by_default(self, before: str) -> bool:
        """Return whether the default product tells what became of the hold in state `before`."""
        return self.is_of_all and bool(self.state or before.startswith(_OF_ALL))


class HoldWatch:
    """Looks at the hold of one product."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._root = root_of(data_dir)
        self._waits = bool(product_at(data_dir))
        self._was_held = is_held(data_dir)
        self._seen = self._look(self._was_held)

    def look(self) -> SeenHold:
        """Return what is seen now; a change of a product's hold only when it is seen again."""
        now = is_held(self._data_dir)
        is_settled = now == self._was_held or not self._waits
        self._was_held = now
        if is_settled and now != bool(self._seen.state):
            self._seen = self._look(now)
        return self._seen

    def _look(self, is_on: bool) -> SeenHold:
        if not is_on:
            return SeenHold(is_of_all=self._waits and not is_held(self._root))
        hold = current_hold(self._data_dir) or Hold()
        is_of_all = self._waits and is_all_held(self._root)
        return SeenHold(_OF_ALL * is_of_all + (hold.time or _ANY_TIME), hold, is_of_all)
