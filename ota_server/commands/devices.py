"""The `devices` command: the fleet as a table, as CSV or as JSON lines, from the journal."""

import argparse
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ota_server.commands.common import (
    Commands,
    add_command,
    add_local_argument,
    at_least_one,
    key_of,
    mac_argument,
    say,
    since_argument,
)
from ota_server.commands.device_filters import FILTERS, add_filters, chosen, filter_of
from ota_server.commands.device_history import show_history
from ota_server.commands.terminal import printable, write_csv, write_table
from ota_server.device_port.admission_status import read_server_state
from ota_server.journal.rejected import read_rejected
from ota_server.model.identity import name_of
from ota_server.model.quantity import count_of
from ota_server.model.refusal import Misused
from ota_server.model.timestamp import ago
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.fleet_row import COLUMNS, FleetRow, fields_of
from ota_server.operations.fleet_source import FleetSource, ask_fleet
from ota_server.policy.edits import check_group
from ota_server.policy.fleet_counts import FleetConditions
from ota_server.policy.gather import gather_fleet
from ota_server.policy.labels import read_labels
from ota_server.rollouts.history import judged_by_rollouts
from ota_server.system import clock
from ota_server.system.data_dir import (
    existing_folder,
    log_dir,
    product_at,
    product_dir,
    product_names,
    root_of,
)

_TABLE_COLUMNS = ("mac", "version", "target", "state", "seen")
_WIDE_COLUMNS = ("reason", "label", "state")  # the first of these goes on in the next line
_CSV_COLUMNS = ("mac", "version", "seen", "updated", "target")
_EXAMPLES = """\
  %(prog)s                     the fleet as a table
  %(prog)s --outdated --not-seen 7d
  %(prog)s --state held_back --columns mac,version,reason
  %(prog)s --csv > fleet.csv   for a spreadsheet
  %(prog)s --json | jq .mac    for programs
  %(prog)s 00:11:22:33:44:55   the history of one device
  %(prog)s --rejected          who was rejected (401, 400 ...)

It reads the journal in the data directory; the server need not run.
"""


def add_commands(commands: Commands) -> None:
    """Add `devices`."""
    parser = add_command(
        commands,
        "devices",
        "show the fleet, or the history of one device",
        "Show the fleet, the history of one device, or who was recently rejected.",
        _EXAMPLES,
        _show,
        shows_table=True,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line")
    form.add_argument("--csv", action="store_true", help="CSV with a header line")
    parser.add_argument(
        "--rejected",
        action="store_true",
        help="who was recently rejected (401, 400, 404 ...), and why",
    )
    add_filters(parser.add_argument_group("which devices of the fleet, by all that is given"))
    parser.add_argument(
        "--since",
        type=since_argument,
        metavar="TIME",
        help="with MAC: leave out what is older than that, such as 2d, or a date or a time",
    )
    parser.add_argument(
        "--limit",
        type=at_least_one,
        metavar="N",
        help="so many rows: the first, with MAC the newest",
    )
    add_local_argument(parser)
    parser.add_argument(
        "mac", nargs="?", metavar="MAC", type=mac_argument, help="show the history of this device"
    )


def _show(arguments: argparse.Namespace) -> int:
    logs = existing_folder(root_of(arguments.data_dir), "log")
    form = "json" if arguments.json else "csv" if arguments.csv else "table"
    mac = arguments.mac
    _check_options(arguments)
    if arguments.rejected:
        return _show_rejected(logs, mac, form, arguments.limit)
    if mac is not None:
        show_history(
            logs, key_of(arguments, mac), form, arguments.since, arguments.limit, arguments.local
        )
        return 0
    return _show_fleet(arguments, logs, form)


def _check_options(arguments: argparse.Namespace) -> None:
    """Check that no option was given that would be ignored.

    Raises:
        Misused: there is one.
    """
    is_history = arguments.mac is not None and not arguments.rejected
    for option, is_given in (
        ("--since", arguments.since is not None),
        ("--local", arguments.local),
    ):
        if is_given and not is_history:
            raise Misused(f"{option} is for the history of one device: name its MAC")
    if arguments.json and arguments.columns:
        raise Misused("--columns is for the table and for --csv: an object has all of them")
    if arguments.mac is None and not arguments.rejected:
        return
    for name in FILTERS:
        value = getattr(arguments, name)
        if value is not None and value is not False:
            option = name.replace("_", "-")
            raise Misused(f"--{option} is for the fleet: leave it out, or leave out the rest")


def _show_fleet(arguments: argparse.Namespace, logs: Path, form: str) -> int:
    now_ms = clock.now_ms()
    if arguments.group is not None:
        check_group(arguments.data_dir, arguments.group)
    roots = [arguments.data_dir]
    if arguments.product is None:
        names = product_names(arguments.data_dir)
        roots += [product_dir(arguments.data_dir, name) for name in names]
    # No row is in a cycle: to look for such ones among all rows takes a fifth of the time.
    gc.disable()
    try:
        found = ask_fleet(arguments.data_dir, partial(_found, arguments, roots, now_ms))
        _print_rows(found.rows, found.total, arguments, form, now_ms)
    finally:
        gc.enable()
    if found.bad_lines:
        print(f"bad lines in the journal, skipped: {found.bad_lines}", file=sys.stderr)
    return 0


class _FoundFleet(NamedTuple):
    rows: Sequence[FleetRow]
    total: int
    bad_lines: int


def _found(
    arguments: argparse.Namespace, roots: Sequence[Path], now_ms: int, source: FleetSource
) -> _FoundFleet:
    """Return the rows to show, and how many there are in all.

    Devices of a product that was removed are on record, and are not shown.
    """
    wanted = filter_of(arguments)
    every = chain.from_iterable(_rows(source, each, wanted, now_ms) for each in roots)
    rows = chosen(every, arguments, now_ms)
    total = source.number_of_devices({product_at(each) for each in roots})
    return _FoundFleet(rows, total, source.bad_lines)


def _print_rows(
    rows: Sequence[FleetRow], total: int, arguments: argparse.Namespace, form: str, now_ms: int
) -> None:
    has_labels = any(row.label for row in rows)
    has_families = len({row.family for row in rows}) > 1
    if form == "json":
        for row in rows:
            print(json.dumps(fields_of(row)))
    elif form == "csv":
        names = arguments.columns or (
            *_CSV_COLUMNS,
            *["label"] * has_labels,
            *["family"] * has_families,
            *["product"] * any(row.product for row in rows),
        )
        columns = [COLUMNS[name] for name in names]
        write_csv([each.field for each in columns], (fields_of(row, columns) for row in rows))
    else:
        names = arguments.columns or (
            *["product"] * any(row.product for row in rows),
            *_TABLE_COLUMNS,
            *["family"] * has_families,
            "label" if has_labels else "address",
        )
        columns = [COLUMNS[name] for name in names]
        cells = [tuple(printable(each.text(row, now_ms)) for each in columns) for row in rows]
        wide = next((names.index(name) for name in _WIDE_COLUMNS if name in names), None)
        write_table([each.title for each in columns], cells, wrapped=wide)
        of = f"{len(rows):,} of " if len(rows) < total else ""
        print(f"{of}{count_of(total, 'device')}")
        if repeating := sum(row.is_in_loop_breaker for row in rows):
            say(f"{repeating} in the loop breaker: `why MAC` says why, `retry MAC` ends it for one")


def _rows(
    source: FleetSource, data_dir: Path, wanted: DeviceFilter, now_ms: int
) -> Iterator[FleetRow]:
    """Yield devices in the order of their MACs."""
    fleet = gather_fleet(data_dir, now_ms, read_server_state(log_dir(data_dir)))
    labels, groups = read_labels(data_dir), fleet.policy.groups
    conditions = FleetConditions(data_dir, fleet, judged_by_rollouts(data_dir, now_ms))
    for key, device in source.devices(fleet.policy.product, wanted, now_ms):
        first_ms = device.first_seen_ms
        if first_ms is not None and first_ms > now_ms:  # also where a clock was ahead
            device = device._replace(first_seen_ms=now_ms)
        label = labels.get(name_of(key), "")
        yield FleetRow(key, device, label, groups.get(key, ()), conditions)


def _show_rejected(logs: Path, mac: str | None, form: str, limit: int | None) -> int:
    entries = sorted(read_rejected(logs), key=lambda entry: str(entry["time"]))
    if mac is not None:
        entries = [entry for entry in entries if entry["mac"] and name_of(entry["mac"]) == mac]
    entries = entries[-(limit or 0) :]
    if form == "json":
        for entry in entries:
            print(json.dumps(entry))
    elif form == "csv":
        write_csv(("time", "first_time", "address", "mac", "reason", "count"), entries)
    else:
        now_ms = clock.now_ms()
        rows = [
            (
                printable(entry["address"]),
                printable(entry["mac"] or "-"),
                printable(entry["reason"]),
                str(entry["count"]),
                ago(entry["time"], now_ms),
            )
            for entry in entries
        ]
        write_table(("ADDRESS", "MAC", "REASON", "COUNT", "LAST"), rows)
        print(f"{count_of(len(rows), 'kind')} of rejected requests")
    return 0
