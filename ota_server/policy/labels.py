"""Labels: what operators call devices, in `version/labels.json`. I/O."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from ota_server.journal.forget_file import FILE_NAME as FORGET_NAME
from ota_server.journal.forget_file import format_forget_file, parse_forget_file
from ota_server.model.identity import parse_name
from ota_server.model.json_object import parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.policy import audit, edits
from ota_server.policy.text import is_label
from ota_server.system.data_dir import log_dir
from ota_server.system.files import named, read, replace

log = logging.getLogger(__name__)

FILE_NAME = "labels.json"


def parse_labels(content: bytes) -> dict[str, str]:
    """Parse the labels, by MAC in lower-case pairs with colons; b"" holds no labels.

    Raises:
        BadPolicy: the content is not an object of MACs and texts.
    """
    try:
        fields = parse_object(content or b"{}")
    except ValueError as problem:
        raise BadPolicy(str(problem)) from None
    labels = {}
    for name, text in fields.items():
        mac = parse_name(name)
        if mac is None or not is_label(text):
            raise BadPolicy(f"has {name[:40]!r}: {text!r:.80}, which is not a MAC with its label")
        labels[mac] = text
    return labels


def read_labels(data_dir: Path) -> dict[str, str]:
    """Return the labels; if their file cannot be used, log a warning and return no labels."""
    version_dir = data_dir / "version"
    try:
        labels = parse_labels(read(version_dir, FILE_NAME))
        # Devices that are just being forgotten lose their labels at the same moment.
        for name in _being_removed(version_dir) if labels else ():
            labels.pop(name, None)
        return labels
    except (BadPolicy, OSError) as problem:
        log.warning("%s %s; no labels are shown", data_dir / "version" / FILE_NAME, problem)
        return {}


def set_label(data_dir: Path, mac: str, text: str) -> str | None:
    """Give a device a label, or remove it by ""; return the label before.

    Raises:
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        return change_label(version_dir, mac, text)


def drop_labels(version_dir: Path, macs: Collection[str]) -> None:
    """Remove the labels of devices that are forgotten; the caller holds the lock.

    Raises:
        BadPolicy, OSError: as `edits.changing`.
    """
    finish_removal(version_dir)
    _drop(version_dir, macs)


def change_label(version_dir: Path, mac: str, text: str) -> str | None:
    """Do as `set_label`; the caller holds the lock."""
    finish_removal(version_dir)
    labels = _labels_in(version_dir)
    before = labels.pop(mac, None)
    if text:
        labels[mac] = text
    if before != (text or None):
        change = {"from": before, "to": text or None}
        with audit.noted(log_dir(version_dir.parent), "label", mac, **change):
            write_labels(version_dir, labels)
    return before


def finish_removal(version_dir: Path) -> None:
    """Remove the labels of devices that are being forgotten; the caller holds the lock.

    To forget many devices changes two files, and this is the rest of it: the request to forget them
    names those that lose their labels, and a process may be killed before it has removed these.

    Raises:
        BadPolicy, OSError: as `edits.changing`.
    """
    if names := _being_removed(version_dir):
        _drop(version_dir, names)
        asked = parse_forget_file(read(version_dir, FORGET_NAME))
        replace(version_dir / FORGET_NAME, format_forget_file(asked._replace(unlabelled=())))


def labels_of(version_dir: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return which of some devices have a label on file.

    Raises:
        BadPolicy, OSError: as `edits.changing`.
    """
    labels = _labels_in(version_dir)
    return tuple(name for name in names if name in labels)


def _being_removed(version_dir: Path) -> tuple[str, ...]:
    content = read(version_dir, FORGET_NAME)
    # Parsed only where that matters: it may name a hundred thousand devices.
    return parse_forget_file(content).unlabelled if b'"unlabelled"' in content else ()


def _drop(version_dir: Path, names: Collection[str]) -> None:
    labels, going = _labels_in(version_dir), {*names}
    if not labels.keys().isdisjoint(going):
        kept = {name: text for name, text in labels.items() if name not in going}
        write_labels(version_dir, kept)


def _labels_in(version_dir: Path) -> dict[str, str]:
    with named(version_dir / FILE_NAME):
        return parse_labels(read(version_dir, FILE_NAME))


def write_labels(version_dir: Path, labels: Mapping[str, str]) -> None:
    """Replace the file of the labels; the caller holds the lock."""
    content = json.dumps(labels, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    replace(version_dir / FILE_NAME, content.encode("utf-8"))
