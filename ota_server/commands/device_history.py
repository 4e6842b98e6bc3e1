"""What is on record of one device, for `devices MAC`: checks that say the same are one row. I/O."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.commands.terminal import printable, to_the_second, write_csv, write_table
from ota_server.journal.replay import history
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import ago, format_time
from ota_server.system import clock

_CSV = (
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
# Checks are alike that say the same in these; one that says more is told by itself.
_SAME = ("event", "firmware_version", "target_version", "address", "status")
_TOLD = ("previous_version", "range_start")


class _Row(NamedTuple):
    """A row of the table: one record, or several checks that are alike."""

    first: Mapping[str, Any]
    last: Mapping[str, Any]
    checks: int


def show_history(
    logs: Path, mac: str, form: str, since_ms: int | None, limit: int | None, is_local: bool
) -> None:
    """Show the records of a device.

    Args:
        form: json, csv or table.
        since_ms: leave out older records; None: show all.
        limit: show the newest so many rows; None: show all.

    Raises:
        Refused: there is no such record.
        OSError: the journal cannot be read.
    """
    records = history(logs, mac, since_ms)
    rows: Iterable[Any] = _folded(records) if form == "table" else records
    shown = deque(rows, maxlen=limit)
    if not shown and since_ms is not None:
        since = to_the_second(format_time(since_ms), is_local)
        raise Refused(f"there is no record of {mac} since {since}")
    if not shown:
        raise Refused(f"{mac} is not on record; `devices --rejected` lists who was rejected")
    if form == "json":
        for fields in shown:
            print(json.dumps(fields))
    elif form == "csv":
        write_csv(_CSV, shown)
    else:
        write_table(
            ("TIME", "EVENT", "VERSION", "TOLD", "WHAT", "ADDRESS"),
            [_cells(row, clock.now_ms(), is_local) for row in shown],
            cut_first=(5,),
            wrapped=4,
        )


def _folded(records: Iterable[Mapping[str, Any]]) -> Iterator[_Row]:
    """Yield rows, the oldest first."""
    row: _Row | None = None
    for fields in records:
        if row is not None and _repeats(row.last, fields):
            continue
        if row is not None and _is_alike(row.last, fields):
            row = _Row(row.first, fields, row.checks + 1)
            continue
        if row is not None:
            yield row
        row = _Row(fields, fields, 1)
    if row is not None:
        yield row


def _repeats(before: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Return whether a record is a `device` line, which repeats what is known already."""
    names = ("firmware_version", "target_version", "address")
    is_known = all(before.get(name) == fields.get(name) for name in names)
    return fields.get("event") == "device" and is_known


def _is_alike(before: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    return (
        fields.get("event") == "check"
        and all(before.get(name) == fields.get(name) for name in _SAME)
        and not any(name in each for each in (before, fields) for name in _TOLD)
    )


def _cells(row: _Row, now_ms: int, is_local: bool) -> tuple[str, ...]:
    fields = row.first
    what = list(_what_happened(fields))
    if row.checks > 1:
        what.insert(0, f"{row.checks:,} checks, the last {ago(str(row.last.get('time')), now_ms)}")
    texts = (
        to_the_second(fields.get("time"), is_local),
        fields.get("event"),
        fields.get("firmware_version"),
        fields.get("target_version") or "-",
        ", ".join(what) or "-",
        fields.get("address"),
    )
    return tuple(printable(text) for text in texts)


def _what_happened(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a record says besides its columns, the most important first."""
    event, status = fields.get("event"), fields.get("status")
    if event == "begin":
        yield f"{fields.get('method', 'GET')} of {fields.get('download_version')}"
    elif event in ("download", "part") and status in (200, 206) and "complete" in fields:
        yield "complete" if fields.get("complete") is True else "cut"
        yield f"{fields.get('bytes_sent')} bytes"
    elif event == "feedback":
        yield f"{fields.get('action_version')} {fields.get('action_state')}"
        if fields.get("detail"):
            yield f"it says: {fields['detail']}"
    elif status is not None:
        yield f"answered {status}"
    if "file" in fields:
        yield str(fields["file"])
    elif "range_start" in fields:
        yield f"from byte {fields['range_start']}"
    if "previous_version" in fields:
        yield f"was {fields['previous_version']}"
