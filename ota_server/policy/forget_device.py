"""Removing a device from the table by an operator's command. I/O.

The journal has one writer: a running server is asked to do it (`journal.forget`); if none runs,
the record is written here, under the journal's lock.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ota_server.journal.files import CURRENT_NAME
from ota_server.journal.forget_file import (
    FILE_NAME,
    MOST_BYTES,
    SKEW_MS,
    UNSEEN,
    ForgetFile,
    each_key,
    format_forget_file,
    join_keys,
    parse_forget_file,
)
from ota_server.journal.record import FORGET, format_record
from ota_server.journal.replay import Replay, newest, replay
from ota_server.journal.writer import Journal
from ota_server.model.device import Device
from ota_server.model.identity import name_of, number_of
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.model.timestamp import format_time
from ota_server.policy import audit, edits
from ota_server.policy.labels import change_label, drop_labels, finish_removal, labels_of
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir, log_dir, product_at
from ota_server.system.files import read, replace
from ota_server.system.locks import InUse

log = logging.getLogger(__name__)

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
            _write(journal, logs, [(key, device)], now_ms)
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
            _write(journal, logs, unseen.items(), now_ms)
    return len(unseen), True


def forget_many(data_dir: Path, keys: Collection[str]) -> tuple[list[str], bool]:
    """Forget devices, by their keys, and their labels.

    That they are to be forgotten is written to one file, which is the moment when it is done:
    whoever is killed after that, the running server does the rest, or the next one that starts.

    Returns:
        The keys of those that are on record, and whether it is done; if not, a server does it.

    Raises:
        Refused: none is on record, or too many are being forgotten already.
        BadPolicy, Busy, OSError: as `edits.changing`; nothing is forgotten.
    """
    logs, now_ms = journal_dir(data_dir), clock.now_ms()
    # Not under the lock: this takes seconds for a large fleet.
    found = replay(logs)
    try:
        known = [key for key in keys if number_of(key) in found.locations]
        if not known:
            raise Refused("none of these devices is on record; `devices` lists those that are")
        with edits.changing(data_dir) as version_dir:
            names = [name_of(key) for key in known]
            listed = edits.listed("what", names)
            with audit.noted(log_dir(data_dir), "forget", str(listed.pop("what")), **listed):
                labelled = labels_of(version_dir, names)
                asked_ms = _ask_many(version_dir, found, known, labelled, now_ms)
            is_done = _do_at_once(version_dir, logs, found, known, asked_ms, now_ms)
            with suppress(BadPolicy, OSError):  # the next change of a label does it
                finish_removal(version_dir)
    finally:
        found.close()
    return known, is_done


def _ask_many(
    version_dir: Path, found: Replay, keys: Sequence[str], labelled: tuple[str, ...], now_ms: int
) -> int:
    """Write that devices are to be forgotten; return the time of that."""
    asked = _still_asked(version_dir, now_ms)
    many = {at_ms: each for at_ms, each in asked.many.items() if _is_left(each, at_ms, found)}
    # As in `forget`: the server's clock may be ahead of this one.
    newest_ms = max(_time_ms(found, key) for key in keys)
    asked_ms = min(max(now_ms, newest_ms), now_ms + SKEW_MS)
    while asked_ms in many:
        asked_ms += 1
    unlabelled = tuple(dict.fromkeys((*asked.unlabelled, *labelled)))
    many[asked_ms] = join_keys(keys)
    content = format_forget_file(asked._replace(many=many, unlabelled=unlabelled))
    if len(content) >= MOST_BYTES:
        raise Refused("too many devices are being forgotten already; try again when that is done")
    replace(version_dir / FILE_NAME, content)
    return asked_ms


def _is_left(keys: str, asked_ms: int, found: Replay) -> bool:
    """Return whether one of some devices is still to be forgotten."""
    return any(
        number_of(key) in found.locations and _time_ms(found, key) <= asked_ms
        for key in each_key(keys)
    )


def _time_ms(found: Replay, key: str) -> int:
    device = found.read(found.locations[number_of(key)])
    return 0 if device is None else max(device.time_ms, device.last_seen_ms)


def _do_at_once(
    version_dir: Path, logs: Path, found: Replay, keys: Sequence[str], asked_ms: int, now_ms: int
) -> bool:
    """Write the journal, where no server does; return whether it is done."""
    try:
        journal = Journal(logs)
    except InUse:
        return False
    devices = ((key, found.read(found.locations[number_of(key)])) for key in keys)
    try:
        _write(journal, logs, ((key, each) for key, each in devices if each), now_ms)
    except OSError as problem:
        log.warning("the next server forgets these devices when it starts: %s", problem)
        return False
    with suppress(BadPolicy, OSError):
        asked = parse_forget_file(read(version_dir, FILE_NAME))
        many = {at_ms: each for at_ms, each in asked.many.items() if at_ms != asked_ms}
        replace(version_dir / FILE_NAME, format_forget_file(asked._replace(many=many)))
    return True


def _ask(version_dir: Path, what: str, time_ms: int, now_ms: int) -> None:
    kept = _still_asked(version_dir, now_ms)
    asked = kept._replace(asked={**kept.asked, what: time_ms})
    replace(version_dir / FILE_NAME, format_forget_file(asked))


def _still_asked(version_dir: Path, now_ms: int) -> ForgetFile:
    """Return what a server may not have seen yet."""
    file = parse_forget_file(read(version_dir, FILE_NAME))
    asked = {
        each: at_ms
        for each, at_ms in file.asked.items()
        if each == UNSEEN or _is_kept(at_ms, now_ms)
    }
    many = {at_ms: keys for at_ms, keys in file.many.items() if _is_kept(at_ms, now_ms)}
    return file._replace(asked=asked, many=many)


def _is_kept(asked_ms: int, now_ms: int) -> bool:
    return -SKEW_MS <= now_ms - asked_ms < _KEPT_MS


def _write(
    journal: Journal, logs: Path, devices: Iterable[tuple[str, Device]], now_ms: int
) -> None:
    try:
        for number, (key, device) in enumerate(devices, start=1):
            journal.append(key, format_record(FORGET, key, device._replace(time_ms=now_ms)))
            if number % _FLUSH_EVERY == 0:
                journal.flush()
        journal.flush()
        if journal.failing:
            raise OSError(28, "the journal cannot be written", str(logs / CURRENT_NAME))
    finally:
        journal.close()
