"""The bounds that this server is to keep, and whether it did in a run. Pure.

A ratio is the median of the ratios within each round; of several cases the worst counts. What is
no ratio is the worst of all rounds, but for latencies and times, which are medians.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import OURS, Results, ratio

MOST_RSS_MB = 40.0
MOST_MILLION_MB = 400.0
MOST_POLLERS_MB = 8.0
THOUSAND = "1,000 devices"
MILLION = "1,000,000 devices"
_KEEPALIVE = ("check-keepalive-one", "check-keepalive-100k")


@dataclass(frozen=True)
class Bound:
    """One row of the table.

    Attributes:
        figure: takes it from the results; None where it was not measured.
        least: whether the limit is the least that is good, and not the most.
        gate: the workload whose run, where it is there to check, fails by it; "": none.
        workload: what the figure is of, where results may be from before there was such a workload;
            the report of those does not name the bound.
    """

    what: str
    figure: Callable[[Results], float | None]
    limit: float
    least: bool = False
    gate: str = ""
    unit: str = "x"
    workload: str = ""


@dataclass(frozen=True)
class Verdict:
    """A bound, and what was measured of it."""

    bound: Bound
    figure: float | None

    @property
    def met(self) -> bool | None:
        """Whether the bound was kept; None where nothing was measured."""
        if self.figure is None:
            return None
        least = self.bound.least
        return self.figure >= self.bound.limit if least else self.figure <= self.bound.limit


def _against(
    peer: str, metric: str, *workloads: str, worst: Callable[..., float], only: str = ""
) -> Callable[[Results], float | None]:
    """Return what takes ours / peer, the worst of all cases of these workloads, or `only` one."""

    def figure(results: Results) -> float | None:
        found = []
        for workload in workloads:
            for case in results.cases(workload):
                if only not in ("", case):
                    continue
                ours = results.values(workload, case, OURS, metric)
                value = ratio(ours, results.values(workload, case, peer, metric))
                found.append(value)
        if not found or None in found:
            return None
        return worst(value for value in found if value is not None)

    return figure


def _own(
    workload: str, metric: str, choose: Callable[[list[float]], float], only: str = ""
) -> Callable[[Results], float | None]:
    """Return what takes one figure of ours over all rounds."""

    def figure(results: Results) -> float | None:
        found = [
            value
            for case in results.cases(workload)
            if only in ("", case)
            for value in results.values(workload, case, OURS, metric).values()
        ]
        return choose(found) if found else None

    return figure


def _difference(workload: str, metric: str, other: str) -> Callable[[Results], float | None]:
    """Return what takes the greatest difference of two metrics of ours."""

    def figure(results: Results) -> float | None:
        rounds = [
            one.values[metric] - one.values[other]
            for one in results.measurements
            if (one.workload, one.peer) == (workload, OURS)
        ]
        return max(rounds) if rounds else None

    return figure


def _growth(results: Results) -> float | None:
    """Return what a check costs at a million known devices, to that at a thousand."""
    thousand, million = (
        results.values("growth", case, OURS, "cpu_us") for case in (THOUSAND, MILLION)
    )
    return ratio(million, thousand)


def _at_least(what: str, peer: str, limit: float, metric: str, *workloads: str) -> Bound:
    return Bound(what, _against(peer, metric, *workloads, worst=min), limit, least=True)


def _at_most(what: str, peer: str, limit: float, metric: str, *workloads: str) -> Bound:
    return Bound(what, _against(peer, metric, *workloads, worst=max), limit)


def _download(size: str, workload: str) -> tuple[Bound, ...]:
    title = f"download of {size}, the worst of 1, 16 and 256 clients"
    return (
        _at_least(f"{title}: rate, to nginx", "nginx", 0.95, "mb_per_s", workload),
        _at_least("the same, to http.server", "http.server", 2.0, "mb_per_s", workload),
        _at_most(f"{title}: CPU per GB, to nginx", "nginx", 1.2, "cpu_s_per_gb", workload),
    )


def _new_download() -> tuple[Bound, ...]:
    title, workload, case = "download of 1 MiB, new connection", "download-1m-new", "16 clients"
    rate = _against("nginx", "mb_per_s", workload, worst=min, only=case)
    cpu = _against("nginx", "cpu_s_per_gb", workload, worst=max, only=case)
    return (
        Bound(f"{title}, 16 clients: rate, to nginx", rate, 0.75, least=True),
        Bound("the same: CPU per GB, to nginx", cpu, 1.4),
    )


_NEW = "check-new"
_POLLING = "ddi-polling"
_SLOW = "slow-downloads"
BOUNDS = (
    _at_least("check, new connection: rate, to nginx", "nginx", 0.9, "rate", _NEW),
    _at_least("the same, to FastAPI on uvicorn", "uvicorn", 3.5, "rate", _NEW),
    _at_least("the same, to aiohttp", "aiohttp", 2.0, "rate", _NEW),
    _at_least("the same, to http.server", "http.server", 9.0, "rate", _NEW),
    _at_least("the same, to gooseBit", "goosebit", 50.0, "rate", _NEW),
    _at_most("check, new connection: CPU, to nginx", "nginx", 1.3, "cpu_us", _NEW),
    _at_most("the same, to aiohttp", "aiohttp", 0.35, "cpu_us", _NEW),
    _at_least("check, keep-alive: rate, to nginx", "nginx", 0.8, "rate", *_KEEPALIVE),
    _at_least("the same, to aiohttp", "aiohttp", 3.0, "rate", *_KEEPALIVE),
    Bound(
        "polls of hawkBit's DDI, keep-alive: rate, to gooseBit",
        _against("goosebit", "rate", _POLLING, worst=min),
        20.0,
        least=True,
        workload=_POLLING,
    ),
    Bound(
        "the same: RSS of 10,000 devices that poll",
        _own(_POLLING, "mb_per_10k", max),
        MOST_POLLERS_MB,
        gate=_POLLING,
        unit="MB",
        workload=_POLLING,
    ),
    *_download("1 MiB", "download-1m"),
    *_new_download(),
    *_download("64 MiB", "download-64m"),
    Bound(
        "10,000 slow downloads: answered",
        _own(_SLOW, "answered", min),
        10_000,
        least=True,
        gate=_SLOW,
        unit="",
    ),
    Bound("the same: delivery", _own(_SLOW, "delivery", min), 0.98, least=True, unit=""),
    Bound("the same: RSS", _own(_SLOW, "rss_mb", max), MOST_RSS_MB, gate=_SLOW, unit="MB"),
    Bound("the same: threads more", _difference(_SLOW, "threads", "threads_before"), 0, unit=""),
    Bound(
        "the same: a check meanwhile, 99th percentile",
        _own(_SLOW, "p99_ms", statistics.median),
        5.0,
        unit="ms",
    ),
    Bound(
        "10,000 idle connections: RSS",
        _own("idle", "rss_mb", max),
        MOST_RSS_MB,
        gate="idle",
        unit="MB",
    ),
    Bound(
        "the same: a check meanwhile, 99th percentile",
        _own("idle", "p99_ms", statistics.median),
        5.0,
        unit="ms",
    ),
    Bound("one million devices: cost per check, to one thousand", _growth, 1.2),
    Bound(
        "the same: first answer after a start",
        _own("restart", "first_s", statistics.median, MILLION),
        2.0,
        unit="s",
    ),
    Bound(
        "the same: RSS at its peak",
        _own("restart", "peak_mb", max, MILLION),
        MOST_MILLION_MB,
        gate="restart",
        unit="MB",
    ),
)


def judge(results: Results) -> list[Verdict]:
    """Return all bounds with what was measured."""
    return [Verdict(bound, bound.figure(results)) for bound in BOUNDS]


def broken_gates(results: Results, wanted: set[str]) -> list[str]:
    """Return the bounds that a run which is there to check should not have broken.

    Where a workload was wanted and gave no figure, its gate is broken too.
    """
    return [
        f"{verdict.bound.gate}: {verdict.bound.what}: {verdict.figure}"
        for verdict in judge(results)
        if verdict.bound.gate in wanted and not verdict.met
    ]
