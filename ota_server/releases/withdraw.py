"""Releases that devices shall no longer get: withdrawn, or deleted from the disk."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ota_server.journal.replay import records_with
from ota_server.model.device import RESTART_AFTER_MS
from ota_server.model.manifest import manifest_name
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time, parse_time
from ota_server.model.version import image_name, same_version, signature_name
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
    used_by,
)
from ota_server.system.data_dir import log_dir
from ota_server.system.files import sync_folder
from ota_server.system.locks import locked

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
        audit.note_if_room(log_dir(data_dir), "withdraw", version, reason=reason or None)
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
        audit.note(log_dir(data_dir), "withdraw --undo", version)
        stopped = read_stopped(data_dir)
        entry = stopped_entry(stopped, version) or {}
        stopped = _without(stopped, version)
        if _keeps_devices(entry, version):
            # Otherwise devices that run it well would be taken back to the target at once.
            stopped[version] = {**entry, "state": StoppedState.ABORTED}
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
        audit.note(log_dir(data_dir), "remove", release.version, sha256=sha256)
        firmware = state.firmware_dir
        # The image first: without a manifest it would be served, whatever its bytes are.
        for name in (image_name, signature_name, manifest_name):
            (firmware / name(release.version)).unlink(missing_ok=True)
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
    asked_ms: dict[str, int] = {}
    running: dict[str, int] = {}
    since_ms = now_ms - _LONGEST_DOWNLOAD_MS
    pattern = re.compile(rb'"event":"(?:begin|download)".*"%b"' % sha256.encode("ascii"))
    for fields in records_with(log_dir(data_dir), pattern, since_ms / 1000):
        event, mac = fields.get("event"), str(fields.get("mac"))
        if event == "begin" and fields.get("download_sha256") == sha256:
            with suppress(ValueError):  # an edited line
                asked_ms[mac] = parse_time(str(fields.get("time")))
            if fields.get("method") != "HEAD" and asked_ms.get(mac, 0) >= since_ms:
                running[mac] = running.get(mac, 0) + 1
        elif event == "download" and fields.get("release_sha256") == sha256:
            # A whole one ends all before it: a server that was killed left those without an end.
            is_whole = fields.get("status") == 200 and fields.get("complete") is True
            running[mac] = 0 if is_whole else max(0, running.get(mac, 0) - 1)
    for mac, at_ms in asked_ms.items():
        if now_ms - at_ms < RESTART_AFTER_MS:
            return (
                f"{release.version} is being downloaded: {mac} asked for it at "
                f"{format_time(at_ms)}; try again ten minutes after the last download"
            )
    for mac, count in running.items():
        if count:
            return (
                f"{release.version} is being downloaded by {mac}, which began at "
                f"{format_time(asked_ms[mac])}; try again when that has ended, or a day after it "
                "began if the server was killed meanwhile"
            )
    return ""
