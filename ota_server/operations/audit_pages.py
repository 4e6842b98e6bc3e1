"""Who changed what, and who was rejected, the newest first, page by page. I/O."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.journal.rejected import read_rejected
from ota_server.journal.search import objects_back
from ota_server.policy import audit
from ota_server.system.data_dir import journal_dir, log_dir

_EVERY_ENTRY = b'"time"'


class AuditEntry(NamedTuple):
    """A change that was made, or was begun and failed.

    Attributes:
        who: who made it, as `user@host`, or `name (admin port)`.
        what: to what.
        before, after: from what to what, in words; "": not on record.
        is_made: False: it failed after it was put on record.
        fields: all that is on record.
    """

    time: str
    who: str
    action: str
    what: str
    before: str
    after: str
    is_made: bool
    fields: Mapping[str, Any]


class AuditPage(NamedTuple):
    """A part of the audit log, the newest entry first.

    Attributes:
        older: what `audit_page` takes as `before` for the next part; None: there is none.
    """

    entries: tuple[AuditEntry, ...]
    older: int | None


def audit_page(data_dir: Path, limit: int, before: int | None = None) -> AuditPage:
    """Return the newest entries of the audit log of a product, or the next ones.

    A line that says that a change was not made is told with that change.

    Args:
        limit: how many entries at most.
        before: from the page before; None: begin with the newest.

    Raises:
        OSError: it cannot be read.
    """
    path = log_dir(data_dir) / audit.FILE_NAME
    entries: list[AuditEntry] = []
    is_made = True
    for offset, fields in objects_back(path, _EVERY_ENTRY, before):
        if not isinstance(fields.get("time"), str):
            continue
        if fields.get("action") == audit.NOT_DONE:
            is_made = False
            continue
        entries.append(_entry(fields, is_made))
        is_made = True
        if len(entries) == limit:
            return AuditPage(tuple(entries), offset or None)
    return AuditPage(tuple(entries), None)


def _entry(fields: Mapping[str, Any], is_made: bool) -> AuditEntry:
    user, through = fields.get("user", "?"), fields.get("through")
    who = f"{user} ({through})" if through else f"{user}@{fields.get('host', '?')}"
    action, what = str(fields.get("action", "?")), str(fields.get("what", "-"))
    before, after = words_of_change(fields)
    return AuditEntry(str(fields["time"]), who, action, what, before, after, is_made, fields)


def words_of_change(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return from what to what an entry says that something was changed; "": it does not say."""
    taken = (f", {group} {target}" for group, target in audit.targets_taken(fields).items())
    before = f"{fields.get('from') or '-'}{''.join(taken)}"
    after = fields.get("to") or fields.get("reason") or fields.get("of")
    return "" if before == "-" else before, str(after or "")


class RejectedEntry(NamedTuple):
    """A kind of rejected requests: by address, reason, and MAC where that could be read.

    Attributes:
        requests: how many there were, between `first_time` and `time`; for programs it is `count`.
    """

    address: str
    mac: str | None
    reason: str
    requests: int
    first_time: str
    time: str

    @property
    def fields(self) -> dict[str, Any]:
        """The entry for programs, by the names that `rejected.jsonl` has."""
        return dict(zip(_REJECTED, self, strict=True))


_REJECTED = ("address", "mac", "reason", "count", "first_time", "time")


def rejected_entries(data_dir: Path) -> list[RejectedEntry]:
    """Return who was rejected recently, the newest first; a thousand kinds are kept.

    Those of all products: a request that is rejected has none for certain.
    """
    found = [
        RejectedEntry(*(entry[name] for name in _REJECTED))
        for entry in read_rejected(journal_dir(data_dir))
    ]
    return sorted(found, key=lambda entry: entry.time, reverse=True)
