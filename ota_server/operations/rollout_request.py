"""What an operator asks for when a rollout is to begin, or to get other limits. Pure.

The same request comes from the command line, from a form and from JSON. The names of the fields of
forms and of JSON are those of `RolloutRequest`; their texts are as on the command line, and numbers
may stand for texts that have a unit: percent and seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ota_server.model.refusal import Misused
from ota_server.operations.typed_values import (
    BadFields,
    BadValue,
    from_number,
    from_switch,
    from_text,
    parse_choice,
    parse_device_count,
    parse_group_name,
    parse_note,
    parse_share,
    parse_time_limit,
    parse_version,
    parse_waves,
    read_fields,
)
from ota_server.policy.rollout_plan import RolloutPlan

HELD_UNKNOWN = ("keep", "target")
_MOST_WAVES = 100  # of a form or JSON; nobody means more
# What a plan has where nobody says anything else.
_DEFAULTS = RolloutPlan._field_defaults
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class RolloutRequest:
    """A rollout that an operator wants; `RolloutPlan` explains the fields that have its names.

    Attributes:
        group: "": it is for the fleet.
        waves: None: those that fit the devices.
        max_failures: in percent.
        is_forced: also an image for another chip or of another project than that of the target.
    """

    version: str
    group: str = ""
    waves: tuple[float, ...] | None = None
    first_group: str | None = None
    groups_too: bool = False
    max_failures: float = _DEFAULTS["max_failures"]
    soak_seconds: float = _DEFAULTS["soak_seconds"]
    grace_seconds: float = _DEFAULTS["grace_seconds"]
    min_devices: int = _DEFAULTS["min_devices"]
    wave_timeout_seconds: float = _DEFAULTS["wave_timeout_seconds"]
    held_unknown: str = HELD_UNKNOWN[0]
    count_new: bool = False
    is_forced: bool = False
    note: str = ""

    def plan(self, rollout_id: str, time: str) -> RolloutPlan:
        """Return the plan of it; without `waves` those are still to be made.

        Args:
            rollout_id: as the plan has it, unique.
            time: when it begins, RFC 3339.

        Raises:
            Misused: two fields do not go together.
        """
        if self.groups_too and self.group:
            raise Misused(
                "--groups-too is for a rollout to the fleet; one to a group reaches only that "
                "group: leave out --groups-too or --group"
            )
        return RolloutPlan(
            id=rollout_id,
            version=self.version,
            group=self.group,
            waves=self.waves or (100.0,),
            time=time,
            instead_of=None,
            first_group=self.first_group,
            max_failures=self.max_failures,
            min_devices=self.min_devices,
            soak_seconds=self.soak_seconds,
            grace_seconds=self.grace_seconds,
            wave_timeout_seconds=self.wave_timeout_seconds,
            held_unknown=self.held_unknown,
            count_new=self.count_new,
            groups_too=self.groups_too,
            note=self.note,
        )


def read_request(fields: Mapping[str, object]) -> RolloutRequest:
    """Return the request in the fields of a form, or of an object of JSON.

    Of those of a form, empty ones count as left out. A first group is empty for none.

    Raises:
        BadFields: the request cannot be used; it says which fields are wrong.
    """
    given = {name: value for name, value in fields.items() if value != ""}
    values = read_fields(given, _READERS)
    if "version" not in values:
        raise BadFields({"version": "say which release"})
    if values.get("groups_too") and values.get("group"):
        raise BadFields({"groups_too": "is for a rollout to the fleet, not for one to a group"})
    return RolloutRequest(**values)


def read_limits(fields: Mapping[str, object]) -> dict[str, float]:
    """Return the limits in fields, by their names in the plan; "" and null are left out.

    Raises:
        BadFields: one cannot be used, or there is none.
    """
    given = {name: value for name, value in fields.items() if value != ""}
    limits = read_fields(given, _LIMITS)
    if not limits:
        raise BadFields({"max_failures": f"give a limit: {', '.join(_LIMITS)}"})
    return limits


def _waves(value: object) -> tuple[float, ...]:
    """Read waves that are a text, or a list of numbers."""
    if not isinstance(value, list):
        value = from_text(str)(value).split(",")
        return parse_waves(",".join(_few(value)))
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in value):
        raise BadValue("is not a list of percentages, such as [1, 10, 50, 100]")
    return parse_waves(",".join(f"{each:.4f}" for each in _few(value)))


def _few(waves: list[_Value]) -> list[_Value]:
    if len(waves) > _MOST_WAVES:
        raise BadValue(f"has {len(waves)} waves: give {_MOST_WAVES} at most")
    return waves


def _count(value: object) -> int:
    """Read a number of devices."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return from_text(parse_device_count)(str(value) if is_whole else value)


_seconds = from_number(parse_time_limit, "s")
_LIMITS: dict[str, Callable[[object], float]] = {
    "max_failures": from_number(parse_share, "%"),
    "soak_seconds": _seconds,
    "grace_seconds": _seconds,
}
_READERS: dict[str, Callable[[object], Any]] = {
    **_LIMITS,
    "version": from_text(parse_version),
    "group": from_text(parse_group_name),
    "waves": _waves,
    "first_group": from_text(parse_group_name),
    "groups_too": from_switch,
    "min_devices": _count,
    "wave_timeout_seconds": _seconds,
    "held_unknown": from_text(parse_choice(*HELD_UNKNOWN)),
    "count_new": from_switch,
    "is_forced": from_switch,
    "note": from_text(parse_note),
}
