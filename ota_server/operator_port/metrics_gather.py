"""Finds what metrics are made from: files of rollouts and of the hold, the server's socket. I/O."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ota_server import __version__
from ota_server.device_port.figures import read_figures
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.model.timestamp import parse_time
from ota_server.operations.rollout_words import RESUMING, state_of
from ota_server.operator_port.metrics_input import (
    FleetFigures,
    MetricsInput,
    ProductFigures,
    RolloutFigures,
)
from ota_server.operator_port.process_figures import read_process
from ota_server.policy.hold import current_hold
from ota_server.policy.policy import RolloutState
from ota_server.rollouts.find_rollout import RolloutOnFile, all_rollouts, ended_ms, needs_person
from ota_server.rollouts.keeper import is_attended
from ota_server.system.data_dir import journal_dir, log_dir, product_dir, product_names

# A scrape must not fail because the server is busy for a moment; nor may it wait for long.
_FIGURES_SECONDS = 1.0
_PYTHON = ".".join(map(str, sys.version_info[:3]))


def gather_metrics(
    root: Path, fleets: Mapping[str, FleetFigures], now_ms: int, skipped_lines: int | None = None
) -> MetricsInput:
    """Return what metrics are made from; it takes a second at most if the server does not answer.

    Args:
        root: the data directory of the server.
        fleets: the devices of each product, by its name; one that is missing is not counted yet.
        skipped_lines: as in a `MetricsInput`.
    """
    server = read_figures(journal_dir(root), _FIGURES_SECONDS)
    products = ("", *product_names(root))
    return MetricsInput(
        __version__,
        _PYTHON,
        tuple(product_figures(root, name, fleets.get(name), now_ms) for name in products),
        server,
        None if server is None else read_process(server.pid),
        read_process(os.getpid()),
        skipped_lines,
    )


def product_figures(
    root: Path, name: str, fleet: FleetFigures | None, now_ms: int
) -> ProductFigures:
    """Return what is on file of one product."""
    data_dir = product_dir(root, name)
    held = current_hold(data_dir)
    held_since_ms = 0
    if held is not None:
        with suppress(ValueError):
            held_since_ms = parse_time(held.time)
    return ProductFigures(
        name,
        fleet,
        _rollouts(data_dir, now_ms),
        is_attended(log_dir(data_dir), now_ms),
        held is not None,
        held_since_ms,
    )


def _rollouts(data_dir: Path, now_ms: int) -> tuple[RolloutFigures, ...] | None:
    """Return the last rollout to the fleet and to each group, those that are on first."""
    try:
        found = all_rollouts(data_dir)
    except (OSError, BadPolicy, Refused):
        return None
    found.sort(key=lambda each: (not each.is_on, each.plan.group))
    return tuple(_rollout(data_dir, each, now_ms) for each in found)


def _rollout(data_dir: Path, rollout: RolloutOnFile, now_ms: int) -> RolloutFigures:
    plan, progress = rollout
    return RolloutFigures(
        plan.group,
        plan.version,
        _state(rollout),
        0 if progress is None else progress.wave + 1,
        plan.wave_count,
        {} if progress is None else _counts(progress.counts),
        needs_person(data_dir, rollout),
        ended_ms(data_dir, plan, now_ms),
    )


def _state(rollout: RolloutOnFile) -> str:
    state = state_of(*rollout)
    # It is paused for as long as the controller has not seen that it should go on.
    return RolloutState.PAUSED if state == RESUMING else state


def _counts(counts: Mapping[str, object]) -> dict[str, int]:
    """Return the counts of a file that somebody may have edited."""
    return {name: count for name, count in counts.items() if type(count) is int}
