"""The command: its options, the order of a run, where the report goes."""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks import crowds, known, polling, side_by_side
from benchmarks.bounds import broken_gates
from benchmarks.figures import NOT_ASKED, OURS, Broken, Failure, Results
from benchmarks.metrics import WORKLOADS
from benchmarks.options import make_parser
from benchmarks.peers import PEERS, ROOT, versions
from benchmarks.plan import Plan, Run
from benchmarks.progress import Progress
from benchmarks.report import bounds_table, markdown, with_tables

HERE = Path(__file__).parent
_REQUIREMENTS = HERE / "requirements.txt"
_INTERRUPTED = "the rest"
# What a run that only shows that all works has in place of the defaults.
_ROUNDS = 7  # with fewer a run is no one to publish
_SHORT_ROUNDS, _SHORT_SECONDS, _SHORT_HOLD_SECONDS = 1, 1, 5.0
_HOLD_SECONDS = 10.0
_WARM_SECONDS = 1
_SLOW_POLLERS, _SHORT_SLOW_POLLERS = polling.POLLERS, polling.FEW_POLLERS
_GROWTH = (1_000, 100_000, 1_000_000)
_SHORT_GROWTH = (1_000, 10_000)
# With 10,000 connections each peer takes ten seconds more, with new ones three: in a run that has
# to end within a few minutes the others have no part in that.
_SHORT_PEERS = (OURS, "nginx")
_FEW_PEERS = frozenset(("slow-downloads", "idle", "download-1m-new"))

_RUNNERS: dict[str, Callable[[Run], None]] = {
    **{
        name: lambda run, name=name: side_by_side.run(run, name)  # type: ignore[misc]
        for name in WORKLOADS
        if name.startswith(("check", "download"))
    },
    polling.NAME: polling.run,
    "slow-downloads": lambda run: crowds.run(run, "slow-downloads"),
    "idle": lambda run: crowds.run(run, "idle"),
    "restart": known.restart,
    "growth": known.growth,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = make_parser().parse_args(argv)
    python = arguments.venv.absolute() / "bin" / "python"
    if arguments.setup:
        return _set_up(arguments.venv)
    found = versions(python)
    missing = _missing(found)
    if arguments.list:
        _list(missing)
        return 0
    if "wrk" not in found:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    _raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="ota-benchmarks-", dir=_disk()) as folder:
        plan = _plan(arguments, python, Path(folder), missing)
        wanted = arguments.only or list(WORKLOADS)
        results = Results(_about(plan, found), left_out=_left_out(arguments, missing))
        try:
            _run(plan, wanted, results, short=arguments.short)
        except KeyboardInterrupt:
            results.left_out[_INTERRUPTED] = "the run was ended by a signal"
    _write(results, arguments, python)
    return _verdict(results, wanted, check=arguments.short or arguments.check)


def _run(plan: Plan, wanted: list[str], results: Results, *, short: bool) -> None:
    sizes = {name: _size(plan, name, short=short) for name in wanted}
    progress = Progress(sum(sizes.values()))
    side_by_side.make_site(plan.folder / "site")
    try:
        for name in wanted:
            if not sizes[name]:
                continue
            with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
                own = _narrowed(plan, name, Path(folder), short=short)
                try:
                    _RUNNERS[name](Run(own, plan.folder / "site", results, progress))
                except (Broken, OSError) as problem:
                    results.failures.append(Failure(name, "all", "all", 0, str(problem)))
                    progress.note(f"FAILED: {name}: {problem}")
    finally:
        progress.close()


def _narrowed(plan: Plan, name: str, folder: Path, *, short: bool) -> Plan:
    """Return the plan for one workload, in a folder of its own."""
    peers = plan.peers
    if short and name in _FEW_PEERS:
        peers = tuple(peer for peer in peers if peer in _SHORT_PEERS)
    return plan.within(folder, peers)


def _size(plan: Plan, name: str, *, short: bool) -> int:
    """Return how many measurements a workload has."""
    peers = len(_narrowed(plan, name, plan.folder, short=short).peers_of(WORKLOADS[name]))
    if name == "growth":
        return plan.rounds * len(known.growth_cases(plan)) * peers
    if name in ("restart", "slow-downloads", "idle", polling.NAME):
        return plan.rounds * peers
    return plan.rounds * len(side_by_side.cases(name)) * peers


def _plan(
    arguments: argparse.Namespace, python: Path, folder: Path, missing: dict[str, str]
) -> Plan:
    short = arguments.short
    wanted = arguments.peers or list(PEERS)
    return Plan(
        rounds=arguments.rounds or (_SHORT_ROUNDS if short else _ROUNDS),
        seconds=arguments.seconds or (_SHORT_SECONDS if short else 5),
        warm_seconds=0 if short else _WARM_SECONDS,
        hold_seconds=_SHORT_HOLD_SECONDS if short else _HOLD_SECONDS,
        devices=arguments.devices,
        slow_pollers=_SHORT_SLOW_POLLERS if short else _SLOW_POLLERS,
        growth=_SHORT_GROWTH if short else _GROWTH,
        peers=tuple(name for name in PEERS if name in wanted and name not in missing),
        python=python,
        folder=folder,
    )


def _missing(found: dict[str, str]) -> dict[str, str]:
    """Return the peers that are not installed, each with what it needs."""
    return {
        peer.name: NOT_ASKED if peer.name == "before" else f"{peer.needs} is not installed"
        for peer in PEERS.values()
        if peer.needs and peer.needs not in found
    }


def _left_out(arguments: argparse.Namespace, missing: dict[str, str]) -> dict[str, str]:
    wanted = arguments.peers or list(PEERS)
    left_out = {name: reason for name, reason in missing.items() if name in wanted}
    left_out |= {name: NOT_ASKED for name in PEERS if name not in wanted}
    for name in WORKLOADS:
        if arguments.only and name not in arguments.only:
            left_out[f"workload {name}"] = NOT_ASKED
    if arguments.short:
        left_out["in the short form"] = (
            f"peers but {' and '.join(_SHORT_PEERS)} with 10,000 connections and downloads on new "
            f"ones; pollers of gooseBit beyond {_SHORT_SLOW_POLLERS:,}; growth beyond "
            f"{_SHORT_GROWTH[-1]:,} devices; no load before a measurement"
        )
    return left_out


def _about(plan: Plan, found: dict[str, str]) -> dict[str, object]:
    """Return what the run is, for the head of the report."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(f"{name} {version}" for name, version in found.items()),
        "rounds": plan.rounds,
        "seconds": f"{plan.seconds}, after {plan.warm_seconds} of load that is not measured; "
        f"{plan.hold_seconds:g} with 10,000 connections",
    }


def _write(results: Results, arguments: argparse.Namespace, python: Path) -> None:
    """Write the report as JSON and Markdown, and the plots."""
    whole = not (
        arguments.short
        or arguments.only
        or arguments.peers
        or _INTERRUPTED in results.left_out
        or results.about["rounds"] < _ROUNDS
    )
    elsewhere = arguments.out or (None if whole else ROOT / "build" / "benchmarks")
    out = elsewhere or HERE
    plots = elsewhere or ROOT / "screenshots"
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(results.to_json(), indent=1, ensure_ascii=False)
    (out / "results.json").write_text(content + "\n", "utf-8")
    (out / "results.md").write_text(markdown(results), "utf-8")
    if out == HERE:
        for page in (ROOT / "docs" / "benchmarks.md", ROOT / "README.md"):
            page.write_text(with_tables(page.read_text("utf-8"), results), "utf-8")
    command = [str(python), "-m", "benchmarks.plots", str((out / "results.json").absolute())]
    drawn = "there is no plot: matplotlib is not installed (python -m benchmarks --setup)"
    if python.exists():
        done = subprocess.run(
            [*command, str(plots.absolute())], cwd=ROOT, capture_output=True, text=True
        )
        drawn = f"plots: {plots}/benchmark-*.png" if done.returncode == 0 else done.stderr[-500:]
    print(bounds_table(results, measured_only=not whole))
    for name, reason in results.left_out.items():
        if reason != NOT_ASKED:
            print(f"left out: {name}: {reason}")
    for failure in results.failures:
        print(f"failed: {failure.workload}, {failure.case}, {failure.peer}: {failure.reason[:300]}")
    print(f"report: {out / 'results.md'}, {out / 'results.json'}; {drawn}")


def _verdict(results: Results, wanted: list[str], *, check: bool) -> int:
    if _INTERRUPTED in results.left_out:
        return 130
    if not results.measurements:
        print("nothing was measured: see above for what is missing", file=sys.stderr)
        return 2
    broken = broken_gates(results, set(wanted)) if check else []
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if broken else 0


def _set_up(venv: Path) -> int:
    """Make the environment of the Python peers and of the plots."""
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(_REQUIREMENTS)]
    done = subprocess.run(pip)
    return done.returncode


def _list(missing: dict[str, str]) -> None:
    for workload in WORKLOADS.values():
        print(f"{workload.name:22}{workload.title}")
    print()
    for peer in PEERS.values():
        print(f"{peer.name:22}{missing.get(peer.name) or peer.label}")


def _disk() -> str | None:
    """Return a folder that is on a disk wherever there is one: /tmp may be memory."""
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else None


def _raise_file_limit() -> None:
    """Let all that is started have as many files open as this user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
