"""Removing a device from the table by an operator's command. I/O.

The journal has one writer: a running server is asked to do it (`journal.forget`); if none runs,
the record is written here, under the journal's lock.
"""

from collections.abc import Mapping
from pathlib import Path

from ota_server.journal.files import CURRENT_NAME
from ota_server.journal.forget import FILE_NAME, SKEW_MS, UNSEEN, parse_asked
from ota_server.journal.record import FORGET, format_record
from ota_server.journal.replay import newest, replay
from ota_server.journal.writer import Journal
from ota_server.model.device import Device
from ota_server.model.identity import name_of
from ota_server.model.json_object import format_object
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.policy import audit, edits
from ota_server.policy.labels import change_label, drop_labels
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir, log_dir, product_at
from ota_server.system.files import read, replace
from ota_server.system.locks import InUse

# A request is kept so long for a server that was killed before it saw it.
_KEPT_MS = 7 * 86400 * 1000
_FLUSH_EVERY = 1000


def forget(data_dir: Path, key: str) -> bool:
    """Forget a device, by its key, and its label; its history stays in the journal's files.

    Returns:
        Whether it is done; if not, the running server does it in a moment.

    Raises:
        Refused: the device is not on record.
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        logs = journal_dir(data_dir)
        device = newest(logs, key)
        if device is None:
            raise Refused(f"{name_of(key)} is not on record; `devices` lists those that are")
        change_label(version_dir, name_of(key), "")
        now_ms = clock.now_ms()
        with audit.noted(
            log_dir(data_dir), "forget", name_of(key), **{"from": device.firmware_version}
        ):
            try:
                journal = Journal(logs)
            except InUse:
                # The server's clock may be ahead of this one, by a limit: else the device would be
                # forgotten again at each start until then.
                _ask(version_dir, key, min(max(now_ms, device.time_ms), now_ms + SKEW_MS), now_ms)
                return False
            _write(journal, logs, {key: device}, now_ms)
    return True


def forget_unseen(data_dir: Path, seconds: float) -> tuple[int, bool]:
    """Forget all devices that have not been heard from for so long, and their labels.

    Returns:
        How many they are, and whether it is done; if not, the running server does it.

    Raises:
        Refused, BadPolicy, Busy, OSError: as `edits.changing`.
    """
    logs, now_ms = journal_dir(data_dir), clock.now_ms()
    before_ms = now_ms - round(seconds * 1000)
    # This takes seconds for a large fleet, and `hold` must not wait for the lock.
    found = replay(logs)
    try:
        unseen, known = {}, 0
        for key, device in found.devices(product_at(data_dir)):
            known += 1
            if device.time_ms < before_ms:
                unseen[key] = device
    finally:
        found.close()
    if unseen and len(unseen) == known:
        raise Refused(
            "no device at all has been heard from for so long: is this machine's clock right? "
            "`device forget MAC` forgets one device"
        )
    if not unseen:
        return 0, True
    with edits.changing(data_dir) as version_dir:
        since = format_time(before_ms)
        with audit.noted(log_dir(data_dir), "forget", f"{len(unseen)} devices", unseen_since=since):
            drop_labels(version_dir, [name_of(key) for key in unseen])
            try:
                journal = Journal(logs)
            except InUse:
                _ask(version_dir, UNSEEN, before_ms, now_ms)
                return len(unseen), False
            _write(journal, logs, unseen, now_ms)
    return len(unseen), True


def _ask(version_dir: Path, what: str, time_ms: int, now_ms: int) -> None:
    asked = parse_asked(read(version_dir, FILE_NAME))
    kept = {
        each: at_ms for each, at_ms in asked.items() if each == UNSEEN or _is_kept(at_ms, now_ms)
    }
    texts = {each: format_time(at_ms) for each, at_ms in {**kept, what: time_ms}.items()}
    replace(version_dir / FILE_NAME, format_object(texts))


def _is_kept(asked_ms: int, now_ms: int) -> bool:
    return 0 <= now_ms - asked_ms < _KEPT_MS


def _write(journal: Journal, logs: Path, devices: Mapping[str, Device], now_ms: int) -> None:
    try:
        for number, (key, device) in enumerate(devices.items(), start=1):
            journal.append(key, format_record(FORGET, key, device._replace(time_ms=now_ms)))
            if number % _FLUSH_EVERY == 0:
                journal.flush()
        journal.flush()
        if journal.failing:
            raise OSError(28, "the journal cannot be written", str(logs / CURRENT_NAME))
    finally:
        journal.close()
