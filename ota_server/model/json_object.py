"""One strict reader of JSON objects, for all files that people may edit, and one writer. Pure."""

import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping
from typing import Any


def parse_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`; a byte order mark is dropped.

    A key that occurs twice is an error: nobody knows which of the two is meant.

    Raises:
        ValueError: it is not a JSON object in UTF-8; the message says why, for an operator.
    """
    try:
        # Not by the codec utf-8-sig, nor by `json.loads`, which makes a decoder for each call: the
        # lines of a journal are read by this.
        value = _decode(content.removeprefix(BOM_UTF8).decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def format_object(fields: Mapping[str, Any]) -> bytes:
    """Return a JSON object as a file for people holds it."""
    return (json.dumps(fields, indent=2) + "\n").encode("ascii")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice[:40]!r} occurs twice")
    return fields


_decode = json.JSONDecoder(object_pairs_hook=_without_repetition).decode
