"""The files of the journal: their names, their order, and which are kept."""

import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)

CURRENT_NAME = "devices.jsonl"
_ROTATED_NAME = re.compile(r"devices\.([0-9]{6,})\.jsonl")


def journal_files(log_dir: Path) -> list[Path]:
    """Return the journal's files, the oldest first and the current one last."""
    files = [path for _, path in _rotated_files(log_dir)]
    current = log_dir / CURRENT_NAME
    # Not a pipe or a terminal that it links to: that takes records, but reading it would never end.
    return [*files, current] if current.is_file() else files


def numbered_files(log_dir: Path) -> list[tuple[int, Path]]:
    """Return the journal's files in order; the current one with the number that it will get."""
    files = _rotated_files(log_dir)
    current = log_dir / CURRENT_NAME
    following = max((number for number, _ in files), default=0) + 1
    return [*files, (following, current)] if current.is_file() else files


def next_rotated(log_dir: Path) -> Path:
    """Return the name that the current file gets if it is rotated now."""
    newest = max((number for number, _ in _rotated_files(log_dir)), default=0)
    return log_dir / f"devices.{newest + 1:06d}.jsonl"


def prune(log_dir: Path, keep_files: int, keep_bytes: int) -> None:
    """Delete the oldest rotated files, so that the number and the bytes of the others fit."""
    kept_bytes = 0
    for count, (_, path) in enumerate(reversed(_rotated_files(log_dir)), start=1):
        try:
            kept_bytes += path.stat().st_size
            if count > keep_files or kept_bytes > keep_bytes:
                path.unlink()
        except OSError as problem:
            log.warning("%s cannot be deleted: %s", path, problem)


def most_bytes(rotate_bytes: int, keep_files: int, keep_bytes: int) -> int:
    """Return how large the journal becomes: the current file, and what `prune` keeps of others."""
    return rotate_bytes + min(keep_files * rotate_bytes, keep_bytes)


def _rotated_files(log_dir: Path) -> list[tuple[int, Path]]:
    matches = ((_ROTATED_NAME.fullmatch(path.name), path) for path in log_dir.glob("devices.*"))
    return sorted((int(match[1]), path) for match, path in matches if match)
