r"""The file `version/forget.json`: which devices a server is to forget, and since when. Pure.

    {"00:11:22:33:44:55": time, ...}     one device each
    "unseen": time                       all that were not heard from since then
    "many": {time: "key\nkey ..."}       many devices, asked for at once: one text, which a server
                                         reads piece by piece
    "unlabelled": ["00:11:..", ...]      devices of `many` whose labels are not removed yet

A device that has sent a request after that time stays. Entries that cannot be used are ignored.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ota_server.journal.record_fields import time_in
from ota_server.model.identity import parse_key, parse_name
from ota_server.model.json_object import format_object, parse_object
from ota_server.model.timestamp import format_time

FILE_NAME = "forget.json"
UNSEEN = "unseen"
# The clock of a machine that runs commands on the same folder may be ahead by that.
SKEW_MS = 5 * 60 * 1000
MOST_BYTES = 16 * 1024 * 1024
_MANY, _UNLABELLED = "many", "unlabelled"
_KEY = re.compile(r"[^\n]+")


class ForgetFile(NamedTuple):
    """What the file holds.

    Attributes:
        asked: when each device was to be forgotten, by its key, in ms; `UNSEEN` as above.
        many: the keys of many devices, in one text, by when that was asked.
        unlabelled: names of devices that have no label any more, whatever labels.json says.
    """

    asked: Mapping[str, int] = {}
    many: Mapping[int, str] = {}
    unlabelled: tuple[str, ...] = ()


def parse_forget_file(content: bytes) -> ForgetFile:
    """Return what the file holds; b"" is an empty one."""
    try:
        fields = parse_object(content or b"{}")
    except ValueError:
        return ForgetFile()
    asked = {}
    for name, text in fields.items():
        key, time_ms = name if name == UNSEEN else parse_key(name), time_in(text)
        if key is not None and time_ms is not None:
            asked[key] = time_ms
    return ForgetFile(asked, _many_in(fields.get(_MANY)), _names_in(fields.get(_UNLABELLED)))


def _many_in(value: object) -> dict[int, str]:
    many = {}
    for text, keys in value.items() if isinstance(value, dict) else ():
        time_ms = time_in(text)
        if time_ms is not None and isinstance(keys, str):
            many[time_ms] = keys
    return many


def _names_in(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    return tuple(name for name in names if isinstance(name, str) and parse_name(name) == name)


def format_forget_file(file: ForgetFile) -> bytes:
    """Return the content of the file."""
    fields: dict[str, Any] = {name: format_time(at_ms) for name, at_ms in file.asked.items()}
    if file.many:
        fields[_MANY] = {format_time(at_ms): keys for at_ms, keys in file.many.items()}
    if file.unlabelled:
        fields[_UNLABELLED] = file.unlabelled
    return format_object(fields)


def join_keys(keys: Iterable[str]) -> str:
    """Return keys as one text; no key has a line break."""
    return "\n".join(keys)


def each_key(keys: str) -> Iterator[str]:
    """Yield the keys in a text, without making all of them at once."""
    for match in _KEY.finditer(keys):
        if (key := parse_key(match[0])) is not None:
            yield key
