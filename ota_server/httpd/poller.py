"""What tells the event loop of sockets where there is no epoll."""

import select


class PollPoller:
    """`select.poll` with the manners of `select.epoll`, where that is missing."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds; return descriptors and their events."""
        return self._poll.poll(timeout * 1000)

    def close(self) -> None:
        """Do nothing: there is no descriptor behind it."""
