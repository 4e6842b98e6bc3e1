"""Forgetting devices: they go from the table, by a record of that in the journal. I/O.

The journal has one writer. Where a server runs, a command asks it by `version/forget.json`; where
none does, the command takes the journal's lock and writes the record itself.
"""

import json
import time
from pathlib import Path

from ota_server import audit, edits
from ota_server.datadir import log_dir
from ota_server.device import Device, parse_mac
from ota_server.files import Signature, find, give_to_owner, open_found, replace
from ota_server.fleet import Fleet
from ota_server.journal import Journal
from ota_server.labels import change_label
from ota_server.logfiles import CURRENT_NAME, InUse
from ota_server.policy import Refused
from ota_server.record import FORGET, format_record, format_time, parse_time
from ota_server.replay import newest

FILE_NAME = "forget.json"
# A server that was killed meanwhile finds at its next start what it was asked for.
_KEPT_MS = 7 * 86400 * 1000
_MAX_BYTES = 16 * 1024 * 1024


def forget(data_dir: Path, mac: str) -> bool:
    """Have a device forgotten, and its label; its history stays in the journal's files.

    Returns:
        Whether it is done; else a running server does it at its next look, in a moment.

    Raises:
        Refused: the device is not on record.
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        logs = log_dir(data_dir)
        device = newest(logs, mac)
        if device is None:
            raise Refused(f"{mac} is not on record; `devices` lists those that are")
        change_label(version_dir, mac, "")
        audit.note(logs, "forget", mac, **{"from": device.firmware_version})
        now_ms = time.time_ns() // 1_000_000
        try:
            journal = Journal(logs)
        except InUse:
            _ask(version_dir, mac, max(now_ms, device.time_ms))
            return False
        _write(journal, logs, mac, device._replace(time_ms=now_ms))
    return True


def _ask(version_dir: Path, mac: str, now_ms: int) -> None:
    asked = _parse(edits.read(version_dir, FILE_NAME))
    kept = {each: asked_ms for each, asked_ms in asked.items() if now_ms - asked_ms < _KEPT_MS}
    texts = {each: format_time(asked_ms) for each, asked_ms in {**kept, mac: now_ms}.items()}
    replace(version_dir / FILE_NAME, (json.dumps(texts, indent=2) + "\n").encode("ascii"))


def _write(journal: Journal, logs: Path, mac: str, device: Device) -> None:
    try:
        give_to_owner(logs / CURRENT_NAME, logs)
        journal.append(mac, format_record(FORGET, mac, device))
        journal.flush()
        if journal.failing:
            raise OSError(28, "the journal cannot be written", str(logs / CURRENT_NAME))
    finally:
        journal.close()


class Forgetting:
    """Does in a running server what commands ask for."""

    def __init__(self, data_dir: Path, fleet: Fleet) -> None:
        self._version_dir = data_dir / "version"
        self._fleet = fleet
        self._done: Signature | None = None

    def look_after(self) -> None:
        """Forget who is to be forgotten and was not heard from since."""
        try:
            found = find(self._version_dir, FILE_NAME)
            if found is None or found.signature == self._done:
                return
            with open(open_found(found), "rb") as file:
                asked = _parse(file.read(_MAX_BYTES))
        except OSError:
            return  # it is looked at again in a moment
        for mac, asked_ms in asked.items():
            self._fleet.forget(mac, asked_ms)
        self._fleet.journal.flush()
        self._done = found.signature


def _parse(content: bytes) -> dict[str, int]:
    """Return who is to be forgotten, and when that was asked for; what makes no sense is not."""
    try:
        fields = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    asked = {}
    for name, text in fields.items() if isinstance(fields, dict) else ():
        try:
            mac = parse_mac(name)
            if mac is not None:
                asked[mac] = parse_time(text)
        except (ValueError, TypeError, OverflowError):
            continue
    return asked
