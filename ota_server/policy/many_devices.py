"""Changes of what is decided for many devices at once. I/O.

Each is one line in the audit log, then one file that is replaced. Names are of devices of one
product (`model.identity.name_of`), each once. `edits` has the same for one device.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ota_server.policy import audit, edits, labels
from ota_server.policy.parse import parse_pins
from ota_server.policy.policy import PINS_NAME, RETRIES_NAME, Pin
from ota_server.policy.targets import release_here
from ota_server.policy.text import with_pins, with_retries, without_pins
from ota_server.system import clock
from ota_server.system.data_dir import log_dir
from ota_server.system.files import named, read, replace

_DEVICES = "devices"


def pin_devices(
    data_dir: Path, names: Sequence[str], version: str, until_ms: int | None
) -> list[str]:
    """Pin devices to a release; return those that were not pinned so before.

    Args:
        until_ms: when the pins end; None: never.

    Raises:
        Refused, BadPolicy, Busy, OSError: as `edits.pin`.
    """
    edits.check_end(until_ms)
    with edits.changing(data_dir) as version_dir:
        pin = Pin(release_here(data_dir, version), until_ms)
        content = read(version_dir, PINS_NAME)
        with named(version_dir / PINS_NAME):
            changing = pins_to_change(content, names, pin)
            after = with_pins(content, _DEVICES, changing, *pin)
        if changing:
            with _noted(data_dir, "pin", changing, to=edits.pin_text(pin)):
                replace(version_dir / PINS_NAME, after)
    return changing


def unpin_devices(data_dir: Path, names: Sequence[str]) -> list[str]:
    """End the pins of devices; return those that were pinned.

    Raises:
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        content = read(version_dir, PINS_NAME)
        with named(version_dir / PINS_NAME):
            changing = pins_to_change(content, names, None)
            after = without_pins(content, _DEVICES, changing)
        if changing:
            with _noted(data_dir, "unpin", changing):
                replace(version_dir / PINS_NAME, after)
    return changing


def pins_to_change(content: bytes, names: Sequence[str], pin: Pin | None) -> list[str]:
    """Return the devices that do not have a pin in pins.json; None: that have one there.

    Raises:
        BadPolicy: it cannot be read.
    """
    pins = parse_pins(content)[0] if content else {}
    return [name for name in names if pins.get(name) != pin]


def retry_devices(data_dir: Path, names: Sequence[str]) -> None:
    """Let devices fetch again what they have fetched too often.

    Raises:
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        content = read(version_dir, RETRIES_NAME)
        with named(version_dir / RETRIES_NAME):
            after = with_retries(content, names, clock.now_ms())
        with _noted(data_dir, "retry", names):
            replace(version_dir / RETRIES_NAME, after)


def label_devices(data_dir: Path, names: Sequence[str], text: str) -> list[str]:
    """Give devices a label, or remove it by ""; return those that were not called so before.

    Raises:
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        labels.finish_removal(version_dir)
        with named(version_dir / labels.FILE_NAME):
            known = labels.parse_labels(read(version_dir, labels.FILE_NAME))
        changing = [name for name in names if known.get(name, "") != text]
        if changing:
            going = {*changing}
            others = {name: label for name, label in known.items() if name not in going}
            after = {**others, **dict.fromkeys(changing, text)} if text else others
            with _noted(data_dir, "label", changing, to=text or None):
                labels.write_labels(version_dir, after)
    return changing


def _noted(
    data_dir: Path, action: str, names: Sequence[str], to: str | None = None
) -> AbstractContextManager[None]:
    details = {**edits.listed("what", names), "to": to}
    return audit.noted(log_dir(data_dir), action, str(details.pop("what")), **details)
