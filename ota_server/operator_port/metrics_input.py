"""What metrics are made from. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from ota_server.device_port.live_figures import LiveFigures
from ota_server.policy.device_state import Condition


class ProcessFigures(NamedTuple):
    """What the system knows of a process; 0: it does not say.

    Attributes:
        cpu_seconds: the processor time that it has taken.
        started_seconds: since the epoch.
    """

    cpu_seconds: float = 0.0
    resident_bytes: int = 0
    virtual_bytes: int = 0
    open_files: int = 0
    most_files: int = 0
    started_seconds: float = 0.0


class FleetFigures(NamedTuple):
    """The devices of a product.

    Attributes:
        states: how many are in each `Condition`.
        versions: how many report each version.
        as_of_ms: how old the states may be; 0: that is not known.
        last_seen_ms: when one of them was heard from last; 0: that is not known.
        pinned: how many are pinned by themselves.
        counted: as `states`, of those alone that an update should reach now.
    """

    states: Mapping[Condition, int]
    versions: Mapping[str, int]
    as_of_ms: int = 0
    last_seen_ms: int = 0
    pinned: int = 0
    counted: Mapping[Condition, int] = {}


class RolloutFigures(NamedTuple):
    """The last rollout to the fleet (`group` "") or to a group.

    Attributes:
        state: a `RolloutState`, or `NOT_BEGUN`.
        wave: counted from 1; 0: none is open.
        outcomes: how many devices it counts as what.
        changed_ms: when its plan or its progress was written last.
    """

    group: str
    version: str
    state: str
    wave: int = 0
    waves: int = 0
    outcomes: Mapping[str, int] = {}
    waits_for_person: bool = False
    changed_ms: int = 0


class ProductFigures(NamedTuple):
    """One product; `name` "" is the default one.

    Attributes:
        fleet: None: the devices are not counted yet.
        rollouts: None: they cannot be read.
        is_attended: its controller looks after rollouts.
        held_since_ms: 0: it is not on hold, or that is not on record.
    """

    name: str = ""
    fleet: FleetFigures | None = None
    rollouts: tuple[RolloutFigures, ...] | None = ()
    is_attended: bool = False
    is_held: bool = False
    held_since_ms: int = 0


class MetricsInput(NamedTuple):
    """All that metrics are made from.

    Attributes:
        version, python: of this program, and of what runs it.
        products: the default one first.
        server: None: it does not answer.
        server_process, controller: the two processes; None: the system does not say.
        skipped_lines: how many lines of the journal the index of devices skipped, since they are
            no records; None: that is not known now.
    """

    version: str
    python: str
    products: tuple[ProductFigures, ...]
    server: LiveFigures | None = None
    server_process: ProcessFigures | None = None
    controller: ProcessFigures | None = None
    skipped_lines: int | None = None
