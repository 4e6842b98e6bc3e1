"""`release list` and `release show`: what releases there are, as tables and as JSON lines."""

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ota_server.commands.common import say, say_hold, warn
from ota_server.commands.terminal import cut, printable, write_table
from ota_server.device_port.admission_status import read_server_state
from ota_server.model.image_header import describe
from ota_server.model.manifest import Manifest, version_of_manifest_name
from ota_server.model.parts import Part, version_of_part_name
from ota_server.model.quantity import count_of
from ota_server.model.timestamp import ago, format_time
from ota_server.model.version import image_name, meaning, same_version, version_of_image_name
from ota_server.policy.gather import gather_fleet
from ota_server.policy.policy import Policy, StoppedState
from ota_server.policy.targets import read_stopped, stopped_entry
from ota_server.releases.inventory import (
    DataDirState,
    Release,
    get_release,
    header_of,
    look_at_releases,
    releases,
    used_by,
)
from ota_server.system import clock
from ota_server.system.data_dir import access_problem, log_dir

_NOTES_COLUMN = 40
_MOST_STRAYS = 3


def list_all(arguments: argparse.Namespace) -> int:
    """Print all releases, the newest first; return the exit code."""
    state = _look(arguments.data_dir)
    if state.target_problem:
        warn(f"{state.target_problem}; repair it, or `release activate VERSION` sets a target")
    found = sorted(releases(arguments.data_dir), key=_order, reverse=True)
    if arguments.json:
        for release in found:
            print(json.dumps(_as_fields(release, state)))
        return 0
    now_ms = clock.now_ms()
    rows = [_as_row(release, state, now_ms) for release in found]
    header = ("VERSION", "SIZE", "PUBLISHED", "STATE", "IMAGE", "NOTES")
    write_table(header, rows, cut_first=(5,), wrapped=4)
    print(count_of(len(rows), "release"))
    say_strays(arguments.data_dir)
    say_hold(arguments.data_dir)
    return 0


def _look(data_dir: Path) -> DataDirState:
    """Return the state of a data directory with what the running server knows of it.

    Its `target` is the one in force, and `target_problem` says why that is not what version.txt
    says, or why its image cannot be served.
    """
    state = look_at_releases(data_dir)
    fleet = gather_fleet(data_dir, clock.now_ms(), read_server_state(log_dir(data_dir)))
    is_asked = bool(state.target or state.target_problem)  # a missing version.txt asks for nothing
    return state._replace(
        policy=fleet.policy,
        target=None if fleet.target is None else fleet.target.version,
        target_problem=fleet.target_problem if is_asked else "",
    )


def _strays(folder: Path) -> list[str]:
    """Return the names of files in `firmware/` that belong to no release, such as v1.3.0.bin."""
    return sorted(
        each.name
        for each in os.scandir(folder)
        if not each.name.startswith(".")
        and each.is_file()
        and version_of_manifest_name(each.name) is None
        and not _is_part(folder, each.name)
        and not any(version_of_image_name(each.name.removesuffix(end)) for end in ("", ".sig"))
    )


def _is_part(folder: Path, name: str) -> bool:
    """Return whether this is a part of a release that is there."""
    version = version_of_part_name(name)
    return version is not None and os.path.lexists(folder / image_name(version))


def say_strays(data_dir: Path) -> None:
    """Name the files in `firmware/` that are not served, since their names say no version."""
    found = _strays(data_dir / "firmware")
    if not found:
        return
    named = ", ".join(map(printable, found[:_MOST_STRAYS]))
    more = f" and {len(found) - _MOST_STRAYS} more" if len(found) > _MOST_STRAYS else ""
    say(f"not served, by their names: {named}{more}; an image is called firmware_VERSION.bin")


def _as_row(release: Release, state: DataDirState, now_ms: int) -> tuple[str, ...]:
    manifest = release.manifest
    size = release.image.stamp.size if release.image else manifest.size if manifest else 0
    return (
        release.version,
        str(size),
        "by hand" if manifest is None else ago(manifest.time, now_ms),
        ", ".join(_states(release, state)) or "-",
        printable(_described(release) or "-"),
        cut(printable(" ".join(manifest.notes.split())), _NOTES_COLUMN) if manifest else "",
    )


def _order(release: Release) -> tuple[str, list[tuple[int, str]]]:
    """Return the sort key of a release: its time, then the numbers in its version."""
    time_text = "" if release.manifest is None else release.manifest.time
    if release.manifest is None and release.image is not None:  # copied in by hand
        time_text = format_time(release.image.stamp.modified_ns // 1_000_000)
    parts = re.findall(r"(\d*)(\D*)", release.version)
    return time_text, [(int(digits or 0), text) for digits, text in parts]


def _states(release: Release, state: DataDirState) -> list[str]:
    """Return the states of a release, as the table shows them."""
    version, policy, manifest = release.version, state.policy, release.manifest
    stopped = policy.stopped.get(meaning(version))
    rollouts = policy.rollouts.values()
    is_target = state.target is not None and same_version(state.target, version)
    is_altered = (
        manifest is not None
        and release.image is not None
        and release.image.stamp.size != manifest.size
    )
    said = {
        "target": is_target,
        "previous": not is_target
        and state.previous is not None
        and same_version(state.previous, version),
        "rollout": any(same_version(rollout.version, version) for rollout in rollouts),
        StoppedState.WITHDRAWN: stopped is not None and stopped.is_withdrawn,
        StoppedState.ABORTED: stopped is not None and not stopped.is_withdrawn,
        "no image": release.image is None,
        "bad manifest": bool(release.problem),
        "altered": is_altered,
        "unreadable": release.image is not None
        and bool(access_problem(state.data_dir, release.image.path)),
        "not served": meaning(version) in policy.unserved,
        "target of group": any(
            same_version(each, version) for each in policy.group_targets.values()
        ),
        "pinned": _is_pinned(version, policy),
    }
    return [state for state, is_so in said.items() if is_so]


def _is_pinned(version: str, policy: Policy) -> bool:
    now_ms = clock.now_ms()
    return any(
        same_version(pin.version, version) and (pin.until_ms is None or pin.until_ms > now_ms)
        for pin in (*policy.pins.values(), *policy.group_pins.values())
    )


def _described(release: Release) -> str | None:
    if release.manifest is not None:
        described = release.manifest.image
    else:
        header = header_of(release.image) if release.image is not None else None
        described = None if header is None else describe(header)
    if Part.FILESYSTEM in release.parts:
        return f"{described or 'image'} + file system"
    return described


def contents(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what a release holds besides its image, or in it, in words."""
    for part in Part:
        record = manifest.part(part)
        if record is not None:
            yield part.value, f"{record.size} bytes, SHA-256 {record.sha256}"
    if manifest.files:
        yield "files", ", ".join(each.path for each in manifest.files)


def _as_fields(release: Release, state: DataDirState) -> dict[str, object]:
    manifest = release.manifest
    fields: dict[str, object] = (
        {} if manifest is None else {**manifest._asdict(), **manifest.as_fields()}
    )
    return {
        **fields,
        "version": release.version,
        "size": release.image.stamp.size if release.image else None,
        "time": None if manifest is None else manifest.time,
        "image": _described(release),
        "signature": None if release.signature is None else Path(release.signature.path).name,
        "states": _states(release, state),
        "named_by": list(used_by(release.version, state, clock.now_ms())),
        "problem": release.problem or state.policy.unserved.get(meaning(release.version)),
        **_withdrawal(release, state),
    }


def _withdrawal(release: Release, state: DataDirState) -> dict[str, object]:
    """Return why and when a release was withdrawn; None for both if it was not."""
    entry = stopped_entry(read_stopped(state.data_dir), release.version)
    if entry is None or entry["state"] != StoppedState.WITHDRAWN:
        entry = {}
    return {
        "withdrawn_reason": entry.get("reason") or None,
        "withdrawn_time": entry.get("time"),
    }


def show(arguments: argparse.Namespace) -> int:
    """Print all that is on record of one release; return the exit code."""
    state = _look(arguments.data_dir)
    release = get_release(arguments.data_dir, arguments.version)
    fields = _as_fields(release, state)
    if arguments.json:
        print(json.dumps(fields))
        return 0
    if release.manifest is not None:
        fields |= dict(contents(release.manifest))
    for name, value in fields.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        if text not in (None, ""):
            line = " ".join(f"{text}{' bytes' * (name == 'size')}".split())
            print(f"{name.replace('_', ' '):<18}{printable(line)}")
    return 0
