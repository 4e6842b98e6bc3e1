"""The status of a product for programs, as commands and the API print it. Pure."""

from collections.abc import Mapping
from typing import Any

from ota_server.model.timestamp import format_time
from ota_server.policy.device_state import Condition
from ota_server.policy.fleet_status import DeviceCounts, FleetStatus, RolloutFacts


def status_fields(status: FleetStatus) -> dict[str, Any]:
    """Return a status for programs; sizes in bytes, times RFC 3339."""
    facts = status.facts
    serving, devices = facts.serving, facts.devices
    return {
        "time": format_time(facts.now_ms),
        "needs_person": bool(status.needs_person),
        "warnings": [each._asdict() for each in status.warnings],
        "server": {
            "runs": facts.server.runs,
            "pid": serving.pid or None,
            "since": format_time(serving.since_ms) if serving.since_ms else None,
            "host": serving.host if serving.port else None,
            "port": serving.port or None,
            "quiet_seconds": facts.quiet_ms // 1000,
        },
        "target": facts.target._asdict(),
        "rollouts": [_rollout_fields(each) for each in facts.rollouts],
        "devices": None if devices is None else _device_fields(devices),
        "rejected": dict(zip(("requests", "addresses"), facts.rejected, strict=True)),
        "journal": {
            "size": facts.journal.size,
            "since": None
            if facts.journal.since_ms is None
            else format_time(facts.journal.since_ms),
            "days_kept": facts.journal.days,
        },
        "disks": [each._asdict() for each in facts.disks],
        "hold": None
        if facts.hold is None
        else {name: getattr(facts.hold, name) for name in ("time", "user", "reason")},
    }


def _rollout_fields(rollout: RolloutFacts) -> Mapping[str, Any]:
    fields = rollout._asdict()
    since_ms = fields.pop("since_ms")
    return {**fields, "since": format_time(since_ms)}


def _device_fields(devices: DeviceCounts) -> dict[str, Any]:
    return {
        "total": devices.total,
        "conditions": {str(each): devices.conditions.get(each, 0) for each in Condition},
        "held_back_by": dict(devices.causes),
        "versions": dict(devices.versions),
        "stuck": list(devices.stuck),
        "waiting_to_retry": list(devices.waiting_to_retry),
        "bad_lines": devices.bad_lines,
    }
