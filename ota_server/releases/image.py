"""An open image: its digests, its bytes, and whether its file still holds them."""

import os

from ota_server.model.version import entity_tag
from ota_server.releases.copies import PrivateCopy
from ota_server.releases.hashing import Digests
from ota_server.system.files import Signature, is_of, signature_of


class Image:
    """An open image and what is known of its bytes. Closed when the last download lets go of it.

    Attributes:
        copy: the same bytes, which nobody can write to; None: there was no room for them.
        is_withdrawn: nobody may have any more of it: transfers under way end.
    """

    def __init__(
        self,
        version: str,
        descriptor: int,
        signature: Signature,
        digests: Digests,
        copy: PrivateCopy | None,
    ) -> None:
        self.version = version
        self.descriptor = descriptor
        self.signature = signature
        self.copy = copy
        self.is_withdrawn = False
        self.sha256 = digests.sha256
        self.md5 = digests.md5
        self.size = signature.size
        self.modified_seconds = signature.modified_ns // 1_000_000_000
        self.etag = entity_tag(digests.sha256)
        self._links = os.fstat(descriptor).st_nlink

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer where the file was cut."""
        return os.pread(self.descriptor, length, offset)

    def is_unchanged(self) -> bool:
        """Say whether the file still holds the bytes that were hashed."""
        status = os.fstat(self.descriptor)
        if is_of(status, self.signature):
            return True
        now = signature_of(status)
        if now != self.signature._replace(changed_ns=now.changed_ns):
            return False
        # Deleted, replaced by a rename, or linked: that moves the change time too, and no byte. But
        # so does a copy onto it that keeps the time of a reproducible build, and perhaps makes a
        # link after that; then the private copy alone is known to be of one piece.
        if status.st_nlink == 0:
            return True
        return self.copy is not None and status.st_nlink != self._links

    def __del__(self) -> None:
        os.close(self.descriptor)
