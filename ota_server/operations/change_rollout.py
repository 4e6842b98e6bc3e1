"""What an operator does to a rollout that has begun, each with its checks and what came of it. I/O.

Each function takes the group of the rollout, "" for the fleet, None for the one that is on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class RolloutChanged(NamedTuple):
    """What was done to a rollout.

    Attributes:
        text: what was done, in a sentence; commands in backticks.
        warnings: why devices may not notice it now.
        devices: how many devices are taken back; None: it is no revert.
    """

    text: str
    warnings: tuple[str, ...] = ()
    devices: int | None = None


def pause(data_dir: Path, group: str | None) -> RolloutChanged:
    """Have a rollout offer nothing new."""
    raise NotImplementedError


def resume(data_dir: Path, group: str | None) -> RolloutChanged:
    """Have a paused rollout go on."""
    raise NotImplementedError


def change(data_dir: Path, group: str | None, limits: Mapping[str, float]) -> RolloutChanged:
    """Give a rollout other limits while it goes on (`rollout_request.read_limits`)."""
    raise NotImplementedError


def promote(data_dir: Path, group: str | None) -> RolloutChanged:
    """Open the next wave at once, or end the last one."""
    raise NotImplementedError


def abort(data_dir: Path, group: str | None) -> RolloutChanged:
    """End a rollout; devices that have the release stay on it."""
    raise NotImplementedError


def preview_revert(data_dir: Path, group: str | None, is_forced: bool = False) -> RolloutChanged:
    """Return what a revert would do; nothing is changed."""
    raise NotImplementedError


def revert(data_dir: Path, group: str | None, is_forced: bool = False) -> RolloutChanged:
    """Take devices back from a rollout that is on, was aborted or was halted."""
    raise NotImplementedError
