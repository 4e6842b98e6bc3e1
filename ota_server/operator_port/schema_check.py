"""Whether a value fits a JSON Schema, as far as those of the API go. Pure.

The API says in OpenAPI what it takes, and by the same schemas it refuses what it does not take: so
one cannot differ from the other. Each pattern has to fit the whole text.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

Schema = Mapping[str, Any]
_REFERENCE = "#/components/schemas/"
_MOST_PROBLEMS = 20


class Unfit(NamedTuple):
    """A part of a value that does not fit.

    Attributes:
        pointer: where it stands: a JSON Pointer (RFC 6901).
    """

    pointer: str
    detail: str


def unfit_parts(value: object, schema: Schema, schemas: Mapping[str, Schema]) -> list[Unfit]:
    """Return what does not fit, the first few; (): it fits.

    Args:
        schemas: those that may be named by a reference, by their names.
    """
    found = _Check(schemas).of(value, schema, "")
    return [each for each, _ in zip(found, range(_MOST_PROBLEMS), strict=False)]


def reference(name: str) -> Schema:
    """Return a schema that stands for another one, by its name."""
    return {"$ref": f"{_REFERENCE}{name}"}


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    assert text[0] == "^" and text[-1] == "$", text
    return re.compile(f"(?:{text[1:-1]})", re.ASCII)


class _Check:
    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def of(self, value: object, schema: Schema, at: str) -> Iterator[Unfit]:
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].removeprefix(_REFERENCE)]
        kinds = schema.get("type", ())
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        if kinds and not any(_is_of(value, kind) for kind in kinds):
            yield Unfit(at, f"is not {' or '.join(map(_named, kinds))}")
        elif value is None:
            return
        elif "enum" in schema and value not in schema["enum"]:
            yield Unfit(at, f"is not one of {', '.join(map(str, schema['enum']))}")
        elif isinstance(value, str):
            yield from _text(value, schema, at)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from _number(value, schema, at)
        elif isinstance(value, list):
            yield from self._list(value, schema, at)
        elif isinstance(value, dict):
            yield from self._object(value, schema, at)

    def _list(self, value: list[Any], schema: Schema, at: str) -> Iterator[Unfit]:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if len(value) < least or (most is not None and len(value) > most):
            yield Unfit(at, f"has {len(value)} items: give {_from_to(least, most)}")
        elif schema.get("uniqueItems") and len({repr(each) for each in value}) < len(value):
            yield Unfit(at, "has an item twice")
        else:
            for number, each in enumerate(value):
                yield from self.of(each, schema.get("items", {}), f"{at}/{number}")

    def _object(self, value: dict[str, Any], schema: Schema, at: str) -> Iterator[Unfit]:
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield Unfit(f"{at}/{name}", "is missing")
        for name, each in value.items():
            pointer = f"{at}/{_escaped(name)}"
            if name in known:
                yield from self.of(each, known[name], pointer)
            elif schema.get("additionalProperties") is False:
                yield Unfit(pointer, f"is not known here: use {', '.join(known)}")


def _text(value: str, schema: Schema, at: str) -> Iterator[Unfit]:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if len(value) < least or (most is not None and len(value) > most):
        yield Unfit(at, f"has {len(value)} characters: give {_from_to(least, most)}")
    elif "pattern" in schema and not _pattern(schema["pattern"]).fullmatch(value):
        rule = schema.get("x-rule", f"of the form {schema['pattern']}")
        yield Unfit(at, f"{value[:40]!r} is not {rule}")


def _number(value: float, schema: Schema, at: str) -> Iterator[Unfit]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if (least is not None and value < least) or (most is not None and value > most):
        yield Unfit(at, f"is {value}: give {_from_to(least, most)}")
    elif (below := schema.get("exclusiveMaximum")) is not None and value >= below:
        yield Unfit(at, f"is {value}: give less than {below}")


def _from_to(least: float | None, most: float | None) -> str:
    if most is None:
        return f"{least} or more"
    return f"{least or 0} to {most}"


_KINDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "string": ("a text", lambda value: isinstance(value, str)),
    "integer": ("a whole number", lambda value: type(value) is int or _is_whole(value)),
    "number": ("a number", lambda value: type(value) in (int, float)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "array": ("a list", lambda value: isinstance(value, list)),
    "object": ("an object", lambda value: isinstance(value, dict)),
    "null": ("null", lambda value: value is None),
}


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _is_of(value: object, kind: str) -> bool:
    return _KINDS[kind][1](value)


def _named(kind: str) -> str:
    return _KINDS[kind][0]


def _escaped(name: str) -> str:
    return name[:40].replace("~", "~0").replace("/", "~1")
