"""Which hashes devices report of an image that they run, besides its own. Pure.

Two updaters report another hash than that of the file:

- An ESP8266's writes the flash mode of its chip into byte 2 of what it installs, and then reports
  the MD5 of that.
- An ESP32's reports the SHA-256 that the build appended to the image. Behind it there may be a
  signature or padding; what is not the digest of the bytes before it does not count.
"""

import hashlib
from collections.abc import Callable

from ota_server.model.esp_size import esp_size
from ota_server.model.image_header import read_header

_MODE_OFFSET = 2
_MODES = range(4)
_HASH_APPENDED_OFFSET = 23
_SHA256_BYTES = 32


class ReportedHashes:
    """Takes an image piece by piece."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        """Begin.

        Args:
            read: returns bytes of the image: from which offset, and how many at most.
        """
        self._read = read
        self._left = 0  # bytes of the image itself that were not taken yet
        self._patched: list[hashlib._Hash] = []
        self._before: hashlib._Hash | None = None  # of all but what is in `_end`
        self._end = b""
        self._is_begun = False

    def take(self, chunk: bytes) -> None:
        """Take the next piece; the first one holds at least the header."""
        if not self._is_begun:
            self._is_begun = True
            self._begin(chunk)
            return
        for md5 in self._patched:
            md5.update(chunk)
        self._move_on(chunk)

    def _begin(self, chunk: bytes) -> None:
        header = read_header(chunk)
        chip = None if header is None else header.chip
        if chip == "ESP8266":
            for mode in _MODES:
                if chunk[_MODE_OFFSET] != mode:
                    start = b"%b%c" % (chunk[:_MODE_OFFSET], mode)
                    md5 = hashlib.md5(start, usedforsecurity=False)
                    md5.update(memoryview(chunk)[_MODE_OFFSET + 1 :])
                    self._patched.append(md5)
            return
        is_esp32 = header is not None and header.format.startswith("ESP32")
        if chip and is_esp32 and chunk[_HASH_APPENDED_OFFSET] == 1:
            self._left = esp_size(self._read, chip) or 0
            self._before = hashlib.sha256()
            self._move_on(chunk)

    def _move_on(self, chunk: bytes) -> None:
        if self._before is not None:
            chunk = chunk[: self._left]
            self._left -= len(chunk)
            self._before.update(self._end[: max(0, len(self._end) + len(chunk) - _SHA256_BYTES)])
            self._before.update(memoryview(chunk)[:-_SHA256_BYTES])
            self._end = (self._end + chunk[-_SHA256_BYTES:])[-_SHA256_BYTES:]

    def result(self) -> tuple[str, ...]:
        """Return the hashes in hex."""
        if self._before is not None and self._before.digest() == self._end:
            return (self._end.hex(),)
        return tuple(md5.hexdigest() for md5 in self._patched)
