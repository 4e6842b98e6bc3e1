"""The operators' port beside devices: what pages and lists take, and what checks take meanwhile.

    python -m benchmarks.operators [--devices 1000000] [--dir FOLDER] [--rounds 5] [--rate 500]

Makes a data directory of so many known devices, or takes the one that it has made in FOLDER before.
Starts the real server, and waits until the index of devices is whole and current. Then known
devices check at a steady rate: for a while nobody else asks anything, then pages, lists and the API
are asked over HTTP, each in each round, in another order. Printed are: the time from the connect to
the last byte of the reply, median and worst, for lists of their first, next and last parts; the
processor time of the controller; what the checks took without and with that. Linux only.
"""

import argparse
import html
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from benchmarks import procfs
from benchmarks.device_index import mac_of, write_fleet
from benchmarks.figures import Broken, percentile
from benchmarks.running import Running, serving
from benchmarks.steady_checks import SteadyChecks
from ota_server.operations.device_filter import SORTS, format_cursor, parse_cursor
from ota_server.operations.device_index import DeviceIndex, IndexAway
from ota_server.operations.index_schema import path_of
from ota_server.operator_port.device_query import read_listing
from ota_server.system.data_dir import log_dir

_MOST_BUILD_SECONDS = 3600.0
_QUIET_SECONDS_A_ROUND = 2.0
_PARTS = ("first", "next", "last")
_NEXT = re.compile(r'href="([^"]+)"[^>]*>Next')
_ALONE = (
    *("text=ff:7", "text=0", "text=pump", "text=no such text", "version=v1.10.0"),
    *("version=factory", "not_version=v1.10.0", "outdated=1", "state=up_to_date"),
    *("state=silent", "state=failed", "stage=none", "stage=told", "stage=reports_it"),
    *("apart=counted", "apart=pinned", "family=esp32", "family=tasmota", "product=default"),
    *("group=beta", "address=10.0.0.0/9", "address=10.1.2.0/24", "label=pump", "not_seen=1d"),
    *("not_seen=7d", "overdue=1", "target=v1.10.0", "target=v1.9.3"),
)
_PAIRS = (
    "text=0&state=up_to_date",
    "text=pump&version=v1.9.3",
    "version=v1.9.3&family=esp32",
    "version=factory&not_seen=1d",
    "outdated=1&address=10.0.0.0/9",
    "group=beta&family=tasmota",
    "family=esp32&sort=seen&order=desc",
    "text=0&sort=version",
    "not_version=v1.10.0&sort=address",
    "state=up_to_date&sort=updated&order=desc",
    "target=v1.10.0&sort=label",
)
_PAGES = ("/", "/releases", "/rollouts", "/rejected", "/audit", "/metrics", "/api/v1/status")


class _Question(NamedTuple):
    """One thing to ask for.

    Attributes:
        name: of its row in the table.
        part: of a list; of all else the first.
        is_begun: only the beginning of the reply is waited for.
    """

    name: str
    part: str
    path: str
    is_begun: bool = False


class _Answered(NamedTuple):
    """What answers took, in ms: by the clock, and of the controller's processor time."""

    passed: list[float]
    worked: list[float]


def _say(what: str, value: str) -> None:
    print(f"{what:52} {value}", flush=True)


def _wait_for_index(running: Running, data_dir: Path, count: int) -> list[float]:
    """Return when the index is whole and current: what the page `/` took meanwhile, in ms."""
    until, index, taken = time.monotonic() + _MOST_BUILD_SECONDS, DeviceIndex(data_dir), []
    while time.monotonic() < until:
        taken.append(running.ask("/")[1])
        try:
            summary = index.summary()
            if summary.progress >= 1 and summary.total and index.is_current():
                index.close()
                if summary.total != count:
                    raise Broken(f"there are {summary.total} devices: give --devices so many")
                return taken
        except IndexAway:
            pass  # it is begun
        time.sleep(0.2)
    raise Broken("the index was not whole in an hour")


# What is asked


def _lists() -> list[str]:
    """Return the queries of all lists."""
    sorts = [f"sort={sort}&order={order}" for sort in SORTS for order in ("asc", "desc")]
    return ["", *sorts, *_ALONE, *_PAIRS]


def _cursors(running: Running, query: str) -> dict[str, str]:
    """Return cursors of the next and the last part of a list; nothing if it has one part.

    The last part is that beyond the row where the second part of the reverse list begins.
    """
    fields = parse_qs(query)
    listing = read_listing(fields)
    back = {**fields, "order": ["asc" if listing.descending else "desc"]}
    found = []
    for each in (fields, back):
        body, _ = running.ask(f"/devices?{urlencode(each, doseq=True)}")
        link = _NEXT.search(body.decode())
        if link is None:
            return {}
        found.append(parse_qs(urlsplit(html.unescape(link[1])).query)["cursor"][0])
    place = parse_cursor(found[1], listing.wanted, listing.sort, not listing.descending)
    last = format_cursor(place, listing.wanted, listing.sort, listing.descending)
    return {"next": found[0], "last": last}


def _questions(running: Running, devices: int) -> list[_Question]:
    one = f"default/{mac_of(devices // 2)}"
    api = [f"/api/v1/devices{query}" for query in ("", "?state=silent", "?text=pump")]
    paths = (*_PAGES, f"/devices/{one}", f"/api/v1/devices/{one}", *api)
    asked = [_Question(path, "first", path) for path in paths]
    for query in ("", "?family=esp32", "?text=pump"):
        path = f"/devices.csv{query}"
        asked.append(_Question(f"{path}, first bytes", "first", path, is_begun=True))
    for query in _lists():
        path = f"/devices?{query}" if query else "/devices"
        asked.append(_Question(path, "first", path))
        for part, cursor in _cursors(running, query).items():
            also = "&" if query else "?"
            asked.append(_Question(path, part, f"{path}{also}cursor={cursor}"))
    return asked


def _timed(running: Running, question: _Question) -> tuple[float, float]:
    """Ask; return ms by the clock, and by the processor.

    Raises:
        Broken: the answer is no 200, or says that there is no whole index.
    """
    worked = procfs.cpu_clock(running.controller)
    body, passed = running.ask(question.path, question.is_begun)
    if b'id="index-' in body:
        raise Broken(f"{question.path}: the index is not whole")
    return passed, (procfs.cpu_clock(running.controller) - worked) * 1000


def _ask_all(running: Running, asked: list[_Question], rounds: int) -> list[_Answered]:
    """Ask everything in each round, in an order of its own; return answers in their order."""
    found = [_Answered([], []) for _ in asked]
    for number in range(rounds):
        order = list(range(len(asked)))
        random.Random(number).shuffle(order)
        for at in order:
            passed, worked = _timed(running, asked[at])
            found[at].passed.append(passed)
            found[at].worked.append(worked)
    return found


# What is printed


def _print_table(asked: list[_Question], found: list[_Answered]) -> None:
    """Print a line for each list or page: median and worst of each part."""
    rows: dict[str, dict[str, _Answered]] = {}
    for question, answered in zip(asked, found, strict=True):
        rows.setdefault(question.name, {})[question.part] = answered
    heads = "".join(f"{each:>15}" for each in (*_PARTS, "processor"))
    _say("median and worst, ms", heads)
    for name, parts in rows.items():
        cells = [_cell(parts[each].passed) if each in parts else "" for each in _PARTS]
        slowest = max(parts.values(), key=lambda each: statistics.median(each.worked))
        _say(name, "".join(f"{each:>15}" for each in (*cells, _cell(slowest.worked))))
    worst = max(
        (max(answered.passed), question) for question, answered in zip(asked, found, strict=True)
    )
    _say("the worst of all", f"{worst[0]:.0f} ms: {worst[1].name}, {worst[1].part}")


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} {max(values):.0f}"


def _while_checking(running: Running, options: argparse.Namespace, work: Callable[[], None]) -> str:
    """Do something while devices check; return in words what the checks took."""
    checks = SteadyChecks(running.port, options.devices, options.rate)
    worked = procfs.cpu_clock(running.process)
    waited = procfs.waited_seconds(running.process)
    work()
    taken, rate = checks.end()
    worked = (procfs.cpu_clock(running.process) - worked) / len(taken) * 1e6
    waited = (procfs.waited_seconds(running.process) - waited) / len(taken) * 1e6
    latencies = f"50th {percentile(taken, 50):.2f} ms, 99th {percentile(taken, 99):.2f} ms"
    each = f"each {worked:.0f} µs of the processor, {waited:.0f} µs waiting for one"
    return f"{latencies}, worst {max(taken):.0f} ms, {rate:.0f}/s; {each}"


def _print_sizes(running: Running, data_dir: Path, when: str) -> None:
    controller = procfs.rss_mb(running.controller)
    server = procfs.rss_mb(running.process) - controller
    peak = procfs.peak_mb(running.controller)
    said = f"server {server:.0f} MB, controller {controller:.0f} MB, at its peak {peak:.0f} MB"
    _say(f"memory {when}", said)
    index = sum(path.stat().st_size for path in path_of(data_dir).parent.glob("index.sqlite*"))
    journal = sum(path.stat().st_size for path in log_dir(data_dir).glob("devices*.jsonl"))
    _say(f"disk {when}", f"journal {journal / 1e6:.1f} MB, index {index / 1e6:.1f} MB")


def measure(data_dir: Path, options: argparse.Namespace) -> None:
    """Serve the data directory, ask, and print.

    Raises:
        Broken: what was to be measured did not happen.
    """
    was_there, began = path_of(data_dir).exists(), time.monotonic()
    with serving(data_dir) as running:
        taken = _wait_for_index(running, data_dir, options.devices)
        what = "index that was there is current" if was_there else "index made from the journal"
        _say(what, f"{time.monotonic() - began:.1f} s after the start")
        _say("/ meanwhile", f"median and worst {_cell(taken)} ms")
        _print_sizes(running, data_dir, "then")
        asked = _questions(running, options.devices)
        found: list[_Answered] = []

        def ask() -> None:
            found.extend(_ask_all(running, asked, options.rounds))

        def only_wait() -> None:
            time.sleep(_QUIET_SECONDS_A_ROUND * options.rounds)

        alone = _while_checking(running, options, only_wait)
        beside = _while_checking(running, options, ask)
        _print_table(asked, found)
        _say("checks alone", alone)
        _say("checks beside operators", beside)
        _print_sizes(running, data_dir, "at the end")


def main() -> None:
    """Make the data directory, measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.operators", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name, usual in (("devices", 1_000_000), ("rounds", 5), ("rate", 500)):
        parser.add_argument(f"--{name}", type=int, default=usual, help="(default: %(default)s)")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="stays, and is used again")
    options = parser.parse_args()
    folder = nullcontext(str(options.dir)) if options.dir else tempfile.TemporaryDirectory()
    with folder as name:
        data_dir = Path(os.path.abspath(name)) / "data"
        if not data_dir.exists():
            write_fleet(data_dir, options.devices, time.time_ns() // 1_000_000)
        measure(data_dir, options)


if __name__ == "__main__":
    main()
