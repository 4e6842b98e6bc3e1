"""Digests of images, made by one thread for all products, off the path of requests."""

import heapq
import itertools
import logging
import os
import time
from collections import OrderedDict
from threading import Condition, Event, Thread

from ota_server.releases.image import Copies, Digests, PrivateCopy, digest
from ota_server.system.files import (
    Found,
    Stamp,
    is_temporary,
    open_found,
    stamp_of,
    unreadable_text,
)
from ota_server.system.server_log import RateLimit
from ota_server.system.watched import has_writer
from ota_server.system.wished import do_without

log = logging.getLogger(__name__)

# The file may still be copied: cp and scp pause for less than this between two writes.
SETTLE_SECONDS = 2.0
# Longer than the time stamps of a file system are apart: a later change gives a file another one.
_STAMP_SECONDS = 0.05
# A file that cannot be read is tried again after this: a disk may come back.
_RETRY_SECONDS = 10.0
# Of 300 bytes each. No operator keeps a folder of more images than this.
_KEPT = 100_000
# Copies of hashed images that no device has asked for yet.
_KEPT_COPIES = 4
_SAY_EVERY_SECONDS = 60.0


class Unreadable(Exception):
    """The file cannot be hashed; the message says why."""


class _Ended(Exception):
    """The hasher was closed while it read a file."""


class Hashing:
    """A file that is being hashed; `done` is set when it is hashed, or cannot be."""

    def __init__(self, found: Found) -> None:
        self.path = found.path
        self.found = found
        self.seen_at = time.monotonic()
        self.done = Event()


class Hasher:
    """Hashes each file once per stamp, when it has been unchanged for two seconds.

    At once if it has not changed since the start, and nothing has it open for writing any more: who
    copies an image in and starts the server should not wait.
    """

    def __init__(self, copies: Copies, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._copies = copies
        self._settle_seconds = settle_seconds
        self._started_ns = time.time_ns()
        self._untaken: OrderedDict[Stamp, PrivateCopy] = OrderedDict()
        self._copied_again: set[Stamp] = set()
        self._condition = Condition()
        self._digests: OrderedDict[Stamp, Digests] = OrderedDict()
        self._problems: dict[Stamp, tuple[float, str]] = {}
        self._by_path: dict[str, Hashing] = {}
        self._queue: list[tuple[float, int, Hashing]] = []
        self._order = itertools.count()
        self._ended = False
        self._thread: Thread | None = None
        self._limit = RateLimit(_SAY_EVERY_SECONDS)

    def known(self, stamp: Stamp) -> Digests | None:
        """Return the digests of a file, or None if it was not hashed yet.

        Raises:
            Unreadable: hashing it failed a moment ago.
        """
        with self._condition:
            digests = self._digests.get(stamp)
            if digests is None and stamp in self._problems:
                failed_at, problem = self._problems[stamp]
                if time.monotonic() - failed_at < _RETRY_SECONDS:
                    raise Unreadable(problem)
                del self._problems[stamp]
            return digests

    def take_copy(self, stamp: Stamp) -> PrivateCopy | None:
        """Return, once, the private copy that was made with the digests; None: there is none."""
        with self._condition:
            return self._untaken.pop(stamp, None)

    def want_copy(self, found: Found) -> None:
        """Have a copy made of a file that was hashed before.

        Once for each file: it is read again for that, and there may be no room.
        """
        with self._condition:
            if found.stamp in self._copied_again:
                return
            if len(self._copied_again) >= _KEPT:
                self._copied_again.clear()
            self._copied_again.add(found.stamp)
        self.request(found)

    def request(self, found: Found) -> Hashing:
        """Have a file hashed, once for all callers."""
        with self._condition:
            hashing = self._by_path.get(found.path)
            if hashing is None:
                hashing = self._by_path[found.path] = Hashing(found)
                if self._ended:
                    hashing.done.set()  # it will not be hashed: do not wait
                heapq.heappush(self._queue, (0.0, next(self._order), hashing))
                self._condition.notify()
            self._start()
            return hashing

    def close(self) -> None:
        """End the thread, and wake all who wait."""
        with self._condition:
            self._ended = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
        self._untaken.clear()
        for hashing in self._by_path.values():
            hashing.done.set()

    def _start(self) -> None:
        if self._thread is None:
            thread = Thread(target=self._run, name="hasher", daemon=True)
            try:
                thread.start()
            except RuntimeError as problem:
                # The next request tries again.
                if self._limit.allows("thread", time.monotonic()):
                    log.error("images cannot be hashed now: %s", problem)
            else:
                self._thread = thread

    def _run(self) -> None:
        while hashing := self._next_due():
            try:
                wait_seconds = self._look_at(hashing)
            except OSError as problem:
                if is_temporary(problem):
                    wait_seconds = self._settle_seconds or SETTLE_SECONDS
                    self._look_again(hashing, wait_seconds)
                else:
                    self._finish(hashing, None, f"{hashing.path} {unreadable_text(problem)}")
            except Exception as problem:
                log.exception("hashing %s failed", hashing.path)
                self._finish(hashing, None, f"{hashing.path}: {problem}")
            else:
                if wait_seconds is not None:
                    self._look_again(hashing, wait_seconds)

    def _look_again(self, hashing: Hashing, wait_seconds: float) -> None:
        due = time.monotonic() + wait_seconds
        with self._condition:
            heapq.heappush(self._queue, (due, next(self._order), hashing))

    def _next_due(self) -> Hashing | None:
        with self._condition:
            while not self._ended:
                now = time.monotonic()
                if self._queue and self._queue[0][0] <= now:
                    return heapq.heappop(self._queue)[2]
                self._condition.wait(self._queue[0][0] - now if self._queue else None)
            return None

    def _look_at(self, hashing: Hashing) -> float | None:
        """Hash the file if it has settled; else return the seconds until the next look."""
        descriptor = open_found(hashing.found)
        try:
            stamp = stamp_of(os.fstat(descriptor))
            if stamp != hashing.found.stamp:
                hashing.found = Found(hashing.path, stamp)
                hashing.seen_at = time.monotonic()
            wait_seconds = self._wait_seconds(hashing)
            if wait_seconds > 0:
                return wait_seconds
            copy = self._copies.begin(stamp.size)
            digests, copy = self._digest(descriptor, copy)
            if stamp_of(os.fstat(descriptor)) != stamp:
                return self._settle_seconds
        except _Ended:
            return self._settle_seconds
        finally:
            os.close(descriptor)
        self._finish(hashing, digests, None, copy)
        return None

    def _wait_seconds(self, hashing: Hashing) -> float:
        """Return when to look at a file again; nothing or less: it has settled."""
        stamp = hashing.found.stamp
        settled_seconds = _settled_seconds(stamp, hashing.seen_at)
        wait_seconds = self._settle_seconds - settled_seconds
        if wait_seconds <= 0 or stamp.changed_ns > self._started_ns:
            return wait_seconds
        if settled_seconds >= _STAMP_SECONDS and has_writer(hashing.found) is False:
            return 0.0
        return min(wait_seconds, _STAMP_SECONDS)

    def _digest(
        self, descriptor: int, copy: PrivateCopy | None
    ) -> tuple[Digests, PrivateCopy | None]:
        """Read a file once, for its digests and into its copy, which is given up on an error.

        Raises:
            _Ended: the hasher was closed.
        """

        def take(chunk: bytes) -> None:
            nonlocal copy
            if self._ended:
                raise _Ended
            try:
                if copy is not None:
                    copy.write(chunk)
            except OSError as problem:
                do_without("a private copy of an image", problem)
                copy = None

        return digest(descriptor, take), copy

    def _finish(
        self,
        hashing: Hashing,
        digests: Digests | None,
        problem: str | None,
        copy: PrivateCopy | None = None,
    ) -> None:
        stamp = hashing.found.stamp
        with self._condition:
            self._by_path.pop(hashing.path, None)
            if copy is not None:
                self._untaken[stamp] = copy
                if len(self._untaken) > _KEPT_COPIES:
                    self._untaken.popitem(last=False)
            if digests is not None:
                self._digests[stamp] = digests
                if len(self._digests) > _KEPT:
                    self._digests.popitem(last=False)
            elif problem is not None:
                if len(self._problems) >= _KEPT:
                    self._problems.clear()
                self._problems[stamp] = (time.monotonic(), problem)
        hashing.done.set()


def _settled_seconds(stamp: Stamp, seen_at: float) -> float:
    """Return for how long the file has been unchanged.

    By its change time, or, if that is in the future (another machine's clock), by how long it was
    seen like this. The modification time is no help: cp -p sets it back.
    """
    age = time.time() - stamp.changed_ns / 1e9
    watched = time.monotonic() - seen_at
    return max(age, watched) if age >= 0 else watched
