"""The emergency hold as it is on record, and what the server's log says of it. I/O."""

import logging
import os
from contextlib import suppress
from pathlib import Path

from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import HOLD_NAME
from ota_server.policy.text import Hold, hold_text, parse_hold
from ota_server.system.clock import now_ms
from ota_server.system.files import read

log = logging.getLogger(__name__)


def current_hold(data_dir: Path) -> Hold | None:
    """Return what is on record of the hold; None: nothing is on hold."""
    folder = data_dir / "version"
    if not os.path.lexists(folder / HOLD_NAME):
        return None
    try:
        held = parse_hold(read(folder, HOLD_NAME))
    except (OSError, BadPolicy):
        return Hold()
    with suppress(ValueError):  # a clock that was ahead: it counts as now
        held = held._replace(time=format_time(min(parse_time(held.time), now_ms())))
    return held


def reason_of_hold(data_dir: Path) -> str:
    """Return why everything is on hold; "" if it is not, or no reason is on record."""
    held = current_hold(data_dir)
    return "" if held is None else held.reason


def hold_lines(data_dir: Path) -> list[str]:
    """Return the line that says that everything is on hold; no line if that is not so."""
    held = current_hold(data_dir)
    return [] if held is None else [f"{hold_text(held)}; `unhold` ends that"]


class HoldLog:
    """Logs the beginning and the end of a hold, whoever made it."""

    def __init__(self, data_dir: Path, policies: PolicyFiles) -> None:
        self._data_dir = data_dir
        self._policies = policies
        self._is_held = False

    def look_after(self) -> None:
        """Log a hold that has begun or ended since the last look."""
        before, self._is_held = self._is_held, self._policies.latest.is_held
        if self._is_held and not before:
            hold = current_hold(self._data_dir) or Hold()
            log.warning("%s; no device is offered anything until `unhold`", hold_text(hold))
        elif before and not self._is_held:
            log.warning("the hold has ended: devices are offered what they should run")
