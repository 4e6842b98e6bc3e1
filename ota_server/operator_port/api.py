"""The API of operators, version 1: all its operations, and its description. I/O."""

import json
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus

import ota_server
from ota_server.httpd.http1 import field_lines
from ota_server.httpd.reply import Reply
from ota_server.operator_port import (
    api_device_changes,
    api_devices,
    api_fleet,
    api_groups,
    api_hold,
    api_publish,
    api_records,
    api_releases,
    api_rollout_changes,
    api_rollouts,
    events,
)
from ota_server.operator_port.api_operation import (
    EVENTS,
    JSON,
    Given,
    Operation,
    QueryField,
    Success,
    route_of,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.openapi import document
from ota_server.operator_port.routes import Route
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import Site
from ota_server.system.hints import hints

_MODULES = (
    *(api_devices, api_device_changes, api_groups, api_rollouts, api_rollout_changes),
    *(api_releases, api_publish, api_hold, api_records, api_fleet),
)


@cache
def _document(reads_openly: bool) -> bytes:
    a_token = hints.paste("A token by `token create NAME`.")
    described = document(OPERATIONS, ota_server.__version__, a_token, reads_openly)
    return json.dumps(described).encode("ascii")


def _describe(site: Site, _given: Given) -> Reply:
    body = _document(site.authoriser.reads_openly)
    fields = field_lines((("Content-Type", JSON), ("Cache-Control", "no-cache")))
    return Reply(HTTPStatus.OK, fields, body, content_length=len(body))


def _follow(site: Site, given: Given) -> Reply:
    return events.follow(site, given.asked)


OPERATIONS: Sequence[Operation] = (
    *(operation for module in _MODULES for operation in module.OPERATIONS),
    Operation(
        "GET",
        "/events",
        Access.READ,
        "followEvents",
        "Follow what changes",
        _follow,
        Success(
            HTTPStatus.OK,
            "Server-sent events, until one side closes.",
            reference("Event"),
            EVENTS,
        ),
        description="At most 32 streams are open at a time. A comment comes every 15 seconds. Who "
        "comes back sends the last id as `Last-Event-ID`, or as `last_event_id` in the query, and "
        "gets what was missed; an event `all` means that everything has to be looked at again.",
        query=(
            QueryField(
                "last_event_id",
                {"type": "string", "pattern": "^[0-9]{1,19}$", "x-rule": "the id of an event"},
                "The id of the last event that was seen.",
            ),
        ),
    ),
    Operation(
        "GET",
        "/openapi.json",
        Access.READ,
        "getOpenApi",
        "Describe this API",
        _describe,
        Success(HTTPStatus.OK, "This document.", reference("OpenApi")),
    ),
)
ROUTES: Sequence[Route] = tuple(map(route_of, OPERATIONS))
