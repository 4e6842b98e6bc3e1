"""What is known of a fleet before a rollout begins: who is active, how often it asks. I/O."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from ota_server.feedback import Known
from ota_server.files import open_regular
from ota_server.logfiles import CURRENT_NAME, journal_files
from ota_server.plan import Plan
from ota_server.record import BadRecord, parse_fields, parse_time
from ota_server.replay import replay
from ota_server.rollout import cohort_percent

DAY_MS = 86400 * 1000
ACTIVE_MS = 7 * DAY_MS
_TAIL_BYTES = 4 * 1024 * 1024
_LINE_BYTES = 64 * 1024
_LEAST_GAPS = 5


class Reached(NamedTuple):
    """How many devices a rollout reaches.

    Attributes:
        waves: the active devices that each wave adds.
        inactive: the devices that were not heard from for a week.
        new: the active devices that were first seen less than a day ago.
        undated: the active devices of which the journal does not say when they were first seen.
    """

    waves: tuple[int, ...]
    inactive: int
    new: int = 0
    undated: int = 0


def reached(log_dir: Path, plan: Plan, known: Known, now_ms: int) -> Reached:
    """Count the devices that a rollout reaches.

    Raises:
        OSError: the journal cannot be read.
    """
    waves = [0] * plan.wave_count
    inactive = new = undated = 0
    found = replay(log_dir)
    try:
        for mac, device in found.devices():
            if mac in known.left_out or not (known.members is None or mac in known.members):
                continue
            if now_ms - device.last_seen_ms > ACTIVE_MS:
                inactive += 1
                continue
            waves[_wave_of(mac, plan, known)] += 1
            if device.first_seen_ms is None:
                undated += 1
            elif now_ms - device.first_seen_ms < DAY_MS:
                new += 1
    finally:
        found.close()
    return Reached(tuple(waves), inactive, new, undated)


def _wave_of(mac: str, plan: Plan, known: Known) -> int:
    if mac in known.first_group:
        return 0
    percent = cohort_percent(plan.version, mac)
    return next(wave for wave in range(plan.wave_count) if percent < plan.percent(wave))


def poll_interval_seconds(log_dir: Path) -> float | None:
    """Return how long devices usually wait between two checks, by the end of the journal.

    None: too little is on record.
    """
    times: dict[object, int] = {}
    gaps = []
    for record in _tail(log_dir / CURRENT_NAME):
        if record.get("event") != "check":
            continue
        try:
            time_ms = parse_time(str(record.get("time")))
        except ValueError:
            continue
        before = times.get(record.get("mac"))
        if before is not None and time_ms > before:
            gaps.append(time_ms - before)
        times[record.get("mac")] = time_ms
    return median(gaps) / 1000 if len(gaps) >= _LEAST_GAPS else None


def oldest_record_ms(log_dir: Path) -> int | None:
    """Return when the journal that is kept begins; None where there is nothing in it."""
    for path in journal_files(log_dir):
        descriptor = open_regular(path)
        with open(descriptor, "rb") as file:
            line = file.readline(_LINE_BYTES)
        try:
            return parse_time(str(parse_fields(line).get("time")))
        except (BadRecord, ValueError):
            continue
    return None


def is_served(log_dir: Path) -> bool:
    """Say whether a server runs on the data directory: it holds the lock of the journal.

    To see that it is taken for a moment, and shared: a server that starts just then is refused.
    """
    try:
        descriptor = os.open(log_dir / ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _tail(path: Path) -> Iterator[dict[str, Any]]:
    try:
        descriptor = open_regular(path)
    except OSError:
        return
    with open(descriptor, "rb") as file:
        start = max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES)
        file.seek(start)
        lines = file.read(_TAIL_BYTES).split(b"\n")
    for line in lines[1 if start else 0 : -1]:
        try:
            yield parse_fields(line)
        except BadRecord:
            continue
