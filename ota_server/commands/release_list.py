"""`release list` and `release show`: what releases there are, as tables and as JSON lines."""

import argparse
import json
import re
from pathlib import Path

from ota_server.commands.common import warn
from ota_server.commands.terminal import cut, printable, write_table
from ota_server.model.timestamp import ago
from ota_server.model.version import meaning, same_version
from ota_server.policy.policy import StoppedState
from ota_server.policy.targets import read_stopped, stopped_entry
from ota_server.releases.header import describe
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

_NOTES_COLUMN = 40


def list_all(arguments: argparse.Namespace) -> int:
    """Print all releases, the newest first; return the exit code."""
    state = look_at_releases(arguments.data_dir)
    if state.target_problem:
        warn(f"version.txt {state.target_problem}; `release activate VERSION` writes it again")
    found = sorted(releases(arguments.data_dir), key=_order, reverse=True)
    if arguments.json:
        for release in found:
            print(json.dumps(_as_fields(release, state)))
        return 0
    now_ms = clock.now_ms()
    rows = [_as_row(release, state, now_ms) for release in found]
    write_table(("VERSION", "SIZE", "PUBLISHED", "STATE", "IMAGE", "NOTES"), rows, cut_first=(5,))
    print(f"{len(rows)} release{'' if len(rows) == 1 else 's'}")
    return 0


def _as_row(release: Release, state: DataDirState, now_ms: int) -> tuple[str, ...]:
    manifest = release.manifest
    size = release.image.signature.size if release.image else manifest.size if manifest else 0
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
    parts = re.findall(r"(\d*)(\D*)", release.version)
    return time_text, [(int(digits or 0), text) for digits, text in parts]


def _states(release: Release, state: DataDirState) -> list[str]:
    """Return the states of a release, as the table shows them."""
    version, policy, manifest = release.version, state.policy, release.manifest
    stopped = policy.stopped.get(meaning(version))
    rollouts = policy.rollouts.values()
    is_altered = (
        manifest is not None
        and release.image is not None
        and release.image.signature.size != manifest.size
    )
    said = {
        "target": state.target is not None and same_version(state.target, version),
        "previous": state.previous is not None and same_version(state.previous, version),
        "rollout": any(same_version(rollout.version, version) for rollout in rollouts),
        StoppedState.WITHDRAWN: stopped is not None and stopped.is_withdrawn,
        StoppedState.ABORTED: stopped is not None and not stopped.is_withdrawn,
        "no image": release.image is None,
        "bad manifest": bool(release.problem),
        "altered": is_altered,
    }
    return [state for state, is_so in said.items() if is_so]


def _described(release: Release) -> str | None:
    if release.manifest is not None:
        return release.manifest.image
    header = header_of(release.image) if release.image is not None else None
    return None if header is None else describe(header)


def _as_fields(release: Release, state: DataDirState) -> dict[str, object]:
    manifest = release.manifest
    fields: dict[str, object] = {} if manifest is None else manifest._asdict()
    return {
        **fields,
        "version": release.version,
        "size": release.image.signature.size if release.image else None,
        "time": None if manifest is None else manifest.time,
        "image": _described(release),
        "signature": None if release.signature is None else Path(release.signature.path).name,
        "states": _states(release, state),
        "named_by": list(used_by(release.version, state, clock.now_ms())),
        "problem": release.problem or None,
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
    state = look_at_releases(arguments.data_dir)
    release = get_release(arguments.data_dir, arguments.version)
    fields = _as_fields(release, state)
    if arguments.json:
        print(json.dumps(fields))
        return 0
    for name, value in fields.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        if text not in (None, ""):
            line = " ".join(str(text).split())
            print(f"{name.replace('_', ' '):<18}{printable(line)}")
    return 0
