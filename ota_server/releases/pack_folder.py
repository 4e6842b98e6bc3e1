"""Packing the folder of a build into an archive, the image of a release of several files. I/O.

The same files always become the same bytes: in the order of their names, and with nothing of their
times, owners and modes. So publishing a folder again changes nothing.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ota_server.model.parts import (
    FILE_PATH_RULE,
    MAX_FILES,
    MAX_FILES_BYTES,
    FileRecord,
    is_file_path,
    is_taken_path,
)
from ota_server.model.refusal import Refused
from ota_server.system.files import named, open_regular


def pack(folder: Path, archive: IO[bytes]) -> tuple[FileRecord, ...]:
    """Write the files of a folder into an archive; return them.

    Raises:
        Refused: it cannot be a release; the message says why.
        OSError: something cannot be read or written.
    """
    paths = sorted(_paths(folder, ""))
    if not paths:
        raise Refused(f"{folder} holds no files; name the folder of a build")
    records, left = [], MAX_FILES_BYTES
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in paths:
            with named(folder / path), open(open_regular(folder / path), "rb") as file:
                content = file.read(left + 1)
            left -= len(content)
            if left < 0:
                most = MAX_FILES_BYTES >> 20
                raise Refused(f"the files in {folder} have over {most} MiB; leave some out")
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            records.append(FileRecord(path, hashlib.sha256(content).hexdigest(), len(content)))
    archive.flush()
    return tuple(records)


def _paths(folder: Path, above: str) -> Iterator[str]:
    """Yield the paths of all files in a folder and its folders, but for hidden ones.

    Raises:
        Refused: there is something that cannot be in a release.
    """
    count = 0
    for entry in os.scandir(folder / above):
        path = f"{above}{entry.name}"
        if entry.name.startswith("."):
            continue  # such as .git
        if not is_file_path(path):
            raise Refused(f"{folder / path} cannot be in a release: a path is {FILE_PATH_RULE}")
        if is_taken_path(path):
            raise Refused(f"{folder / path} cannot be in a release: the server answers that path")
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise Refused(f"{folder / path} is neither a file nor a folder; put the file itself")
        for each in (path,) if entry.is_file() else _paths(folder, f"{path}/"):
            count += 1
            if count > MAX_FILES:
                raise Refused(f"{folder} holds over {MAX_FILES} files; leave some out")
            yield each
