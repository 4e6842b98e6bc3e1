"""The memory for the bodies of requests, one budget for all connections of a listener."""

from threading import Lock

from ota_server.httpd.http1 import MAX_HEAD_BYTES

# All connections together may begin so many long bodies: else a few thousand clients, each with
# half of one, would fill the memory of a small machine. That is 256 of the longest.
MOST_BODIES_BYTES = 16 * 1024 * 1024


class BodyBudget:
    """The memory for bodies that have begun and are not whole yet. Safe for use by many threads.

    Those no longer than a head are free: they take no more than a head that is not whole, and no
    stranger can keep a device from saying what it has to say.

    Attributes:
        left_bytes: so much is left.
    """

    def __init__(self, most_bytes: int = MOST_BODIES_BYTES) -> None:
        self.left_bytes = most_bytes
        self._lock = Lock()

    def take(self, length: int) -> bool:
        """Return whether there is room for a body, and take that."""
        if length <= MAX_HEAD_BYTES:
            return True
        with self._lock:
            has_room = length <= self.left_bytes
            self.left_bytes -= length if has_room else 0
        return has_room

    def give_back(self, length: int) -> None:
        """Give back what a body took."""
        if length > MAX_HEAD_BYTES:
            with self._lock:
                self.left_bytes += length
