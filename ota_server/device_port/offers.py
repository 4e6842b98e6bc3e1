"""What a device is offered: the decision, with the target and the policy that it follows from."""

import logging
from collections.abc import Callable

from ota_server.device_port.admission import Admission
from ota_server.httpd.reply import Peer
from ota_server.journal.device_table import Fleet
from ota_server.model.device import Download, Report
from ota_server.model.version import SAMPLES, Target, is_sample, may_be_sample, meaning
from ota_server.policy.decision import NO_TARGET, Decision, decide
from ota_server.policy.files import PolicyFiles
from ota_server.policy.loop_breaker import why_wait
from ota_server.policy.policy import Policy
from ota_server.releases.image import Image
from ota_server.releases.store import Altered, NoImage, NoTarget, NotNow, Store

log = logging.getLogger(__name__)

_SAMPLE = "the shipped sample is offered to clients on this machine only"


class Offers:
    """Decides for devices by the files as they are now. Safe for use by many threads.

    Attributes:
        altered: how often an image was refused, since it is not the one that was published.
        withdrawals: how often an image that was open was found to be withdrawn.
        admission: lets only so many in; None: all.
        offer: as `decide`, for a check: who may not be let in now is told its own version.
    """

    def __init__(
        self,
        store: Store,
        policies: PolicyFiles,
        fleet: Fleet,
        admission: Admission | None = None,
    ) -> None:
        self._store = store
        self._policies = policies
        self._fleet = fleet
        self.altered = 0
        self.withdrawals = 0
        self.admission = admission
        self.offer: Callable[[Report, Peer, int], tuple[Decision, str]] = (
            self.decide if admission is None else self._offer_if_admitted
        )

    def begin_turn(self) -> None:
        """Have files looked at once until the next turn, not for each request."""
        self._store.begin_turn()
        self._policies.begin_turn()

    def decide(
        self, report: Report, peer: Peer, now_ms: int, for_image: bool = False
    ) -> tuple[Decision, str]:
        """Return the decision for a device, and what ends a reply that names its version.

        Args:
            for_image: it asks for the image, also where it runs that release already.

        Raises:
            NoTarget: there is none, and nothing else says what the device should run.
            NotReady: an image has to be hashed first, for it may be the shipped sample.
        """
        policy, target = self._policies.current(), None
        if policy.is_plain and not for_image:
            # Nearly every check of a fleet, by few steps.
            target = self._store.target()
            decision = decide(report, target, policy)
            is_sure = peer.is_local or not target.may_be_sample
            if is_sure and not self._fleet.needs_look(report.mac):
                return decision, target.end
        policy = self._policy(report.mac)
        try:
            target = self._store.target()
        except NoTarget:
            if policy.is_plain:
                raise
            target = None
        decision = decide(report, target, policy, now_ms)
        if decision.reason == NO_TARGET:
            raise NoTarget(NO_TARGET)
        if not peer.is_local and self._is_sample(decision, target, policy):
            decision = decision._replace(version=report.firmware_version, reason=_SAMPLE)
        is_offer = decision.version != report.firmware_version or for_image
        if is_offer and decision.release is not None and self._fleet.needs_look(report.mac):
            with self._fleet.lock:
                device = self._fleet.get(report.mac)
            download = device.download if device is not None else None
            reason = self.why_wait(report.mac, download, decision.release, now_ms)
            if reason:
                decision = Decision(report.firmware_version, reason, None)
        return decision, target.end if target is not None else ""

    def why_wait(self, mac: str, download: Download | None, release: str, now_ms: int) -> str:
        """Return why a device has to wait for the image of a release; "": it need not.

        Args:
            download: what it began last.

        Raises:
            NotReady: an image has to be hashed first, for it may be another one by now.
        """
        policy = self._policies.current()
        reason = why_wait(mac, download, release, policy, now_ms)
        if not reason or meaning(release) in policy.manifests:
            return reason
        try:
            sha256 = self._store.image(release).sha256
        except (NoImage, NotNow):
            return reason
        return why_wait(mac, download, release, policy, now_ms, sha256)

    def _offer_if_admitted(self, report: Report, peer: Peer, now_ms: int) -> tuple[Decision, str]:
        decision, end = self.decide(report, peer, now_ms)
        if self.admission is not None and decision.version != report.firmware_version:
            refusal = self.admission.offer(report.mac, now_ms, peer.address)
            if refusal:
                decision = Decision(report.firmware_version, refusal, None)
        return decision, end

    def _policy(self, mac: str) -> Policy:
        """Return the policy; for whom nothing can be recorded, or seen, no rollout in it goes on.

        What became of a device that nobody has on record could not stop a bad release, and neither
        could it while the controller is dead, hangs or cannot write. While it still reads what is
        on record for one rollout, the others go on.
        """
        policy = self._policies.current()
        if not policy.rollouts:
            return policy
        if self._fleet.journal.failing or self._fleet.turns_away(mac):
            return policy.paused()
        attended = self._policies.attended_groups
        if attended is None or policy.rollouts.keys() <= attended:
            return policy
        return policy.paused(but=attended)

    def look_after(self) -> None:
        """Have transfers of what was withdrawn end, whichever file they are from."""
        self._policies.look_after()
        policy = self._policies.latest
        for image in self._store.images_in_use():
            is_withdrawn = policy.is_withdrawn(image.version)
            if is_withdrawn and not image.is_withdrawn:
                image.is_withdrawn = True
                log.warning("%s was withdrawn: downloads of it end", image.version)
                self.withdrawals += 1
            elif not is_withdrawn:
                image.is_withdrawn = False

    def check_image(self, image: Image, peer: Peer) -> None:
        """Refuse an image that nobody may have, or not this client.

        Raises:
            NoImage: the message says why.
        """
        if not peer.is_local and is_sample(image.size, image.sha256):
            raise NoImage(_SAMPLE)
        policy = self._policies.current()
        if policy.is_withdrawn(image.version):
            raise NoImage(f"{image.version} was withdrawn")
        manifest = policy.manifests.get(meaning(image.version))
        if manifest is not None and manifest.sha256 != image.sha256:
            self.altered += 1
            raise Altered(
                f"the image of {image.version} is not the one that was published: its SHA-256 is "
                f"{image.sha256}, not {manifest.sha256}; `release verify` names what was altered"
            )
        if problem := policy.unusable.get(meaning(image.version)):
            self.altered += 1
            raise Altered(f"the manifest of {image.version} {problem}")

    def _is_sample(self, decision: Decision, target: Target | None, policy: Policy) -> bool:
        version = decision.release
        if version is None:
            return False
        if target is not None and version == target.version and not target.may_be_sample:
            return False
        manifest = policy.manifests.get(meaning(version))
        if manifest is not None:
            return (manifest.size, manifest.sha256) in SAMPLES
        if not may_be_sample(self._store.size(version)):
            return False  # without a wait for it to be hashed
        try:
            image = self._store.image(version)
        except NoImage:
            return False
        return is_sample(image.size, image.sha256)
