"""What is on record of one device, for `devices MAC`: checks that say the same are one row. I/O."""

import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ota_server.commands.terminal import printable, to_the_second, write_csv, write_table
from ota_server.journal.replay import history
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import ago, format_time
from ota_server.operations.device_story import StoryEntry, folded, what_happened
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
    rows: Iterable[Any] = folded(records) if form == "table" else records
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


def _cells(row: StoryEntry, now_ms: int, is_local: bool) -> tuple[str, ...]:
    fields = row.first
    what = list(what_happened(fields))
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
