"""How sure a share is that was seen in few devices: the exact bound of Clopper and Pearson. Pure.

It is exact, since the numbers are small: for three devices of five, approximations are far off. The
bound holds in 95 cases of 100 or more. With small numbers it claims less than it could, which is
the right side to err on before a release is withdrawn from everybody.
"""

import math
from functools import lru_cache

_ALPHA = 0.05
_RARE = 0.01
_HALVINGS = 50
_TERMS = 300
_CLOSE = 1e-12


@lru_cache(maxsize=4096)
def lower_bound(hits: int, trials: int) -> float:
    """Return the one-sided 95 % lower bound of a share of which `hits` of `trials` were seen.

    C. J. Clopper, E. S. Pearson, Biometrika 26 (1934): the share at which so many hits or more come
    about in one case of twenty.
    """
    if hits <= 0 or trials <= 0:
        return 0.0
    if hits >= trials:
        return float(_ALPHA ** (1 / trials))
    low, high = 0.0, hits / trials
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_least(hits, trials, middle) < _ALPHA:
            low = middle
        else:
            high = middle
    return low


def most_by_chance(trials: int, share: float) -> int:
    """Return the number of hits that is exceeded in at most one case of a hundred."""
    low, high = 0, max(trials, 0)
    while low < high:
        middle = (low + high) // 2
        if at_least(middle + 1, trials, share) <= _RARE:
            high = middle
        else:
            low = middle + 1
    return low


def at_least(hits: int, trials: int, share: float) -> float:
    """Return how likely `hits` or more of `trials` are, where each has the chance `share`.

    That is the regularized incomplete beta function I(hits, trials - hits + 1).
    """
    if hits <= 0:
        return 1.0
    if share <= 0 or hits > trials:
        return 0.0
    if share >= 1:
        return 1.0
    a, b = float(hits), float(trials - hits + 1)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(share) + b * math.log1p(-share)
    front = math.exp(log_front)
    if share < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, share) / a
    return 1 - front * _fraction(b, a, 1 - share) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method.

    NIST Digital Library of Mathematical Functions, 8.17.22.
    """
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        factor = 1.0
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            factor = c * d
            value *= factor
        if abs(factor - 1) < _CLOSE:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300
