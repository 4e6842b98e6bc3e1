"""Releases that devices shall no longer get: withdrawn, or deleted from the disk."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ota_server.journal.record_fields import key_in
from ota_server.journal.replay import records_with
from ota_server.model.device import RESTART_AFTER_MS
from ota_server.model.identity import name_of, product_of
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time, parse_time
from ota_server.model.version import image_name, same_version
from ota_server.policy import audit
from ota_server.policy.policy import StoppedState
from ota_server.policy.targets import read_stopped, stopped_entry, write_stopped
from ota_server.releases.inventory import (
    Release,
    ReportProgress,
    announce,
    digests_of,
    find_release,
    get_release,
    look_at,
    names_beside_image,
    used_by,
)
from ota_server.system.data_dir import journal_dir, log_dir, product_at
from ota_server.system.files import is_full
from ota_server.system.locks import locked
from ota_server.system.new_files import sync_folder

# A begin without an end is from a server that was killed; after this time no device resumes it.
_LONGEST_DOWNLOAD_MS = 24 * 3600 * 1000


def withdraw(data_dir: Path, version: str, reason: str, now_ms: int) -> str:
    """Stop offering a release to any device; devices that run it stay on it.

    Returns:
        Its version, as it was published.

    Raises:
        Refused: there is no such release, or it is already withdrawn.
        Busy: another command takes too long.
        OSError: something cannot be read or written.
    """
    with locked(data_dir):
        state = look_at(data_dir)
        version = get_release(data_dir, version).version
        if state.policy.is_withdrawn(version):
            raise Refused(f"{version} is already withdrawn; there is nothing to do")
        stopped = _without(read_stopped(data_dir), version)
        stopped[version] = {
            "state": StoppedState.WITHDRAWN,
            # Its devices stay on it while that is the target. If it is the target itself, that is
            # until there is another; if the target is not known, until one is activated.
            "instead_of": state.target,
            "group_targets": dict(state.policy.group_targets),
            "reason": reason,
            "time": format_time(now_ms),
        }
        with audit.noted(log_dir(data_dir), "withdraw", version, is_full, reason=reason or None):
            write_stopped(data_dir, stopped)
    return version


def reinstate(data_dir: Path, version: str) -> str:
    """Undo `withdraw`; devices that run it stay on it until they have another target.

    Raises:
        Refused: it was not withdrawn.
        Busy, OSError: as `withdraw`.
    """
    with locked(data_dir):
        state = look_at(data_dir)
        release = find_release(data_dir / "firmware", version)
        version = version if release is None else release.version
        if not state.policy.is_withdrawn(version):
            raise Refused(f"{version} was not withdrawn; `release list` shows what was")
        stopped = read_stopped(data_dir)
        entry = stopped_entry(stopped, version) or {}
        stopped = _without(stopped, version)
        if _keeps_devices(entry, version):
            # Otherwise devices that run it well would be taken back to the target at once.
            stopped[version] = {**entry, "state": StoppedState.ABORTED}
        with audit.noted(log_dir(data_dir), "withdraw --undo", version):
            write_stopped(data_dir, stopped)
    return version


def _keeps_devices(entry: Mapping[str, Any], version: str) -> bool:
    """Return whether devices stay on a stopped release while another one is the target."""
    targets = (entry.get("instead_of"), *entry.get("group_targets", {}).values())
    return any(target is None or not same_version(target, version) for target in targets)


def remove(data_dir: Path, version: str, now_ms: int, progress: ReportProgress) -> str:
    """Delete the files of a release that is not in use; return its version.

    Args:
        progress: is told how many bytes of an image without a manifest are hashed.

    Raises:
        Refused: it is in use; the message says by what.
        Busy: another command takes too long.
        OSError: something cannot be read or deleted.
    """
    # This takes long if the journal is large, and `hold` must not wait for the lock.
    busy = _download_of(data_dir, get_release(data_dir, version), now_ms, progress)
    if busy:
        raise Refused(busy)
    with locked(data_dir):
        state = look_at(data_dir)
        if state.target_problem:
            raise Refused(
                f"version.txt {state.target_problem}, so the server's last good target may be "
                "any release; run `release activate VERSION` first"
            )
        release = get_release(data_dir, version)
        names = list(used_by(release.version, state, now_ms))
        if names:
            raise Refused(f"{release.version} is in use: it is {', '.join(names)}")
        sha256 = release.manifest.sha256 if release.manifest else None
        firmware = state.firmware_dir
        # A full disk must not prevent what makes room on it.
        with audit.noted(log_dir(data_dir), "remove", release.version, is_full, sha256=sha256):
            # The image first: without a manifest it would be served, whatever its bytes are.
            for name in (image_name(release.version), *names_beside_image(release.version)):
                (firmware / name).unlink(missing_ok=True)
        sync_folder(firmware)
        announce(data_dir)
    return release.version


def _without(stopped: dict[str, dict[str, Any]], version: str) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in stopped.items() if not same_version(name, version)}


def _download_of(data_dir: Path, release: Release, now_ms: int, progress: ReportProgress) -> str:
    """Return which device downloads a release, or recently did; "": no device."""
    if release.manifest is not None:
        sha256 = release.manifest.sha256
    elif release.image is not None:
        sha256 = digests_of(release.image, progress).sha256
    else:
        return ""
    product = product_at(data_dir)
    asked_ms: dict[str, int] = {}
    running: dict[str, int] = {}
    since_ms = now_ms - _LONGEST_DOWNLOAD_MS
    pattern = re.compile(rb'"event":"(?:begin|download)".*"%b"' % sha256.encode("ascii"))
    for fields in records_with(journal_dir(data_dir), pattern, since_ms / 1000):
        event, key = fields.get("event"), key_in(fields)
        if key is None or product_of(key) != product:
            continue
        mac = name_of(key)
        if event == "begin" and fields.get("download_sha256") == sha256:
            with suppress(ValueError):  # an edited line
                asked_ms[mac] = parse_time(str(fields.get("time")))
            # Not by a clock that was ahead: that would be under way until then.
            is_recent = since_ms <= asked_ms.get(mac, 0) <= now_ms
            if fields.get("method") != "HEAD" and is_recent:
                running[mac] = running.get(mac, 0) + 1
        elif event == "download" and fields.get("release_sha256") == sha256:
            # A whole one ends all before it: a server that was killed left those without an end.
            # Nor does its device come back for the rest, as it does after one that broke off.
            if fields.get("status") == 200 and fields.get("complete") is True:
                running.pop(mac, None)
                asked_ms.pop(mac, None)
            else:
                running[mac] = max(0, running.get(mac, 0) - 1)
    for mac, at_ms in asked_ms.items():
        if 0 <= now_ms - at_ms < RESTART_AFTER_MS:
            return (
                f"{release.version} is being downloaded: {mac} asked for it at "
                f"{format_time(at_ms)}, and may come for the rest; try again "
                f"{RESTART_AFTER_MS // 60_000} minutes after that"
            )
    for mac, count in running.items():
        if count:
            return (
                f"{release.version} is being downloaded by {mac}, which began at "
                f"{format_time(asked_ms[mac])}; try again when that has ended, or a day after it "
                "began if the server was killed meanwhile"
            )
    return ""
