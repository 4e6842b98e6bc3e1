"""A model of fleets under rollouts: no network, no server, the rules of the server alone.

    python -m benchmarks.rollout_model --seeds 50

Each run makes a fleet of devices that poll, download, boot and fail as its scenario has it, from
the addresses that the shape of the fleet has; writes what the server would have written in its
journal; folds that with `evaluation.feedback`; and lets `evaluation.waves` decide. Good releases
have to reach all that are still alive, in time. Bad ones have to be halted while fewer than 1 % of
10,000 devices have ever downloaded them; in a smaller fleet, while no others have than those of the
first wave that holds a device which the release harms. A person who is asked about devices sends
the rollout on where all of these are dead or without power for another reason.
"""

import argparse
import gc
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet_model import MADE_UP_AT, SCENARIOS, ModelFleet, ModelScenario
from benchmarks.fleet_shapes import DAY_MS, HOUR_MS, MINUTE_MS, SHAPES, Shape
from benchmarks.progress import Progress as Bar
from ota_server.evaluation.feedback import Feedback
from ota_server.evaluation.proposal import propose_waves
from ota_server.evaluation.scope import RolloutScope
from ota_server.evaluation.tally import ASKING_WAVE
from ota_server.evaluation.waves import advance
from ota_server.model.timestamp import format_time
from ota_server.model.version import meaning
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress

MOST_WRONG = 1  # of all runs, so many false halts and as many missed ones
_LARGE_FLEET = 10_000
_MOST_EXPOSED = 0.01  # of a large fleet
_MOST_FORGED = 0.02  # more made-up devices than that, and a rollout may pause for a person
_WAVES = 4
_GAPS_TO_SOAK = 3
_START_MS = 1_790_000_000_000
_LOOK_EVERY_MS = 5 * MINUTE_MS
# A wave that has been open for so long waits for slow devices; it is looked at less often.
_SLOW_AFTER_MS = 6 * HOUR_MS
_SLOW_LOOK_EVERY_MS = 30 * MINUTE_MS
_LONGEST_MS = 14 * DAY_MS
_LONGEST_PAUSE_MS = DAY_MS


class ModelOutcome(NamedTuple):
    """What came of one run.

    Attributes:
        state: of the rollout at its end: done, halted or paused.
        devices: those of the fleet, made-up ones not counted.
        had: how many of them ever had the whole image.
        may_have: how many may have had a bad one when it is stopped.
        reached: the share of the living that ran it at the end.
        hours: until then.
        most_hours: a good release has to be done in so many.
        promoted: how often a person opened a wave by hand.
        asks: how many devices a person is asked about at the end.
        wave_devices: how many devices the last wave that opened adds.
    """

    scenario: str
    shape: str
    seed: int
    state: str
    devices: int
    had: int
    may_have: int
    reached: float
    hours: float
    most_hours: float
    reason: str
    promoted: int = 0
    asks: int = 0
    wave_devices: int = 0


def run(
    scenario: ModelScenario,
    seed: int,
    shape: Shape = SHAPES[0],
    devices: int | None = None,
    *,
    is_killed: bool = False,
    devices_proven: bool = False,
) -> ModelOutcome:
    """Let a fleet live through a rollout.

    Args:
        devices: how many; None: as many as the shape has.
        is_killed: the controller is, after each look, and goes on from its checkpoint.
        devices_proven: the server takes devices for proven, made-up ones too.
    """
    if devices is not None:
        shape = replace(shape, devices=devices)
    fleet = ModelFleet(scenario, seed, shape, _START_MS)
    waves = propose_waves(fleet.stands())
    fleet.forge(waves[0])
    rollout = _Rollout(fleet, _plan(fleet, f"{scenario.name}-{seed}", waves), devices_proven)
    while rollout.goes_on():
        rollout.look()
        if is_killed:
            rollout.kill()
    plan, progress, now_ms = rollout.plan, rollout.progress, rollout.now_ms
    if progress.state == "done":
        fleet.finish(now_ms)
    return ModelOutcome(
        scenario=scenario.name,
        shape=shape.name,
        seed=seed,
        state=progress.state,
        devices=shape.devices,
        had=fleet.downloaded,
        may_have=_may_have(fleet, shape, waves),
        reached=fleet.reached,
        hours=(now_ms - _START_MS) / HOUR_MS,
        most_hours=_most_hours(plan, shape),
        reason=progress.reason,
        promoted=rollout.promoted,
        asks=len(progress.asks),
        wave_devices=plan.counted[progress.wave],
    )


def _plan(fleet: ModelFleet, name: str, waves: tuple[float, ...]) -> RolloutPlan:
    return RolloutPlan(
        id=name,
        version=fleet.release,
        group="",
        waves=waves,
        time=format_time(_START_MS),
        instead_of=fleet.versions[0],
        counted=fleet.counted(waves),
    )


def _may_have(fleet: ModelFleet, shape: Shape, waves: tuple[float, ...]) -> int:
    if shape.devices >= _LARGE_FLEET:
        return math.ceil(shape.devices * _MOST_EXPOSED) - 1
    return fleet.exposed_at_most(waves)


def _most_hours(plan: RolloutPlan, shape: Shape) -> float:
    return _WAVES * (plan.soak_seconds / 3600 + _GAPS_TO_SOAK * shape.slowest_ms / HOUR_MS)


class _Rollout:
    """A rollout over a fleet, look by look.

    Attributes:
        promoted: how often a person opened a wave by hand.
    """

    def __init__(self, fleet: ModelFleet, plan: RolloutPlan, devices_proven: bool = False) -> None:
        releases = (*fleet.versions, *fleet.stepping_stones, fleet.release)
        self._scope = RolloutScope(
            releases=_meanings(releases), stepping_stones=_meanings(fleet.stepping_stones)
        )
        self._fleet = fleet
        self.plan = plan
        self.progress = RolloutProgress(plan.id, "running", 0, plan.time)
        self.promoted = 0
        self.now_ms = self._opened_ms = self._ran_ms = _START_MS
        self._devices_proven = devices_proven
        self._feedback = self._begin()
        for record in fleet.history():
            self._feedback.observe(record)

    def _begin(self) -> Feedback:
        return Feedback(self.plan, self._scope, 0, _START_MS, self._devices_proven)

    def goes_on(self) -> bool:
        """Return whether something can still come of it. One that is paused can be halted."""
        if self.progress.state == "paused":
            return self.now_ms - self._ran_ms < _LONGEST_PAUSE_MS
        return self.progress.state == "running" and self.now_ms < _START_MS + _LONGEST_MS

    def look(self) -> None:
        """Let some time go by, and decide as the controller does; then ask the operator."""
        is_slow = self.now_ms - self._opened_ms >= _SLOW_AFTER_MS
        self.now_ms += _SLOW_LOOK_EVERY_MS if is_slow else _LOOK_EVERY_MS
        before, is_running = self.progress, self.progress.state == "running"
        percent = self.plan.percent(before.wave)
        for record in self._fleet.records_until(self.now_ms, percent, is_offered=is_running):
            self._feedback.observe(record)
        tally = self._feedback.tally(self.now_ms)
        self.progress = advance(self.plan, before, tally, self.now_ms)
        if self.progress.wave != before.wave:
            self._feedback.open_wave(self.progress.wave, self.now_ms)
            self._opened_ms = self.now_ms
        if self.progress.state != "paused":
            self._ran_ms = self.now_ms
        self._answer()

    def _answer(self) -> None:
        """Open the next wave by hand, where the release is not why devices are waited for.

        One wave more than there are means: done without them.
        """
        asks = self.progress.asks
        if not asks or self.plan.promoted > self.progress.wave:
            return
        if all(self._fleet.is_lost(mac, self.now_ms) for mac in asks):
            self.plan = self.plan._replace(promoted=self.progress.wave + 1)
            self._feedback.change(self.plan, self._scope)
            self.promoted += 1

    def kill(self) -> None:
        """Go on with another controller, from what this one has written."""
        content = self._feedback.dump()
        self._feedback = self._begin()
        self._feedback.load(content)


def _meanings(versions: Iterable[str]) -> frozenset[str]:
    return frozenset(map(meaning, versions))


def is_right(scenario: ModelScenario, outcome: ModelOutcome) -> bool:
    """Return whether a run ended as its release deserves."""
    if scenario.is_good:
        if outcome.state == "done":
            return outcome.reached == 1.0 and outcome.hours <= outcome.most_hours
        return is_right_pause(scenario, outcome)
    is_stopped = outcome.state == "halted" or is_right_pause(scenario, outcome)
    return is_stopped and outcome.had <= outcome.may_have


def is_right_pause(scenario: ModelScenario, outcome: ModelOutcome) -> bool:
    """Return whether a rollout is paused for a reason for which it may be.

    1. One address speaks for all devices.
    2. Many of the devices are made up, or the wave is small, and the reason names their address.
    3. The release is bad, and a small wave asks about devices.
    """
    if outcome.state != "paused" or not outcome.reason:
        return False
    if scenario.spoken_for:
        return True
    is_small = outcome.asks > 0 and outcome.wave_devices <= ASKING_WAVE + scenario.forged
    are_many = scenario.forged >= _MOST_FORGED * outcome.devices
    if scenario.forged and MADE_UP_AT in outcome.reason and (is_small or are_many):
        return True
    return not scenario.is_good and outcome.asks > 0 and outcome.wave_devices <= ASKING_WAVE


class _Job(NamedTuple):
    scenario: int
    seed: int
    shape: Shape


def _run(job: _Job) -> ModelOutcome:
    # To look for garbage again and again in the middle of a run takes a twelfth of its time.
    gc.disable()
    outcome = run(SCENARIOS[job.scenario], job.seed, job.shape)
    gc.collect()
    return outcome


def run_all(jobs: Sequence[_Job], processes: int) -> Iterator[ModelOutcome]:
    """Yield what came of each run, in their order."""
    if processes <= 1:
        yield from map(_run, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_run, jobs)


def table(outcomes: Sequence[ModelOutcome]) -> str:
    """Return the runs over one shape as a table, a line for each scenario."""
    lines = [
        f"{'SCENARIO':44} {'RELEASE':7} {'HALTED':>7} {'PAUSED':>7} {'DONE':>7} {'BY HAND':>7} "
        f"{'DOWNLOADED':>15} {'HOURS':>13} {'WRONG':>5}"
    ]
    for scenario in SCENARIOS:
        mine = [outcome for outcome in outcomes if outcome.scenario == scenario.name]
        if not mine:
            continue
        shares = sorted(outcome.had / outcome.devices * 100 for outcome in mine)
        hours = sorted(outcome.hours for outcome in mine)
        states = (
            f"{sum(outcome.state == state for outcome in mine):>3}/{len(mine):<3}"
            for state in ("halted", "paused", "done")
        )
        lines.append(
            f"{scenario.name:44} {'good' if scenario.is_good else 'bad':7} {' '.join(states)} "
            f"{sum(outcome.promoted for outcome in mine):>7} "
            f"{shares[0]:6.2f}-{shares[-1]:6.2f} % {hours[0]:5.1f}-{hours[-1]:5.1f} h "
            f"{_count_wrong(mine):>5}"
        )
    return "\n".join(lines)


def matrix(outcomes: Sequence[ModelOutcome]) -> str:
    """Return all runs as a table in Markdown: a line for each scenario, a column for each shape.

    Each cell says how many runs of how many went wrong; of a good release, after how many hours the
    slowest was done; of a bad one, how many devices had it in the worst run, and how many may have;
    then how many were paused as they may be, and how often a person opened a wave.
    """
    shapes = list(dict.fromkeys(outcome.shape for outcome in outcomes))
    rows = [["", *shapes], ["---", *("---" for _ in shapes)]]
    for scenario in SCENARIOS:
        mine = [outcome for outcome in outcomes if outcome.scenario == scenario.name]
        if mine:
            cells = (
                _cell(scenario, [outcome for outcome in mine if outcome.shape == shape])
                for shape in shapes
            )
            rows.append([scenario.name, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows)


def _cell(scenario: ModelScenario, outcomes: Sequence[ModelOutcome]) -> str:
    if not outcomes:
        return ""
    parts = [f"{_count_wrong(outcomes)}/{len(outcomes)}"]
    hours = [outcome.hours for outcome in outcomes if outcome.state == "done"]
    if scenario.is_good:
        parts += [f"{max(hours):.0f} h"] if hours else []
    else:
        worst = max(outcomes, key=lambda outcome: outcome.had / max(outcome.may_have, 1))
        parts.append(f"{worst.had} of {worst.may_have}")
    if paused := sum(is_right_pause(scenario, outcome) for outcome in outcomes):
        parts.append(f"{paused} paused")
    if by_hand := sum(outcome.promoted for outcome in outcomes):
        parts.append(f"{by_hand} by hand")
    return ", ".join(parts)


def _scenario(name: str) -> ModelScenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def _wrong(outcomes: Sequence[ModelOutcome]) -> list[ModelOutcome]:
    return [each for each in outcomes if not is_right(_scenario(each.scenario), each)]


def _count_wrong(outcomes: Sequence[ModelOutcome]) -> int:
    return len(_wrong(outcomes))


def verdict(outcomes: Sequence[ModelOutcome]) -> tuple[int, int]:
    """Return how many good releases did not reach all, and how many bad ones were missed."""
    wrong = _wrong(outcomes)
    good = sum(_scenario(each.scenario).is_good for each in wrong)
    return good, len(wrong) - good


def _say_what_went_wrong(outcomes: Sequence[ModelOutcome]) -> None:
    for outcome in _wrong(outcomes):
        print(
            f"WRONG {outcome.shape}: {outcome.scenario}, seed {outcome.seed}: {outcome.state} "
            f"after {outcome.hours:.1f} h; {outcome.had} had it, {outcome.may_have} may; "
            f"{outcome.reached * 100:.2f} % run it; asks about {outcome.asks}. {outcome.reason}"
        )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.rollout_model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    names = [shape.name for shape in SHAPES]
    add("--seeds", type=int, default=50, help="runs of each scenario in the first shape (50)")
    add("--other-seeds", type=int, default=8, help="in each other shape (default: 8)")
    add("--shape", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    add("--scenario", default="", metavar="TEXT", help="those with this in their names alone")
    add("--devices", type=int, default=None, help="in the first shape (default: 10000)")
    add("--processes", type=int, default=os.cpu_count() or 1)
    add("--markdown", type=Path, metavar="FILE", help="where to write all shapes as a table")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.other_seeds) < 0 or (options.devices or 1) < 1:
        parser.error("seeds and devices are counted from 1")
    return options


def _jobs(options: argparse.Namespace) -> list[_Job]:
    """Return what is to be run, as the options say."""
    jobs = []
    for shape in SHAPES:
        if options.shape and shape.name not in options.shape:
            continue
        seeds = options.seeds if shape is SHAPES[0] else options.other_seeds
        if shape is SHAPES[0] and options.devices:
            shape = replace(shape, devices=options.devices)
        jobs += [
            _Job(index, seed, shape)
            for seed in range(seeds)
            for index, scenario in enumerate(SCENARIOS)
            if options.scenario in scenario.name
        ]
    return jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all; return 1 where more went wrong than may."""
    options = _options(arguments)
    jobs = _jobs(options)
    bar = Bar(len(jobs))
    outcomes = []
    bar.begin("rollouts")
    for outcome in run_all(jobs, options.processes):
        outcomes.append(outcome)
        bar.begin(f"{outcome.shape}: {outcome.scenario}, seed {outcome.seed}")
        bar.end(f"{outcome.state} after {outcome.hours:.1f} h {outcome.reason}")
    bar.close()
    if in_first := [outcome for outcome in outcomes if outcome.shape == SHAPES[0].name]:
        print(table(in_first), end="\n\n")
    print(matrix(outcomes), end="\n\n")
    _say_what_went_wrong(outcomes)
    if options.markdown:
        options.markdown.write_text(matrix(outcomes) + "\n")
    false, missed = verdict(outcomes)
    print(f"\nfalse: {false}, missed: {missed} of {len(outcomes)}; {MOST_WRONG} of each may be")
    return int(max(false, missed) > MOST_WRONG)


if __name__ == "__main__":
    sys.exit(main())
