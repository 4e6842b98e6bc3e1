"""What an operator's request asks: its path, query, form and JSON, read strictly. Pure."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer
from ota_server.operator_port.authoriser import Operator
from ota_server.operator_port.session_cookie import MOST_FIELDS

_FORM_TYPE = "application/x-www-form-urlencoded"
# The page's script asks so for what is inside <main> alone.
_FRAGMENT = b"x-fragment"


class Malformed(ValueError):
    """A request cannot be read; the message says what is wrong."""


class Asked:
    """One request.

    Attributes:
        parts: what the braces of the route's path stand for.
        operator: who asks.
        last_change: the newest change when the answer began; what comes after may not be in it.
    """

    def __init__(
        self, request: Request, peer: Peer, parts: Mapping[str, str], operator: Operator
    ) -> None:
        self.request = request
        self.peer = peer
        self.parts = parts
        self.operator = operator
        self.last_change = 0

    @property
    def wants_fragment(self) -> bool:
        """Whether only what is inside <main> is wanted."""
        return self.request.get(_FRAGMENT) is not None

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The fields of the query, each with all its values.

        Raises:
            Malformed: it is not UTF-8.
        """
        return _fields(self.request.query)

    def one(self, name: str, default: str = "") -> str:
        """Return the value of a field of the query, the last if there are several."""
        return self.query.get(name, [default])[-1]

    @cached_property
    def form(self) -> dict[str, list[str]]:
        """The fields of a form that was sent.

        Raises:
            Malformed: it is not a form.
        """
        if self.content_type != _FORM_TYPE:
            raise Malformed(f"the body has to be {_FORM_TYPE}")
        return _fields(self.request.body)

    def typed(self, name: str, default: str = "") -> str:
        """Return what was typed into a field of a form, without blanks around it."""
        return self.form.get(name, [default])[-1].strip()

    @cached_property
    def json(self) -> dict[str, Any]:
        """The JSON object that was sent.

        Raises:
            Malformed: it is not one.
        """
        if self.content_type != "application/json":
            raise Malformed("the body has to be application/json")
        try:
            found = json.loads(
                self.request.body.decode("utf-8"),
                parse_constant=_refuse_constant,
                object_pairs_hook=_without_repetition,
            )
            # Half of a character, written as an escape, could be stored nowhere.
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError):
            raise Malformed("the body is not JSON in UTF-8, or has a name twice") from None
        if not isinstance(found, dict):
            raise Malformed("the body is not a JSON object")
        return found

    @property
    def content_type(self) -> str:
        """The type of the body, without parameters."""
        said = self.request.get(b"content-type") or b""
        return said.partition(b";")[0].strip().lower().decode("latin-1")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; nobody knows which of two values with one name is meant."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name occurs twice")
    return fields


def path_segments(path: bytes) -> Sequence[str] | None:
    """Return what stands between the slashes of a path, decoded; None: it is malformed.

    A slash that is encoded is part of its segment.
    """
    try:
        return [unquote_to_bytes(each).decode("utf-8") for each in path[1:].split(b"/")]
    except UnicodeDecodeError:
        return None


def _fields(content: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(
            content.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_FIELDS,
        )
    except ValueError:
        raise Malformed("the fields are not UTF-8 in percent-encoding, or too many") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields
