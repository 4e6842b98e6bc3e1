"""Files that operators write, read again whenever they change; a broken one keeps its last value.

How a file is found (`_FileLook`), and what is done:

    MISSING    there is no such file                              its value is the default
    SETTLED    unchanged since it was read, which was at least    its value is known
               2 s after its last change
    WRITTEN    somebody changed it in place within 0.2 s          it keeps its value for now
    TOO_LONG   reading it takes longer than a turn may            the same; a chore reads it
    UNREAD     it is new, has changed, or was read so soon after  it is read
               a change that a second one may have the same time

What is known about its content after it was read (`_Content`):

    before       can be used   cannot be used
    (new)        GOOD          BAD
    GOOD         GOOD          KEPT: it keeps the last good value
    KEPT         GOOD          KEPT
    BAD          GOOD          BAD: it never had a good value

A file that is deleted is forgotten. Some files, such as manifests, keep nothing: a broken one is
BAD at once, and its value is the text that says what is wrong with it.
"""

import errno
import fcntl
import logging
import os
import signal
import stat
import time
from collections.abc import Callable
from enum import Enum, auto
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.model.refusal import BadPolicy
from ota_server.system.files import Found, Stamp, find, is_temporary, open_found, stamp_of

log = logging.getLogger(__name__)

# The lists of a million devices take so much; nobody keeps a longer list.
MAX_BYTES = 64 * 1024 * 1024
# Two changes within this time can have the same time stamp, so the file is read again after it.
RACY_SECONDS = 2.0
# More than this takes longer to read than a turn may.
_LONG_BYTES = 256 * 1024
# A file that was changed in place so recently may be half written.
_WRITING_SECONDS = 0.2
# At a file that was not there, and is by now.
_MOST_LOOKS = 5
_NONE = Stamp(0, 0, 0, 0, 0)


class _FileLook(Enum):
    """How a file is found: see the table above."""

    MISSING = auto()
    SETTLED = auto()
    WRITTEN = auto()
    TOO_LONG = auto()
    UNREAD = auto()


class _Content(Enum):
    """What is known about a file's content: see the table above."""

    GOOD = auto()
    KEPT = auto()
    BAD = auto()


class _Read(NamedTuple):
    """A file as it was last read.

    Attributes:
        seen_at: when it was first seen with this stamp, by the monotonic clock.
        read_at: when it was last read with this stamp.
        digest: of its content, good or not; b"" if it could not be read.
        value: what it holds, or what it held while it was good.
    """

    stamp: Stamp
    seen_at: float
    read_at: float
    digest: bytes
    value: Any
    content: _Content


class Watched:
    """Files and their values. Used by one thread at a time.

    Args:
        is_kept: a broken file keeps its last good value; else its value is what is wrong with it.
        consequence: of a broken file that never had a good value, for the log.

    Attributes:
        changed: the paths whose value has changed since this was cleared.
        reads_long_file: something long is being read.
    """

    def __init__(self, is_kept: bool, consequence: str) -> None:
        self._is_kept = is_kept
        self._consequence = consequence
        self.changed: set[str] = set()
        self.reads_long_file = False
        self._files: dict[str, _Read] = {}
        self._there: set[str] = set()
        self._listed: dict[str, list[str]] = {}
        self._unlisted: set[str] = set()
        self._said: dict[str, str] = {}
        self._bytes_left = 0

    def begin(self, is_turn: bool) -> None:
        """Begin to read all files again; in a turn, only what takes next to no time."""
        self._there = set()
        self._bytes_left = _LONG_BYTES if is_turn else 2**63

    def end(self) -> None:
        """Forget the files that were not read since `begin`: they are gone."""
        for path in [path for path in self._files if path not in self._there]:
            del self._files[path]
            self._said.pop(path, None)
            self.changed.add(path)

    @property
    def problem(self) -> str:
        """Which file or folder never had a good value, in words; "" if none."""
        bad = (path for path, read in self._files.items() if read.content is _Content.BAD)
        path = next(chain(self._unlisted, bad), None)
        return "" if path is None else f"{path} cannot be used"

    def read(self, folder: Path, name: str, parse: Callable[[bytes], Any], default: Any) -> Any:
        """Return what a file holds, or held while it was good; `default` if it is missing."""
        path = os.path.join(folder, name)
        known = self._files.get(path)
        try:
            found = _find(folder, name)
            look = self._look(known, found)
            if found is None or look is _FileLook.MISSING:
                return default
            self._there.add(path)
            if look is not _FileLook.UNREAD:
                return default if known is None else known.value
            self._take(path, known, found, parse, default)
        except (OSError, BadPolicy) as problem:
            if isinstance(problem, FileNotFoundError):
                # It was deleted since it was found, which the next look notices.
                return default if known is None else known.value
            self._there.add(path)
            if isinstance(problem, OSError) and is_temporary(problem) and known is not None:
                return known.value
            unread = _Read(_NONE, 0.0, 0.0, b"", default, _Content.BAD)
            self._keep(path, known, default, problem, unread)
        return self._files[path].value

    def _look(self, known: _Read | None, found: Found | None) -> _FileLook:
        """Return how a file is found."""
        if found is None:
            return _FileLook.MISSING
        if known is not None and _is_settled(known, found):
            return _FileLook.SETTLED
        if known is not None and is_being_written(known.stamp, found.stamp):
            return _FileLook.WRITTEN
        return _FileLook.TOO_LONG if found.stamp.size > self._bytes_left else _FileLook.UNREAD

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder; if it cannot be read, the last known ones."""
        path = str(folder)
        try:
            self._listed[path] = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            self._listed[path] = []
        except OSError as problem:
            if path not in self._listed:
                self._unlisted.add(path)
            if not is_temporary(problem):
                self._say(path, str(problem.strerror), self._until_fixed(path in self._unlisted))
            return self._listed.get(path, [])
        self._unlisted.discard(path)
        return self._listed[path]

    def _say(self, path: str, what: str, consequence: str) -> None:
        """Log what is wrong with a file, once until that changes."""
        if self._said.get(path) != what:
            self._said[path] = what
            log.error("%s %s; %s", path, what, consequence)

    def _take(
        self, path: str, known: _Read | None, found: Found, parse: Callable[[bytes], Any], old: Any
    ) -> None:
        """Read a file that may have changed."""
        now = time.monotonic()
        stamp = found.stamp
        self.reads_long_file = self.reads_long_file or stamp.size > _LONG_BYTES
        self._bytes_left -= stamp.size
        is_same = known is not None and known.stamp == stamp
        content, is_whole = _content(found)
        if known is not None and not is_whole:
            return  # somebody began to write to it since it was found: it keeps its value for now
        digest = sha256(content).digest()
        seen_at = known.seen_at if known is not None and is_same else now
        read = _Read(stamp, seen_at, now, digest, old, _Content.BAD)
        if known is not None and digest == known.digest:
            self._files[path] = read._replace(value=known.value, content=known.content)
            return
        try:
            value = parse(content)
        except BadPolicy as problem:
            self._keep(path, known, old, problem, read)
            return
        self._files[path] = read._replace(value=value, content=_Content.GOOD)
        self.changed.add(path)
        if self._said.pop(path, None) is not None:
            log.info("%s is used again", path)

    def _keep(
        self, path: str, known: _Read | None, default: Any, problem: Exception, read: _Read
    ) -> None:
        """Keep the last good value of a file that cannot be used."""
        what = str(problem.strerror if isinstance(problem, OSError) else problem)
        is_bad = known is None or known.content is _Content.BAD or not self._is_kept
        value = default if known is None else known.value
        if not self._is_kept:
            value = what
        content = _Content.BAD if is_bad else _Content.KEPT
        self._files[path] = read._replace(value=value, content=content)
        if known is None or (known.value is not value and known.value != value):
            self.changed.add(path)
        self._say(path, what, self._until_fixed(is_bad))

    def _until_fixed(self, is_bad: bool) -> str:
        what = self._consequence if is_bad else "what it held before applies"
        return f"{what} until it is fixed"


def _find(folder: Path, name: str) -> Found | None:
    """Find a file; None: there is none.

    Raises:
        BadPolicy: it is not a regular file in its folder.
        OSError: the folder cannot be searched.
    """
    for _ in range(_MOST_LOOKS):
        if (found := find(folder, name)) is not None:
            return found
        try:
            mode = os.lstat(os.path.join(folder, name)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(mode):
            break
        # It has come since, as the first pin does.
    raise BadPolicy("is not a regular file in its folder")


def _is_settled(known: _Read, found: Found) -> bool:
    return known.stamp == found.stamp and known.read_at > known.seen_at + RACY_SECONDS


def is_being_written(known: Stamp, now: Stamp) -> bool:
    """Return whether somebody may be writing to a file in place: even if valid, it may be half.

    Args:
        known: its stamp when it was last read.
    """
    if known.inode != now.inode or now.modified_ns != now.changed_ns:
        return False  # it was renamed, so it is there as a whole; `files.replace` makes it so
    return 0 <= time.time() - now.changed_ns / 1e9 < _WRITING_SECONDS


def has_writer(found: Found) -> bool | None:
    """Return whether a file is open for writing somewhere; None: the system does not tell.

    Linux gives a lease for reading only on a file that nobody has open for writing. It is given
    back at once; a program that opens the file meanwhile waits for that.

    Raises:
        OSError: it cannot be opened.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    descriptor = open_found(found)
    try:
        # The signal that tells of such a program would end this process; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return False
    except OSError as problem:
        return True if problem.errno == errno.EAGAIN else None  # only the owner may have a lease
    finally:
        os.close(descriptor)


def _content(found: Found) -> tuple[bytes, bool]:
    """Return what a file holds, and whether it did not change while it was read."""
    if found.stamp.size > MAX_BYTES:
        raise BadPolicy(f"is over {MAX_BYTES} bytes")
    with open(open_found(found), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadPolicy("is not a regular file in its folder")
        content = file.read(MAX_BYTES)
        return content, stamp_of(os.fstat(file.fileno())) == found.stamp
