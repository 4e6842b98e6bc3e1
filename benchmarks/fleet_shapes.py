"""Shapes of fleets: which addresses devices share, how long they keep them, how often they poll.

Pure. Times are in milliseconds.
"""

from dataclasses import dataclass

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
POLLS_BEFORE = 4  # so many polls of each device are on record when a rollout begins
JITTER = 0.1
# A provider's addresses, for each that is in use. With one more, a home gets after three days not
# the address that it had, but that of its neighbour.
_SPARE = 3


@dataclass(frozen=True)
class Shape:
    """How the devices of a fleet are connected, and how often they poll.

    Attributes:
        devices: how many there are.
        addresses: so many are shared by all devices, in equal parts; 0: each has its own.
        at_addresses: the share of the devices that are behind one of these; each of the others has
            its own.
        moves_hours: each device gets another address of its carrier after so many hours, from and
            to; None: it keeps its address.
        is_renumbered: a provider replaces each shared address once a day.
        daily: the share of the devices that poll once a day.
        minutes: between two polls of the others, from and to; short intervals are the most common.
    """

    name: str
    devices: int
    addresses: int = 0
    at_addresses: float = 1.0
    moves_hours: tuple[float, float] | None = None
    is_renumbered: bool = False
    daily: float = 0.0
    minutes: tuple[int, int] = (5, 500)

    @property
    def slowest_ms(self) -> int:
        """The longest poll interval."""
        return DAY_MS if self.daily else self.minutes[1] * MINUTE_MS

    @property
    def known_ms(self) -> int:
        """Return for how long its devices are known before a rollout begins."""
        return max(2 * DAY_MS, int((POLLS_BEFORE + 1) * (1 + JITTER) * self.slowest_ms))

    @property
    def history_ms(self) -> int:
        """Return of how long before a rollout each poll is on record, be they more than a few."""
        return DAY_MS if self.is_moving else 0

    @property
    def is_moving(self) -> bool:
        """Whether devices change their addresses."""
        return self.is_renumbered or self.moves_hours is not None

    @property
    def has_sites(self) -> bool:
        """Whether there are sites, of which one can lose its power while others do not."""
        return self.addresses > 1


SHAPES = (
    Shape("own address, or one of 20 sites", 10_000, addresses=20, at_addresses=0.4),
    Shape("one NAT", 60, addresses=1),
    Shape("3 addresses", 200, addresses=3),
    Shape("5 sites of 40", 200, addresses=5),
    Shape("10 sites of 10", 100, addresses=10),
    Shape("20 shops of 50", 1000, addresses=20),
    Shape("homes of three", 1002, addresses=334),
    Shape("mobile", 1000, moves_hours=(2.0, 6.0)),
    Shape("daily change", 1002, addresses=334, is_renumbered=True),
    Shape("one proxy", 1000, addresses=1),
    Shape("mixed rhythms", 1000, daily=0.95, minutes=(5, 20)),
    Shape("mostly daily", 2000, daily=0.8),
)


def own_address(number: int) -> str:
    """Return the address that a device has for itself."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def shared_address(site: int) -> str:
    """Return the address of a site."""
    return f"198.18.{site >> 8}.{site & 255}"


def renumbered_address(site: int, day: int, sites: int) -> str:
    """Return the address of a site that gets another one each day.

    At no time do two sites have the same, though each changes at its own time of day; but a site
    can get one that another had some days before.
    """
    return shared_address((site + day * sites) % (_SPARE * sites + 1))


def carrier_address(number: float) -> str:
    """Return one of 2,000 addresses that a carrier gives to mobile devices.

    Args:
        number: which one, from 0 to 1.
    """
    index = int(number * 2000)
    return f"100.64.{index // 250}.{index % 250}"
