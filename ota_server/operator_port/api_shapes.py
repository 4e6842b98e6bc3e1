"""What the API answers with: the shapes of devices, releases, rollouts and the rest. Pure.

Programs that are made from OpenAPI read these. A reply may come to hold more than they say.
"""

from collections.abc import Mapping
from typing import Any

from ota_server.operations.device_filter import Apart, Stage, word_of
from ota_server.operator_port.changes import KINDS
from ota_server.operator_port.schema_check import Schema, reference
from ota_server.policy.device_state import Condition

TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
WHOLE: Schema = {"type": "integer"}
MAYBE_WHOLE: Schema = {"type": ["integer", "null"]}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
MAYBE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COUNTS: Schema = {"type": "object", "additionalProperties": WHOLE}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}


def shape(properties: Mapping[str, Schema], **more: Any) -> dict[str, Any]:
    """Return the schema of an object that has all of these."""
    return {"type": "object", "properties": properties, "required": [*properties], **more}


def page_of(name: str, items: str, **more: Schema) -> dict[str, Any]:
    """Return the schema of a part of a list.

    Args:
        name: under which the items stand.
        items: the name of their schema.
    """
    listed: Schema = {"type": "array", "items": reference(items)}
    return shape({name: listed, **more, "next": MAYBE_TEXT})


def _word(kind: type[Condition | Stage | Apart], *others: None) -> dict[str, Any]:
    words: list[str | None] = [word_of(each) for each in kind]
    return {"enum": [*words, *others]}


_PIN: dict[str, Schema] = {
    "product": TEXT,
    "mac": MAYBE_TEXT,
    "group": MAYBE_TEXT,
    "version": TEXT,
    "until": MAYBE_TIME,
}
_DEVICE: dict[str, Schema] = {
    "key": TEXT,
    "url": TEXT,
    "mac": TEXT,
    "product": TEXT,
    "label": MAYBE_TEXT,
    "firmware_version": TEXT,
    "target_version": MAYBE_TEXT,
    "release": MAYBE_TEXT,
    "last_seen_time": TIME,
    "update_time": MAYBE_TIME,
    "first_seen_time": MAYBE_TIME,
    "address": TEXT,
    "family": TEXT,
    "groups": TEXTS,
    "state": _word(Condition),
    "state_since": TIME,
    "reason": TEXT,
    "stage": _word(Stage),
    "apart": _word(Apart, None),
    "pinned": FLAG,
    "outdated": FLAG,
    "overdue": FLAG,
    "interval_seconds": NUMBER,
}
_ROLLOUT: dict[str, Schema] = {
    "id": TEXT,
    "url": TEXT,
    "product": TEXT,
    "group": TEXT,
    "version": TEXT,
    "title": TEXT,
    "state": TEXT,
    "reason": TEXT,
    "start_time": TIME,
    "end_time": MAYBE_TIME,
    "counts": COUNTS,
    "note": TEXT,
}

SHAPES: dict[str, Schema] = {
    "Problem": {
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": TEXT,
            "status": WHOLE,
            "detail": TEXT,
            "errors": {
                "type": "array",
                "items": shape({"pointer": TEXT, "detail": TEXT}),
                "description": "The parts of the request that are wrong, by JSON Pointers.",
            },
        },
        "required": ["title", "status", "detail"],
    },
    "Device": shape(_DEVICE),
    "DevicePage": page_of(
        "devices", "Device", previous=MAYBE_TEXT, total=WHOLE, total_is_exact=FLAG
    ),
    "DeviceDetail": shape({**_DEVICE, "explanation": reference("Explanation")}),
    "Explanation": {
        "type": "object",
        "description": "What it gets, and why, as `why MAC --json` has it.",
        "properties": {
            "sentence": TEXT,
            "target_version": MAYBE_TEXT,
            "release": MAYBE_TEXT,
            "reason": TEXT,
            "rule": TEXT,
            "rollouts": OBJECTS,
        },
        "required": ["sentence", "target_version", "reason", "rule"],
    },
    "HistoryEntry": {
        "type": "object",
        "description": "A record, or several checks that say the same.",
        "properties": {
            "time": TIME,
            "last_time": TIME,
            "event": TEXT,
            "checks": WHOLE,
            "what": TEXT,
        },
        "required": ["time", "last_time", "event", "checks", "what"],
    },
    "HistoryPage": page_of("entries", "HistoryEntry"),
    "DeviceRollouts": shape(
        {
            "rollouts": {
                "type": "array",
                "items": shape(
                    {"id": TEXT, "title": TEXT, "state": TEXT, "counts_as": TEXT, "reason": TEXT}
                ),
            }
        }
    ),
    "Changed": {
        "type": "object",
        "properties": {
            "changed": {**WHOLE, "description": "How many devices were changed."},
            "already": {**WHOLE, "description": "How many were so already."},
            "is_done": {**FLAG, "description": "False: the server does the rest in a moment."},
            "warnings": TEXTS,
        },
        "required": ["changed", "already", "is_done", "warnings"],
    },
    "BulkPreview": shape(
        {
            "named": WHOLE,
            "changing": WHOLE,
            "already": WHOLE,
            "not_on_record": WHOLE,
            "warnings": TEXTS,
        }
    ),
    "Release": {
        "type": "object",
        "description": "A release, with all that its manifest has.",
        "properties": {
            "url": TEXT,
            "product": TEXT,
            "version": TEXT,
            "size": MAYBE_WHOLE,
            "time": MAYBE_TIME,
            "image": MAYBE_TEXT,
            "sha256": TEXT,
            "states": TEXTS,
            "named_by": TEXTS,
            "problem": MAYBE_TEXT,
            "withdrawn_reason": MAYBE_TEXT,
            "withdrawn_time": MAYBE_TIME,
            "devices_running": MAYBE_WHOLE,
            "devices_told": MAYBE_WHOLE,
        },
        "required": ["url", "product", "version", "size", "time", "states", "named_by"],
    },
    "ReleaseList": shape({"releases": {"type": "array", "items": reference("Release")}}),
    "Published": shape({"release": reference("Release"), "lines": TEXTS, "warnings": TEXTS}),
    "ReleaseChanged": shape({"version": TEXT, "lines": TEXTS, "warnings": TEXTS}),
    "Rollout": shape(_ROLLOUT),
    "RolloutDetail": shape(
        {
            **_ROLLOUT,
            "is_on": FLAG,
            "needs_person": FLAG,
            "advice": TEXTS,
            "limits": TEXT,
            "warnings": TEXTS,
            "remarks": TEXTS,
            "waves": OBJECTS,
            "plan": OBJECT,
            "can": TEXTS,
        }
    ),
    "RolloutPage": page_of("rollouts", "Rollout"),
    "RolloutDevices": shape(
        {"title": TEXT, "devices": {"type": ["array", "null"], "items": OBJECT}, "more": WHOLE}
    ),
    "RolloutPreview": shape(
        {
            "plan": OBJECT,
            "waves": OBJECTS,
            "devices": WHOLE,
            "inactive": WHOLE,
            "new": WHOLE,
            "left_alone": OBJECTS,
            "waits_for": TEXTS,
            "warnings": TEXTS,
        }
    ),
    "RolloutChanged": shape({"text": TEXT, "warnings": TEXTS}),
    "Group": shape(
        {
            "product": TEXT,
            "group": TEXT,
            "devices": WHOLE,
            "pin": MAYBE_TEXT,
            "pin_until": MAYBE_TIME,
            "target_version": MAYBE_TEXT,
        }
    ),
    "GroupList": shape(
        {"groups": {"type": "array", "items": reference("Group")}, "problems": TEXTS}
    ),
    "GroupDetail": shape(
        {
            "product": TEXT,
            "group": TEXT,
            "devices": WHOLE,
            "pin": MAYBE_TEXT,
            "pin_until": MAYBE_TIME,
            "target_version": MAYBE_TEXT,
            "members": TEXTS,
            "next": MAYBE_TEXT,
        }
    ),
    "Pin": shape(_PIN),
    "PinOfGroup": shape({**_PIN, "warnings": TEXTS}),
    "PinPage": page_of("pins", "Pin"),
    "Label": shape({"product": TEXT, "mac": TEXT, "label": TEXT}),
    "LabelPage": page_of("labels", "Label"),
    "Hold": shape(
        {
            "product": TEXT,
            "time": MAYBE_TIME,
            "user": MAYBE_TEXT,
            "reason": MAYBE_TEXT,
            "what": TEXT,
        }
    ),
    "HoldList": shape(
        {"holds": {"type": "array", "items": reference("Hold")}, "lines": TEXTS, "is_all": FLAG}
        | {"warnings": TEXTS}
    ),
    "AuditEntry": {
        "type": "object",
        "properties": {"time": TEXT, "user": TEXT, "action": TEXT, "what": TEXT},
        "required": ["time"],
    },
    "AuditPage": page_of("entries", "AuditEntry"),
    "RejectedEntry": shape(
        {
            "time": TEXT,
            "first_time": TEXT,
            "address": TEXT,
            "reason": TEXT,
            "mac": MAYBE_TEXT,
            "count": WHOLE,
        }
    ),
    "RejectedPage": shape({"entries": {"type": "array", "items": reference("RejectedEntry")}}),
    "Product": shape({"product": TEXT, "target": MAYBE_TEXT, "releases": WHOLE, "devices": WHOLE}),
    "ProductList": shape({"products": {"type": "array", "items": reference("Product")}}),
    "Status": shape(
        {
            "time": TIME,
            "needs_person": FLAG,
            "products": {
                "type": "array",
                "items": shape(
                    {
                        "product": TEXT,
                        "needs_person": FLAG,
                        "warnings": OBJECTS,
                        "target": OBJECT,
                        "rollouts": OBJECTS,
                        "devices": OBJECT,
                    }
                ),
            },
        }
    ),
    "Event": {
        "type": "object",
        "description": "Something has changed: look at it again.",
        "properties": {
            "id": {**TEXT, "description": "For `Last-Event-ID`."},
            "event": {"type": "string", "enum": list(KINDS)},
            "data": {
                **TEXT,
                "contentMediaType": "application/json",
                "contentSchema": {
                    "type": "object",
                    "properties": {
                        "kind": {"type": "string", "enum": list(KINDS)},
                        "product": TEXT,
                        "total": WHOLE,
                        "new": {"type": "array", "items": shape({"product": TEXT, "mac": TEXT})},
                    },
                    "required": ["kind"],
                },
            },
            "retry": WHOLE,
        },
    },
    "OpenApi": {"type": "object", "required": ["openapi", "info", "paths"]},
}
