"""A place in a list as an opaque text: what the last item has that the list is sorted by. Pure.

`operations.device_filter` has the cursors of lists of devices; these are for all other lists.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

from ota_server.operations.device_filter import BadCursor

_Place = TypeVar("_Place", str, int)
_Item = TypeVar("_Item")
# Neither a product nor a group nor a device has it in its name.
_BETWEEN = "\n"


def write_place(place: str | int) -> str:
    """Return a place as a cursor."""
    return urlsafe_b64encode(json.dumps([place]).encode("ascii")).rstrip(b"=").decode("ascii")


def read_place(cursor: str | None, kind: type[_Place]) -> _Place | None:
    """Reverse `write_place`; None: there is no cursor.

    Raises:
        BadCursor: it is not one, or of a list of another kind.
    """
    if cursor is None:
        return None
    try:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,4096}", cursor, re.ASCII):
            raise BadCursor("it has other characters than a cursor")
        (place,) = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (BadBase64, TypeError, ValueError, RecursionError) as problem:
        raise BadCursor("it is not a cursor that was given here") from problem
    if type(place) is not kind:
        raise BadCursor("it is from another list")
    return place


def part_after(
    items: Sequence[_Item],
    place_of: Callable[[_Item], tuple[str, ...]],
    cursor: str | None,
    limit: int,
) -> tuple[Sequence[_Item], str | None]:
    """Return the part of a list behind a cursor, and the cursor of the next part; None: none.

    What is added or goes meanwhile moves nothing else, so each that stays is visited once.

    Args:
        items: in the order of their places.
        cursor: None: from the beginning.

    Raises:
        BadCursor: it is not one, or of a list of another kind.
    """
    begin, text = 0, read_place(cursor, str)
    if text is not None and items:
        place = tuple(text.split(_BETWEEN))
        if len(place) != len(place_of(items[0])):
            raise BadCursor("it is from another list")
        begin = bisect_right(items, place, key=place_of)
    shown = items[begin : begin + limit]
    has_more = begin + limit < len(items)
    return shown, write_place(_BETWEEN.join(place_of(shown[-1]))) if has_more else None
