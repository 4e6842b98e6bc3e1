"""What a run is to do, and what goes on while it runs: results, failures, progress."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Broken, Failure, Measurement, Results
from benchmarks.metrics import WORKLOADS, Workload
from benchmarks.progress import Progress


@dataclass(frozen=True)
class Plan:
    """The options of a run.

    Attributes:
        seconds: of one measurement by wrk.
        warm_seconds: of the load before it, which is not measured.
        hold_seconds: of a measurement with 10,000 connections.
        devices: known ones in the workload `restart`.
        slow_pollers: devices that a server polls which is slow to get to know them.
        growth: known devices of the servers that are compared; the first is the base.
        peers: those that take part, of those that are there.
        folder: for all files of the run; somebody deletes it.
    """

    rounds: int
    seconds: int
    warm_seconds: int
    hold_seconds: float
    devices: int
    slow_pollers: int
    growth: tuple[int, ...]
    peers: tuple[str, ...]
    python: Path
    folder: Path

    def peers_of(self, workload: Workload) -> list[str]:
        """Return who takes part in a workload."""
        return [name for name in workload.peers if name in self.peers]

    def within(self, folder: Path, peers: tuple[str, ...]) -> "Plan":
        """Return the same for some of the peers, in another folder."""
        return replace(self, folder=folder, peers=peers)


class Run:
    """A run under way: a plan, and what came of it so far.

    Attributes:
        site: a folder with version.txt alone, which every peer can serve.
    """

    def __init__(self, plan: Plan, site: Path, results: Results, progress: Progress) -> None:
        self.plan = plan
        self.site = site
        self.results = results
        self.progress = progress
        self._folders = 0

    def folder(self) -> Path:
        """Return a new folder for one server."""
        self._folders += 1
        path = self.plan.folder / f"server-{self._folders}"
        path.mkdir()
        return path

    def measure(
        self,
        workload: str,
        case: str,
        peer: str,
        number: int,
        work: Callable[[], dict[str, float]],
    ) -> None:
        """Do one measurement and keep it, or keep why it failed."""
        self.progress.begin(f"{workload} {case} · {peer} · round {number + 1}")
        try:
            values = work()
        except (Broken, OSError, ValueError) as problem:
            self.fail(workload, case, peer, number, problem)
            return
        self.results.measurements.append(Measurement(workload, case, peer, number, values))
        first = WORKLOADS[workload].metrics[0]
        self.progress.end(f"{first} {values[first]:,.2f}")

    def leave_out(self, workload: str, peer: str, problem: Exception) -> None:
        """Keep why a peer has no part in a workload, which is not a failure."""
        self.progress.begin(f"{workload} · {peer}")
        self.results.left_out[f"{peer}, workload {workload}"] = str(problem)
        self.progress.end(f"left out: {problem}")

    def fail(self, workload: str, case: str, peer: str, number: int, problem: Exception) -> None:
        """Keep why one measurement failed."""
        self.progress.begin(f"{workload} {case} · {peer} · round {number + 1}")
        reason = str(problem) or type(problem).__name__
        self.results.failures.append(Failure(workload, case, peer, number, reason))
        self.progress.end(f"FAILED: {reason[:200]}")
