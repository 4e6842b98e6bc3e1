"""Labels: what operators call devices, in `version/labels.json`. I/O."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from ota_server.model.identity import parse_name
from ota_server.model.json_object import parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.policy import audit, edits
from ota_server.system.data_dir import log_dir
from ota_server.system.files import named, read, replace

log = logging.getLogger(__name__)

FILE_NAME = "labels.json"
MAX_CHARACTERS = 64


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


def is_label(text: object) -> bool:
    """Return whether this may be a label: a short printable text."""
    return isinstance(text, str) and 0 < len(text) <= MAX_CHARACTERS and text.isprintable()


def read_labels(data_dir: Path) -> dict[str, str]:
    """Return the labels; if their file cannot be used, log a warning and return no labels."""
    try:
        return parse_labels(read(data_dir / "version", FILE_NAME))
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
    path = version_dir / FILE_NAME
    with named(path):
        labels = parse_labels(read(version_dir, FILE_NAME))
    if not labels.keys().isdisjoint(macs):
        _write(path, {mac: text for mac, text in labels.items() if mac not in macs})


def change_label(version_dir: Path, mac: str, text: str) -> str | None:
    """Do as `set_label`; the caller holds the lock."""
    path = version_dir / FILE_NAME
    with named(path):
        labels = parse_labels(read(version_dir, FILE_NAME))
    before = labels.pop(mac, None)
    if text:
        labels[mac] = text
    if before != (text or None):
        change = {"from": before, "to": text or None}
        with audit.noted(log_dir(version_dir.parent), "label", mac, **change):
            _write(path, labels)
    return before


def _write(path: Path, labels: Mapping[str, str]) -> None:
    content = json.dumps(labels, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    replace(path, content.encode("utf-8"))
