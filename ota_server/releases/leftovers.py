"""What a publication that was killed has left in `firmware/`. I/O.

Its manifest is in place before its image. So where its copy of the image is still there, and the
release has no image, the manifest is of no release.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from ota_server.model.version import is_version, spellings
from ota_server.releases.inventory import names_beside_image, release_at
from ota_server.releases.temporary import PREFIX, SUFFIX
from ota_server.system.files import find
from ota_server.system.locks import acquire

_COPY = re.compile(rf"{re.escape(PREFIX)}(.+)\.bin\.[0-9]+{re.escape(SUFFIX)}")


def clear_leftovers(firmware: Path) -> None:
    """Delete what killed publications left. The caller holds the lock."""
    for name in os.listdir(firmware):
        if not name.startswith(PREFIX) or not name.endswith(SUFFIX):
            continue
        found = find(firmware, name)
        with suppress(OSError):  # that of another user stays
            if found is not None:
                with open(found.path, "rb") as file:
                    if acquire(file.fileno()):  # one that still runs holds its lock
                        _clear_record(firmware, name)
                        os.unlink(found.path)


def _clear_record(firmware: Path, copy_name: str) -> None:
    copy = _COPY.fullmatch(copy_name)
    if copy is None or not is_version(copy[1]):
        return
    if all(release_at(firmware, each).image is None for each in spellings(copy[1])):
        remove_record(firmware, copy[1])


def remove_record(firmware: Path, version: str) -> None:
    """Delete all that a release has beside its image."""
    for name in names_beside_image(version):
        (firmware / name).unlink(missing_ok=True)
