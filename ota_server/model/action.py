"""One update of a device that reports how it ended: an action, as hawkBit's DDI calls it. Pure.

A device has one action at a time, the newest; it is a part of its record. Its states:

| state     | what it means                                     | the device is pointed at        |
|-----------|---------------------------------------------------|---------------------------------|
| OPEN      | it is on offer, and nothing was heard about it    | the update, if it may have it   |
| BEGUN     | the device has said something about it            | the update, until it is closed  |
| CANCELING | it should not have that release any longer        | the order to cancel             |
| SUCCEEDED | closed: it runs the release                       | what it has installed           |
| FAILED    | closed: it does not                               | nothing                         |
| CANCELED  | the order to cancel was answered, in whatever way | nothing                         |

    none, SUCCEEDED, FAILED, CANCELED → OPEN    it is offered a release: an action with a new id
    OPEN → BEGUN                                progress
    OPEN, BEGUN → CANCELING                     the release was replaced, stopped or withdrawn
    OPEN, BEGUN, CANCELING → SUCCEEDED, FAILED  the update was closed: what became of it counts
    CANCELING → CANCELED                        the order was closed or rejected
    CANCELED → SUCCEEDED, FAILED                the order had come too late: the update was closed
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from ota_server.model.timestamp import format_time, parse_time
from ota_server.model.version import is_version

# Clients read an id as a signed number of 32 bits; old ones of Zephyr cut zeros off its end.
_LEAST_ID, _MOST_ID = 101, 2**31 - 1
# Ids begin with the seconds since 2025, so that a device that was forgotten gets new ones too.
_IDS_SINCE_MS = 1_735_689_600_000
_MOST_ATTRIBUTE = 64
_HOUR_MS = 3_600_000
_LONGEST_WAIT_MS = 24 * _HOUR_MS


class ActionState(Enum):
    """See the table above."""

    OPEN = "open"
    BEGUN = "begun"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class PinnedImage(NamedTuple):
    """The bytes of a release that a device should have."""

    version: str
    sha256: str
    size: int


class Action(NamedTuple):
    """The newest action of a device.

    Attributes:
        first_id: of its first action: those since then are known.
        since_ms: when it came into its state.
        failures: how often the device failed with these bytes, one after the other.
        installed: the version that it last reported to have installed; "": none yet.
        attribute: the version among its attributes since then; "": it has sent none.
    """

    id: int
    first_id: int
    state: ActionState
    image: PinnedImage
    since_ms: int
    failures: int = 0
    installed: str = ""
    attribute: str = ""

    @property
    def is_live(self) -> bool:
        """Whether the device may be at work on it."""
        return self.state in (ActionState.OPEN, ActionState.BEGUN)

    @property
    def has_ended(self) -> bool:
        """Whether the device is done with it."""
        return self.state in (ActionState.SUCCEEDED, ActionState.FAILED, ActionState.CANCELED)

    def knows(self, number: int) -> bool:
        """Return whether a number is the id of this action or of an older one."""
        return self.first_id <= number <= self.id


def offered(action: Action | None, image: PinnedImage, now_ms: int) -> Action:
    """Return the action of a device that is offered an image."""
    if action is not None and action.is_live and action.image == image:
        return action
    number = max(_LEAST_ID, (now_ms - _IDS_SINCE_MS) // 1000 % _MOST_ID)
    number = number if action is None else max(number, action.id + 1)
    number += number % 10 == 0
    if number > _MOST_ID:
        number = _LEAST_ID  # in the year 2093
    is_again = action is not None and action.image.sha256 == image.sha256
    failures = action.failures if action is not None and is_again else 0
    first_id = number if action is None or number < action.first_id else action.first_id
    said = ("", "") if action is None else (action.installed, action.attribute)
    return Action(number, first_id, ActionState.OPEN, image, now_ms, failures, *said)


def not_wanted(action: Action, now_ms: int) -> Action:
    """Return the action of a device that should not have its release any longer."""
    return _into(action, ActionState.CANCELING, now_ms) if action.is_live else action


def fed_back(action: Action, execution: str, finished: str, now_ms: int) -> Action:
    """Return the action after what its device said about it."""
    if execution != "closed":
        is_new = action.state is ActionState.OPEN
        return _into(action, ActionState.BEGUN, now_ms) if is_new else action
    if action.has_ended and action.state is not ActionState.CANCELED:
        return action
    if finished == "failure":
        failed = _into(action, ActionState.FAILED, now_ms)
        return failed._replace(failures=action.failures + 1)
    succeeded = _into(action, ActionState.SUCCEEDED, now_ms)
    return succeeded._replace(failures=0, installed=action.image.version, attribute="")


def cancel_fed_back(action: Action, execution: str, now_ms: int) -> Action:
    """Return the action after what its device said about the order to cancel it."""
    is_end = execution in ("closed", "rejected", "canceled")
    if action.state is not ActionState.CANCELING or not is_end:
        return action
    return _into(action, ActionState.CANCELED, now_ms)


def wait_until_ms(action: Action | None, sha256: str, retry_ms: int | None) -> int:
    """Return when a device that failed with an image may be offered it again; 0: at any time.

    It may try again at once, then after an hour, 2, 4 … 24 hours.

    Args:
        retry_ms: when an operator last ran `retry` for the device.
    """
    if action is None or action.state is not ActionState.FAILED or action.failures < 2:
        return 0
    is_lifted = retry_ms is not None and retry_ms >= action.since_ms
    if action.image.sha256 != sha256 or is_lifted:
        return 0
    return action.since_ms + min(_HOUR_MS << min(action.failures - 2, 5), _LONGEST_WAIT_MS)


def _into(action: Action, state: ActionState, now_ms: int) -> Action:
    return action._replace(state=state, since_ms=now_ms)


def pack_action(action: Action) -> tuple[Any, ...]:
    """Return an action as plain values."""
    state, image = action.state.value, action.image
    sha256 = bytes.fromhex(image.sha256)
    return *action[:2], state, image.version, sha256, image.size, *action[4:]


def unpack_action(packed: tuple[Any, ...]) -> Action:
    """Reverse `pack_action`."""
    number, first, state, version, sha256, size, *rest = packed
    image = PinnedImage(version, sha256.hex(), size)
    return Action(number, first, ActionState(state), image, *rest)


def action_fields(action: Action) -> dict[str, str | int]:
    """Return an action as fields of a record."""
    return {
        "action_id": action.id,
        "action_first_id": action.first_id,
        "action_state": action.state.value,
        "action_version": action.image.version,
        "action_sha256": action.image.sha256,
        "action_size": action.image.size,
        "action_time": format_time(action.since_ms),
        "action_failures": action.failures,
        "action_installed": action.installed,
        "action_attribute": action.attribute,
    }


def action_in(fields: Mapping[str, Any]) -> Action | None:
    """Return the action in a record; None if there is none, or somebody has broken it.

    Such a line is still the newest of its device.
    """
    if "action_id" not in fields:
        return None
    try:
        number, first, size, failures = (
            fields[f"action_{name}"] for name in ("id", "first_id", "size", "failures")
        )
        version, sha256 = fields["action_version"], fields["action_sha256"]
        installed, attribute = fields["action_installed"], fields.get("action_attribute", "")
        is_whole = all(type(each) is int for each in (number, first, size, failures))
        is_whole = is_whole and _LEAST_ID <= first <= number <= _MOST_ID and 0 < size < 10**18
        is_whole = is_whole and 0 <= failures < 10**6 and is_version(version)
        is_whole = is_whole and (installed == "" or is_version(installed))
        is_whole = is_whole and attribute.isascii() and len(attribute) <= _MOST_ATTRIBUTE
        is_whole = is_whole and (attribute == "" or attribute.isprintable())
        if not is_whole or len(bytes.fromhex(sha256)) != 32:
            return None
        image = PinnedImage(version, sha256.lower(), size)
        state, since_ms = ActionState(fields["action_state"]), parse_time(fields["action_time"])
        return Action(number, first, state, image, since_ms, failures, installed, attribute)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
