"""What all pages and the API share: the data directory, the index, who may, the time. I/O."""

import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from threading import BoundedSemaphore, Lock

from ota_server.operations.device_index import DeviceIndex
from ota_server.operations.rollout_listing import LiveRollouts
from ota_server.operations.uploads import Uploads
from ota_server.operator_port.authoriser import Authoriser
from ota_server.operator_port.changes import Changes
from ota_server.operator_port.left_notes import LeftNotes
from ota_server.rollouts.rollout_memory import RolloutMemory
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir, log_dir, product_dir, product_names

# What the default product is called where a product has to be named, as by --product.
DEFAULT = "default"
# How often at least is looked whether something that is awaited has come.
_LOOK_SECONDS = 0.1
_SHEETS_AT_ONCE = 2


class NotHere(Exception):
    """What a request names is not there, or not possible; the status says which."""

    def __init__(self, text: str, status: HTTPStatus = HTTPStatus.NOT_FOUND) -> None:
        super().__init__(text)
        self.status = status


class Site:
    """What answers are made of. Safe for use by many threads.

    Attributes:
        data_dir: the root: that of the default product.
        rollouts: what is known here of those that are on.
        uploads: the images that operators have sent and not published yet.
        left_notes: the warnings of actions, until the page that follows has shown them.
        sheet_turns: is held while a part of a sheet is made.
    """

    def __init__(
        self,
        data_dir: Path,
        index: DeviceIndex,
        authoriser: Authoriser,
        changes: Changes,
        now_ms: Callable[[], int] = clock.now_ms,
        memory: RolloutMemory | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.index = index
        self.authoriser = authoriser
        self.changes = changes
        self.now_ms = now_ms
        self.rollouts = LiveRollouts(memory, index)
        self.uploads = Uploads()
        self.left_notes = LeftNotes()
        self.sheet_turns = BoundedSemaphore(_SHEETS_AT_ONCE)
        self._lock = Lock()
        self._waiting = 0

    def awaits(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so, which shows in the index after a moment; False: too long."""
        until, last_id = time.monotonic() + seconds, self.changes.last_id
        self._await(1)
        try:
            while not is_so():
                left = until - time.monotonic()
                if left <= 0 or self.changes.is_closed:
                    return False
                found = self.changes.after(last_id, min(left, _LOOK_SECONDS))
                last_id = found[-1].id if found else last_id
            return True
        finally:
            self._await(-1)

    def _await(self, more: int) -> None:
        with self._lock:
            self._waiting += more

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for the index to show something."""
        return self._waiting > 0

    @property
    def logs(self) -> Path:
        """The folder of the journal and of the audit log of the default product."""
        return log_dir(self.data_dir)

    @property
    def journal_dir(self) -> Path:
        """The folder of the journal, which is one for all products."""
        return journal_dir(self.data_dir)

    @property
    def products(self) -> tuple[str, ...]:
        """The products, "" first: the default one."""
        return ("", *product_names(self.data_dir))

    def folder_of(self, product: str) -> Path:
        """Return the data directory of a product, by its name, "" or `default`.

        Raises:
            NotHere: there is none of this name.
        """
        return self.named_product(product)[1]

    def named_product(self, said: str) -> tuple[str, Path]:
        """Return the name of a product, "" for the default one, and its data directory.

        Args:
            said: the name as URLs and forms have it, `default` or "" for the default one.

        Raises:
            NotHere: there is none of this name.
        """
        name = "" if said == DEFAULT else said
        if name not in self.products:
            raise NotHere(f"There is no product {name[:40]!r}.")
        return name, product_dir(self.data_dir, name)
