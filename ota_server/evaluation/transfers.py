"""Records of transfers, as they concern a case: one begins, one ends. Pure."""

from collections.abc import Collection, Mapping
from typing import Any

from ota_server.evaluation.device_case import Case, Terms
from ota_server.journal.record_fields import is_count, is_of

Record = Mapping[str, Any]


def begin(case: Case | None, record: Record, now_ms: int, terms: Terms, source: int) -> None:
    """Take a record of a transfer that begins, to a device at an address."""
    size, start = record.get("download_size"), record.get("range_start")
    if record.get("method") == "HEAD" or not is_count(size) or size == 0:
        return
    if case is not None and (start is None or is_count(start)):
        sha256_text, says_end = record["download_sha256"][:64], "action_id" in record
        case.begin(sha256_text, size, start, now_ms, terms, source, says_end)


def end(
    case: Case | None, record: Record, goals: Collection[str], now_ms: int, source: int
) -> None:
    """Take a record of a transfer that ended; `goals`: the releases that count."""
    start, sent = record.get("range_start") or 0, record.get("bytes_sent")
    is_ours = is_of(record, "release", goals)
    if case is not None and is_ours and is_count(start) and is_count(sent):
        sha256_text = record["release_sha256"][:64]
        complete, stop = record.get("complete") is True, record.get("range_stop")
        stop = stop if complete and is_count(stop) else start + sent
        case.end(sha256_text, start, stop, complete, now_ms, source)
