"""The drivers of a listener, as far as others ask for what they do and have counted."""

from threading import Lock
from typing import Protocol

from ota_server.httpd.channel import Channel
from ota_server.httpd.reply import Transfer
from ota_server.httpd.turn_counts import TurnCounts


class ChannelDriver(Protocol):
    """A driver of channels.

    Attributes:
        channels: those that are open, by their descriptors.
        turns: counts the replies that it has sent.
    """

    channels: dict[int, Channel]
    turns: TurnCounts


class Drivers:
    """The drivers that have connections. Safe for use by many threads.

    What is counted costs no lock where it happens: each driver counts for itself, and whoever asks
    adds that up.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: set[ChannelDriver] = set()
        self._ended = TurnCounts()

    def add(self, driver: ChannelDriver) -> None:
        """Learn of a driver that begins."""
        with self._lock:
            self._running.add(driver)

    def remove(self, driver: ChannelDriver) -> None:
        """Learn that a driver has ended; what it has counted is kept."""
        with self._lock:
            self._running.discard(driver)
            self._ended.add(driver.turns)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return sum(len(driver.channels) for driver in self._running)

    @property
    def quick(self) -> int:
        """How many replies were made without a `Request`; much cheaper than `turns`."""
        with self._lock:
            return self._ended.quick + sum(driver.turns.quick for driver in self._running)

    @property
    def turns(self) -> TurnCounts:
        """What all drivers have counted, those that have ended too."""
        counted = TurnCounts()
        with self._lock:  # not for longer: of ten thousand threads the sum takes 30 ms
            counted.add(self._ended)
            running = tuple(self._running)
        for driver in running:
            counted.add(driver.turns)
        return counted

    def transfers(self, most: int) -> list[tuple[Transfer, int]]:
        """Return up to `most` transfers that run, and how many bytes of each are acknowledged.

        Nothing is kept for this, since ten thousand downloads have no room for it; of so many the
        first ones are found at once. One that ends meanwhile may be among them.
        """
        found: list[tuple[Transfer, int]] = []
        with self._lock:
            running = tuple(self._running)
        for driver in running:
            for channel in tuple(driver.channels.values()):
                if channel.connection.awaits_acknowledgement:
                    found += channel.transfers()
                    if len(found) >= most:
                        return found[:most]
        return found
