"""Workloads with many known devices: a restart, and what a check costs as a fleet grows."""

import shutil
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import procfs
from benchmarks.figures import OURS, Broken, turns
from benchmarks.peers import PEERS
from benchmarks.plan import Plan, Run
from benchmarks.server import Server
from benchmarks.side_by_side import CONNECTIONS, DEVICES, under_load
from benchmarks.wrk import Load
from ota_server.journal.files import CURRENT_NAME
from ota_server.journal.record import format_marker, format_record, format_seal
from ota_server.journal.writer import Journal
from ota_server.model.device import Device, Download

_START_MS = 1_760_000_000_000
_LOADING_SECONDS = 1800.0
_LONGER = 10
_LINES_A_WRITE = 200


def write_journal(log_dir: Path, devices: int, lines: int = 1) -> Path:
    """Leave a journal as a server would: `lines` records of each device, all fields set.

    It is sealed, and ends with the marker of a snapshot. Returns its file.
    """
    journal = Journal(log_dir, fsync="never")
    for turn in range(lines):
        for number in range(devices):
            seen_ms = _START_MS + turn * devices + number
            mac = (0x020000000000 + number).to_bytes(6, "big").hex(":")
            journal.append(mac, format_record("device", mac, _device(number, seen_ms)))
            if number % _LINES_A_WRITE == 0:
                journal.flush()
                journal.seal(format_seal(seen_ms))
    marker = format_marker(_START_MS + lines * devices, devices)
    journal.close_snapshot(marker, journal.generation)
    journal.close()
    return log_dir / CURRENT_NAME


def _device(number: int, seen_ms: int) -> Device:
    download = Download("v1.0.1", f"{number:064x}", 4096, seen_ms - 5000)
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return Device(seen_ms, "v1.0.1", seen_ms, seen_ms - 1000, "v1.0.1", address, False, download)


def growth_cases(plan: Plan) -> dict[str, tuple[int, int]]:
    """Return the number of known devices, and of lines of each, of the servers that are compared.

    The second number of devices comes once more, with a journal of ten times the size.
    """
    sizes = {f"{devices:,} devices": (devices, 1) for devices in plan.growth}
    again = plan.growth[1]
    return {**sizes, f"{again:,} devices, {_LONGER} times the journal": (again, _LONGER)}


def restart_case(plan: Plan) -> str:
    """Return the name of the only case."""
    return f"{plan.devices:,} devices"


def restart(run: Run) -> None:
    """Start on a journal of so many devices, again in each round."""
    run.progress.note(f"writing a journal of {run.plan.devices:,} devices")
    journal = write_journal(run.plan.folder / "restart", run.plan.devices)
    for number in range(run.plan.rounds):
        case = restart_case(run.plan)
        run.measure("restart", case, OURS, number, partial(_start_once, run, journal, number == 0))
    shutil.rmtree(journal.parent)


def _start_once(run: Run, journal: Path, to_the_end: bool) -> dict[str, float]:
    folder = run.folder()
    (folder / "log").mkdir()
    copy = folder / "log" / "devices.jsonl"
    shutil.copyfile(journal, copy)
    size = copy.stat().st_size
    began = time.monotonic()
    try:
        with Server(PEERS[OURS], run.site, folder, run.plan.python) as server:
            server.wait_for_check()
            values = {
                "first_s": time.monotonic() - began,
                "first_rss_mb": procfs.rss_mb(server.process),
                "journal_mb": size / 1e6,
            }
            if not to_the_end:
                return values
            wait_until_loaded(server, folder)
            return {
                **values,
                "loaded_s": time.monotonic() - began,
                "rss_mb": procfs.rss_mb(server.process),
                "peak_mb": procfs.peak_mb(server.process),
            }
    finally:
        shutil.rmtree(folder)


def wait_until_loaded(server: Server, folder: Path) -> None:
    """Return when all rows are in memory.

    Until then the journal is open twice: to be read, and to be written.

    Raises:
        Broken: it takes too long.
    """
    until = time.monotonic() + _LOADING_SECONDS
    logs = str(folder / "log" / "devices.")
    while sum(path.startswith(logs) for path in procfs.open_files(server.process)) > 1:
        if time.monotonic() > until:
            raise Broken("the rows of the known devices were not loaded")
        time.sleep(0.1)


def growth(run: Run) -> None:
    """Run a server for each number of devices, and load them in turn."""
    cases = growth_cases(run.plan)
    with ExitStack() as stack:
        servers = {}
        for case, (devices, lines) in cases.items():
            run.progress.note(f"growth: starting with {case}")
            folder = run.folder()
            write_journal(folder / "log", devices, lines)
            server = Server(PEERS[OURS], run.site, folder, run.plan.python)
            servers[case] = stack.enter_context(server)
            server.wait()
            wait_until_loaded(server, folder)
        for number in range(run.plan.rounds):
            for case in turns(list(cases), number):
                # Drawn anew each round, so that it is not the same part of the fleet that asks.
                load = Load(
                    "/version.txt",
                    CONNECTIONS,
                    run.plan.seconds,
                    requests=DEVICES,
                    devices=cases[case][0],
                    seed=number + 1,
                )
                work = partial(under_load, servers[case], load, run.plan.warm_seconds)
                run.measure("growth", case, OURS, number, work)
