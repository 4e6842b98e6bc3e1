"""The words of the API: how names, versions and times are written, and what is sent to it. Pure.

They are JSON Schemas, in OpenAPI and for the check of each request (`schema_check`).
"""

from collections.abc import Mapping
from typing import Any

from ota_server.model.identity import PRODUCT_RULE
from ota_server.model.updater import FAMILY_NAMES
from ota_server.model.version import VERSION_RULE
from ota_server.operations.bulk_edits import BulkAction
from ota_server.operations.device_filter import SORTS, Apart, Stage, word_of
from ota_server.operations.rollout_request import HELD_UNKNOWN
from ota_server.operations.typed_values import (
    MOST_DEVICES,
    MOST_REASON,
)
from ota_server.operator_port.device_query import COUNTED, HELD_BY_WORDS, MOST_ROWS
from ota_server.operator_port.schema_check import Schema, reference
from ota_server.policy.device_state import Condition
from ota_server.policy.rollout_plan import MOST_NOTE, MOST_SECONDS
from ota_server.policy.text import MOST_LABEL

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}(?:/(?:3[0-2]|[12]?[0-9]))?"
_H = "[0-9A-Fa-f]{1,4}"
# Not each way to leave out zeros: those that programs write.
_IPV6_FORMS = (
    f"{_H}(?::{_H}){{7}}",
    f"(?:{_H}:){{1,7}}:",
    f"(?:{_H}:){{1,6}}:{_H}",
    f"(?:{_H}:){{1,4}}(?::{_H}){{2,3}}",
    f"(?:{_H}:){{1,3}}(?::{_H}){{4}}",
    f":(?:(?::{_H}){{1,7}}|:)",
)
_IPV6 = f"(?:{'|'.join(_IPV6_FORMS)})(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"
_PAIR = "[0-9A-Fa-f]{2}"
_MAC_FORMS = (
    f"{_PAIR}(?::{_PAIR}){{5}}",
    f"{_PAIR}(?:-{_PAIR}){{5}}",
    "[0-9A-Fa-f]{12}",
    r"[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2}",
)
_TIME = (
    "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
)
MOST_NAMED = 100_000
MOST_CURSOR = 4096


def _text(least: int, most: int, **more: Any) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": most, **more}


def _patterned(pattern: str, rule: str, example: str, **more: Any) -> dict[str, Any]:
    """Return the schema of a text of a form; `rule` says what it is, for people."""
    return {
        "type": "string",
        "pattern": f"^{pattern}$",
        "x-rule": rule,
        "examples": [example],
        **more,
    }


def _words(kind: type[Condition | Stage | Apart], *others: str) -> dict[str, Any]:
    return {"type": "string", "enum": [*map(word_of, kind), *others]}


def listed(schema: Schema, most: int = 100, least: int = 0) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema, "minItems": least, "maxItems": most}


def an_object(properties: Mapping[str, Schema], *required: str, **more: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others."""
    shape = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    return {**shape, "required": list(required)} if required else shape


# What a device may report as its version.
_REPORTED: Schema = _patterned(
    "[!-~](?:[ -~]{0,62}[!-~])?", "what a device can report: 1 to 64 printable ASCII", "v1.0.0"
)
# Of one field of the query, whose line is bounded.
_MOST_WORDS = 20
FLAG: Schema = {"type": "boolean"}
SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": MOST_SECONDS}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_ROWS}
CURSOR: Schema = _patterned("[A-Za-z0-9_-]+", "a cursor", "WyJhIiwxLDAsImIiXQ") | {
    "maxLength": MOST_CURSOR
}
REASON: Schema = {"type": "string", "maxLength": MOST_REASON}
# What a filter holds, in the query and in JSON: the fields that the page has too.
FILTER: dict[str, Schema] = {
    "text": _text(1, 200),
    "version": listed(_REPORTED, _MOST_WORDS),
    "not_version": listed(_REPORTED, _MOST_WORDS),
    "outdated": FLAG,
    "state": listed(_words(Condition), _MOST_WORDS),
    "stage": _words(Stage),
    "apart": listed(_words(Apart, COUNTED), _MOST_WORDS),
    "family": listed({"type": "string", "enum": list(FAMILY_NAMES)}, _MOST_WORDS),
    "product": reference("ProductName"),
    "group": reference("GroupName"),
    "address": _patterned(
        f"(?:{_IPV4}|{_IPV6})", "an address, or a network such as 192.0.2.0/24", "192.0.2.0/24"
    ),
    "label": _text(1, 64),
    "not_seen": _patterned(
        "(?:[1-9][0-9]{0,3}d|[1-9][0-9]{0,4}h|[1-9][0-9]{0,6}m|[1-9][0-9]{0,7}s)",
        "a duration: a number and s, m, h or d, such as 7d",
        "7d",
    ),
    "overdue": FLAG,
    "target": listed(_REPORTED, _MOST_WORDS),
    "held_by": listed({"type": "string", "enum": list(HELD_BY_WORDS)}, _MOST_WORDS),
}
FILTER_WORDS = {
    "text": "A part of the MAC address or the id, of the label, or of the version.",
    "version": "They report one of these.",
    "not_version": "They report none of these.",
    "outdated": "They do not run what they should, whatever keeps them from it.",
    "state": "They are in one of these states.",
    "stage": "How far they are: told, has it whole, reports it.",
    "apart": "They are left out of the count for one of these reasons; `counted`: for none.",
    "family": "Their updaters are of one of these families.",
    "product": "Of this product; `default` is that of the plain paths.",
    "group": "They are in this group.",
    "address": "Their last address is this one, or in this network.",
    "label": "Their labels hold this text, in any case.",
    "not_seen": "They were not heard from for so long.",
    "overdue": "They were silent for longer than their own rhythm explains.",
    "target": "They were told one of these versions last.",
    "held_by": "They are held back by one of these, in the words of `held_back_by`.",
}
SORT: Schema = {"type": "string", "enum": list(SORTS)}
ORDER: Schema = {"type": "string", "enum": ["asc", "desc"]}

_PERCENT: Schema = {"type": "number", "exclusiveMaximum": 100, "minimum": 0}
_LIMITS: dict[str, Schema] = {
    "max_failures": _PERCENT,
    "soak_seconds": SECONDS,
    "grace_seconds": SECONDS,
}
_KEYS = listed(reference("DeviceKey"), MOST_NAMED, 1)

SCHEMAS: dict[str, Schema] = {
    "ProductName": _patterned("[a-z0-9][a-z0-9_-]{0,31}", f"a product: {PRODUCT_RULE}", "default"),
    "GroupName": _patterned(
        "[a-z][a-z0-9_-]{0,31}", "a group: a letter, then up to 31 of a-z 0-9 _ -", "beta"
    ),
    "Version": _patterned(
        "[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", f"a version: {VERSION_RULE}", "v1.2.0"
    ),
    "DeviceName": _patterned(
        f"(?:{'|'.join(_MAC_FORMS)}|id:[!-~](?:[ -~]{{0,62}}[!-~])?)",
        "a MAC address, or `id:` and what the device calls itself",
        "00:11:22:33:44:55",
    ),
    "DeviceKey": _patterned(
        "(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
        "|(?:[a-z0-9][a-z0-9_-]{0,31})?/[!-~](?:[ -~]{0,62}[!-~])?)",
        "the key of a device, as lists of devices have it",
        "plug/00:11:22:33:44:55",
    ),
    "RolloutId": _patterned("[A-Za-z0-9._-]{1,64}", "the id of a rollout", "3f9a0c51d2e4"),
    "Time": _patterned(
        f"{_TIME}(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])",
        "a time with its offset, such as 2027-01-31T18:00:00Z",
        "2027-01-31T18:00:00Z",
        format="date-time",
    ),
    "DeviceFilter": an_object(FILTER),
    "PinRequest": an_object(
        {
            "version": reference("Version"),
            "until": reference("Time"),
            "force": FLAG,
        },
        "version",
    ),
    "LabelRequest": an_object({"label": _text(1, MOST_LABEL)}, "label"),
    "ForceRequest": an_object({"force": FLAG}),
    "ReasonRequest": an_object({"reason": REASON}),
    "LimitsRequest": an_object(_LIMITS, minProperties=1),
    "RolloutRequest": an_object(
        {
            "version": reference("Version"),
            "group": reference("GroupName"),
            "waves": listed({"type": "number", "minimum": 0.0001, "maximum": 100}, 100, 1),
            "first_group": reference("GroupName"),
            "groups_too": FLAG,
            **_LIMITS,
            "min_devices": {"type": "integer", "minimum": 1, "maximum": MOST_DEVICES},
            "wave_timeout_seconds": SECONDS,
            "held_unknown": {"type": "string", "enum": list(HELD_UNKNOWN)},
            "count_new": FLAG,
            "is_forced": FLAG,
            "note": {"type": "string", "maxLength": MOST_NOTE},
        },
        "version",
    ),
    "BulkRequest": an_object(
        {
            "action": {"type": "string", "enum": [each.value for each in BulkAction]},
            "product": reference("ProductName"),
            "filter": reference("DeviceFilter"),
            "keys": _KEYS,
            "expected": {"type": "integer", "minimum": 0, "maximum": 1_000_000_000},
            "version": reference("Version"),
            "until": reference("Time"),
            "group": reference("GroupName"),
            "label": {"type": "string", "maxLength": MOST_LABEL},
            "force": FLAG,
        },
        "action",
    ),
}
