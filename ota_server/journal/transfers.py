"""Which devices download which image at this moment, and how transfers ended: in memory alone."""

from enum import StrEnum


class TransferEnd(StrEnum):
    """How a reply with bytes of an image ended.

    COMPLETE: the device has acknowledged all of it, with the end of the image; PART: all of it,
    which was a part of the image; INCOMPLETE: it left, fell silent, or was cut by the server.
    """

    COMPLETE = "complete"
    PART = "part"
    INCOMPLETE = "incomplete"


def end_of_transfer(is_complete: bool, has_end: bool) -> TransferEnd:
    """Return how a reply ended.

    Args:
        is_complete: the device has acknowledged all of it.
        has_end: it has the end of the image.
    """
    if not is_complete:
        return TransferEnd.INCOMPLETE
    return TransferEnd.COMPLETE if has_end else TransferEnd.PART


class Transfers:
    """The transfers to devices. The lock of the device table guards it.

    Attributes:
        counts: for the SHA-256 of each image, how many transfers of it each MAC has now.
        running: how many run now, with those of what stands beside an image.
        ends: how many have ended, by how, since the server started.
        sent_bytes: the bytes of their bodies that devices had acknowledged when they ended.
    """

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.running = 0
        self.ends = dict.fromkeys(TransferEnd, 0)
        self.sent_bytes = 0

    def has(self, key: str, sha256: str) -> bool:
        """Return whether a device has a transfer of an image."""
        return key in self.counts.get(sha256, ())

    def begin(self, key: str, sha256: str) -> None:
        """Record that a transfer of an image begins."""
        counts = self.counts.setdefault(sha256, {})
        counts[key] = counts.get(key, 0) + 1

    def end(self, key: str, sha256: str) -> None:
        """Record that a transfer of an image has ended."""
        counts = self.counts[sha256]
        left = counts.pop(key) - 1
        if left:
            counts[key] = left
        elif not counts:
            del self.counts[sha256]

    def count_begin(self) -> None:
        """Count a transfer that begins, of whatever it is."""
        self.running += 1

    def count_end(self, end: TransferEnd, sent_bytes: int) -> None:
        """Count a transfer that has ended."""
        self.running -= 1
        self.ends[end] += 1
        self.sent_bytes += sent_bytes
