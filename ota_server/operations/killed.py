"""What a process that was killed in the middle of a change has left, deleted at a start. I/O.

Each change is whole or not made: a file is replaced by one that is written beside it first, and an
image is a release only once it is whole. What is left is such a file that nobody needs.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.labels import FILE_NAME as LABELS_NAME
from ota_server.policy.policy import (
    HOLD_NAME,
    PINS_NAME,
    RETRIES_NAME,
    STOPPED_NAME,
    TARGETS_NAME,
)
from ota_server.policy.targets import VERSION_NAME
from ota_server.releases.leftovers import clear_leftovers
from ota_server.system.files import clear_unfinished
from ota_server.system.locks import Busy, locked

log = logging.getLogger(__name__)

# Whoever replaces one of these holds the lock.
_NAMES = (HOLD_NAME, PINS_NAME, RETRIES_NAME, STOPPED_NAME, TARGETS_NAME, VERSION_NAME, LABELS_NAME)
_PLANS, _GROUPS = ".rollout*.json.new", f".*{GROUP_SUFFIX}.new"


def clear_killed(data_dir: Path) -> None:
    """Delete what killed processes left of uploads, publications and edits of a product."""
    try:
        with locked(data_dir, wait_seconds=0.0):
            for path in _edited(data_dir / "version"):
                clear_unfinished(path)
            clear_leftovers(data_dir / "firmware")
    except FileNotFoundError:
        return  # no release yet
    except (Busy, OSError) as problem:
        log.info("leftovers in %s stay until the next publication: %s", data_dir, problem)


def _edited(version_dir: Path) -> Iterator[Path]:
    yield from (version_dir / name for name in _NAMES)
    # What was not finished the first time has no other file.
    unfinished = *version_dir.glob(_PLANS), *(version_dir / GROUPS_FOLDER).glob(_GROUPS)
    for path in unfinished:
        yield path.with_name(path.name.removeprefix(".").removesuffix(".new"))
