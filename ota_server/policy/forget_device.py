"""Removing a device from the table by an operator's command. I/O.

The journal has one writer: a running server is asked to do it (`journal.forget`); if none runs,
the record is written here, under the journal's lock.
"""

from pathlib import Path

from ota_server.journal.files import CURRENT_NAME
from ota_server.journal.forget import FILE_NAME, parse_asked
from ota_server.journal.record import FORGET, format_record
from ota_server.journal.replay import newest
from ota_server.journal.writer import Journal
from ota_server.model.device import Device
from ota_server.model.json_object import format_object
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.policy import audit, edits
from ota_server.policy.labels import change_label
from ota_server.system import clock
from ota_server.system.data_dir import log_dir
from ota_server.system.files import give_to_owner, read, replace
from ota_server.system.locks import InUse

# A request is kept so long for a server that was killed before it saw it.
_KEPT_MS = 7 * 86400 * 1000


def forget(data_dir: Path, mac: str) -> bool:
    """Forget a device and its label; its history stays in the journal's files.

    Returns:
        Whether it is done; if not, the running server does it in a moment.

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
        now_ms = clock.now_ms()
        try:
            journal = Journal(logs)
        except InUse:
            _ask(version_dir, mac, max(now_ms, device.time_ms))
            return False
        _write(journal, logs, mac, device._replace(time_ms=now_ms))
    return True


def _ask(version_dir: Path, mac: str, now_ms: int) -> None:
    asked = parse_asked(read(version_dir, FILE_NAME))
    kept = {each: asked_ms for each, asked_ms in asked.items() if now_ms - asked_ms < _KEPT_MS}
    texts = {each: format_time(asked_ms) for each, asked_ms in {**kept, mac: now_ms}.items()}
    replace(version_dir / FILE_NAME, format_object(texts))


def _write(journal: Journal, logs: Path, mac: str, device: Device) -> None:
    try:
        give_to_owner(logs / CURRENT_NAME, logs)
        journal.append(mac, format_record(FORGET, mac, device))
        journal.flush()
        if journal.failing:
            raise OSError(28, "the journal cannot be written", str(logs / CURRENT_NAME))
    finally:
        journal.close()
