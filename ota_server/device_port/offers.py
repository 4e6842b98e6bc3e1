"""What a device is offered: collects the situation, and asks for the decision."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from ota_server.device_port.admission import Admission
from ota_server.device_port.window import Standing
from ota_server.httpd import reply
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import DeviceTable
from ota_server.model.action import Action
from ota_server.model.device import Download, Report
from ota_server.model.manifest import Manifest
from ota_server.model.parts import Part, part_name
from ota_server.model.version import Target, image_name, may_be_sample, meaning
from ota_server.policy.decision import (
    NO_TARGET,
    Decision,
    choose,
    choose_target,
    put_off,
    why_not_served,
    withhold,
)
from ota_server.policy.explain import in_words
from ota_server.policy.files import PolicyFiles
from ota_server.policy.lease import Attended
from ota_server.policy.loop_breaker import wait_seconds, why_wait
from ota_server.policy.policy import Policy
from ota_server.policy.reason import Cause, Reason
from ota_server.policy.situation import ImageOnDisk, ServerState, Situation
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.image import Image
from ota_server.releases.store import Altered, NoImage, NotNow, Store
from ota_server.system.product_log import ProductLog
from ota_server.system.server_log import Budget, RateLimit

log = logging.getLogger(__name__)

# That the loop breaker holds a device back: once for each wait of it, and so many lines a minute.
_SAY_AGAIN_SECONDS = 86400.0
_LOG_LINES = 20
_LOG_LINES_SECONDS = 60.0


class NotOffered(Exception):
    """The device may not have an image now: answer 503."""

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self.decision = decision

    def __str__(self) -> str:
        return in_words(self.decision.cause)  # which most callers do not ask for

    def answer(self, text: str, now_ms: int) -> Reply:
        """Return the 503: it says when asking again may help, if that is known."""
        seconds = wait_seconds(self.decision.cause, now_ms)
        return reply.later(text, reply.AT_NEXT_POLL if seconds is None else seconds)


class Offers:
    """Decides about devices by the current files. Safe for use by many threads.

    Attributes:
        withdrawals: how often an open image was found to be withdrawn.
        admission: limits downloads; None if nothing is limited.
        attended: the rollouts that the controller attends to.
        is_development: the loop breaker holds nobody back: one device is flashed all day.
        offer: as `decision_for`, for a check: a device that is not let in is told its own version.
    """

    def __init__(
        self,
        store: Store,
        policies: PolicyFiles,
        fleet: DeviceTable,
        admission: Admission | None = None,
        is_development: bool = False,
    ) -> None:
        self._store = store
        self._log = ProductLog(log, store.firmware_dir.parent)
        self._policies = policies
        self._fleet = fleet
        self.withdrawals = 0
        self.admission = admission
        self.attended = Attended()
        self.is_development = is_development
        self._waits_limit = RateLimit(_SAY_AGAIN_SECONDS)
        self._waits_budget = Budget(_LOG_LINES, _LOG_LINES_SECONDS)
        self.offer: Callable[[Report, Peer, int], tuple[Decision, str]] = (
            self.decision_for if admission is None else self._offer_if_admitted
        )

    def begin_turn(self) -> None:
        """Look at files once until the next turn, not for each request."""
        self._store.begin_turn()
        self._policies.begin_turn()

    def decision_for(
        self,
        report: Report,
        peer: Peer,
        now_ms: int,
        for_image: bool = False,
        action: Action | None = None,
    ) -> tuple[Decision, str]:
        """Return the decision for a device, and what ends a reply that names its version.

        Args:
            for_image: it wants the image, even if it already runs that release.
            action: the newest update of a device that reports how they end.

        Raises:
            NoTarget: nothing says what the device should run.
            NotHashed: an image has to be hashed first, since it may be the shipped sample.
        """
        policy = self._policies.current()
        if policy.is_plain and not for_image and report.updater is None:
            # The short cut for nearly all checks of a fleet.
            target = self._store.target()
            decision = choose_target(report, target)
            is_sure = peer.is_local or not target.may_be_sample
            if is_sure and not self._fleet.needs_look(report.key):
                return decision, target.end
        situation = self._situation(policy, report.key, peer, now_ms, for_image)
        if action is not None:
            situation = situation._replace(action=action)
        decision = choose(report, situation)
        if decision.cause is NO_TARGET:
            raise NoTarget(in_words(decision.cause))
        if decision.release is not None:
            closer = self._look_closer(report, decision, decision.release, situation)
            if closer is not None:
                decision = withhold(report, decision, closer)
                self._say_wait(report.key, decision.cause)
        return decision, situation.target.end if situation.target is not None else ""

    def release_of(self, report: Report) -> str:
        """Return the version of the release that a device runs, by what it reports."""
        return self._policies.current().release_of(report.firmware_version)

    def for_anybody(self) -> tuple[str, str]:
        """Return the fleet's target for a client that is no known device, and what ends a reply.

        Raises:
            NoTarget: there is none.
            NotOffered: everything is on hold.
        """
        policy, target = self._policies.current(), self._store.target()
        if policy.problem or policy.is_held or policy.is_withdrawn(target.version):
            nobody = Report("", target.version)
            raise NotOffered(choose(nobody, Situation(policy, target)))
        return target.version, target.end

    def _situation(
        self, policy: Policy, key: str, peer: Peer, now_ms: int, for_image: bool
    ) -> Situation:
        """Return what rules 1 to 9 need; all of it is in memory."""
        try:
            target = self._store.target()
        except NoTarget:
            target = None
        # By position: keyword arguments or a second step would take twice as long.
        return Situation(
            policy,
            target,
            now_ms,
            peer.is_local,
            for_image,
            self.attended.groups,
            self._fleet.journal.failing,
            self._fleet.turns_away(key),
        )

    def _look_closer(
        self, report: Report, chosen: Decision, release: str, situation: Situation
    ) -> Situation | None:
        """Return the situation with what rules 10 to 12 need; None if none of them can apply.

        Raises:
            NotHashed: an image has to be hashed first.
        """
        closer, manifest = None, situation.policy.manifests.get(meaning(release))
        if not situation.is_local and self._may_be_sample(release, manifest, situation.target):
            closer = situation
            if manifest is None:
                closer = situation._replace(image=self._on_disk(release))
        if report.updater is not None or situation.policy.has_several_chips:
            closer = closer or situation
        is_offer = chosen.version != report.firmware_version or situation.wants_image
        if is_offer and closer is not None and manifest is None:
            closer = situation._replace(image=self._on_disk(release))
        if is_offer and not self.is_development and self._fleet.needs_look(report.key):
            with self._fleet.lock:
                device = self._fleet.get(report.key)
            download = device.download if device is not None else None
            closer = (closer or situation)._replace(download=download)
            policy, now_ms = situation.policy, situation.now_ms
            is_waiting = why_wait(report.key, download, release, policy, now_ms) is not None
            if is_waiting and manifest is None:
                with suppress(NotNow):  # then assume that it is the one that the device fetched
                    closer = closer._replace(image=self._on_disk(release))
        return closer

    def _may_be_sample(
        self, release: str, manifest: Manifest | None, target: Target | None
    ) -> bool:
        """Return whether a release may be the shipped sample, without hashing its image."""
        if target is not None and release == target.version and not target.may_be_sample:
            return False
        return may_be_sample(self._store.size(release) if manifest is None else manifest.size)

    def _on_disk(self, release: str) -> ImageOnDisk | None:
        try:
            image = self._store.image(release)
        except NoImage:
            return None
        name = image_name(image.version)
        return ImageOnDisk(name, image.size, image.sha256, chip=image.chip)

    def why_wait(
        self, key: str, download: Download | None, release: str, now_ms: int
    ) -> Cause | None:
        """Return why a device has to wait for the image of a release, or None.

        Args:
            download: what it began last.

        Raises:
            NotHashed: an image has to be hashed first, since it may have been replaced.
        """
        if self.is_development:
            return None
        policy = self._policies.current()
        cause = why_wait(key, download, release, policy, now_ms)
        if cause is not None and meaning(release) not in policy.manifests:
            with suppress(NotNow):
                image = self._on_disk(release)
                sha256 = None if image is None else image.sha256
                cause = why_wait(key, download, release, policy, now_ms, sha256)
        if cause is not None:
            self._say_wait(key, cause)
        return cause

    def _say_wait(self, key: str, cause: Cause) -> None:
        """Log that the loop breaker holds a device back, once for each of its waits."""
        if cause.reason not in (Reason.REPEATED, Reason.STUCK):
            return
        now = time.monotonic()
        if self._waits_limit.allows(
            f"{key} {cause.times} {cause.until_ms}", now
        ) and self._waits_budget.allows(now):
            said = "%s is offered nothing: %s. `retry %s` lets it try at once"
            if not self._policies.latest.rollouts:  # else it would be refused
                said += "; on a desk, `serve --development` lets all devices"
            log.warning(said, key, in_words(cause), key)

    def _offer_if_admitted(self, report: Report, peer: Peer, now_ms: int) -> tuple[Decision, str]:
        decision, end = self.decision_for(report, peer, now_ms)
        if self.admission is not None and decision.version != report.firmware_version:
            cause = self.admission.offer(report.key, now_ms, peer.address)
            if cause is not None:
                decision = put_off(report, decision, cause)
        return decision, end

    def standing(self, now_ms: int) -> tuple[Standing, ServerState]:
        """Return what only this server knows, for other processes: `AdmissionFile` writes it."""
        state = ServerState(
            runs=True,
            attended=self.attended.groups,
            is_journal_failing=self._fleet.journal.failing,
            is_table_full=self._fleet.is_full,
            last_good=self._store.last_good,
            is_policy_usable=not self._policies.latest.problem,
            is_development=self.is_development,
            keeps_ungrouped=self._policies.latest.keeps_ungrouped,
            unserved=self._policies.latest.unserved,
        )
        if self.admission is None:
            return Standing(), state
        return self.admission.standing(now_ms), self.admission.add_to(state, now_ms)

    def look_after(self) -> None:
        """Look for images that cannot be served, and end transfers of those that were withdrawn."""
        self._policies.unserved = self._store.unserved_images(self._policies.latest)
        self._policies.look_after()
        policy = self._policies.latest
        for image in self._store.images_in_use():
            is_withdrawn = policy.is_withdrawn(image.version)
            if is_withdrawn and not image.is_withdrawn:
                image.is_withdrawn = True
                self._log.warning("%s was withdrawn: downloads of it end", image.version)
                self.withdrawals += 1
            elif not is_withdrawn:
                image.is_withdrawn = False

    def check_image(self, image: Image, peer: Peer) -> None:
        """Refuse a withdrawn or altered image, or one that this client may not have.

        Raises:
            NoImage: the message says why.
        """
        policy = self._policies.current()
        on_disk = ImageOnDisk(image_name(image.version), image.size, image.sha256)
        cause = why_not_served(image.version, on_disk, policy, peer.is_local)
        if cause is None:
            image.is_withdrawn = False  # or its withdrawal, undone a moment ago, would end this
            return
        if cause.reason not in (Reason.ALTERED, Reason.BAD_MANIFEST):
            raise NoImage(in_words(cause))
        if cause.reason is Reason.BAD_MANIFEST:
            raise Altered(in_words(cause))
        raise Altered(
            f"the image of {image.version} is not the one that was published: its SHA-256 is "
            f"{image.sha256}, not {policy.manifests[meaning(image.version)].sha256}; "
            "`release verify` shows what was altered"
        )

    def check_part(self, image: Image, part: Part) -> None:
        """Refuse a part of a withdrawn release, or one that was altered.

        Raises:
            NoImage: the message says why.
        """
        policy = self._policies.current()
        if policy.is_withdrawn(image.version):
            raise NoImage(f"{image.version} was withdrawn")
        image.is_withdrawn = False
        manifest = policy.manifests.get(meaning(image.version))
        record = None if manifest is None else manifest.part(part)
        if record is not None and record.sha256 != image.sha256:
            name = part_name(part, image.version)
            raise Altered(
                f"{name} is not the one that was published: its SHA-256 is {image.sha256}, not "
                f"{record.sha256}; publish the same build again"
            )
