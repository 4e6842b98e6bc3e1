"""What the API can be asked for: each operation with all that is checked, and said, about it. I/O.

An `Operation` is one row that makes both the route and its description in OpenAPI. A request is
checked against it, in this order; then `answer` gets what it asks for as values:

| what | if it does not fit |
|---|---|
| the field Accept | 406 |
| what stands in braces in the path | 404: nothing has such a name |
| the query | 400 |
| the type of the body | 415 |
| the body is JSON | 400 |
| the body fits its schema | 422 |
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from ota_server.httpd.reply import Reply
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations.device_filter import BadCursor
from ota_server.operations.typed_values import BadFields, BadValue
from ota_server.operations.uploads import NoRoom
from ota_server.operator_port.api_schemas import SCHEMAS
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.problems import Problem, json_reply
from ota_server.operator_port.routes import Route
from ota_server.operator_port.schema_check import Schema, Unfit, unfit_parts
from ota_server.operator_port.sentences import sentence
from ota_server.operator_port.site import Site

PREFIX = "/api/v1"
JSON = "application/json"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


class Given(NamedTuple):
    """What a request gives, checked.

    Attributes:
        path: what stands in the braces of the path.
        query: by name; a list where a field may be repeated; only what was sent.
        body: the JSON object; {}: there is none.
    """

    asked: Asked
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]

    @property
    def product(self) -> str:
        """The product that the path names, as it stands there."""
        return self.path["product"]


class QueryField(NamedTuple):
    """A field of the query. Of a schema of a list, the field may be repeated."""

    name: str
    schema: Schema
    description: str
    is_required: bool = False


FORCE = QueryField(
    "force",
    {"type": "boolean"},
    "Also if devices then get an image for another chip or project, or a target is lost.",
)


class Body(NamedTuple):
    """The body of a request: JSON by a schema, or bytes of any kind."""

    schema: Schema
    description: str
    kind: str = JSON
    is_required: bool = True
    example: Mapping[str, Any] | None = None


class Success(NamedTuple):
    """What is answered if all goes well.

    Attributes:
        schema: of the body; None: there is none.
        fields: those of the reply that mean something, with what they say.
    """

    status: HTTPStatus
    description: str
    schema: Schema | None = None
    kind: str = JSON
    fields: Mapping[str, str] = {}


@dataclass(frozen=True)
class Operation:
    """One thing that the API does.

    Attributes:
        path: behind `PREFIX`; what stands in braces is described by `PATH_PARTS`.
        name: unique, for programs that are made from OpenAPI.
        also: further answers besides the first one.
        problems: statuses of errors that only this operation has.
        takes_body: `answer` reads the body itself.
    """

    method: str
    path: str
    access: Access
    name: str
    summary: str
    answer: Callable[[Site, Given], Reply]
    success: Success
    description: str = ""
    query: Sequence[QueryField] = ()
    body: Body | None = None
    also: Sequence[Success] = ()
    problems: Sequence[HTTPStatus] = ()
    takes_body: bool = False

    @property
    def parts(self) -> list[str]:
        """The names in braces in the path."""
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def kinds(self) -> list[str]:
        """The types of what may be answered."""
        return [each.kind for each in (self.success, *self.also) if each.schema is not None]


def route_of(operation: Operation) -> Route:
    """Return the route of an operation."""
    return Route(
        operation.method,
        PREFIX + operation.path,
        operation.access,
        partial(_answer, operation),
        operation.takes_body,
    )


def _answer(operation: Operation, site: Site, asked: Asked) -> Reply:
    _check_accept(operation, asked)
    given = Given(asked, _path(operation, asked), _query(operation, asked), _body(operation, asked))
    with refusals_as_conflicts():
        return operation.answer(site, given)


@contextmanager
def refusals_as_conflicts() -> Iterator[None]:
    """Make conflicts of what is refused although each field is well formed.

    Raises:
        Problem: 409.
    """
    try:
        yield
    except BadCursor as problem:
        # Well formed, so it is the filter or the order that it does not go with.
        raise Problem(HTTPStatus.CONFLICT, f"cursor: {problem}.") from None
    except BadFields as problem:
        errors = [Unfit(f"/{name}", text) for name, text in problem.problems.items()]
        raise unfit_problem(HTTPStatus.CONFLICT, errors) from None
    except NoRoom:
        raise
    except (Refused, BadPolicy) as problem:
        raise Problem(HTTPStatus.CONFLICT, sentence(str(problem))) from None


def unfit_problem(status: HTTPStatus, errors: Sequence[Unfit]) -> Problem:
    """Return the problem of a body or a query that does not fit."""
    names = ((each.pointer.removeprefix("/"), each.detail) for each in errors)
    said = "; ".join(f"{f'`{name}`' if name else 'The body'} {text}" for name, text in names)
    return Problem(status, f"{said}.", errors=[each._asdict() for each in errors])


def reply(content: object, status: HTTPStatus = HTTPStatus.OK, *fields: tuple[str, str]) -> Reply:
    """Return a reply of JSON."""
    return json_reply(status, content, *fields)


def nothing() -> Reply:
    """Return a reply that has no body."""
    return Reply(HTTPStatus.NO_CONTENT, b"Cache-Control: no-store\r\n", content_length=None)


def in_time(parse: Callable[[str], int], name: str, text: str) -> int:
    """Return the time in a field.

    Raises:
        BadFields: it is a date that no calendar has.
    """
    try:
        return parse(text)
    except BadValue as problem:
        raise BadFields({name: str(problem)}) from None


def _check_accept(operation: Operation, asked: Asked) -> None:
    said = asked.request.get(b"accept")
    if said is None or not operation.kinds:
        return
    ranges = [each.partition(";") for each in said.decode("latin-1").lower().split(",")]
    wanted = {
        kind.strip() for kind, _, rest in ranges if not re.search(r"q=0(?:\.0{0,3})?\s*$", rest)
    }
    for kind in operation.kinds:
        if wanted & {kind, f"{kind.partition('/')[0]}/*", "*/*"}:
            return
    raise Problem(
        HTTPStatus.NOT_ACCEPTABLE, f"The answer is {operation.kinds[0]}, which Accept rules out."
    )


def _path(operation: Operation, asked: Asked) -> Mapping[str, str]:
    for name in operation.parts:
        if unfit_parts(asked.parts[name], PATH_PARTS[name].schema, SCHEMAS):
            raise Problem(HTTPStatus.NOT_FOUND, f"No {name} is called {asked.parts[name][:70]!r}.")
    return asked.parts


def _query(operation: Operation, asked: Asked) -> dict[str, Any]:
    fields = {each.name: each for each in operation.query}
    values: dict[str, Any] = {}
    errors = []
    for name, texts in asked.query.items():
        field = fields.get(name)
        if field is None:
            known = f"use {', '.join(fields)}" if fields else "there are none"
            errors.append(Unfit(f"/{name[:40]}", f"is not known here: {known}"))
            continue
        is_list = field.schema.get("type") == "array"
        if len(texts) > 1 and not is_list:
            errors.append(Unfit(f"/{name}", "is given twice"))
            continue
        kind = (field.schema["items"] if is_list else field.schema).get("type")
        read = [_read(text, kind) for text in texts]
        values[name] = read if is_list else read[0]
        found = unfit_parts(values[name], field.schema, SCHEMAS)
        errors += [Unfit(f"/{name}{each.pointer}", each.detail) for each in found]
    errors += [
        Unfit(f"/{name}", "is missing")
        for name, each in fields.items()
        if each.is_required and name not in asked.query
    ]
    if errors:
        raise unfit_problem(HTTPStatus.BAD_REQUEST, errors)
    return values


def _read(text: str, kind: object) -> object:
    """Return the value of a field by its type; the text itself if it is not of that type."""
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    return _BOOLEANS.get(text, text) if kind == "boolean" else text


def _body(operation: Operation, asked: Asked) -> Mapping[str, Any]:
    body = operation.body
    if asked.request.content_length == 0 and not (body and body.is_required):
        return {}
    if body is None:
        raise Problem(HTTPStatus.BAD_REQUEST, "No body belongs to this request.")
    if asked.content_type != body.kind:
        accept = (("Accept", body.kind),)
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The body has to be {body.kind}.", accept)
    if operation.takes_body:
        return {}
    errors = unfit_parts(asked.json, body.schema, SCHEMAS)
    if errors:
        raise unfit_problem(HTTPStatus.UNPROCESSABLE_ENTITY, errors)
    return asked.json


class PathPart(NamedTuple):
    """What stands in braces in paths."""

    schema: Schema
    description: str


PATH_PARTS: Mapping[str, PathPart] = {
    "product": PathPart(
        SCHEMAS["ProductName"], "The product; `default` is that of the plain paths."
    ),
    "mac": PathPart(
        SCHEMAS["DeviceName"], "The MAC address of a device, or `id:` and what it calls itself."
    ),
    "version": PathPart(SCHEMAS["Version"], "The version of a release."),
    "group": PathPart(SCHEMAS["GroupName"], "The name of a group."),
    "rollout": PathPart(SCHEMAS["RolloutId"], "The id of a rollout."),
}
