"""The file that says which notices of a product one receiver was told last. I/O.

It holds which step of the last rollout to each group was told, and under `/hold` when the hold
began that was. A journal that fails is not on record: it may be on the same full disk.
"""

import json
import logging
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.policy.rollout_plan import RolloutProgress, parse_progress
from ota_server.system.files import read_if_there, replace

log = logging.getLogger(__name__)

# No group has such a name.
HOLD, JOURNAL = "/hold", "/journal"
_PREFIX = "told_"
_STEP = ("id", "state", "wave", "wave_time", "asks")

# What a notice was about: the step of a rollout, when a hold began ("": none is on), or whether the
# journal is failing.
NoticeState = RolloutProgress | str | bool


class ToldRecord:
    """The file of one receiver, by its key. Not for several threads at once."""

    def __init__(self, log_dir: Path, key: str) -> None:
        self._path = log_dir / (f"{_PREFIX}{key}.json" if key else "told.json")

    def read(self) -> dict[str, NoticeState] | None:
        """Return what was told; None if there is no such file. After damage nothing was told."""
        told: dict[str, NoticeState] = {}
        try:
            content = read_if_there(self._path.parent, self._path.name)
            if content is None:
                return None
            for key, state in parse_object(content).items():
                is_hold = key == HOLD and isinstance(state, str)
                told[key] = state if is_hold else parse_progress(json.dumps(state).encode("ascii"))
        except (BadPolicy, OSError, ValueError) as problem:
            log.warning("%s %s; what is on record is told again", self._path, problem)
            told.clear()
        return told

    def write(self, told: Mapping[str, NoticeState]) -> None:
        """Write what was told."""
        states = {
            key: state if isinstance(state, str) else _step_of(state)
            for key, state in told.items()
            if state and not isinstance(state, bool)
        }
        try:
            replace(self._path, format_object(states))
        except OSError as problem:
            log.warning("%s; what was told may be told again", problem)


def _step_of(progress: RolloutProgress) -> dict[str, object]:
    return {name: getattr(progress, name) for name in _STEP}


def forget_others(log_dir: Path, keys: Collection[str]) -> None:
    """Delete the files of URLs that are told no more, all but those with these keys."""
    kept = {f"{_PREFIX}{key}.json" for key in keys}
    with suppress(OSError):
        for name in os.listdir(log_dir):
            if name.startswith(_PREFIX) and name.endswith(".json") and name not in kept:
                (log_dir / name).unlink()
