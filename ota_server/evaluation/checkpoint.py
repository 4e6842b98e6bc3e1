"""The bytes of a checkpoint: what a fold holds, sealed so that a torn one is found out. Pure."""

import marshal
from hashlib import sha256
from typing import Any

_DIGEST_BYTES = 32


class BadCheckpoint(ValueError):
    """A checkpoint cannot be used: fold the journal from its beginning."""


def seal(form: int, plan_id: str, parts: tuple[Any, ...]) -> bytes:
    """Return all that a fold holds as bytes; the same parts make the same bytes.

    Args:
        form: another number where the parts are others.
    """
    # Version 2 of the format: later ones say which objects are the same, and that may differ.
    content = marshal.dumps((form, plan_id, *parts), 2)
    return sha256(content).digest() + content


def unseal(content: bytes, form: int, plan_id: str) -> tuple[Any, ...]:
    """Return the parts that `seal` was given.

    Raises:
        BadCheckpoint: it is torn, of another rollout or of another version of this program.
    """
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if sha256(content).digest() != digest:
        raise BadCheckpoint("the checkpoint is torn")
    found, found_id, *parts = marshal.loads(content)
    if found != form or found_id != plan_id:
        raise BadCheckpoint("the checkpoint is of another rollout or program")
    return tuple(parts)
