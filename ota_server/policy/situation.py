"""What a decision depends on, besides the report of the device. Pure.

the server, from memory ── Offers ──────┐
                                        ├──> Situation ──> decision ──> Decision
`why`, from files ──────── gather ──────┘                                  │
   ^                                                                       v
   └── ServerState <── admission.json <── the server that runs      explain (words)

`why` calls `decision.decide`; the server its three steps, `choose`, `withhold` and `put_off`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ota_server.model.action import Action
from ota_server.model.device import Download
from ota_server.model.version import Target
from ota_server.policy.policy import Policy
from ota_server.policy.reason import Cause, Reason

NOTHING_DECIDED = Policy()


class ImageOnDisk(NamedTuple):
    """What is known of the file that holds the image of a release.

    Attributes:
        sha256: None: it was not hashed, since nothing depends on it.
        chip: that it is for, as it says itself; None: it does not say.
        problem: why there are no bytes to send; "": there are.
    """

    name: str
    size: int
    sha256: str | None = None
    problem: str = ""
    chip: str | None = None


class Situation(NamedTuple):
    """All that a decision depends on, at one moment.

    Attributes:
        target: of the fleet; None: there is no target.
        is_local: the device asks from the machine of the server.
        wants_image: it asks for the image, even if it already runs that release.
        attended: the groups whose rollouts the controller looks after and could stop; "" is the
            fleet. None: all.
        is_journal_failing: the journal cannot be written.
        is_turned_away: the device is not on record, and there is no room for it.
        download: what the device began last.
        image: of the release that `choose` found; None: the decision does not depend on it.
        put_off: why it has to wait for its turn, by the window or the download slots.
        action: the newest update of a device that reports how they end.
    """

    policy: Policy = NOTHING_DECIDED
    target: Target | None = None
    now_ms: int = 0
    is_local: bool = True
    wants_image: bool = False
    attended: frozenset[str] | None = None
    is_journal_failing: bool = False
    is_turned_away: bool = False
    download: Download | None = None
    image: ImageOnDisk | None = None
    put_off: Cause | None = None
    action: Action | None = None


class ServerState(NamedTuple):
    """What only a running server knows; the default is that of no server.

    Attributes:
        runs: a server runs on the data directory.
        attended, is_journal_failing: as in a `Situation`.
        is_table_full: there is no room for devices that are not on record.
        closed_window: the maintenance windows, if all are closed; "": one is open, or there are no
            windows.
        taken_slots: the number of download slots, if all are taken; 0: some are free, or there is
            no limit.
        let_in: MACs of devices that may download in spite of the window and the slots.
        last_good: the target that stays in force if version.txt cannot be used.
        is_policy_usable: no file of the policy keeps it from offering anything.
        is_development: the loop breaker holds nobody back.
        keeps_ungrouped, unserved: as in a `Policy`.
    """

    runs: bool = False
    attended: frozenset[str] | None = None
    is_journal_failing: bool = False
    is_table_full: bool = False
    closed_window: str = ""
    taken_slots: int = 0
    let_in: frozenset[str] = frozenset()
    last_good: Target | None = None
    is_policy_usable: bool = True
    is_development: bool = False
    keeps_ungrouped: bool = False
    unserved: Mapping[str, str] = {}

    def put_off(self, mac: str) -> Cause | None:
        """Return why a device has to wait for its turn; None: it need not."""
        if mac in self.let_in:
            return None
        if self.closed_window:
            return window_closed(self.closed_window)
        return no_slot(self.taken_slots) if self.taken_slots else None


class Serving(NamedTuple):
    """What a running server says of itself for people; 0 and "": it does not say.

    Attributes:
        since_ms: when it began to answer.
        host: that it listens on.
        journal_bytes: how large the journal may become.
    """

    pid: int = 0
    since_ms: int = 0
    host: str = ""
    port: int = 0
    journal_bytes: int = 0


def window_closed(windows: str) -> Cause:
    """Return the cause of a device that has to wait for a maintenance window."""
    return Cause(Reason.WINDOW_CLOSED, text=windows)


def no_slot(limit: int) -> Cause:
    """Return the cause of a device that has to wait for a download slot."""
    return Cause(Reason.NO_SLOT, times=limit)
