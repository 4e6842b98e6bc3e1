"""What the journal says of one device: its time line and its rollouts, by one search. I/O.

To find one device among a million all of the journal is read, which is most of the work.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ota_server.journal.record_fields import key_in
from ota_server.journal.search import oldest_first
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations.device_rollouts import DeviceRollout, RolloutsOfDevice
from ota_server.operations.device_story import StoryFold, StoryPage, story
from ota_server.rollouts.device_outcome import MARKER
from ota_server.system.data_dir import journal_dir


class DevicePast(NamedTuple):
    """What became of a device.

    Attributes:
        story: a part of its time line, the newest entry first.
        rollouts: that it was in, the newest first.
        problem: why these are not known; None: they are.
    """

    story: StoryPage
    rollouts: Sequence[DeviceRollout]
    problem: Refused | BadPolicy | OSError | None


def past_of(
    data_dir: Path,
    key: str,
    now_ms: int,
    limit: int,
    before: str | None = None,
    events: Collection[str] | None = None,
) -> DevicePast:
    """Return what became of a device.

    Args:
        data_dir: of its product.
        limit, before, events: of the time line, as `story` has them.

    Raises:
        Refused: `before` is not from a page.
        OSError: the journal cannot be read.
    """
    time_line = StoryFold(limit, before, events)
    try:
        rollouts = RolloutsOfDevice(data_dir, key, now_ms)
    except (Refused, BadPolicy, OSError) as problem:
        return DevicePast(story(journal_dir(data_dir), key, limit, before, events), (), problem)
    if not rollouts.needs_records:
        # From its end back the journal need not be read as a whole.
        page = story(journal_dir(data_dir), key, limit, before, events)
        return DevicePast(page, rollouts.found(), None)
    for place, record in oldest_first(journal_dir(data_dir), key, once=MARKER):
        rollouts.observe(record)
        if key_in(record) == key:
            time_line.observe(place, record)
    return DevicePast(time_line.page(), rollouts.found(), None)
