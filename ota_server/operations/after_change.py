"""Why what an operator has just changed reaches no device now, in words. I/O."""

from pathlib import Path

from ota_server.policy.hold import current_hold
from ota_server.system.data_dir import journal_dir
from ota_server.system.locks import is_served

STARTS_NOTHING = "start it, or the rollout does not move"
WRONG_FOLDER = "is --data-dir right?"


def no_server_warning(data_dir: Path, advice: str = STARTS_NOTHING) -> str:
    """Return that no server runs on the data directory, so no device notices; "": one does."""
    if is_served(journal_dir(data_dir)):
        return ""
    return f"no server runs on {data_dir}; {advice}"


def hold_warning(data_dir: Path) -> str:
    """Return that devices are on hold, so what was just done reaches none of them; "": not."""
    held = current_hold(data_dir)
    if held is None:
        return ""
    reason = f": {held.reason}" if held.reason else ""
    return f"{held.what} is on hold{reason}; no device is offered anything until {held.end}"
