"""Figures: what was measured, and the medians, spreads and ratios of it. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

OURS = "ota_server"
NOT_ASKED = "not asked for"  # why a peer, or a workload, was left out


class Broken(Exception):
    """A server or its load did not do what was to be measured; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """What one peer did in one round of one case of a workload; units are in `metrics`."""

    workload: str
    case: str
    peer: str
    round: int
    values: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """Why there is no measurement."""

    workload: str
    case: str
    peer: str
    round: int
    reason: str


@dataclass(frozen=True)
class Spread:
    """The median of some values, and how far they lie apart."""

    median: float
    least: float
    most: float


@dataclass
class Results:
    """All of a run, as results.json holds it.

    Attributes:
        about: what the run was: date, machine, versions of the peers, rounds, seconds.
        left_out: peers, or workloads of peers, that were not measured, and why.
    """

    about: dict[str, Any] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def values(self, workload: str, case: str, peer: str, metric: str) -> dict[int, float]:
        """Return what was measured of one metric, by round."""
        return {
            found.round: found.values[metric]
            for found in self.measurements
            if (found.workload, found.case, found.peer) == (workload, case, peer)
            if metric in found.values
        }

    def cases(self, workload: str) -> list[str]:
        """Return the cases of a workload that were measured, in the order of the first round."""
        found = (one.case for one in self.measurements if one.workload == workload)
        return list(dict.fromkeys(found))

    def know(self, workload: str) -> bool:
        """Return whether the run had such a workload, measured or not."""
        found = (one.workload for one in (*self.measurements, *self.failures))
        return workload in found or f"workload {workload}" in self.left_out

    def to_json(self) -> dict[str, Any]:
        """Return it as objects of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Results":
        """Return what `to_json` made."""
        return cls(
            content["about"],
            [Measurement(**one) for one in content["measurements"]],
            [Failure(**one) for one in content["failures"]],
            content["left_out"],
        )


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the extremes of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least of the values that `percent` of them do not exceed (nearest rank)."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> float | None:
    """Return the median of the ratios within each round; None where no round has both.

    What the machine does beside the run changes from minute to minute, and hits both of a round.
    """
    ratios = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    return statistics.median(ratios) if ratios else None


def turns(names: Sequence[str], number: int) -> list[str]:
    """Return the names in the order of a round: each begins with another one."""
    first = number % len(names) if names else 0
    return [*names[first:], *names[:first]]
