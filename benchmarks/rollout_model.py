"""A model of fleets under rollouts: no network, no server, the rules of the server alone.

    python -m benchmarks.rollout_model --seeds 50

Each run makes a fleet of devices that poll, download, boot and fail as its scenario has it; writes
what the server would have written in its journal; folds that with `ota_server.feedback`; and lets
`ota_server.waves` decide. Bad releases have to be halted while fewer than 2 % of the fleet have
ever downloaded them; good ones have to reach all that are still alive.
"""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from benchmarks.fleet_model import MINUTE_MS, SCENARIOS, Fleet, Scenario
from benchmarks.progress import Progress as Bar
from ota_server.feedback import Feedback, Known
from ota_server.plan import Plan, Progress
from ota_server.record import format_time
from ota_server.release import meaning
from ota_server.waves import advance

DEVICES = 10_000
LEAST_DEVICES = 1000  # with fewer, the first wave holds too few to say anything
MOST_DOWNLOADED = 0.02
MOST_WRONG = 1  # of all runs, so many false halts and as many missed ones
_START_MS = 1_790_000_000_000
_LOOK_EVERY_MS = 5 * MINUTE_MS
_LONGEST_MS = 14 * 24 * 60 * MINUTE_MS


class Outcome(NamedTuple):
    """What came of one run.

    Attributes:
        state: of the rollout at its end: done, halted or paused.
        downloaded: the share of the fleet that ever had the whole image.
        reached: the share of the living that ran it at the end.
        hours: until then.
    """

    scenario: str
    seed: int
    state: str
    downloaded: float
    reached: float
    hours: float
    reason: str


def run(
    scenario: Scenario, seed: int, devices: int = DEVICES, *, is_killed: bool = False
) -> Outcome:
    """Let a fleet live through a rollout.

    Args:
        is_killed: the controller is, after each look, and goes on from its checkpoint.
    """
    fleet = Fleet(scenario, seed, devices, _START_MS)
    plan = Plan(
        id=f"{scenario.name}-{seed}",
        version=fleet.release,
        group="",
        waves=(1.0, 10.0, 50.0, 100.0),
        time=format_time(_START_MS),
        instead_of=fleet.versions[0],
    )
    releases = (*fleet.versions, *fleet.stones, fleet.release)
    known = Known(releases=_meanings(releases), stones=_meanings(fleet.stones))
    feedback = Feedback(plan, known, 0, _START_MS)
    for record in fleet.history():
        feedback.observe(record)
    progress = Progress(plan.id, "running", 0, plan.time)
    now_ms = _START_MS
    while progress.state == "running" and now_ms < _START_MS + _LONGEST_MS:
        now_ms += _LOOK_EVERY_MS
        for record in fleet.records_until(now_ms, plan.percent(progress.wave)):
            feedback.observe(record)
        before = progress
        progress = advance(plan, progress, feedback.tally(now_ms), now_ms)
        if progress.wave != before.wave:
            feedback.open_wave(progress.wave, now_ms)
        if is_killed:
            content = feedback.dump()
            feedback = Feedback(plan, known, 0, _START_MS)
            feedback.load(content)
    hours = (now_ms - _START_MS) / (60 * MINUTE_MS)
    if progress.state == "done":
        fleet.finish(now_ms)
    return Outcome(
        scenario.name,
        seed,
        progress.state,
        fleet.downloaded / devices,
        fleet.reached,
        hours,
        progress.reason,
    )


def _meanings(versions: Iterable[str]) -> frozenset[str]:
    return frozenset(map(meaning, versions))


def is_right(scenario: Scenario, outcome: Outcome) -> bool:
    """Say whether a run ended as its release deserves."""
    if scenario.is_good:
        return outcome.state == "done" and outcome.reached == 1.0
    return outcome.state == "halted" and outcome.downloaded < MOST_DOWNLOADED


def _run(job: tuple[int, int, int]) -> Outcome:
    index, seed, devices = job
    return run(SCENARIOS[index], seed, devices)


def run_all(seeds: Sequence[int], devices: int, processes: int) -> Iterator[Outcome]:
    """Yield what came of each scenario with each seed, in no order."""
    jobs = [(index, seed, devices) for seed in seeds for index in range(len(SCENARIOS))]
    if processes <= 1:
        yield from map(_run, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_run, jobs)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the runs as a table, a line for each scenario."""
    runs: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        runs[outcome.scenario].append(outcome)
    lines = [
        f"{'SCENARIO':44} {'RELEASE':7} {'HALTED':>7} {'DONE':>7} {'DOWNLOADED':>15} "
        f"{'HOURS':>12} {'WRONG':>5}"
    ]
    for scenario in SCENARIOS:
        mine = runs[scenario.name]
        if not mine:
            continue
        shares = sorted(outcome.downloaded * 100 for outcome in mine)
        hours = sorted(outcome.hours for outcome in mine)
        halted = sum(outcome.state == "halted" for outcome in mine)
        done = sum(outcome.state == "done" for outcome in mine)
        wrong = sum(not is_right(scenario, outcome) for outcome in mine)
        lines.append(
            f"{scenario.name:44} {'good' if scenario.is_good else 'bad':7} "
            f"{halted:>3}/{len(mine):<3} {done:>3}/{len(mine):<3} "
            f"{shares[0]:6.2f}-{shares[-1]:6.2f} % {hours[0]:5.1f}-{hours[-1]:5.1f} h {wrong:>5}"
        )
    return "\n".join(lines)


def verdict(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """Return how many good releases did not reach all, and how many bad ones were missed."""
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    wrong = [each for each in outcomes if not is_right(scenarios[each.scenario], each)]
    good = sum(scenarios[each.scenario].is_good for each in wrong)
    return good, len(wrong) - good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all; return 1 where more went wrong than may."""
    parser = argparse.ArgumentParser(prog="benchmarks.rollout_model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=50, help="runs of each scenario (default: 50)")
    parser.add_argument("--devices", type=int, default=DEVICES, help="(default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.devices < LEAST_DEVICES:
        parser.error(f"it takes a seed and {LEAST_DEVICES} devices at least")
    bar = Bar(options.seeds * len(SCENARIOS))
    outcomes = []
    bar.begin("rollouts")
    for outcome in run_all(range(options.seeds), options.devices, options.processes):
        outcomes.append(outcome)
        bar.begin(f"{outcome.scenario}, seed {outcome.seed}")
        bar.end(f"{outcome.state} after {outcome.hours:.1f} h {outcome.reason}")
    bar.close()
    print(table(outcomes))
    false, missed = verdict(outcomes)
    print(f"\nfalse: {false}, missed: {missed} of {len(outcomes)}; {MOST_WRONG} of each may be")
    return int(max(false, missed) > MOST_WRONG)


if __name__ == "__main__":
    sys.exit(main())
