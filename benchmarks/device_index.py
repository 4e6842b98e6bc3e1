"""The index of devices: how long it takes to make, what it takes of memory and disk, its queries.

    python -m benchmarks.device_index [--devices 1000000] [--keep FOLDER]

Generates a journal of a fleet with several versions, families and networks, with labels and groups.
Has the writer make the index, follow checks, and find all states again, with another target. Then
asks for the overview, and for two parts of each list of filters and orders: the first, and the
next. The worst of each filter is printed. Linux only.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks import procfs
from ota_server.journal.record import format_marker, format_record, format_seal
from ota_server.journal.writer import Journal
from ota_server.model.device import Device, Download
from ota_server.model.updater import Updater
from ota_server.operations.device_filter import SORTS, DeviceFilter
from ota_server.operations.device_index import DeviceIndex, Total
from ota_server.operations.index_schema import path_of
from ota_server.operations.index_writer import IndexWriter
from ota_server.policy.device_state import Condition

_HOUR_MS, _DAY_MS = 3_600_000, 24 * 3_600_000
_START_MS = 1_790_000_000_000
_OLD, _NEW = "v1.9.3", "v1.10.0"
_VERSIONS = ((_NEW, 70), (_OLD, 20), ("v1.9.0", 6), ("v1.2.11", 3), ("factory", 1))
_FAMILIES = ((None, 50), (Updater("esp32", 1_310_720), 30), (Updater("tasmota"), 20))
_LINES_A_WRITE = 200
_FOLLOWED = 50_000
_FILTERS = (
    DeviceFilter(),
    DeviceFilter(text="ff:7"),
    DeviceFilter(text="0"),
    DeviceFilter(text="pump"),
    DeviceFilter(text="no such text"),
    DeviceFilter(versions=(_NEW,)),
    DeviceFilter(not_versions=(_NEW, _OLD)),
    DeviceFilter(outdated=True),
    DeviceFilter(states=(Condition.UP_TO_DATE,)),
    DeviceFilter(states=(Condition.SILENT, Condition.FAILED)),
    DeviceFilter(families=("esp32", "br")),
    DeviceFilter(group="beta"),
    DeviceFilter(network=ip_network("10.0.0.0/9")),
    DeviceFilter(network=ip_network("10.1.2.0/24")),
    DeviceFilter(label="pump"),
    DeviceFilter(not_seen_seconds=86_400.0),
    DeviceFilter(overdue=True),
    DeviceFilter(text="1", network=ip_network("10.0.0.0/8"), not_versions=("v7",), outdated=True),
)


def mac_of(number: int) -> str:
    """Return the MAC address of a device of the fleet."""
    return (0x020000000000 + number).to_bytes(6, "big").hex(":")


def _chosen(chance: random.Random, among: tuple[tuple[object, int], ...]) -> object:
    return chance.choices([each for each, _ in among], [weight for _, weight in among])[0]


def known_device(number: int, now_ms: int) -> Device:
    """Return a device, the same each time but for the time."""
    chance = random.Random(number)
    age_ms = chance.randrange(3_600_000) if chance.random() < 0.97 else 3 * _DAY_MS
    seen_ms = now_ms - age_ms
    version = str(_chosen(chance, _VERSIONS))
    updated_ms = _START_MS + chance.randrange(30 * _DAY_MS)
    download = Download(version, f"{number:064x}", 900_000, updated_ms, 1, updated_ms)
    updater = _chosen(chance, _FAMILIES)
    return Device(
        seen_ms,
        version,
        seen_ms,
        updated_ms,
        _NEW,
        f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        False,
        download if chance.random() < 0.7 else None,
        (updated_ms // _HOUR_MS + 1) * _HOUR_MS,
        None,
        updater if isinstance(updater, Updater) else None,
    )


def write_fleet(data_dir: Path, count: int, now_ms: int) -> None:
    """Make a data directory with a journal as a server would leave it, labels and groups."""
    for name in ("version", "firmware", "version/groups"):
        (data_dir / name).mkdir(parents=True)
    for version in (_OLD, _NEW):
        (data_dir / "firmware" / f"firmware_{version}.bin").write_bytes(b"image" * 1000)
    (data_dir / "version" / "version.txt").write_text(_NEW)
    named = [mac_of(number) for number in range(0, count, 100)]
    labels = {mac: f"Pump house {number}" for number, mac in enumerate(named)}
    (data_dir / "version" / "labels.json").write_text(json.dumps(labels))
    (data_dir / "version" / "groups" / "beta.txt").write_text("\n".join(named))
    journal = Journal(data_dir / "log", fsync="never")
    for number in range(count):
        mac = mac_of(number)
        journal.append(mac, format_record("device", mac, known_device(number, now_ms)))
        if number % _LINES_A_WRITE == 0:
            journal.flush()
            journal.seal(format_seal(now_ms))
    journal.close_snapshot(format_marker(now_ms, count), journal.generation)
    journal.close()


class _Steps:
    """Steps of the writer, and what the longest one took."""

    def __init__(self, data_dir: Path) -> None:
        self.writer = IndexWriter(data_dir)
        self.longest = 0.0

    def all(self) -> tuple[float, float]:
        """Do all that there is to do; return the seconds, and those of the processor."""
        began, worked = time.perf_counter(), time.process_time()
        has_more = True
        while has_more or self.writer.is_making:
            if not has_more:
                time.sleep(0.01)  # it waits for a thread
            step = time.perf_counter()
            has_more = self.writer.step(time.time_ns() // 1_000_000)
            self.longest = max(self.longest, time.perf_counter() - step)
        return time.perf_counter() - began, time.process_time() - worked


def _say(what: str, value: str) -> None:
    print(f"{what:62} {value}", flush=True)


def measure_writer(data_dir: Path, count: int) -> None:
    """Have the index made and kept, and print what that takes."""
    steps = _Steps(data_dir)
    seconds, _ = steps.all()
    _say("made", f"{seconds:.1f} s")
    _say("longest step", f"{steps.longest * 1000:.0f} ms")
    _say("memory at its peak", f"{procfs.peak_mb(os.getpid()):.0f} MB")
    size = sum(path.stat().st_size for path in data_dir.glob("log/index.sqlite*"))
    _say("disk", f"{size / 1e6:.0f} MB")
    now_ms, chance = time.time_ns() // 1_000_000, random.Random(2)
    with (data_dir / "log" / "devices.jsonl").open("ab") as journal:
        for _ in range(_FOLLOWED):
            number = chance.randrange(count)
            device = known_device(number, now_ms)._replace(time_ms=now_ms, last_seen_ms=now_ms)
            journal.write(format_record("check", mac_of(number), device))
    steps.longest = 0.0
    seconds, worked = steps.all()
    _say("followed", f"{_FOLLOWED / seconds:,.0f} records/s")
    _say("processor time of a record", f"{worked / _FOLLOWED * 1e6:.0f} µs")
    steps.writer.close()
    (data_dir / "version" / "version.txt").write_text(_OLD)
    steps = _Steps(data_dir)
    seconds, _ = steps.all()
    _say("all states found again, after a start and another target", f"{seconds:.1f} s")
    _say("longest step of these", f"{steps.longest * 1000:.0f} ms")
    steps.writer.close()
    _say("memory after that", f"{procfs.rss_mb(os.getpid()):.0f} MB")


class _Took(NamedTuple):
    """Seconds by the processor, and by the clock: the second has what else the machine does."""

    worked: float
    passed: float

    def __str__(self) -> str:
        return f"{self.worked * 1000:.0f} ms, {self.passed * 1000:.0f} by the clock"


def _timed(ask: Callable[[], object]) -> _Took:
    worked, passed = time.process_time(), time.perf_counter()
    ask()
    return _Took(time.process_time() - worked, time.perf_counter() - passed)


def _worst(index: DeviceIndex, wanted: DeviceFilter) -> tuple[_Took, str, Total]:
    """Return what the slowest of the first two parts took, in which order, and how many match."""
    slowest, slowest_sort, total = _Took(0.0, 0.0), "", Total(0, True)
    for sort, descending in product(SORTS, (False, True)):
        page = index.page(wanted, sort, descending)
        total = page.total
        for cursor in (None, page.next):
            took = _timed(partial(index.page, wanted, sort, descending, cursor))
            if took > slowest:
                slowest, slowest_sort = took, sort
    return slowest, slowest_sort, total


def _named(wanted: DeviceFilter) -> str:
    said = {name: value for name, value in vars(wanted).items() if value}
    return ", ".join(f"{name}={value}" for name, value in said.items()) or "all devices"


def measure_reader(data_dir: Path) -> None:
    """Ask for the overview and for lists, and print what the worst of each takes."""
    index = DeviceIndex(data_dir)
    now_ms = time.time_ns() // 1_000_000
    for what, ask in (
        ("overview", index.summary),
        ("what went wrong lately", lambda: index.lately(10)),
        (
            "versions over 30 days",
            lambda: index.versions_over_time(None, now_ms - 30 * _DAY_MS, now_ms, 60),
        ),
    ):
        _say(what, str(_timed(ask)))
    worst = _Took(0.0, 0.0)
    for wanted in _FILTERS:
        took, sort, total = _worst(index, wanted)
        number = f"{'' if total.is_exact else '> '}{total.number:,}"
        _say(f"{_named(wanted)[:34]} ({number}) by {sort}", str(took))
        worst = max(worst, took)
    _say("the worst of all", str(worst))


def main() -> None:
    """Generate, measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.device_index", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--devices", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty one that stays")
    options = parser.parse_args()
    folder = nullcontext(str(options.keep)) if options.keep else tempfile.TemporaryDirectory()
    with folder as name:
        data_dir = Path(name)
        write_fleet(data_dir, options.devices, time.time_ns() // 1_000_000)
        size = path_of(data_dir).with_name("devices.jsonl").stat().st_size
        _say(f"journal of {options.devices:,} devices", f"{size / 1e6:.0f} MB")
        measure_writer(data_dir, options.devices)
        measure_reader(data_dir)


if __name__ == "__main__":
    main()
