"""Changes of many devices of one product at once: what one would do, and doing it. I/O.

The same checks as for one device; one lock, one line in the audit log, and one file that is
replaced: a process that is killed leaves all of it or nothing.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class BulkAction(StrEnum):
    """What can be done to many devices, as forms and JSON name it."""

    PIN = "pin"
    UNPIN = "unpin"
    RETRY = "retry"
    LABEL = "label"
    FORGET = "forget"
    ADD = "group add"
    REMOVE = "group remove"


@dataclass(frozen=True)
class BulkChange:
    """What is to be done to devices; what an action does not need is left out.

    Attributes:
        version: to pin them to.
        until_ms: when the pin ends; None: never.
        group: to add them to or to remove them from; it is made if there is none.
        label: to give them all; "": they are to have none.
        is_forced: also if they get an image for another chip or of another project than they run.
    """

    action: BulkAction
    version: str = ""
    until_ms: int | None = None
    group: str = ""
    label: str = ""
    is_forced: bool = False


class BulkPreview(NamedTuple):
    """How many devices a change would reach.

    Attributes:
        named: how many different ones were named: the sum of the next two.
        changing: how many it changes.
        already: how many are so already, or are not on record and so cannot be forgotten.
        not_on_record: how many of those that were named are not on record.
        warnings: what an operator should know before it is done.
    """

    named: int
    changing: int
    already: int
    not_on_record: int
    warnings: tuple[str, ...] = ()


class BulkDone(NamedTuple):
    """What was done.

    Attributes:
        changed, already: how many devices were changed, and how many were so already.
        is_done: False: the running server does the rest in a moment.
    """

    changed: int
    already: int
    is_done: bool = True


def read_change(fields: Mapping[str, object]) -> BulkChange:
    """Return the change in the fields of a form or of JSON, by the names of `BulkChange`.

    `until` is the end of a pin, as text. Empty fields count as left out, except for a label.

    Raises:
        BadFields: it cannot be used; it says which fields are wrong.
    """
    raise NotImplementedError


def preview(
    data_dir: Path, change: BulkChange, keys: Sequence[str], known: Container[str] | None = None
) -> BulkPreview:
    """Return how many devices a change would reach; nothing is changed.

    Args:
        keys: the devices (`model.identity`), all of the product of the data directory.
        known: the keys on record; None: look into the journal, which takes seconds for a large
            fleet.

    Raises:
        Refused: it would be refused; the message says why.
        BadPolicy, OSError: a file cannot be used or read.
    """
    raise NotImplementedError


def apply(data_dir: Path, change: BulkChange, keys: Sequence[str]) -> BulkDone:
    """Change devices, all or none.

    Raises:
        Refused, BadPolicy, Busy, OSError: nothing was changed.
    """
    raise NotImplementedError
