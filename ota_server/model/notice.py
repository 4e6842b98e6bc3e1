"""What a notice is called, and what became of telling it to one receiver. Pure."""

import hashlib
import json
from typing import NamedTuple

_ID_CHARACTERS = 24


class Delivery(NamedTuple):
    """What came of telling a notice to a receiver.

    Attributes:
        problem: why it was not told, in words; without the secrets of a URL.
        wait_seconds: how long to wait before it is told again, at least.
        status: of the answer of a URL; 0: there was none.
        seconds: how long it took.
    """

    is_told: bool
    problem: str = ""
    wait_seconds: float = 0.0
    status: int = 0
    seconds: float = 0.0


class ReceiverHealth(NamedTuple):
    """Whether a receiver can be told; times in milliseconds since the epoch, 0: never.

    Attributes:
        failing_since_ms: when it first could not be told, since it last was; 0: it can be.
        problem: why it could not be told.
    """

    told_ms: int = 0
    failing_since_ms: int = 0
    problem: str = ""


def notice_id(*parts: object) -> str:
    """Return the id of a notice, the same for the same parts: receivers drop doubles by it.

    It is hex, without a full stop: that separates the parts of what is signed.
    """
    content = json.dumps(parts, default=str).encode("ascii")
    return hashlib.sha256(content).hexdigest()[:_ID_CHARACTERS]
