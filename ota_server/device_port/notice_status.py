"""What a running server says of its notices: `log/notices.json`, and how it is asked to test. I/O.

`notify test` writes `log/notice_test.json`, with an id of its own. The server deletes that file,
tells each receiver a test notice, and writes what came of it into `log/notices.json`.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.notice import Delivery, ReceiverHealth
from ota_server.model.timestamp import format_time, parse_time
from ota_server.system.files import open_regular, read_if_there, replace

FILE_NAME = "notices.json"
TEST_NAME = "notice_test.json"
_MOST_BYTES = 64 * 1024


class ReceiverStatus(NamedTuple):
    """How it is with one receiver; `waiting`: how many things it was not told the newest of."""

    name: str
    health: ReceiverHealth
    waiting: int = 0


class NoticeStatus(NamedTuple):
    """How it is with all receivers.

    Attributes:
        test: the id of the test that was asked for last.
        deliveries: what came of that, by the names of receivers; those that are still being told
            are missing.
    """

    receivers: tuple[ReceiverStatus, ...] = ()
    test: str = ""
    deliveries: Mapping[str, Delivery] = {}

    @property
    def is_tested(self) -> bool:
        """Whether every receiver was told of the test, or could not be."""
        return len(self.deliveries) >= len(self.receivers)


def write_notice_status(log_dir: Path, status: NoticeStatus) -> None:
    """Write the file. Raises OSError if that fails."""
    fields = {
        "receivers": [
            {
                "name": each.name,
                "told_time": _time_text(each.health.told_ms),
                "failing_since_time": _time_text(each.health.failing_since_ms),
                "problem": each.health.problem,
                "waiting": each.waiting,
            }
            for each in status.receivers
        ],
        "test": status.test,
        "deliveries": {name: each._asdict() for name, each in status.deliveries.items()},
    }
    replace(log_dir / FILE_NAME, format_object(fields))


def read_notice_status(log_dir: Path) -> NoticeStatus | None:
    """Return what the file says; None: there is none, so nobody is told of notices."""
    try:
        with open(open_regular(log_dir / FILE_NAME), "rb") as file:
            fields = parse_object(file.read(_MOST_BYTES))
        return NoticeStatus(
            tuple(map(_receiver, fields["receivers"])),
            str(fields["test"]),
            {str(name): Delivery(**each) for name, each in fields["deliveries"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _receiver(fields: Mapping[str, Any]) -> ReceiverStatus:
    told, since = fields["told_time"], fields["failing_since_time"]
    health = ReceiverHealth(
        parse_time(told) if told else 0, parse_time(since) if since else 0, str(fields["problem"])
    )
    return ReceiverStatus(str(fields["name"]), health, int(fields["waiting"]))


def _time_text(ms: int) -> str | None:
    return format_time(ms) if ms else None


def remove_notice_status(log_dir: Path) -> None:
    """Delete the file, since nothing in it is true without a server."""
    with suppress(OSError):
        (log_dir / FILE_NAME).unlink()


def ask_for_test(log_dir: Path, test_id: str) -> None:
    """Ask the running server to test its receivers. Raises OSError if that fails."""
    replace(log_dir / TEST_NAME, json.dumps({"id": test_id}).encode("ascii"))


def take_test_request(log_dir: Path) -> str | None:
    """Return the id of a test that was asked for, and forget that; None: none was."""
    try:
        content = read_if_there(log_dir, TEST_NAME)
        if content is None:
            return None
        (log_dir / TEST_NAME).unlink()
        return str(parse_object(content)["id"])[:100]
    except (OSError, ValueError, KeyError):
        return None
