"""Rollouts over a simulated fleet that speaks the real protocol to a real server process.

python -m benchmarks.rollout_sim [--devices 10000] [--shape SHAPE] [--scenario NAME ...]

Time is made to run fast by short polls and the options of `rollout start`, not in the server. The
devices have addresses in 127.0.0.0/8, so Linux only: each its own, all the same, those of twenty
shops or of homes of three, or another one every few polls. The waves are those that the server
proposes. In the middle of each scenario the fleet holds its breath, the server and its controller
are killed (kill -9) and started again: what is offered to whom, and what is counted, must be the
same before and after.
"""

import argparse
import asyncio
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.simulated import (
    CHURN,
    NEW,
    OLD,
    OLDEST,
    SHAPES,
    FleetCount,
    SimulatedDevice,
    SimulatedScenario,
    World,
)
from ota_server.journal.files import CURRENT_NAME
from ota_server.policy.decision import cohort_percent
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, is_over
from ota_server.rollouts.files import read_checkpoint, read_plan, read_progress
from ota_server.rollouts.keeper import LOCK_NAME
from ota_server.system.data_dir import log_dir

_ROOT = Path(__file__).resolve().parent.parent
# So many devices had a bad release when the server is killed.
_FEW = 5
# How many devices are asked before and after a kill.
_ASKED = 200
_CATCH_UP_SECONDS = 120.0
# What silence alone changes, as time goes by, is one count here.
_BY_TIME = ("undecided", "updated", "silent")

SCENARIOS = (
    SimulatedScenario("good", True),
    SimulatedScenario("cut", True, cut=0.5),
    SimulatedScenario("outage", True, outage=20.0),
    SimulatedScenario("killed", True, kills=3),
    SimulatedScenario("power", True, dark=0.05),
    SimulatedScenario("boot", False, cannot_boot=0.3),
    SimulatedScenario("bricks", False, bricked=0.3),
    SimulatedScenario("one-version", False, cannot_boot=1.0, only_from=OLDEST),
    SimulatedScenario("falls-back", False, falls_back=0.3),
)


def _prepare(data_dir: Path, scenario: SimulatedScenario) -> None:
    for name in ("version", "firmware", "log"):
        (data_dir / name).mkdir()
    for version in (OLDEST, OLD, NEW):
        image = random.Random(version).randbytes(scenario.image_bytes)
        (data_dir / "firmware" / f"firmware_{version}.bin").write_bytes(image)
    (data_dir / "version" / "version.txt").write_text(OLD)


def _start(data_dir: Path, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "ota_server", "rollout", "start", NEW, "--count-new"]
    # Those on the oldest version are a group with a target of its own: `_keep_the_oldest`.
    command += ["--soak", f"{options.soak}s", "--apply-grace", "2s", "--groups-too"]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir)], cwd=_ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)


async def _run(
    scenario: SimulatedScenario, options: argparse.Namespace, data_dir: Path
) -> dict[str, Any]:
    """Run one scenario, and end what it started, however that goes."""
    _prepare(data_dir, scenario)
    world, count = World(data_dir), FleetCount()
    world.serve()
    devices = [
        SimulatedDevice(number, options.slowest, scenario, count, options.shape)
        for number in range(options.devices)
    ]
    if scenario.only_from:
        _keep_the_oldest(data_dir, devices)
    lives = [asyncio.create_task(device.live(world)) for device in devices]
    try:
        return await _roll_out(scenario, options, world, devices, count)
    finally:
        world.is_over = True
        for life in lives:
            life.cancel()
        world.end()


async def _roll_out(
    scenario: SimulatedScenario,
    options: argparse.Namespace,
    world: World,
    devices: list[SimulatedDevice],
    count: FleetCount,
) -> dict[str, Any]:
    data_dir = world.data_dir
    await asyncio.sleep(options.slowest * 2.2)
    await asyncio.to_thread(_start, data_dir, options)
    plan = _plan(data_dir)
    began = time.monotonic()
    samples, kills, was_out, kill = [], scenario.kills, False, ""
    while time.monotonic() - began < options.most:
        await asyncio.sleep(1.0)
        progress = world.progress()
        share = count.runs[NEW] / options.devices
        second = round(time.monotonic() - began, 1)
        samples.append((second, len(count.had), count.runs[NEW], progress["wave"]))
        if progress["state"] in ("halted", "done", "paused") and (
            progress["state"] != "done" or share > 1 - 2 * CHURN
        ):
            break
        is_middle = share > 0.15
        if not kill and (is_middle if scenario.is_good else len(count.had) >= _FEW):
            kill = await _kill(world, devices, count)
        if is_middle and scenario.outage and not was_out:
            was_out = True
            await world.outage(scenario.outage)
        if kills and share > 0.15 * (scenario.kills - kills + 1):
            kills -= 1
            await world.outage(1.0, signal.SIGKILL)
        world.is_dark = is_middle and share < 0.9
    begun_at_the_end = len(_begun(data_dir))
    await asyncio.sleep(options.slowest / 4)
    progress = world.progress()
    after_halt = len(_begun(data_dir)) - begun_at_the_end if progress["state"] == "halted" else 0
    return {
        "scenario": scenario.name,
        "shape": options.shape,
        "waves": plan.waves,
        "is_good": scenario.is_good,
        "devices": options.devices,
        "state": progress["state"],
        "reason": progress.get("reason", ""),
        "seconds": samples[-1][0],
        "had": len(count.had),
        "may_have": _may_have(plan, devices),
        "runs": count.runs[NEW],
        "begun_after_halt": after_halt,
        "kill": kill or "was never in the middle",
        "samples": samples,
    }


def _plan(data_dir: Path) -> RolloutPlan:
    plan = read_plan(data_dir, "")
    assert plan is not None
    return plan


def _may_have(plan: RolloutPlan, devices: list[SimulatedDevice]) -> int:
    """Return how many devices may have a bad release before it is halted.

    Fewer than 2 %; but all of the waves up to the first that holds a device that it harms, since
    nothing shows before that it is bad.
    """
    percents = {device.number: cohort_percent(NEW, device.mac) for device in devices}
    harmed = [percents[device.number] for device in devices if device.is_harmed]
    limit = next((wave for wave in plan.waves if min(harmed, default=100.0) < wave), 0.0)
    exposed = sum(percent < limit for percent in percents.values())
    return max(exposed, math.ceil(0.02 * len(devices)) - 1)


def _keep_the_oldest(data_dir: Path, devices: list[SimulatedDevice]) -> None:
    """Keep those on the oldest version there: the target would take them on before the rollout."""
    groups = data_dir / "version" / "groups"
    groups.mkdir()
    macs = [device.mac for device in devices if device.version == OLDEST]
    (groups / "oldest.txt").write_text("\n".join(macs))
    (data_dir / "version" / "targets.json").write_text(json.dumps({"oldest": OLDEST}))


async def _kill(world: World, devices: list[SimulatedDevice], count: FleetCount) -> str:
    """Kill the server in the middle of all; return what that changed: "nothing", as it should."""
    await world.freeze()
    others = [device for device in devices if device.number not in count.had]
    asked = random.Random(0).sample(others, min(_ASKED, len(others)))

    async def told_and_counted() -> tuple[list[bytes | None], dict[str, int]]:
        told = await asyncio.gather(*(device.told(world) for device in asked))
        return told, await _counts(world.data_dir)

    try:
        before = await told_and_counted()
        world.kill()
        killed = time.time()
        world.serve()
        # Until the controller has read all of it nobody is offered anything new; where the rollout
        # is over meanwhile there is no controller.
        lock = log_dir(world.data_dir) / LOCK_NAME
        while lock.stat().st_mtime < killed and world.progress()["state"] not in ("done", "halted"):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.25)
        after = await told_and_counted()
    finally:
        world.moving.set()
    changed = ["offers"] if before[0] != after[0] else []
    changed += [
        f"{name} {before[1][name]} to {after[1][name]}"
        for name in before[1]
        if before[1][name] != after[1][name]
    ]
    return ", ".join(changed) or "nothing"


def _counted(progress: RolloutProgress) -> dict[str, int]:
    counts = dict(progress.counts)
    counts["/".join(_BY_TIME)] = sum(counts.pop(name) for name in _BY_TIME)
    return counts


async def _counts(data_dir: Path) -> dict[str, int]:
    """Return what is counted when all of the journal is, now that nothing is written to it."""
    plan = _plan(data_dir)
    since, journal = time.time(), log_dir(data_dir) / CURRENT_NAME
    while time.time() - since < _CATCH_UP_SECONDS:
        await asyncio.sleep(0.25)
        progress = read_progress(data_dir, plan)
        if progress is not None and is_over(plan, progress):
            return _counted(progress)  # the controller has ended: there is nothing more to count
        found = read_checkpoint(log_dir(data_dir), plan)
        if found is None or found.progress is None or found.alive_ms < (since + 1.5) * 1000:
            continue
        if found.position is None or found.position.offset < journal.stat().st_size:
            continue
        return _counted(found.progress)
    raise SystemExit("the controller did not read all of the journal")


def _begun(data_dir: Path) -> list[str]:
    """Return the downloads of the new release that began."""
    found: list[str] = []
    for path in (data_dir / "log").glob("devices*.jsonl"):
        with path.open() as journal:
            found += [
                line
                for line in journal
                if f'"download_version":"{NEW}"' in line and '"event":"begin"' in line
            ]
    return found


def main() -> int:
    """Run the scenarios; return 1 where one did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--devices", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--slowest", type=float, default=60.0, help="longest poll, in seconds")
    parser.add_argument("--soak", type=int, default=30, help="in seconds (default: %(default)s)")
    parser.add_argument("--most", type=float, default=1200.0, help="seconds for each scenario")
    parser.add_argument("--shape", choices=SHAPES, default="own", help="(default: own addresses)")
    parser.add_argument("--scenario", action="append", choices=names, help="(default: all)")
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    results = []
    for scenario in SCENARIOS:
        if options.scenario and scenario.name not in options.scenario:
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = asyncio.run(_run(scenario, options, Path(folder)))
        result["is_right"] = _is_right(result)
        results.append(result)
        print(
            f"{'ok  ' if result['is_right'] else 'BAD '} {scenario.name:12} {result['state']:7} "
            f"after {result['seconds']:.0f} s, {result['had']} of {result['devices']} had it, "
            f"{result['begun_after_halt']} begun after the halt, kill -9 changed {result['kill']}  "
            f"{result['reason']}",
            flush=True,
        )
    if options.results:
        options.results.write_text(json.dumps(results) + os.linesep)
    return 0 if all(result["is_right"] for result in results) else 1


def _is_right(result: dict[str, Any]) -> bool:
    """Return whether a scenario ended as it should."""
    if result["kill"] != "nothing":
        return False
    if result["is_good"]:
        return bool(result["state"] == "done" and result["runs"] > 0.97 * result["devices"])
    few = result["had"] <= result["may_have"]
    return bool(result["state"] == "halted" and few and not result["begun_after_halt"])


if __name__ == "__main__":
    sys.exit(main())
