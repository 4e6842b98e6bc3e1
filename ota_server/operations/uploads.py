"""Images that operators have sent and not published yet. I/O.

Each is a temporary file in `firmware/` of its product (`releases.temporary`): it is locked while
this process lives, nothing serves it, and what a killed process left is deleted at the next start
or publication. One that nobody publishes is deleted after an hour.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ota_server.model.refusal import Refused
from ota_server.releases.temporary import room_problem, temporary_image
from ota_server.system import clock
from ota_server.system.files import named
from ota_server.system.locks import Busy
from ota_server.system.new_files import make_folder

MOST_AT_ONCE = 4
# Each keeps a descriptor and its room on the disk.
MOST_KEPT = 32
KEPT_SECONDS = 3600.0
_MOST_NAME = 200


class NoRoom(Refused):
    """An image would fill the disk."""


class Upload(NamedTuple):
    """An image that has arrived.

    Attributes:
        id: random, so that nobody can guess it.
        data_dir: of its product.
        name: of the file that was sent, for people; anything can be in it.
        sent_ms: when it had arrived, in milliseconds since the epoch.
    """

    id: str
    data_dir: Path
    path: Path
    name: str
    size: int
    sent_ms: int


class _Kept:
    """An upload in the hands of this process."""

    def __init__(self, upload: Upload, files: ExitStack, until: float) -> None:
        self.upload = upload
        self.files = files
        self.until = until
        self.users = 0


class Uploads:
    """The uploads of this process. Safe for use by many threads."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now_seconds = now_seconds
        self._lock = Lock()
        self._running = 0
        self._kept: dict[str, _Kept] = {}

    def receive(
        self, data_dir: Path, name: str, size: int, pieces: Callable[[], Iterator[bytes]]
    ) -> Upload:
        """Keep an image that arrives piece by piece; if that fails, nothing of it is left.

        Args:
            size: what is announced, in bytes: there has to be room for it.
            pieces: begins to yield the pieces.

        Raises:
            NoRoom: it would fill the disk.
            Busy: too many arrive or wait now, or another command takes too long.
            OSError: it cannot be written, or the connection is gone.
        """
        with self._slot(), ExitStack() as files:
            make_folder(data_dir / "firmware")
            if problem := room_problem(data_dir, size):
                raise NoRoom(problem)
            upload_id = secrets.token_hex(16)
            file = files.enter_context(temporary_image(data_dir, f"upload_{upload_id}"))
            path, written = Path(file.name), 0
            for piece in pieces():
                with named(path):
                    file.write(piece)
                written += len(piece)
            with named(path):
                file.flush()
            upload = Upload(upload_id, data_dir, path, name[:_MOST_NAME], written, clock.now_ms())
            self._keep(upload, files)
        return upload

    @contextmanager
    def _slot(self) -> Iterator[None]:
        with self._lock:
            if self._running >= MOST_AT_ONCE:
                raise Busy(f"{MOST_AT_ONCE} images arrive now; try again when one is there")
            if self._running + len(self._kept) >= MOST_KEPT:
                raise Busy(
                    f"{len(self._kept)} images have arrived and are not published; publish or "
                    "discard some of them"
                )
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _keep(self, upload: Upload, files: ExitStack) -> None:
        kept = _Kept(upload, files.pop_all(), self._now_seconds() + KEPT_SECONDS)
        with self._lock:
            self._kept[upload.id] = kept

    def waiting(self, data_dir: Path) -> list[Upload]:
        """Return the uploads of a product, the newest last."""
        with self._lock:
            found = [each.upload for each in self._kept.values()]
        return [each for each in found if each.data_dir == data_dir]

    @contextmanager
    def using(self, upload_id: str, data_dir: Path) -> Iterator[Upload]:
        """Yield an upload, which is not deleted meanwhile.

        Raises:
            Refused: it is not there (any longer).
        """
        with self._lock:
            kept = self._kept.get(upload_id)
            if kept is None or kept.upload.data_dir != data_dir:
                raise Refused(
                    "the image that was sent is not there any longer: it was published or "
                    "discarded, or an hour has passed; send it again"
                )
            kept.users += 1
        try:
            yield kept.upload
        finally:
            with self._lock:
                kept.users -= 1

    def discard(self, upload_id: str) -> None:
        """Delete an upload, once nobody uses it."""
        with self._lock:
            if (kept := self._kept.get(upload_id)) is not None:
                kept.until = self._now_seconds()
        self.look_after()

    def look_after(self) -> None:
        """Delete what has waited for an hour. To be called every second, and cheap."""
        now = self._now_seconds()
        with self._lock:
            over = [each for each in self._kept.values() if each.until <= now and not each.users]
            for kept in over:
                del self._kept[kept.upload.id]
        for kept in over:
            with suppress(OSError):
                kept.files.close()

    def close(self) -> None:
        """Delete all that is not published."""
        with self._lock:
            left, self._kept = [*self._kept.values()], {}
        for kept in left:
            with suppress(OSError):
                kept.files.close()
