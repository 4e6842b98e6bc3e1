"""Making a data directory from a backup. I/O.

Root may run it, on a folder of the server's user, who can rename and replace all that is in it at
any time. So below the data directory nothing is opened by its path: each folder and file is made
relative to an open folder, follows no link, and is given away by its descriptor. They are made in a
folder that only who runs this can enter.

| killed | what is there | the next `restore` |
|---|---|---|
| while it unpacks | `.restoring-X`, with all folders | removes it, and begins again |
| between renames | `log/` or more, and `.restoring-X/version/` | says what to delete |
| after the last one | all, and `.restoring-X` without `version/` | refuses, as ever |

`version/` is moved last, so that a half restored directory offers nothing.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from ota_server.model.json_object import parse_object
from ota_server.model.refusal import Refused
from ota_server.policy import audit
from ota_server.policy.tokens import TOKENS_NAME, USE_NAME
from ota_server.releases.backup_file import CHUNK_BYTES, FORM, LIST_NAME, is_ours
from ota_server.system.data_dir import log_dir
from ota_server.system.files import named, open_regular
from ota_server.system.locks import acquire, is_served
from ota_server.system.new_files import (
    FILE_MODE,
    FOLDER_MODE,
    OWNER_ONLY,
    if_allowed,
    make_folder,
)

_FOLDERS = ("products", "log", "firmware", "version")  # in the order in which they are put in place
_PREFIX = ".restoring-"
_OLD = "old-"
# What a server or a command makes in an empty data directory.
_NOTHING = re.compile(r"\.lock|\.controller\.lock|\.spare_[0-9]+")
# What only its owner may read: nothing there is secret, but it says who may do what.
_PRIVATE_NAMES = frozenset((f"version/{TOKENS_NAME}", f"log/{USE_NAME}"))
_MOST_LIST_BYTES = 256 * 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_YEAR_1980 = 315_532_800


def restore(path: Path, data_dir: Path) -> int:
    """Put a backup into a data directory that holds nothing yet; return how many files it has.

    Raises:
        Refused: the backup is damaged, or the data directory holds something.
        OSError: something cannot be read or written.
    """
    with open(open_regular(path), "rb") as file:
        if os.path.lexists(data_dir) and not data_dir.is_dir():
            raise Refused(f"{data_dir} is not a folder; remove it, or give --data-dir a new folder")
        if data_dir.is_dir():
            with _opened(data_dir) as data:
                _refuse_used(data_dir, data)
        names = _check(path, file)
        make_folder(data_dir)
        with _opened(data_dir) as data:
            _lock(data_dir, data)
            _refuse_used(data_dir, data)
            for name in _leftovers(data):
                _remove(data, name)
            _restore(path, file, names, data_dir, data)
    return len(names)


@contextmanager
def _opened(path: Path | str, folder: int | None = None) -> Iterator[int]:
    """Open a folder; in another one, unless it is a link."""
    flags = _FOLDER & ~os.O_NOFOLLOW if folder is None else _FOLDER
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _members(path: Path, file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield what is in a backup; the last member is its list."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            # A sparse member of a few bytes can become a file of any size.
            is_file = member.isreg() and not member.issparse()
            content = tar.extractfile(member) if is_file else None
            if content is None or not (is_ours(member.name) or member.name == LIST_NAME):
                raise Refused(f"{path} is not a backup: {member.name[:80]!r} does not belong")
            yield member, content


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say of a backup that cannot be read what is wrong with it."""
    try:
        with named(path):
            yield
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as problem:
        raise Refused(f"{path} is damaged, or is not a backup: {problem}") from problem


def _check(path: Path, file: IO[bytes]) -> set[str]:
    """Read all of a backup; return the names of its files.

    Raises:
        Refused: it is damaged, or is not a backup.
        OSError: it cannot be read.
    """
    found: dict[str, dict[str, object]] = {}
    listed = None
    with _readable(path):
        for member, content in _members(path, file):
            if listed is not None or member.name in found:
                raise Refused(f"{path} is not a backup: {member.name[:80]!r} does not belong")
            if member.name == LIST_NAME:
                listed = parse_object(content.read(_MOST_LIST_BYTES))
            else:
                sha256 = hashlib.sha256()
                while chunk := content.read(CHUNK_BYTES):
                    sha256.update(chunk)
                found[member.name] = {"size": member.size, "sha256": sha256.hexdigest()}
    if listed is None:
        raise Refused(f"{path} is not a backup, or its end is missing")
    if listed.get("form") != FORM:
        raise Refused(f"{path} was written by another version of this program")
    if listed.get("files") != found:
        raise Refused(f"{path} is damaged: its files are not those that it lists")
    return {*found}


def _lock(data_dir: Path, data: int) -> None:
    with suppress(OSError):  # its file system has no locks
        if not acquire(data):
            raise Refused(f"another restore into {data_dir} runs")


def _refuse_used(data_dir: Path, data: int) -> None:
    """Refuse a data directory that holds anything, or that a server runs on."""
    if is_served(log_dir(data_dir)):
        raise Refused(f"a server runs on {data_dir}; stop it, or give --data-dir a new folder")
    if all(_is_empty(data, name) for name in _FOLDERS):
        return
    for name in _leftovers(data):
        with _opened(name, data) as folder:
            left = os.listdir(folder)
            if "version" in left and "log" not in left and _is_empty(data, "version"):
                raise Refused(
                    f"a restore into {data_dir} was interrupted halfway; delete products/, log/, "
                    f"firmware/ and {name}/ in it, then restore again"
                )
    for path in (data_dir / name for name in _FOLDERS):
        if path.is_symlink():
            raise Refused(f"{path} is a link; remove it, or give --data-dir a new folder")
    raise Refused(
        f"{data_dir} is not empty, and restore overwrites nothing; give --data-dir a new folder, "
        "or move the old one away"
    )


def _is_empty(parent: int, name: str) -> bool:
    """Return whether a folder is missing, or holds only folders, locks and spare files."""
    try:
        with _opened(name, parent) as folder, os.scandir(folder) as entries:
            return all(
                _is_empty(folder, entry.name)
                if entry.is_dir(follow_symlinks=False)
                else entry.is_file(follow_symlinks=False) and _NOTHING.fullmatch(entry.name)
                for entry in entries
            )
    except FileNotFoundError:
        return True
    except OSError as problem:
        if problem.errno in (errno.ENOTDIR, errno.ELOOP):
            return False  # a file, or a link
        raise


def _leftovers(data: int) -> list[str]:
    """Return the folders of killed restores: of the same user, with nothing else in them."""
    found = []
    for name in os.listdir(data):
        if name.startswith(_PREFIX):
            with suppress(OSError), _opened(name, data) as folder:
                known = {*_FOLDERS, *(_OLD + each for each in _FOLDERS)}
                if os.fstat(folder).st_uid == os.geteuid() and known.issuperset(os.listdir(folder)):
                    found.append(name)
    return found


def _remove(data: int, name: str) -> None:
    """Remove a folder of a restore; what another user has put in its place stays."""
    with suppress(OSError):
        with _opened(name, data) as folder:
            _clear(folder)
        os.rmdir(name, dir_fd=data)


def _clear(folder: int) -> None:
    for each in _FOLDERS:
        for name in (each, _OLD + each):
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def _restore(path: Path, file: IO[bytes], names: set[str], data_dir: Path, data: int) -> None:
    name = _PREFIX + secrets.token_hex(4)
    with _at(data_dir):
        os.mkdir(name, 0o700, dir_fd=data)
    with _opened(name, data) as folder:
        try:
            status = os.fstat(folder)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077 or os.listdir(folder):
                raise Refused(f"somebody changes files in {data_dir}; try again")
            with _readable(path):
                _unpack(path, file, names, data_dir, folder, data)
            _refuse_used(data_dir, data)
            _put_in_place(data_dir, folder, data)
        finally:
            _clear(folder)
            with suppress(OSError):
                os.rmdir(name, dir_fd=data)


def _unpack(
    path: Path, file: IO[bytes], names: set[str], data_dir: Path, folder: int, data: int
) -> None:
    """Write all files, and give them and their folders away; nobody else can be in `folder`."""
    owner = os.fstat(data)
    with ExitStack() as stack:
        opened = {"": folder}
        for name in _all_folders(names):
            above, _, last = name.rpartition("/")
            with _at(data_dir / name):
                os.mkdir(last, 0o700, dir_fd=opened[above])
                opened[name] = stack.enter_context(_opened(last, opened[above]))
        for member, content in _members(path, file):
            if member.name not in names:
                continue  # the list
            above, _, last = member.name.rpartition("/")
            target = data_dir / member.name
            with _at(target):
                descriptor = os.open(last, _NEW_FILE, 0o600, dir_fd=opened[above])
            with named(target), open(descriptor, "wb") as new:
                with named(path):
                    chunk = content.read(CHUNK_BYTES)
                while chunk:
                    new.write(chunk)
                    with named(path):
                        chunk = content.read(CHUNK_BYTES)
                new.flush()
                mode = OWNER_ONLY if member.name in _PRIVATE_NAMES else FILE_MODE
                _finish(descriptor, owner, mode, target, member.mtime)
        _note(data_dir, opened["log"], path.name, owner)
        for name in reversed([*opened][1:]):
            _finish(opened[name], owner, FOLDER_MODE, data_dir / name)


def _all_folders(names: Iterable[str]) -> list[str]:
    """Return the folders that files of these names need, each after the one that it is in."""
    folders = {*_FOLDERS, "version/groups"}
    for name in names:
        parts = name.split("/")[:-1]
        folders |= {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return sorted(folders)


def _note(data_dir: Path, folder: int, what: str, owner: os.stat_result) -> None:
    """Put the restore on record, in the audit log that was restored."""
    target = log_dir(data_dir) / audit.FILE_NAME
    with _at(target):
        flags = _NEW_FILE & ~os.O_EXCL | os.O_APPEND
        descriptor = os.open(audit.FILE_NAME, flags, 0o600, dir_fd=folder)
    with named(target), open(descriptor, "wb") as file:
        file.write(audit.line_of("restore", what))
        file.flush()
        _finish(descriptor, owner, FILE_MODE, target)


def _finish(
    descriptor: int, owner: os.stat_result, mode: int, path: Path, modified: float = 0.0
) -> None:
    """Give a file or folder to the owner of the data directory, and bring it to the disk."""
    if os.geteuid() == 0:
        with if_allowed("chown", path):
            os.chown(descriptor, owner.st_uid, owner.st_gid)
    with if_allowed("chmod", path):
        os.chmod(descriptor, mode)
    if _YEAR_1980 <= modified <= time.time():  # all others, also inf and nan, mean nothing
        with if_allowed("a time stamp", path):
            os.utime(descriptor, (modified, modified))
    with if_allowed("fsync of a folder", path) if mode == FOLDER_MODE else named(path):
        os.fsync(descriptor)


def _put_in_place(data_dir: Path, folder: int, data: int) -> None:
    """Move all into the data directory; the target last, so that nothing is offered before."""
    moved = []
    try:
        for name in _FOLDERS:
            with _at(data_dir / name):
                with suppress(FileNotFoundError):
                    os.rename(name, _OLD + name, src_dir_fd=data, dst_dir_fd=folder)
                moved.append(name)
                os.rename(name, name, src_dir_fd=folder, dst_dir_fd=data)
    except BaseException:  # also an interrupt: no half of it stays
        for name in moved:
            with suppress(OSError):
                os.rename(name, name, src_dir_fd=data, dst_dir_fd=folder)
        raise
    with if_allowed("fsync of a folder", data_dir):
        os.fsync(data)


@contextmanager
def _at(path: Path) -> Iterator[None]:
    """Name the file in an error of a call that got a name in an open folder."""
    try:
        yield
    except OSError as problem:
        problem.filename, problem.filename2 = str(path), None
        raise
