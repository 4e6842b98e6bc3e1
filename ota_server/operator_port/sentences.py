"""Messages that commands say in lines, as the sentences of pages and problems. Pure."""

import re
from collections.abc import Iterable

from ota_server.model.timestamp import format_second

# A version, a path or the name of a field at the beginning stays as it is.
_WORD = re.compile("[a-z]+[ ,]")
_TIME = re.compile(r"\b(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(?:\.\d{3})?Z(?!\w)")


def capitalised(text: str) -> str:
    """Return a text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def utc_text(ms: int) -> str:
    """Return a time as pages have it, such as `2026-11-29 22:23:06 UTC`."""
    return with_utc(format_second(ms))


def until_text(ms: int | None) -> str:
    """Return until when something is so, to follow what it is; "" where it does not end."""
    return "" if ms is None else f" until {utc_text(ms)}"


def with_utc(text: str) -> str:
    """Return a text of a command with the times in it as pages have them."""
    return _TIME.sub(r"\1 \2 UTC", text)


def sentence(text: str) -> str:
    """Return a message as a sentence."""
    if _WORD.match(text):
        text = capitalised(text)
    return text if text.endswith((".", "?", ":")) else f"{text}."


def sentences(texts: Iterable[str]) -> list[str]:
    """Return messages as sentences."""
    return [*map(sentence, texts)]
