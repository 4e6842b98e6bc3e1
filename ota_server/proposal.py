"""The waves that a rollout gets where an operator names none: they fit the fleet. Pure.

- 20 devices or fewer: one goes first, then the rest.
- Up to 3,000: thirty go first, or a third of a fleet that has fewer than ninety. So many show a
  release that fails on three of ten in 99 cases of 100, at 20 or more.
- More: 1 % goes first, as a hundred devices of ten thousand.
- Then 10, 50 and 100 %, as far as each is a good step from the one before.
- Both kinds of pollers are in the first wave: a release that kills those which poll once a day is
  not noticed by those which poll each minute.
"""

import math
from collections.abc import Sequence

_FEWEST_TO_PROVE = 20
_FIRST = 30
_FIRST_SHARE = 3
_FIRST_PERCENT = 1.0
# A wave is followed by the next of these that is at least twice as large.
_STEPS = (10.0, 50.0, 100.0)
# A kind that makes up less than this of the fleet need not be in the first wave.
_LEAST_SHARE = 0.05


def propose_waves(stands: Sequence[tuple[float, bool]]) -> tuple[float, ...]:
    """Return percentages, rising, up to 100, so that no wave is empty.

    Args:
        stands: for each active device where it stands in the rollout (`cohort_percent`), and
            whether it is a slow poller.
    """
    ordered = sorted(stands)
    devices = len(ordered)
    if devices <= 1:
        return (100.0,)
    first = _first_wave(ordered)
    percent = _FIRST_PERCENT if first == 0 else _just_above(ordered, first)
    waves = [percent]
    if devices > _FEWEST_TO_PROVE:
        waves += [step for step in _STEPS[:-1] if step >= 2 * percent]
    return (*_not_empty(waves, ordered), 100.0)


def _first_wave(ordered: Sequence[tuple[float, bool]]) -> int:
    """Return how many devices go first; 0: 1 % of them all, which will do."""
    devices = len(ordered)
    by_percent = sum(stand < _FIRST_PERCENT for stand, _ in ordered)
    if devices // 100 >= _FIRST and by_percent >= _FIRST and _holds_both(ordered, by_percent):
        return 0
    wanted = 1 if devices <= _FEWEST_TO_PROVE else min(_FIRST, devices // _FIRST_SHARE)
    wanted = max(wanted, devices // 100)
    most = max(devices // _FIRST_SHARE, wanted)
    return next((n for n in range(wanted, most + 1) if _holds_both(ordered, n)), wanted)


def _holds_both(ordered: Sequence[tuple[float, bool]], first: int) -> bool:
    """Return whether the first devices hold half as many of each kind as is its share, or more."""
    slow = sum(is_slow for _, is_slow in ordered) / len(ordered)
    slow_first = sum(is_slow for _, is_slow in ordered[:first])
    for share, count in ((slow, slow_first), (1 - slow, first - slow_first)):
        if share >= _LEAST_SHARE and count < max(1, math.floor(share * first / 2)):
            return False
    return True


def _just_above(ordered: Sequence[tuple[float, bool]], first: int) -> float:
    """Return the roundest percentage that holds just the first devices."""
    last, following = ordered[first - 1][0], ordered[first][0]
    for digits in range(15):
        size = 10.0**digits
        percent = (math.floor(last * size) + 1) / size
        if last < percent <= following:
            return percent
    return math.nextafter(last, 100.0)


def _not_empty(waves: Sequence[float], ordered: Sequence[tuple[float, bool]]) -> list[float]:
    """Return the waves that add a device, the last one of all not among them."""
    kept, reached = [], 0
    for percent in waves:
        within = sum(stand < percent for stand, _ in ordered)
        if reached < within < len(ordered):
            kept.append(percent)
            reached = within
    return kept
