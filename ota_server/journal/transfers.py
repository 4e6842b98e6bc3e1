"""Which devices download which image at this moment: in memory, not in the journal."""


class Transfers:
    """The transfers that are running. The lock of the device table guards it.

    Attributes:
        counts: for the SHA-256 of each image, how many transfers of it each MAC has now.
    """

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}

    def has(self, key: str, sha256: str) -> bool:
        """Return whether a device has a transfer of an image."""
        return key in self.counts.get(sha256, ())

    def begin(self, key: str, sha256: str) -> None:
        """Record that a transfer begins."""
        counts = self.counts.setdefault(sha256, {})
        counts[key] = counts.get(key, 0) + 1

    def end(self, key: str, sha256: str) -> None:
        """Record that a transfer has ended."""
        counts = self.counts[sha256]
        left = counts.pop(key) - 1
        if left:
            counts[key] = left
        elif not counts:
            del self.counts[sha256]
