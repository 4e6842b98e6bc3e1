"""What `status` and `health` say of notices that nobody gets. I/O."""

from collections.abc import Iterator
from pathlib import Path

from ota_server.device_port.notice_status import read_notice_status
from ota_server.model.quantity import count_of
from ota_server.model.timestamp import format_second
from ota_server.policy.fleet_status import FleetWarning

# Before that it may pass by itself: the first attempts are seconds apart.
_PERSON_MS = 5 * 60_000


def notice_warnings(log_dir: Path, now_ms: int) -> Iterator[FleetWarning]:
    """Yield a warning for each receiver that the running server cannot tell."""
    status = read_notice_status(log_dir)
    for name, health, waiting in () if status is None else status.receivers:
        since_ms = health.failing_since_ms
        if not since_ms:
            continue
        text = f"{name} is not told of notices since {format_second(since_ms)}: {health.problem}"
        text += f"; {count_of(waiting, 'notice')} waiting" if waiting else ""
        remedy = "`notify test` tries it now"
        yield FleetWarning("notices", text, remedy, now_ms - since_ms >= _PERSON_MS)
