"""The file of the device index, `log/index.sqlite`: its tables, and how it is opened. I/O.

The index holds nothing that the journal does not, so whoever finds it unusable deletes it, and the
controller makes it again. That decides the settings:

- A write-ahead log (WAL): a reader holds up nobody, and sees the state after a whole step of the
  writer; a reader that is slow only lets `index.sqlite-wal` grow. With SQLite's older journal a
  search over a million devices would stop the writer, and a commit every reader.
- No fsync while it is written: a killed process loses nothing, since the kernel has the bytes. A
  power cut may leave anything, so the file names the boot of its machine, and is made again after
  another one. Where a machine has no name for that, SQLite syncs at its checkpoints.
- A writer that ends in order syncs the file, and leaves a mark beside it: then it is whole after
  another boot too. Whoever opens it to write takes the mark away first.
- One table is narrow, for searches read all of it; what is shown of single devices alone, and what
  makes a whole device of a row, is in `details`.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ota_server.system.data_dir import journal_dir
from ota_server.system.files import replace
from ota_server.system.new_files import FILE_MODE, hand_over, sync_folder

FILE_NAME = "index.sqlite"
# Another one: the index is made again. Raise it with each change of what a column means.
SCHEMA_VERSION = 2
# What `file` says of it, and what tells it from any other database: "OTAi".
_APPLICATION_ID = 0x4F544169
_MARK = "-closed"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CACHE_KIB = 16 * 1024
_READER_CACHE_KIB = 4 * 1024
# Pages that the write-ahead log may hold before they are put in place: 16 MB.
_CHECKPOINT_PAGES = 4096
_BUSY_SECONDS = 2.0

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE devices (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    product TEXT NOT NULL,
    condition INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    apart INTEGER NOT NULL,
    is_outdated INTEGER NOT NULL,
    is_pinned INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    interval_ms INTEGER NOT NULL,
    version TEXT NOT NULL,
    version_order TEXT NOT NULL,
    family TEXT NOT NULL,
    address TEXT NOT NULL,
    address_order BLOB NOT NULL,
    groups TEXT NOT NULL,
    label TEXT NOT NULL,
    label_folded TEXT NOT NULL,
    release TEXT,
    target TEXT,
    target_order TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    due_ms INTEGER
);
CREATE TABLE details (number INTEGER PRIMARY KEY, rest TEXT, cause TEXT);
CREATE TABLE state_tally (
    product TEXT, condition INTEGER, apart INTEGER, reason INTEGER, devices INTEGER,
    PRIMARY KEY (product, condition, apart, reason)
) WITHOUT ROWID;
CREATE TABLE version_tally (
    product TEXT, version TEXT, devices INTEGER, PRIMARY KEY (product, version)
) WITHOUT ROWID;
CREATE INDEX by_frequency ON version_tally (product, devices);
CREATE TABLE version_changes (
    product TEXT, hour INTEGER, version TEXT, devices INTEGER,
    PRIMARY KEY (product, hour, version)
) WITHOUT ROWID;
"""
# Made last: to put a million devices into a table with all of them takes ten times as long.
INDEXES = {
    **{
        f"by_{column}": f"ON devices ({column})"
        for column in (
            *("name", "seen_ms", "version_order", "condition", "updated_ms", "label", "family"),
            *("address_order", "target_order", "first_ms", "groups", "product"),
        )
    },
    "by_due": "ON devices (due_ms) WHERE due_ms IS NOT NULL",
    "by_trouble": "ON devices (since_ms) WHERE condition < 2",
}


class Unusable(Exception):
    """The file is not an index that can be used: it has to be made again."""


def path_of(data_dir: Path) -> Path:
    """Return the path of the index of a data directory, or of the one that a product is in."""
    return journal_dir(data_dir) / FILE_NAME


def boot_id() -> str:
    """Return the name of this boot of the machine; "": it has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def is_damage(problem: sqlite3.Error) -> bool:
    """Return whether an error says that the file is damaged, and not that it is in use or full."""
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    is_broken = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return is_broken or str(problem).startswith("no such ")


def is_no_room(problem: sqlite3.Error) -> bool:
    """Return whether an error says that the disk is full."""
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return bool(code & 0xFF == sqlite3.SQLITE_FULL)


def make(path: Path) -> sqlite3.Connection:
    """Make a new and empty index in the place of what is there, and open it for writing.

    Raises:
        OSError, sqlite3.Error: it cannot be made.
    """
    delete(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        hand_over(descriptor, path.parent)
    finally:
        os.close(descriptor)
    connection = _connect(path, "rw")
    try:
        _set_up(connection)
        # The version comes last: a file without it is not an index yet.
        connection.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
        put_meta(connection, "boot", boot_id())
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the index to go on with it.

    Raises:
        Unusable: it is missing, damaged, of another version, or a power cut may have damaged it.
        OSError, sqlite3.Error: it cannot be opened now.
    """
    if not path.is_file() or path.is_symlink():
        raise Unusable(_why_missing(path))
    connection = _connect(path, "rw")
    with _closed_if_unusable(connection):
        _check(connection)
        closed_in = _take_mark(path)
        _set_up(connection)
        written_in, boot = get_meta(connection, "boot"), boot_id()
        if boot not in (written_in, "") and written_in == closed_in:
            put_meta(connection, "boot", boot)
        elif written_in != boot:
            raise Unusable("it was written before the machine started")
    return connection


def note_closed(path: Path) -> None:
    """Bring the index to the disk, and record that it is whole: its writer has closed it.

    Raises:
        OSError: that cannot be done; after another start of the machine the index is made again.
    """
    boot = boot_id()
    if not boot or not path.exists():
        return
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            descriptor = os.open(each, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    replace(_mark_of(path), boot.encode("ascii"))


def _take_mark(path: Path) -> str:
    """Return in which boot the index was closed in order, "": in none; from now on it is open."""
    mark = _mark_of(path)
    try:
        closed_in = mark.read_text("ascii")
        mark.unlink()
    except (OSError, ValueError):
        return ""
    sync_folder(path.parent)
    return closed_in


def _mark_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_MARK}")


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the index for reading, by any thread, one at a time.

    Raises:
        Unusable: it is missing, damaged or of another version.
        sqlite3.Error: it cannot be opened now.
    """
    if not path.is_file():
        raise Unusable(_why_missing(path))
    connection = _connect(path, "ro")
    with _closed_if_unusable(connection):
        connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        _check(connection)
    return connection


@contextmanager
def _closed_if_unusable(connection: sqlite3.Connection) -> Iterator[None]:
    """Close a connection if what is done inside of this fails.

    Raises:
        Unusable: the file is damaged.
    """
    try:
        yield
    except BaseException as problem:
        connection.close()
        if isinstance(problem, sqlite3.Error) and is_damage(problem):
            raise Unusable(f"it is damaged: {problem}") from problem
        raise


def _why_missing(path: Path) -> str:
    # Anything else is replaced; what is in a folder may be somebody's.
    return f"{path} is a folder: move it away" if path.is_dir() else "it is not there"


def delete(path: Path) -> None:
    """Delete the index. Readers that have it open keep what they have.

    The database goes first: while it is there, nobody may find it without its log; and where it is
    not, nobody looks for a log.
    """
    for suffix in ("", "-wal", "-shm", "-journal", _MARK):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def get_meta(connection: sqlite3.Connection, name: str) -> str | None:
    """Return what is on record under a name in `meta`."""
    with closing(connection.execute("SELECT value FROM meta WHERE name = ?", (name,))) as found:
        row = found.fetchone()
    return None if row is None else str(row[0])


def put_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Put something on record in `meta`."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,  # transactions are begun and ended by name
        check_same_thread=False,
    )


def _check(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID or version != SCHEMA_VERSION:
        raise Unusable("it is of another version")


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute(f"PRAGMA synchronous = {'OFF' if boot_id() else 'NORMAL'}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}").fetchone()
    connection.execute(f"PRAGMA journal_size_limit = {2 * _CHECKPOINT_PAGES * 4096}").fetchone()
