"""Keeping the device index up to date: the one who writes `log/index.sqlite`. I/O.

The controller calls `step` between its looks at rollouts. A step takes some 50 ms and is one
transaction, with the position in the journal up to which it read. So a writer that was killed goes
on where the last whole step ended. What a step does, the first that there is to do:

 1. The file is missing, unusable or of another journal: make it again, in many steps.
 2. Read what is new in the journal.
 3. Find the states of devices again, where something has changed them: what operators decided, for
    some devices or for all of a product; or time alone.

Whoever finds the file damaged deletes it; the next step makes it again.
"""

import errno
import json
import logging
import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from ota_server.journal.files import journal_files
from ota_server.journal.follow import Follower, Position, end_of
from ota_server.model.device import DAY_MS
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations.index_build import ColumnIndexes, build
from ota_server.operations.index_schema import (
    Unusable,
    delete,
    get_meta,
    is_damage,
    is_no_room,
    make,
    note_closed,
    open_to_write,
    path_of,
    put_meta,
)
from ota_server.operations.index_states import ProductStates
from ota_server.operations.index_tally import IndexTally
from ota_server.operations.index_upkeep import IndexUpkeep
from ota_server.system.data_dir import journal_dir, product_dir, product_names, root_of
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

_STEP_SECONDS = 0.05
_LOOK_SECONDS = 1.0
_SAY_EVERY_SECONDS = 60.0
# After a failure, such as a full disk; an index that is lost is made again at once, but not if that
# happens again and again.
_PAUSE_SECONDS = 5.0
# After the disk was full: the index was deleted to make room for the journal.
_FULL_SECONDS = 600.0
_LEAST_ROOM_BYTES = 64 * 1024 * 1024
# How often an index to which nothing happens says that it is up to date.
_SIGN_MS = 5_000
# With more devices than that it is as quick to go through all of their product.
_MOST_NAMED = 50_000
_JUMP_MS = 5 * 60 * 1000


class IndexWriter:
    """Writes the index of one data directory, for all of its products. Used by one thread.

    Only one may work on a data directory: that is the controller that holds its lock.

    Attributes:
        problem: why it stands still, or is made again; "": it goes on. Any thread may read it.
    """

    def __init__(self, data_dir: Path, look_seconds: float = _LOOK_SECONDS) -> None:
        """Begin with the first `step`.

        Args:
            data_dir: of the server, or of one of its products.
            look_seconds: how often it looks at what operators decided.
        """
        self.problem = ""
        self._look_seconds = look_seconds
        self._root = root_of(data_dir)
        self._logs = journal_dir(data_dir)
        self._path = path_of(data_dir)
        self._states: dict[str, ProductStates] = {}
        self._tally = IndexTally()
        self._limit = RateLimit(_SAY_EVERY_SECONDS)
        self._connection: sqlite3.Connection | None = None
        self._build: Generator[float, None, None] | None = None
        self._columns: ColumnIndexes | None = None
        self._upkeep: IndexUpkeep | None = None
        self._begun_at: Position | None = None
        # What was to be looked at again while the index was made.
        self._named: set[str] = set()
        self._sweeps: dict[str, int] = {}
        self._away = (0, 0)
        self._inode = 0
        self._lost_at = float("-inf")
        self._wait_until = self._look_at = 0.0
        self._now_ms = self._as_of_ms = 0

    def close(self) -> None:
        """Close the file; one that is whole is still good after a start of the machine."""
        is_whole = self._upkeep is not None
        self._let_go()
        if is_whole:
            with suppress(OSError):  # then it is made again
                note_closed(self._path)

    def _let_go(self) -> None:
        if self._build is not None:
            self._build.close()
        if self._columns is not None:
            self._columns.end()
        if self._upkeep is not None:
            self._upkeep.close()
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._build = self._columns = self._upkeep = None
        self._tally = IndexTally()

    @property
    def is_making(self) -> bool:
        """Whether it makes the index, which is not whole yet."""
        return self._build is not None or self._columns is not None

    def step(self, now_ms: int) -> bool:
        """Work for a short time; return whether there is more to do at once.

        A failure is logged, and tried again after some seconds.
        """
        if time.monotonic() < self._wait_until:
            return False
        try:
            has_more = self._step(now_ms)
            self.problem = ""
            return has_more
        except sqlite3.Error as problem:
            self._give_up(problem, is_damage(problem) or is_no_room(problem))
            if is_no_room(problem):
                self._wait_until = time.monotonic() + _FULL_SECONDS
        except Unusable as problem:
            self._give_up(problem, is_lost=True)
        except (OSError, BadPolicy, Refused) as problem:
            self._give_up(problem, is_lost=False)
        except Exception as problem:
            # Rollouts must go on, whatever is wrong with a list.
            log.exception("the index of devices met what it does not expect")
            self._give_up(problem, is_lost=False)
        return False

    def _give_up(self, problem: Exception, is_lost: bool) -> None:
        self.problem = f"{problem}"
        if isinstance(problem, OSError) and problem.filename:
            self.problem = f"{problem.filename}: {problem.strerror}"
        what = "is made again" if is_lost else "stands still"
        if self._limit.allows(f"{what} {problem}", time.monotonic()):
            log.warning("the index of devices %s: %s", what, problem)
        self._let_go()
        now = time.monotonic()
        is_first_loss = is_lost and now >= self._lost_at + _SAY_EVERY_SECONDS
        self._wait_until = 0.0 if is_first_loss else now + _PAUSE_SECONDS
        if is_lost:
            self._lost_at = now
            with suppress(OSError):
                delete(self._path)

    def _step(self, now_ms: int) -> bool:
        self._look_around(now_ms)
        if self._connection is not None and self._is_gone():
            self._let_go()
        if self._connection is None:
            self._connection = self._open(now_ms)
        if self._columns is not None and self._columns.is_alive():
            return False
        connection, end_at = self._connection, time.monotonic() + _STEP_SECONDS
        connection.execute("BEGIN")
        try:
            has_more = self._work(connection, end_at)
            self._tally.write(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        if self._build is None and self._upkeep is None:
            self._columns = ColumnIndexes(connection)
            self._columns.start()
        return has_more

    # The file

    def _is_gone(self) -> bool:
        try:
            return os.stat(self._path).st_ino != self._inode
        except OSError:
            return True

    def _open(self, now_ms: int) -> sqlite3.Connection:
        """Open the index where it can be used, and begin to make it where it cannot."""
        try:
            connection = open_to_write(self._path)
            self._go_on(connection)
        except Unusable as problem:
            # Noted before the replay, so that no line is missed; one that is read twice does no
            # harm.
            self._begun_at = end_of(self._logs)
            _check_room(self._path, self._logs)
            connection = make(self._path)
            log.info("the index of devices is made: %s", problem)
            put_meta(connection, "progress", "0")
            self._away = (now_ms - DAY_MS, 0)
            self._named.clear()
            self._sweeps.clear()
            self._build = build(connection, self._logs, self._states.get, self._tally, now_ms)
        self._inode = os.stat(self._path).st_ino
        return connection

    def _go_on(self, connection: sqlite3.Connection) -> None:
        """Go on with an index that is whole.

        Raises:
            Unusable: it is not; the connection is closed.
        """
        try:
            if float(get_meta(connection, "progress") or "0") < 1:
                raise Unusable("it was not finished")
            known = json.loads(get_meta(connection, "position") or "null")
            position = None if known is None else Position(*map(int, known))
            seen_ms, number = json.loads(get_meta(connection, "away") or "")
            away = int(seen_ms), int(number)
        except (TypeError, ValueError) as problem:
            connection.close()
            raise Unusable("it does not say how far it is") from problem
        except BaseException:
            connection.close()
            raise
        self._begin_upkeep(connection, position, away)
        # What was decided while nobody looked may concern any device.
        self._sweeps = dict.fromkeys(_products(self._root), -1)

    def _begin_upkeep(
        self, connection: sqlite3.Connection, position: Position | None, away: tuple[int, int]
    ) -> None:
        follower = Follower(self._logs, position)
        self._upkeep = IndexUpkeep(connection, follower, self._states, self._tally, away)

    # What decides

    def look_soon(self) -> None:
        """Have the next step read what decides about devices: somebody waits for a change."""
        self._look_at = 0.0

    def _look_around(self, now_ms: int) -> None:
        """Read now and then what decides about devices; note whom that concerns."""
        if self._upkeep is not None and abs(now_ms - self._now_ms) > _JUMP_MS:
            self._upkeep.note_jump(now_ms)
        self._now_ms = now_ms
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._look_seconds
        products = _products(self._root)
        for gone in self._states.keys() - products:
            del self._states[gone]
            self._sweeps[gone] = -1
        for product in products:
            states = self._states.get(product)
            if states is None:
                self._states[product] = ProductStates(product_dir(self._root, product), now_ms)
                self._sweeps[product] = -1
                continue
            touched = states.look(now_ms)
            if touched is None or len(touched) > _MOST_NAMED:
                self._sweeps[product] = -1
            else:
                self._named |= touched

    # Work

    def _work(self, connection: sqlite3.Connection, end_at: float) -> bool:
        """Do what comes first until the time is over; return whether there is more to do."""
        if self._build is not None:
            return self._go_on_building(connection, self._build, end_at)
        if self._columns is not None:
            self._finish(connection, self._columns)
        upkeep = self._upkeep
        assert upkeep is not None
        upkeep.named |= self._named
        upkeep.sweeps |= self._sweeps
        self._named.clear()
        self._sweeps.clear()
        before = connection.total_changes
        has_more = upkeep.work(self._now_ms, end_at)
        is_changed = connection.total_changes != before
        is_time = abs(self._now_ms - self._as_of_ms) >= _SIGN_MS
        if not has_more and (is_changed or is_time):
            self._as_of_ms = self._now_ms
            put_meta(connection, "as_of_ms", str(self._now_ms))
        return has_more

    def _go_on_building(
        self, connection: sqlite3.Connection, work: Generator[float, None, None], end_at: float
    ) -> bool:
        """Make rows; return whether there are more to make."""
        for progress in work:
            if time.monotonic() >= end_at:
                put_meta(connection, "progress", f"{progress:.3f}")
                return True
        self._build = None
        return False

    def _finish(self, connection: sqlite3.Connection, columns: ColumnIndexes) -> None:
        """Declare an index whole that was made, and begin to keep it up to date."""
        self._columns = None
        if columns.problem is not None:
            raise columns.problem
        for name, value in (
            ("position", json.dumps(self._begun_at)),
            ("away", json.dumps(self._away)),
            ("as_of_ms", str(self._now_ms)),
            ("progress", "1"),
        ):
            put_meta(connection, name, value)
        self._begin_upkeep(connection, self._begun_at, self._away)


def _check_room(path: Path, logs: Path) -> None:
    """Check that there is room for the index, as far as the size of the journal tells.

    Raises:
        OSError: there is not: the journal may need what is left.
    """
    delete(path)
    disk = os.statvfs(logs)
    files = journal_files(logs)
    wanted = _LEAST_ROOM_BYTES + (files[-1].stat().st_size if files else 0)
    if disk.f_bavail * disk.f_frsize < wanted:
        raise OSError(errno.ENOSPC, f"the index waits for {wanted:,} free bytes", str(path))


def _products(root: Path) -> set[str]:
    return {"", *product_names(root)}
