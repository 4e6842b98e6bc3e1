"""The workload of hawkBit's DDI: what devices that poll take of memory, and their rate."""

from functools import partial

from benchmarks import pollers, procfs
from benchmarks.figures import turns
from benchmarks.metrics import WORKLOADS
from benchmarks.peers import PEERS
from benchmarks.plan import Run
from benchmarks.server import Server
from benchmarks.side_by_side import CONNECTIONS, under_load
from benchmarks.wrk import Load

NAME = "ddi-polling"
CASE = f"{CONNECTIONS} connections"
POLLERS = 10_000
FEW_POLLERS = 1_000
# It takes minutes to get to know 10,000: one round shows their memory.
_SLOW = frozenset(("goosebit",))


def run(run: Run) -> None:
    """Run all rounds; each peer has the machine to itself when it is its turn."""
    for number in range(run.plan.rounds):
        for peer in turns(run.plan.peers_of(WORKLOADS[NAME]), number):
            run.measure(NAME, CASE, peer, number, partial(_measure, run, peer, number))


def _measure(run: Run, peer: str, number: int) -> dict[str, float]:
    plan, count = run.plan, POLLERS
    if peer in _SLOW:
        count = FEW_POLLERS if number else plan.slow_pollers
    with Server(PEERS[peer], run.site, run.folder(), plan.python) as server, server.blamed():
        server.wait()
        before = procfs.rss_mb(server.process)
        pollers.introduce(server.port, pollers.PATH, range(1, count + 1))
        grown = procfs.rss_mb(server.process) - before
        load = Load(pollers.PATH, CONNECTIONS, plan.seconds, requests=count, fields=pollers.FIELDS)
        values = {**under_load(server, load, plan.warm_seconds), "pollers": count}
        if not number or peer not in _SLOW:
            values["mb_per_10k"] = grown * POLLERS / count
        return values
