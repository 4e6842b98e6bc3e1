"""The API in words for programs: OpenAPI 3.2, made of the operations that answer. Pure.

What is common to all operations is said here: how errors look, who may, what each status means.
"""

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from ota_server.operator_port.api_operation import (
    EVENTS,
    PATH_PARTS,
    PREFIX,
    Body,
    Operation,
    QueryField,
    Success,
)
from ota_server.operator_port.api_schemas import SCHEMAS
from ota_server.operator_port.api_shapes import SHAPES
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.schema_check import Schema, reference

_PROBLEM = "application/problem+json"
_SCHEME = "token"
_DESCRIPTION = """\
What operators see and do, for programs. All times are UTC. What is sent is checked by the schemas
here; a field that is not known is an error, so that a word that was mistyped chooses nothing. Where
fields do not go together, or with what is there now, the answer is 409. Lists come in parts: a part
has the cursor of the next one, also in the field `Link`."""
_WHEN = {
    HTTPStatus.BAD_REQUEST: "The query or the body cannot be read.",
    HTTPStatus.UNAUTHORIZED: "It needs a token, or the token is wrong.",
    HTTPStatus.FORBIDDEN: "The token may only read, or the request is for another site.",
    HTTPStatus.NOT_FOUND: "There is nothing of this name.",
    HTTPStatus.METHOD_NOT_ALLOWED: "The method does not apply here; `Allow` has those that do.",
    HTTPStatus.NOT_ACCEPTABLE: "`Accept` rules out what is answered here.",
    HTTPStatus.CONFLICT: "The fields do not go together, or with what is there now.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too long.",
    HTTPStatus.REQUEST_URI_TOO_LONG: "The first line has more than 8,000 bytes.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is of another type than it has to be.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The body does not fit its schema; `errors` says where.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many wrong tokens came from this address.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A file cannot be read or written, or there is a bug.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Not now: try again after `Retry-After` seconds.",
    HTTPStatus.INSUFFICIENT_STORAGE: "The disk is full, or would be.",
}
_ALWAYS = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_ACCEPTABLE,
    HTTPStatus.REQUEST_URI_TOO_LONG,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_WITH_BODY = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
# What an error tells besides its body.
_ERROR_FIELDS = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate", "How to prove who asks."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("Allow", "The methods that apply."),
    HTTPStatus.TOO_MANY_REQUESTS: ("Retry-After", "In how many seconds to try again."),
    HTTPStatus.SERVICE_UNAVAILABLE: ("Retry-After", "In how many seconds to try again."),
}


def document(
    operations: Iterable[Operation], version: str, a_token: str, reads_openly: bool = False
) -> dict[str, Any]:
    """Return the description of the API.

    Args:
        version: of the server.
        a_token: how to come by one, in a sentence.
        reads_openly: whoever is on the machine of the server may read without a token.
    """
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        methods = paths.setdefault(PREFIX + each.path, {})
        methods[each.method.lower()] = _operation(each, reads_openly)
    return {
        "openapi": "3.2.0",
        "info": {"title": "ota_server", "version": version, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **SHAPES},
            "responses": {_name_of(each): _error(each) for each in _WHEN},
            "securitySchemes": {
                _SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": a_token,
                }
            },
        },
    }


def _operation(operation: Operation, reads_openly: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1]],
        "security": [*_security(operation.access, reads_openly)],
        "parameters": [*_parameters(operation)],
        "responses": {str(int(status)): each for status, each in _responses(operation)},
    }
    if operation.description:
        said["description"] = operation.description
    if operation.body is not None:
        said["requestBody"] = _request_body(operation.body)
    return said


def _security(access: Access, reads_openly: bool) -> Iterator[dict[str, list[str]]]:
    if access is Access.OPEN or (access is Access.READ and reads_openly):
        yield {}
    if access is not Access.OPEN:
        yield {_SCHEME: []}


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in operation.parts:
        part = PATH_PARTS[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": part.schema,
            "description": part.description,
        }
    yield from map(_query_parameter, operation.query)


def _query_parameter(field: QueryField) -> dict[str, Any]:
    said = {
        "name": field.name,
        "in": "query",
        "schema": field.schema,
        "description": field.description,
    }
    return {**said, "required": True} if field.is_required else said


def _request_body(body: Body) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": body.schema}
    if body.example is not None:
        content["example"] = body.example
    return {
        "description": body.description,
        "required": body.is_required,
        "content": {body.kind: content},
    }


def _responses(operation: Operation) -> Iterator[tuple[HTTPStatus, dict[str, Any]]]:
    for success in (operation.success, *operation.also):
        yield success.status, _success(success)
    for status in sorted({*_ALWAYS, *_problems(operation)}):
        yield status, {"$ref": f"#/components/responses/{_name_of(status)}"}


def _problems(operation: Operation) -> Iterator[HTTPStatus]:
    yield from operation.problems
    yield HTTPStatus.BAD_REQUEST  # of a query that is not known, or bytes that break HTTP
    if operation.parts:
        yield HTTPStatus.NOT_FOUND
    if operation.access is Access.ACT:
        yield HTTPStatus.CONFLICT
        yield HTTPStatus.INSUFFICIENT_STORAGE
    # A body where none belongs is too long as well.
    yield from _WITH_BODY if operation.body else _WITH_BODY[:1]


def _success(success: Success) -> dict[str, Any]:
    said: dict[str, Any] = {"description": success.description}
    if success.schema is not None:
        # A stream has no end: each of its events has a schema, and the whole has none.
        name = "itemSchema" if success.kind == EVENTS else "schema"
        said["content"] = {success.kind: {name: success.schema}}
    if success.fields:
        said["headers"] = {name: _header(text) for name, text in success.fields.items()}
    return said


def _error(status: HTTPStatus) -> dict[str, Any]:
    said: dict[str, Any] = {"description": _WHEN[status]}
    if status is HTTPStatus.REQUEST_URI_TOO_LONG:
        return said  # it is answered before it is known what was asked for
    said["content"] = {_PROBLEM: {"schema": reference("Problem")}}
    if status in _ERROR_FIELDS:
        name, text = _ERROR_FIELDS[status]
        said["headers"] = {name: _header(text)}
    return said


def _header(text: str) -> Mapping[str, Any]:
    schema: Schema = {"type": "string"}
    return {"description": text, "schema": schema}


def _name_of(status: HTTPStatus) -> str:
    return "".join(word.capitalize() for word in status.name.split("_"))
