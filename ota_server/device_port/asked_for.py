"""What a device asks for by the path of its request, besides the version. Pure.

| path | what it is |
|---|---|
| `/firmware.bin` | the image of the release that the device should run |
| `/firmware.bin.gz` | the same, compressed |
| `/firmware_<version>.bin` | the same, if it is this release: documents name it so |
| `/firmware-minimal.bin`, `/firmware-safeboot.bin`, with `.gz` | Tasmota's smaller images |
| `/<path>` | a file of the release that the device should run (senko) |
| `/<version>_<path>`, `/<version>/<path>` | the same, if it is this release (micropython-ota) |
"""

import re
from collections.abc import Container
from typing import NamedTuple

from ota_server.model.device import Download
from ota_server.model.parts import is_file_path
from ota_server.model.version import same_version

_IMAGE = re.compile(
    r"/firmware(?:_([A-Za-z0-9][A-Za-z0-9._+\-]{0,63}))?(-minimal|-safeboot)?\.bin(\.gz)?"
)


class AskedFor(NamedTuple):
    """What a request asks for of a release.

    Attributes:
        version: it has to be this release; "": the one that the device should run.
        path: of a file of the release, or of a version and a file; "": its image.
        other: what is added to its version; the image is that of the release called so.
        is_compressed: the image is wanted compressed.
        pinned: it may have these bytes, whatever is decided meanwhile.
    """

    version: str = ""
    path: str = ""
    other: str = ""
    is_compressed: bool = False
    pinned: Download | None = None

    def is_of(self, release: str) -> bool:
        """Return whether it can be of a release."""
        return not self.version or same_version(self.version, release)

    def is_in(self, release: str, paths: Container[str]) -> bool:
        """Return whether a release that has files with these paths has what is wanted."""
        return not self.path or self.file_in(release, paths) is not None

    def file_in(self, release: str, paths: Container[str]) -> str | None:
        """Return the path of the file in a release that has these; None: it is not in it."""
        if self.path in paths:
            return self.path
        for position, character in enumerate(self.path):
            version, rest = self.path[:position], self.path[position + 1 :]
            is_version = character in "_/" and version and same_version(version, release)
            if is_version and rest in paths:
                return rest
        return None


def asked_for(path: bytes) -> AskedFor | None:
    """Return what a path stands for; None: nothing of a release."""
    text = path.decode("latin-1")
    match = _IMAGE.fullmatch(text)
    if match:
        return AskedFor(match[1] or "", other=match[2] or "", is_compressed=match[3] is not None)
    return AskedFor(path=text[1:]) if is_file_path(text[1:]) else None
