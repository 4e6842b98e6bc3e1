"""Sites: the addresses that devices ask from, and a quarter of what is said from them. Pure."""

from collections import Counter
from collections.abc import Container

# Of all evidence, the share that one address may give: a quarter.
QUARTER = 4


def capped(devices: Counter[int], free: Container[int]) -> int:
    """Return how many devices count of those at each site.

    No site gives more than a quarter of what is returned, but each gives one; a free one gives all
    that it has.
    """
    total = devices.total()
    if not devices or max(devices.values()) * QUARTER <= total:
        return total
    most = most_of_each(devices, free)
    return sum(n if site in free else min(n, most) for site, n in devices.items())


def most_of_each(devices: Counter[int], free: Container[int] = ()) -> int:
    """Return how many devices count at most of those at each site that is not free."""
    alone = [count for site, count in devices.items() if site not in free]
    others = devices.total() - sum(alone)
    most = max(alone, default=1)
    while most > 1:
        total = others + sum(min(count, most) for count in alone)
        if most * QUARTER <= total:
            return most
        most = min(most - 1, total // QUARTER)
    return 1
