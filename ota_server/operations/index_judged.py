"""What rollouts say of devices that did badly, for the index: a thread asks now and then. I/O.

To ask a rollout that is on means to fold its journal from the checkpoint on, and takes seconds
where a fleet is large. The controller cannot wait for that, and need not: the answer is right for
as long as its devices say nothing new.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

from ota_server.rollouts.files import ENDED_NAME, groups_with_plan
from ota_server.rollouts.history import judged_devices
from ota_server.rollouts.outcome_list import ListedDevice
from ota_server.system.data_dir import log_dir
from ota_server.system.files import Stamp, stamp_at

log = logging.getLogger(__name__)

_EVERY_SECONDS = 15.0
# The thread rests for so many times as long as it worked: it takes turns with what moves rollouts.
_REST = 20.0


class JudgedDevices:
    """The devices of one product that rollouts count as bad. Used by one thread.

    Attributes:
        found: by name, as `judged_devices` returns them.
    """

    def __init__(self, data_dir: Path) -> None:
        self.found: Mapping[str, ListedDevice] = {}
        self._data_dir = data_dir
        self._thread: Thread | None = None
        self._answer: Mapping[str, ListedDevice] | None = None
        self._seen: tuple[Stamp | None, ...] | None = None
        self._ask_at = 0.0

    def look(self, now_ms: int) -> frozenset[str]:
        """Take the answer, if there is one, and ask again if it is time.

        Returns:
            The names of the devices that may be in another state than before.
        """
        thread, touched = self._thread, frozenset[str]()
        if thread is not None and not thread.is_alive():
            self._thread = None
            if self._answer is not None:
                touched = frozenset((*self.found, *self._answer))
                self.found = self._answer
        if self._thread is None and time.monotonic() >= self._ask_at:
            self._ask(now_ms)
        return touched

    def _ask(self, now_ms: int) -> None:
        self._ask_at = time.monotonic() + _EVERY_SECONDS
        seen = (
            stamp_at(self._data_dir / "version"),
            stamp_at(log_dir(self._data_dir) / ENDED_NAME),
        )
        # Without a change of files only those may change that are known: one falls silent.
        if (seen == self._seen and not self.found) or not self._has_rollouts():
            return
        self._seen = seen
        self._thread = Thread(target=self._find, args=(now_ms,), name="index-judged", daemon=True)
        self._thread.start()

    def _has_rollouts(self) -> bool:
        """Return whether there is anything to find: of hundreds of products few have rollouts."""
        try:
            is_ended = (log_dir(self._data_dir) / ENDED_NAME).exists()
            return is_ended or bool(groups_with_plan(self._data_dir))
        except OSError:
            return False

    def _find(self, now_ms: int) -> None:
        began = time.monotonic()
        try:
            self._answer = judged_devices(self._data_dir, now_ms)
        except Exception as problem:  # of a thread: nobody else would learn of it
            self._answer = None
            log.warning("what rollouts say of devices is not known: %s", problem)
        self._ask_at = time.monotonic() + max(_EVERY_SECONDS, _REST * (time.monotonic() - began))
