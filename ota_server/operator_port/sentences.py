"""Messages that commands say in lines, as the sentences of pages and problems. Pure."""

import re
from collections.abc import Iterable

# A version, a path or the name of a field at the beginning stays as it is.
_WORD = re.compile("[a-z]+[ ,]")


def capitalised(text: str) -> str:
    """Return a text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Return a message as a sentence."""
    if _WORD.match(text):
        text = capitalised(text)
    return text if text.endswith((".", "?", ":")) else f"{text}."


def sentences(texts: Iterable[str]) -> list[str]:
    """Return messages as sentences."""
    return [*map(sentence, texts)]
