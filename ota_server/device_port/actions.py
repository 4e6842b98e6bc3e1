"""The actions of devices that report how their updates end: what follows from each request.

`model.action` has the states. What is asked for is decided here by the policy and the admission,
and recorded as a part of the device, so that it survives a restart.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ota_server.device_port.ddi_messages import ActionFeedback
from ota_server.device_port.dialects import HAWKBIT
from ota_server.device_port.offers import Offers
from ota_server.httpd.reply import Peer
from ota_server.journal.device_table import DeviceTable
from ota_server.journal.record import Scalar
from ota_server.model.action import (
    Action,
    ActionState,
    PinnedImage,
    cancel_fed_back,
    fed_back,
    not_wanted,
    offered,
)
from ota_server.model.device import Device, Download, Report, checked, previous_version, reported
from ota_server.model.identity import product_of
from ota_server.model.updater import Updater
from ota_server.model.version import UNKNOWN_VERSION
from ota_server.policy.files import PolicyFiles
from ota_server.policy.reason import Reason
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.image import Image
from ota_server.releases.store import NoImage, NotHashed, NotNow, Store
from ota_server.system.hints import hints
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

# They end by themselves: an update that the device may be at work on is not canceled for them.
_FOR_NOW = frozenset(
    (
        Reason.UNUSABLE_FILE,
        Reason.ON_HOLD,
        Reason.PAUSED,
        Reason.CONTROLLER_AWAY,
        Reason.JOURNAL_FAILING,
        Reason.TABLE_FULL,
        Reason.NO_TARGET,
        Reason.NO_IMAGE,
        Reason.UNSERVED,
        Reason.REPEATED,
        Reason.STUCK,
    )
)
# Of how many devices the last messages are kept, and how many; they go on record at the end.
_MOST_SAID, _MOST_MESSAGES = 1000, 3
_LOG_EVERY_SECONDS = 60.0
_UPDATER = Updater(HAWKBIT.name)


class PollResult(NamedTuple):
    """What a poll is answered.

    Attributes:
        action: which the device is shown; None: nothing.
        is_first: this device was not known before.
        needs_record: as in `Reply`.
    """

    action: Action | None
    is_first: bool = False
    needs_record: bool = False


class _Wish(NamedTuple):
    """What a device should have. `is_for_now`: this says nothing about what it has begun."""

    image: PinnedImage | None
    is_for_now: bool = False


def _report(key: str, version: str) -> Report:
    return Report(key, version, _UPDATER)


class Actions:
    """The actions of the devices of one product. Safe for use by many threads."""

    def __init__(
        self,
        store: Store,
        policies: PolicyFiles,
        offers: Offers,
        fleet: DeviceTable,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._policies = policies
        self._offers = offers
        self._fleet = fleet
        self._clock_ms = clock_ms
        self._limit = RateLimit(_LOG_EVERY_SECONDS)
        self._said: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # under the fleet's lock

    @property
    def load(self) -> float:
        """How many devices wait for a download slot, for each slot."""
        admission = self._offers.admission
        return 0.0 if admission is None else admission.load

    def device(self, key: str) -> Device | None:
        """Return what is on record about a device, or None."""
        with self._fleet.lock:
            return self._fleet.get(key)

    def poll(self, key: str, peer: Peer, may_wait: bool) -> PollResult:
        """Record that a device asked what it should do, and return that.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        fleet = self._fleet
        while True:
            with fleet.lock:
                row, before = fleet.row(key), fleet.get(key)
            now_ms = self._clock_ms()
            if before is None:
                # First it may say what it runs.
                fleet.check(_report(key, UNKNOWN_VERSION), UNKNOWN_VERSION, peer.address, now_ms)
                return PollResult(None, is_first=not fleet.turns_away(key))
            action, is_shown = self._step(key, before, peer, now_ms, may_wait)
            is_offer = is_shown and action is not None and action.is_live
            told = action.image.version if action and is_offer else before.firmware_version
            report = _report(key, before.firmware_version)
            needs_record = is_offer and bool(self._policies.latest.rollouts)
            result = PollResult(action if is_shown else None, needs_record=needs_record)
            if action == before.action:
                fleet.check(report, told, peer.address, now_ms)
                return result
            with fleet.lock:
                if fleet.row(key) is row:
                    device = checked(before, report, told, peer.address, now_ms)
                    fleet.record("check", key, device._replace(action=action))
                    return result

    def _step(
        self, key: str, before: Device, peer: Peer, now_ms: int, may_wait: bool
    ) -> tuple[Action | None, bool]:
        """Return the action of a device after a poll, and whether it is shown."""
        action, wish = before.action, self._wish(key, before, peer, now_ms, may_wait)
        policy = self._policies.latest  # which that has just read

        def is_let_in(one: Action) -> bool:
            return self._is_let_in(key, before, one, peer, now_ms)

        if action is not None and action.is_live:
            is_other = wish.image != action.image and not wish.is_for_now
            if is_other or policy.is_withdrawn(action.image.version):
                return not_wanted(action, now_ms), True
            is_wanted = wish.image == action.image or action.state is ActionState.BEGUN
            return action, is_wanted and is_let_in(action)
        if wish.image is None or (action is not None and not action.has_ended):
            return action, True
        fresh = offered(action, wish.image, now_ms)
        return fresh if is_let_in(fresh) else action, True

    def _wish(self, key: str, before: Device, peer: Peer, now_ms: int, may_wait: bool) -> _Wish:
        """Return what a device should have by the decision about it."""
        report = _report(key, before.firmware_version)
        try:
            decision, _ = self._offers.decision_for(report, peer, now_ms, action=before.action)
            is_for_now = decision.reason in _FOR_NOW
            if decision.release is None or decision.version == report.firmware_version:
                return _Wish(None, is_for_now)
            image = self._store.image(decision.release)
            self._offers.check_image(image, peer)
            return _Wish(PinnedImage(decision.release, image.sha256, image.size), is_for_now)
        except NotHashed:
            if may_wait:
                raise
        except NoImage as problem:
            if self._limit.allows(str(problem), time.monotonic()):
                said = hints.paste(str(problem), product_of(key))
                log.error("no image for %s: %s", key, said)
        except (NoTarget, NotNow):
            pass  # for a moment, or until an operator has chosen a target
        return _Wish(None, is_for_now=True)

    def _is_let_in(self, key: str, device: Device, action: Action, peer: Peer, now_ms: int) -> bool:
        """Return whether a device may download now, or has all of it already."""
        admission, download = self._offers.admission, device.download
        if admission is None:
            return True
        if download is not None and download.sha256 == action.image.sha256 and download.attempts:
            return True
        return admission.offer(key, now_ms, peer.address) is None

    def image(self, action: Action, peer: Peer, may_wait: bool) -> Image:
        """Return the image of an action.

        Raises:
            NoImage: it is not there, or must not be sent.
            NotNow: it is not ready; ask again later.
            NotHashed: it has to be hashed first, and the caller may wait for that.
        """
        try:
            image = self._store.pinned_image(self.download(action))
        except NotHashed as not_ready:
            if may_wait:
                raise
            raise NotNow(str(not_ready)) from None
        self._offers.check_image(image, peer)
        return image

    def download(self, action: Action) -> Download:
        """Return the download that an action is about."""
        return Download(*action.image, self._clock_ms())

    def feed_back(
        self, key: str, number: int, said: ActionFeedback, address: str, is_cancel: bool
    ) -> bool:
        """Take what a device says about an action; return whether it has such a one."""
        with self._fleet.lock:
            before, now_ms = self._fleet.get(key), self._clock_ms()
            action = None if before is None else before.action
            if before is None or action is None or not action.knows(number):
                return False
            if number != action.id:
                return True
            if is_cancel:
                after = cancel_fed_back(action, said.execution, now_ms)
            else:
                after = fed_back(action, said.execution, said.finished, now_ms)
            messages = self._remember(key, said.detail, after.has_ended)
            if after == action:
                return True
            has_it = after.state is ActionState.SUCCEEDED
            report = _report(key, action.image.version if has_it else before.firmware_version)
            details: dict[str, Scalar] = {
                "execution": said.execution,
                "finished": said.finished,
                "detail": messages,
                **previous_version(before, report),
            }
            device = reported(before, report, address, now_ms)._replace(action=after)
            self._fleet.record("feedback", key, device, details)
            return True

    def _remember(self, key: str, detail: str, is_end: bool) -> str:
        """Keep what a device said last, and return it. The caller holds the fleet's lock."""
        messages = self._said.pop(key, ())
        if detail:
            messages = (*messages, detail)[-_MOST_MESSAGES:]
        if messages and not is_end:
            self._said[key] = messages
            if len(self._said) > _MOST_SAID:
                self._said.popitem(last=False)
        return " / ".join(messages)

    def take_version(self, key: str, version: str | None, address: str) -> None:
        """Record the version among the attributes of a device; None: they have none.

        One that has reported an installed release is believed about that: they may be old, or call
        it by another name. Only if they change after that, something else was put on the device.
        While an update is in progress they say nothing: it has not been closed yet.
        """
        with self._fleet.lock:
            before, now_ms = self._fleet.get(key), self._clock_ms()
            if before is None:
                report = _report(key, version or UNKNOWN_VERSION)
                device = checked(None, report, None, address, now_ms)
                self._fleet.record("report", key, device)
            elif version is not None and not _is_updating(before.action):
                action, is_believed = before.action, True
                if action is not None and action.installed:
                    is_believed = action.attribute not in ("", version)
                    action = action._replace(attribute=version)
                report = _report(key, version if is_believed else before.firmware_version)
                details = previous_version(before, report)
                if details or action != before.action:
                    device = reported(before, report, address, now_ms)._replace(action=action)
                    self._fleet.record("report", key, device, details)


def _is_updating(action: Action | None) -> bool:
    return action is not None and action.state is ActionState.BEGUN
