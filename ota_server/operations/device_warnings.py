"""What an operator should know of devices that are labelled, pinned or forgotten, in words. I/O."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ota_server.model.identity import name_of
from ota_server.model.quantity import count_of
from ota_server.policy.files import PolicyFiles
from ota_server.policy.labels import read_labels
from ota_server.policy.text import Who
from ota_server.releases.inventory import get_release
from ota_server.releases.remarks import remarks
from ota_server.releases.same_devices import left_out

_MOST_NAMED = 5


def same_label(data_dir: Path, name: str, label: str) -> Iterator[str]:
    """Yield that other devices have the label that a device gets."""
    known = read_labels(data_dir)
    if label and (others := [each for each in known if known[each] == label and each != name]):
        named = ", ".join(others[:_MOST_NAMED])
        yield f"{named} is called that too, so it cannot stand for a MAC address"


def pinned(data_dir: Path, who: Who, version: str) -> Iterator[str]:
    """Yield what is to be known of the release that a device or a group is pinned to.

    Raises:
        Refused: it is not here.
        OSError: the journal cannot be read.
    """
    yield from remarks(data_dir, get_release(data_dir, version))
    if problem := left_out(data_dir, who, version):
        yield problem


def still_named(data_dir: Path, keys: Sequence[str]) -> Iterator[str]:
    """Yield where devices that are forgotten are named all the same."""
    policy = PolicyFiles(data_dir).current()
    if len(keys) == 1:
        (key,), name = keys, name_of(keys[0])
        if key in policy.pins:
            version = policy.pins[key].version
            yield f"{name} is still pinned to {version}; `unpin {name}` ends the pin"
        for group in policy.groups.get(key, ()):
            yield f"{name} is still in a group; `group remove {group} {name}` removes it"
        return
    for count, what in (
        (sum(key in policy.pins for key in keys), "pinned"),
        (sum(bool(policy.groups.get(key)) for key in keys), "in a group"),
    ):
        if count:
            are = "is" if count == 1 else "are"
            yield f"{count_of(count, 'device')} of these {are} still {what}, should they come back"
