"""Which files of the policy cannot be used, each by its name. I/O.

`PolicyFiles` reads the same files for decisions, and names in its `problem` only the first one.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ota_server.model.refusal import BadPolicy
from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.fleet_status import FleetWarning
from ota_server.policy.labels import FILE_NAME, parse_labels
from ota_server.policy.parse import (
    parse_group,
    parse_pins,
    parse_retries,
    parse_stopped,
    parse_targets,
)
from ota_server.policy.policy import PINS_NAME, RETRIES_NAME, STOPPED_NAME, TARGETS_NAME
from ota_server.policy.rollout_plan import group_of_plan_name, parse_progress, progress_name
from ota_server.policy.tokens import TOKENS_NAME, parse_tokens
from ota_server.system.files import read

_Parse = Callable[[bytes], object]
_KEPT = "repair it; what it held before applies until the server starts again"
_PARSERS: dict[str, tuple[_Parse, str]] = {
    PINS_NAME: (parse_pins, _KEPT),
    TARGETS_NAME: (parse_targets, _KEPT),
    STOPPED_NAME: (parse_stopped, _KEPT),
    RETRIES_NAME: (parse_retries, _KEPT),
    FILE_NAME: (parse_labels, "repair it; no labels are shown"),
    TOKENS_NAME: (parse_tokens, _KEPT),
}
_REWRITTEN = "the controller writes it again"


def damaged_files(data_dir: Path) -> Iterator[FleetWarning]:
    """Yield a warning for each file in `version/` that is there and cannot be used.

    Not for version.txt and the plans of rollouts: their readers say more.
    """
    folder = data_dir / "version"
    names = _names(folder)
    if names is None:
        yield FleetWarning(
            "policy", f"{folder} is not there, or cannot be read", "is --data-dir right?"
        )
        return
    for name, (parse, remedy) in _PARSERS.items():
        yield from _damage(folder, name, parse, remedy, needs_person=remedy == _KEPT)
    for name in names:
        if (group := group_of_plan_name(name)) is not None:
            yield from _damage(
                folder, progress_name(group), parse_progress, _REWRITTEN, needs_person=False
            )
    groups = folder / GROUPS_FOLDER
    for name in _names(groups) or () if GROUPS_FOLDER in names else ():
        if name.endswith(GROUP_SUFFIX) and not name.startswith("."):
            yield from _damage(groups, name, parse_group, _KEPT, needs_person=True)


def _names(folder: Path) -> list[str] | None:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return None


def _damage(
    folder: Path, name: str, parse: _Parse, remedy: str, needs_person: bool
) -> Iterator[FleetWarning]:
    path = folder / name
    try:
        content = read(folder, name)
        if content or os.path.lexists(path):
            parse(content)
        return
    except BadPolicy as problem:
        text = str(problem)
        text = text if str(path) in text else f"{path} {text}"
    except OSError as problem:
        if name == TOKENS_NAME and isinstance(problem, PermissionError):
            return  # only its owner may read it, which is as it should be
        text = f"{path} cannot be read: {problem.strerror}"
    if text.endswith("move it away"):
        remedy = remedy.removeprefix("repair it; ")
    yield FleetWarning("policy", text, remedy, needs_person)
