"""The `devices` command: the fleet as a table, as CSV or as JSON lines, from the journal."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ota_server.commands.common import Commands, add_command, mac_argument
from ota_server.commands.terminal import printable, to_the_second, write_table
from ota_server.journal.rejected import read_rejected
from ota_server.journal.replay import history, replay
from ota_server.model.device import Device
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import ago, format_time
from ota_server.policy.labels import read_labels
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder

_EXAMPLES = """\
  %(prog)s                     the fleet as a table
  %(prog)s --csv > fleet.csv   for a spreadsheet
  %(prog)s --json | jq .mac    for programs, an object a line
  %(prog)s 00:11:22:33:44:55   the history of one device
  %(prog)s --rejected          who was recently rejected (401)

It reads the journal in the data directory; the server need not run.
"""

# A cell that begins with one of these is a formula to a spreadsheet (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def add_commands(commands: Commands) -> None:
    """Add `devices`."""
    parser = add_command(
        commands,
        "devices",
        "show the fleet, or the history of one device",
        "Show the fleet, the history of one device, or who was recently rejected.",
        _EXAMPLES,
        _show,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line")
    form.add_argument("--csv", action="store_true", help="CSV with a header line")
    parser.add_argument(
        "--rejected", action="store_true", help="who was recently rejected (401), and why"
    )
    parser.add_argument(
        "mac", nargs="?", metavar="MAC", type=mac_argument, help="show the history of this device"
    )


def _show(arguments: argparse.Namespace) -> int:
    logs = existing_folder(arguments.data_dir, "log")
    form = "json" if arguments.json else "csv" if arguments.csv else "table"
    mac = arguments.mac
    if arguments.rejected:
        return _show_rejected(logs, mac, form)
    if mac is not None:
        return _show_history(logs, mac, form)
    return _show_fleet(logs, read_labels(arguments.data_dir), form)


def _show_fleet(logs: Path, labels: Mapping[str, str], form: str) -> int:
    found = replay(logs)
    try:
        if form == "json":
            for mac, device in found.devices():
                print(json.dumps(_as_fields(mac, device, labels)))
        elif form == "csv":
            header = ["mac", "firmware_version", "last_seen_time", "update_time", "target_version"]
            header += ["label"] if labels else []
            devices = found.devices()
            _write_csv(header, (_as_fields(mac, device, labels) for mac, device in devices))
        else:
            now_ms = clock.now_ms()
            rows = [_as_row(mac, device, now_ms) for mac, device in found.devices()]
            titles = ["MAC", "VERSION", "TARGET", "LAST SEEN", "UPDATED", "ADDRESS"]
            if labels:
                titles.append("LABEL")
                rows = [(*row, printable(labels.get(row[0], "-"))) for row in rows]
            write_table(titles, rows)
            print(f"{len(rows)} device{'' if len(rows) == 1 else 's'}")
    finally:
        found.close()
    if found.bad_lines:
        print(f"bad lines in the journal, skipped: {found.bad_lines}", file=sys.stderr)
    return 0


def _show_history(logs: Path, mac: str, form: str) -> int:
    records = list(history(logs, mac))
    if not records:
        raise Refused(f"{mac} is not on record; --rejected lists who was rejected (401)")
    if form == "json":
        for fields in records:
            print(json.dumps(fields))
    elif form == "csv":
        header = (
            "time",
            "event",
            "mac",
            "firmware_version",
            "previous_version",
            "target_version",
            "status",
            "bytes_sent",
            "complete",
            "address",
        )
        _write_csv(header, records)
    else:
        write_table(
            ("TIME", "EVENT", "VERSION", "TARGET", "WHAT", "ADDRESS"),
            [_history_row(fields) for fields in records],
            cut_first=(5,),
        )
    return 0


def _show_rejected(logs: Path, mac: str | None, form: str) -> int:
    entries = sorted(read_rejected(logs), key=lambda entry: str(entry["time"]))
    if mac is not None:
        entries = [entry for entry in entries if entry["mac"] == mac]
    if form == "json":
        for entry in entries:
            print(json.dumps(entry))
    elif form == "csv":
        _write_csv(("time", "first_time", "address", "mac", "reason", "count"), entries)
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
        print(f"{len(rows)} kind{'' if len(rows) == 1 else 's'} of rejected requests")
    return 0


def _as_fields(mac: str, device: Device, labels: Mapping[str, str]) -> dict[str, object]:
    update = None if device.update_ms is None else format_time(device.update_ms)
    return {
        "mac": mac,
        "firmware_version": device.firmware_version,
        "target_version": device.target_version,
        "last_seen_time": format_time(device.last_seen_ms),
        "update_time": update,
        "first_seen_time": None
        if device.first_seen_ms is None
        else format_time(device.first_seen_ms),
        "address": device.address,
        "label": labels.get(mac),
    }


def _as_row(mac: str, device: Device, now_ms: int) -> tuple[str, ...]:
    updated = "never" if device.update_ms is None else ago(format_time(device.update_ms), now_ms)
    return (
        mac,
        device.firmware_version,
        device.target_version or "-",
        ago(format_time(device.last_seen_ms), now_ms),
        updated,
        device.address,
    )


def _history_row(fields: dict[str, object]) -> tuple[str, ...]:
    texts = (
        to_the_second(fields.get("time")),
        fields.get("event"),
        fields.get("firmware_version"),
        fields.get("target_version") or "-",
        ", ".join(_what_happened(fields)) or "-",
        fields.get("address"),
    )
    return tuple(printable(text) for text in texts)


def _what_happened(fields: dict[str, object]) -> Iterator[str]:
    """Yield what a record says besides its columns, the most important first."""
    event, status = fields.get("event"), fields.get("status")
    if event == "begin":
        yield f"{fields.get('method', 'GET')} of {fields.get('download_version')}"
    elif event == "download" and status in (200, 206):
        yield "complete" if fields.get("complete") is True else "cut"
        yield f"{fields.get('bytes_sent')} bytes"
    elif status is not None:
        yield f"answered {status}"
    if "range_start" in fields:
        yield f"from byte {fields['range_start']}"
    if "previous_version" in fields:
        yield f"was {fields['previous_version']}"


def _write_csv(header: Sequence[str], entries: Iterable[dict[str, object]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(_csv_rows(header, entries))


def _csv_rows(header: Sequence[str], entries: Iterable[dict[str, object]]) -> Iterator[list[str]]:
    for entry in entries:
        cells = ["" if entry.get(name) is None else str(entry[name]) for name in header]
        cells = [printable(cell) for cell in cells]
        yield [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
