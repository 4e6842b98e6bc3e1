"""The waves of a rollout for which an operator did not name any: they fit the fleet. Pure.

- 20 devices or fewer: one goes first, then the rest.
- Up to 3,000: thirty go first, or a third of a fleet that has fewer than ninety. So many show, in
  99 cases of 100, a release that fails on three of ten.
- More: 1 % goes first, as a hundred devices of ten thousand.
- Then 10, 50 and 100 %, as far as each is a good step from the one before.
- Devices that poll often and slow pollers are both in the first wave, which is made larger for
  that, up to half of the fleet (a third of 20 or fewer): devices that poll each minute do not show
  that a release bricks those which poll once a day.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

_FEWEST_TO_PROVE = 20
_FIRST = 30
_FIRST_SHARE = 3
_MOST_SHARE = 2
_FIRST_PERCENT = 1.0
# A wave is followed by the next of these that is at least twice as large.
_STEPS = (10.0, 50.0)
# A kind that makes up less than this of the fleet need not be in the first wave.
_LEAST_SHARE = 0.05

Stand = tuple[float, bool | None]


def propose_waves(stands: Sequence[Stand]) -> tuple[float, ...]:
    """Return percentages, rising, up to 100, so that no wave is empty.

    Args:
        stands: for each active device where it stands in the rollout (`cohort_percent`), and
            whether it is a slow poller; None: that is not known.
    """
    ordered = sorted(stands, key=lambda each: each[0])
    devices = len(ordered)
    if devices <= 1:
        return (100.0,)
    within = _within(ordered, _FIRST_PERCENT)
    is_large = devices >= 100 * _FIRST and within >= _FIRST
    wanted = within if is_large else _wanted(devices)
    most = devices // (_FIRST_SHARE if devices <= _FEWEST_TO_PROVE else _MOST_SHARE)
    first = _first_with_both(ordered, wanted, max(wanted, most))
    percent = _FIRST_PERCENT if first == within else _just_above(ordered, first)
    steps = _STEPS if devices > _FEWEST_TO_PROVE else ()
    waves = [percent, *(step for step in steps if step >= 2 * percent)]
    return (*_not_empty(waves, ordered), 100.0)


def _wanted(devices: int) -> int:
    """Return how many devices go first, whatever their kinds."""
    if devices <= _FEWEST_TO_PROVE:
        return 1
    return max(min(_FIRST, devices // _FIRST_SHARE), devices // 100)


def _first_with_both(ordered: Sequence[Stand], fewest: int, most: int) -> int:
    """Return how many devices go first so that both kinds are among them; else the fewest.

    Of each kind there are half as many as is its share, or more.
    """
    kinds = [is_slow for _, is_slow in ordered if is_slow is not None]
    if not kinds:
        return fewest
    slow_share = sum(kinds) / len(kinds)
    slow = quick = 0
    for first, (_, is_slow) in enumerate(ordered[:most], start=1):
        slow += is_slow is True
        quick += is_slow is False
        known = slow + quick
        has_both = _is_enough(slow, slow_share, known) and _is_enough(quick, 1 - slow_share, known)
        if first >= fewest and has_both:
            return first
    return fewest


def _is_enough(count: int, share: float, of: int) -> bool:
    return share < _LEAST_SHARE or count >= max(1, math.floor(share * of / 2))


def _just_above(ordered: Sequence[Stand], first: int) -> float:
    """Return the roundest percentage that holds just the first devices.

    Where the next device stands just there too, it holds that one too.
    """
    last, following = ordered[first - 1][0], ordered[first][0]
    for digits in range(15):
        steps = 10.0**digits
        percent = (math.floor(last * steps) + 1) / steps
        if last < percent <= following:
            return percent
    return math.nextafter(last, 100.0)


def _not_empty(waves: Sequence[float], ordered: Sequence[Stand]) -> list[float]:
    """Return the waves that add a device and leave one for the last wave, which is all of them."""
    kept, reached = [], 0
    for percent in waves:
        within = _within(ordered, percent)
        if reached < within < len(ordered):
            kept.append(percent)
            reached = within
    return kept


def _within(ordered: Sequence[Stand], percent: float) -> int:
    """Return how many devices stand below a percentage."""
    return bisect_left(ordered, percent, key=lambda each: each[0])
