"""What is done to a rollout that has begun, by the API. I/O."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.model.refusal import Refused
from ota_server.operations import change_rollout
from ota_server.operations.change_rollout import RolloutChanged
from ota_server.operations.rollout_facts import ended
from ota_server.operations.rollout_request import read_limits
from ota_server.operator_port.api_operation import Body, Given, Operation, Success, reply
from ota_server.operator_port.api_rollouts import named
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import NotHere, Site

_Change = Callable[[Path, str], RolloutChanged]
_ONE = "/rollouts/{product}/{rollout}"
_DONE = Success(HTTPStatus.OK, "What was done.", reference("RolloutChanged"))


def _do(change: _Change, site: Site, given: Given) -> Reply:
    folder, plan = named(site, given)
    if plan is None:
        if any(each.id == given.path["rollout"] for each in ended(folder, site.now_ms())):
            raise Refused("that rollout is over, and another one has taken its place")
        raise NotHere(f"There was no rollout {given.path['rollout'][:64]}.")
    return reply(change(folder, plan.group)._asdict())


def _change(site: Site, given: Given) -> Reply:
    limits = read_limits(given.body)
    return _do(lambda folder, group: change_rollout.change(folder, group, limits), site, given)


def _revert(site: Site, given: Given) -> Reply:
    is_forced = bool(given.body.get("force"))
    return _do(lambda folder, group: change_rollout.revert(folder, group, is_forced), site, given)


def _operation(name: str, summary: str, change: _Change) -> Operation:
    return Operation(
        "POST",
        f"{_ONE}/{name}",
        Access.ACT,
        f"{name}Rollout",
        summary,
        partial(_do, change),
        _DONE,
    )


OPERATIONS = (
    Operation(
        "PATCH",
        _ONE,
        Access.ACT,
        "changeRollout",
        "Give a rollout other limits while it goes on",
        _change,
        _DONE,
        body=Body(reference("LimitsRequest"), "At least one limit.", example={"max_failures": 5}),
    ),
    _operation("pause", "Have a rollout offer nothing new", change_rollout.pause),
    _operation("resume", "Have a paused rollout go on", change_rollout.resume),
    _operation("promote", "Open the next wave at once, or end the last", change_rollout.promote),
    _operation(
        "abort", "End a rollout; devices that have the release stay on it", change_rollout.abort
    ),
    Operation(
        "POST",
        f"{_ONE}/revert",
        Access.ACT,
        "revertRollout",
        "Take devices back from a rollout",
        _revert,
        _DONE,
        body=Body(
            reference("ForceRequest"),
            "Whether to do so although the image is for other devices.",
            is_required=False,
        ),
    ),
)
