"""A backup: all that a data directory holds as one tar file. I/O.

Its last member lists the others with their sizes and SHA-256, so a backup that was cut short or
damaged is found out before anything is restored.

Why it is consistent although the server runs:

1. All files are opened before the first byte is copied, while no command can change any; small ones
   are read. Ours are replaced by a rename, so that an open one keeps its bytes.
2. The journal is opened last, so what rollouts decided stands on records that are there. Only whole
   lines that were there then are copied; if it was rotated meanwhile, it is opened again.
3. A file that changed while it was copied was changed by hand: the backup fails and says which.

Left out is what is true of a running server or process alone: locks, `admission.json`, temporary
files, the checkpoints of the controller, which reads the journal again, and who is signed in. No
link that leads out of its folder is followed: root would copy what the owner may not read.
"""

import errno
import hashlib
import io
import json
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, NamedTuple

from ota_server import __version__
from ota_server.journal.files import CURRENT_NAME, journal_files
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.system import clock
from ota_server.system.data_dir import PRODUCTS_FOLDER, existing_folder, log_dir, product_names
from ota_server.system.files import named, stamp_of
from ota_server.system.limits import raise_file_limit
from ota_server.system.locks import acquire, locked_all
from ota_server.system.new_files import sync_folder

LIST_NAME = "backup.json"
_PREFIX, FORM, CHUNK_BYTES = ".ota-backup-", 1, 1024 * 1024
# Names with a dot at their beginning are locks and temporary files.
_NAME = re.compile(
    r"(?:products/[a-z0-9_\-]{1,32}/)?(?:version|version/groups|firmware|log)"
    r"/[A-Za-z0-9][^/\x00-\x1f\x7f-\x9f]{0,250}"
)
_LEFT_OUT = re.compile(
    r"(?:.*/)?(?:version/groups|log/(?:(?:admission|admin|sessions)\.json|.*\.checkpoint"
    r"|\.?figures\.sock.*|index\.sqlite.*))"
)
_PARTS = ("version", "version/groups", "firmware", "log")
_MOST_TRIES = 5
# Smaller files are read at once: there may be more groups than a process can have open files.
_SMALL_BYTES = 16 * 1024
_READ = os.O_RDONLY | os.O_CLOEXEC


class _LeadsOut(Exception):
    """A link leads out of its folder."""


class BackupResult(NamedTuple):
    """What a backup holds, and what it left out, in words."""

    files: int
    size: int
    left_out: list[str]


class _Entry(NamedTuple):
    """One file of a backup, or what was in it; `size` bytes of it are copied."""

    name: str
    file: IO[bytes]
    size: int
    modified_seconds: float


def back_up(data_dir: Path, path: Path, output: IO[bytes] | None = None) -> BackupResult:
    """Copy a data directory into a file, which is replaced only by a whole backup.

    Args:
        output: what to write instead of the file.

    Raises:
        Refused: the file cannot be there, or a file of the data directory cannot be copied.
        Busy: another command takes too long.
        OSError: something cannot be read or written.
    """
    existing_folder(data_dir, "version")
    if output is None:
        _refuse_place(data_dir, path)
    raise_file_limit()  # all large files are open at once
    with ExitStack() as stack:
        entries, left_out = _open_all(data_dir, stack)
        if output is not None:
            with named(Path("standard output")):
                _write(entries, output, "w|")
                output.flush()
        else:
            with named(path), _temporary(path) as (file, temporary):
                _write(entries, file, "w")
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            sync_folder(path.absolute().parent)
    return BackupResult(len(entries), sum(entry.size for entry in entries), left_out)


def _refuse_place(data_dir: Path, path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise Refused(f"there is no folder {folder}; make it first")
    if path.exists() and not path.is_file():
        raise Refused(f"{path} is not a regular file; name a file to write")
    inside = data_dir.resolve()
    if inside == folder.resolve() or inside in folder.resolve().parents:
        raise Refused(
            f"{path} is in the data directory itself, and would be lost with it; write the backup "
            "to another place"
        )


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Make a file beside another one; its owner alone can read it: it holds images and labels.

    Each backup has one of its own, locked while it is written, so that the next backup recognises
    and deletes what a killed one left.
    """
    folder = path.absolute().parent
    for name in os.listdir(folder):
        if name.startswith(_PREFIX):
            with suppress(OSError):
                _delete_unlocked(folder / name)
    while True:
        try:
            descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        except OSError as problem:
            problem.filename = str(path)
            raise
        with suppress(OSError):  # no locks there, so nothing deletes it
            if not acquire(descriptor) or not os.fstat(descriptor).st_nlink:
                os.close(descriptor)  # another backup took it for a leftover
                continue
        break
    try:
        with open(descriptor, "wb") as file:
            yield file, name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def _delete_unlocked(path: Path) -> None:
    with open(os.open(path, _READ | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if acquire(file.fileno()):
            path.unlink()


def _open_all(data_dir: Path, stack: ExitStack) -> tuple[list[_Entry], list[str]]:
    """Open all files that belong into a backup, the journal last; return what is left out too."""
    entries, left_out = [], []
    with locked_all(data_dir):
        descriptor = os.open(data_dir, _READ | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        folders: dict[str, int | None] = {"": descriptor}
        tops = [f"{PRODUCTS_FOLDER}/{name}" for name in product_names(data_dir)]
        inner = (f"{top}/{part}" for top in tops for part in _PARTS)
        for name in (*_PARTS, PRODUCTS_FOLDER, *tops, *inner):
            above = folders[name.rpartition("/")[0]]
            folders[name] = _open_folder(above, data_dir / name, stack)
        journal = {path.name for path in journal_files(log_dir(data_dir))}
        for folder, opened in folders.items():
            for name in _names(folder, opened):
                if folder == "log" and name.rpartition("/")[2] in journal:
                    continue
                assert opened is not None
                try:
                    entry = _open(data_dir, name, opened, stack)
                except _LeadsOut:
                    if not folder.endswith("firmware"):
                        raise Refused(_leads_out(data_dir / name)) from None
                    left_out.append(_leads_out(data_dir / name))  # the server offers it to nobody
                    continue
                except FileNotFoundError:
                    entry = None  # a link to nothing
                if entry is not None:
                    entries.append(entry)
                elif os.path.lexists(data_dir / name):
                    left_out.append(f"{data_dir / name} is not a regular file")
    return entries + _open_journal(data_dir, folders["log"], stack), left_out


def _leads_out(path: Path) -> str:
    return f"{path} is a link that leads out of its folder; put the file itself there"


def _names(folder: str, descriptor: int | None) -> list[str]:
    names = [] if descriptor is None else [f"{folder}/{n}" for n in sorted(os.listdir(descriptor))]
    return [name for name in names if is_ours(name)]


def is_ours(name: str) -> bool:
    """Return whether a file of this name can belong to a backup."""
    return bool(_NAME.fullmatch(name)) and not _LEFT_OUT.fullmatch(name)


def _open_folder(above: int | None, path: Path, stack: ExitStack) -> int | None:
    """Open a folder in another one; None if it is missing.

    It may be a link to another disk, but root follows it only to a folder of the same user.
    """
    if above is None:
        return None
    flags = _READ | os.O_DIRECTORY
    try:
        with named(path):
            descriptor = os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        return None
    except OSError as problem:
        if problem.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        descriptor = os.open(path.name, flags, dir_fd=above)
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid != os.fstat(above).st_uid:
            os.close(descriptor)
            raise Refused(f"{path} is a link to a folder of another user; do without it") from None
    stack.callback(os.close, descriptor)
    return descriptor


def _open(
    data_dir: Path, name: str, folder: int, stack: ExitStack, keep_open: bool = False
) -> _Entry | None:
    """Open a file of a folder; None if it is not a regular file.

    Raises:
        _LeadsOut: it is a link, or a second name, that leads out of the folder.
        OSError: it is missing, or cannot be opened.
    """
    path = data_dir / name
    owner = os.fstat(folder).st_uid
    found = os.path.relpath(os.path.realpath(path), os.path.realpath(path.parent)).split(os.sep)
    if found[0] == os.pardir:
        raise _LeadsOut
    with named(path), ExitStack() as folders:
        for part in found[:-1]:
            folder = os.open(part, _READ | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            folders.callback(os.close, folder)
        try:
            descriptor = os.open(found[-1], _READ | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError as problem:
            if problem.errno == errno.ENXIO:
                return None  # a socket
            raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    if os.geteuid() == 0 and status.st_nlink > 1 and status.st_uid != owner:
        os.close(descriptor)
        raise _LeadsOut  # a second name of a file of another user
    file: IO[bytes] = os.fdopen(descriptor, "rb")
    if status.st_size <= _SMALL_BYTES and not keep_open:
        with named(path), file:
            content = file.read(status.st_size)
        return _Entry(name, io.BytesIO(content), len(content), status.st_mtime)
    return _Entry(name, stack.enter_context(file), status.st_size, status.st_mtime)


def _open_journal(data_dir: Path, folder: int | None, stack: ExitStack) -> list[_Entry]:
    logs = log_dir(data_dir)
    for _ in range(_MOST_TRIES):
        names = [path.name for path in journal_files(logs)]
        if folder is None or not names:
            return []
        try:
            found = [_open(data_dir, f"log/{name}", folder, stack, True) for name in names]
        except FileNotFoundError:
            continue  # it was rotated
        except _LeadsOut:
            raise Refused(f"a file of the journal in {logs} is a link that leads out") from None
        entries = [entry for entry in found if entry]
        inodes = [(entry.name, os.fstat(entry.file.fileno()).st_ino) for entry in entries]
        now = [(f"log/{path.name}", os.stat(path).st_ino) for path in journal_files(logs)]
        if inodes == now:
            return [entry._replace(size=_whole_lines(entry)) for entry in entries]
    raise Refused("the journal was rotated again and again; try again")


def _whole_lines(entry: _Entry) -> int:
    """Return how many bytes of a file to copy: of the current one, up to its last line end."""
    stop = entry.size
    while entry.name == f"log/{CURRENT_NAME}" and stop > 0:
        start = max(stop - CHUNK_BYTES, 0)
        found = os.pread(entry.file.fileno(), stop - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        stop = start
    return stop


def _write(entries: list[_Entry], file: IO[bytes], mode: Literal["w", "w|"]) -> None:
    digests = {}
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            # Files in log/ may grow meanwhile.
            is_fixed = not isinstance(entry.file, io.BytesIO) and "log/" not in entry.name
            before = stamp_of(os.fstat(entry.file.fileno())) if is_fixed else None
            hashed = _Hashed(entry)
            tar.addfile(_member(entry.name, entry.size, entry.modified_seconds), hashed)
            if is_fixed and stamp_of(os.fstat(entry.file.fileno())) != before:
                raise Refused(f"{entry.name} was changed while it was copied; try again")
            digests[entry.name] = {"size": entry.size, "sha256": hashed.sha256.hexdigest()}
        what = {
            "form": FORM,
            "program": __version__,
            "time": format_time(clock.now_ms()),
            "files": digests,
        }
        content = json.dumps(what, indent=1).encode("ascii")
        tar.addfile(_member(LIST_NAME, len(content), clock.now_ms() / 1000), io.BytesIO(content))


def _member(name: str, size: int, modified_seconds: float) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, modified_seconds, 0o644
    return member


class _Hashed:
    """Reads a file for `tarfile`, and hashes what it reads."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry
        self.sha256 = hashlib.sha256()

    def read(self, length: int = -1) -> bytes:
        """Read `length` bytes."""
        with named(Path(self._entry.name)):
            content = self._entry.file.read(length)
        if len(content) < length:
            raise Refused(f"{self._entry.name} was cut while it was copied; try again")
        self.sha256.update(content)
        return content
