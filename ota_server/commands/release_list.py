"""`release list` and `release show`: what releases there are, as tables and as JSON lines."""

import argparse
import json
from collections.abc import Sequence

from ota_server.commands.common import say, say_hold, warn
from ota_server.commands.terminal import cut, printable, write_table
from ota_server.model.quantity import count_of
from ota_server.model.timestamp import ago
from ota_server.operations.release_facts import (
    ReleaseFacts,
    contents,
    find_release_facts,
    list_releases,
    release_fields,
)
from ota_server.system import clock

_NOTES_COLUMN = 40
_MOST_STRAYS = 3


def list_all(arguments: argparse.Namespace) -> int:
    """Print all releases, the newest first; return the exit code."""
    found = list_releases(arguments.data_dir)
    if found.target_problem:
        warn(f"{found.target_problem}; repair it, or `release activate VERSION` sets a target")
    if arguments.json:
        for release in found.releases:
            print(json.dumps(release_fields(release)))
        return 0
    now_ms = clock.now_ms()
    rows = [_as_row(release, now_ms) for release in found.releases]
    header = ("VERSION", "SIZE", "PUBLISHED", "STATE", "IMAGE", "NOTES")
    write_table(header, rows, cut_first=(5,), wrapped=4)
    print(count_of(len(rows), "release"))
    say_strays(found.strays)
    say_hold(arguments.data_dir)
    return 0


def say_strays(found: Sequence[str]) -> None:
    """Name the files in `firmware/` that are not served, since their names say no version."""
    if not found:
        return
    named = ", ".join(map(printable, found[:_MOST_STRAYS]))
    more = f" and {len(found) - _MOST_STRAYS} more" if len(found) > _MOST_STRAYS else ""
    say(f"not served, by their names: {named}{more}; an image is called firmware_VERSION.bin")


def _as_row(facts: ReleaseFacts, now_ms: int) -> tuple[str, ...]:
    manifest = facts.release.manifest
    return (
        facts.version,
        str(facts.size),
        "by hand" if manifest is None else ago(manifest.time, now_ms),
        ", ".join(facts.states) or "-",
        printable(facts.image or "-"),
        cut(printable(" ".join(manifest.notes.split())), _NOTES_COLUMN) if manifest else "",
    )


def show(arguments: argparse.Namespace) -> int:
    """Print all that is on record of one release; return the exit code."""
    facts = find_release_facts(arguments.data_dir, arguments.version)
    fields = release_fields(facts)
    if arguments.json:
        print(json.dumps(fields))
        return 0
    if facts.release.manifest is not None:
        fields |= dict(contents(facts.release.manifest))
    for name, value in fields.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        if text not in (None, ""):
            line = " ".join(f"{text}{' bytes' * (name == 'size')}".split())
            print(f"{name.replace('_', ' '):<18}{printable(line)}")
    return 0
