"""The service: one request in, one reply out, its record queued; and the routes.

The one place where an exception becomes a status.
"""

import logging
import math
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port.admission import Admission
from ota_server.device_port.downloads import Downloads
from ota_server.device_port.offers import Offers
from ota_server.device_port.signatures import Signatures
from ota_server.httpd import reply
from ota_server.httpd.http1 import KNOWN_METHODS, Request, reply_head
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import Fleet
from ota_server.journal.rejected import Rejected
from ota_server.model.device import (
    MAC_FIELD,
    Report,
    Unidentified,
    parse_mac,
    parse_report,
    previous_version,
    reported,
)
from ota_server.policy.files import PolicyFiles
from ota_server.releases.store import NoTarget, NotNow, NotReady, Store
from ota_server.system.rate_limit import Budget, RateLimit

log = logging.getLogger(__name__)

CHECK_PATH = b"/version.txt"
IMAGE_PATH = b"/firmware.bin"
SIGNATURE_PATH = b"/firmware.bin.sig"
_NAMED_FILE = re.compile(rb"/firmware/firmware_([A-Za-z0-9][A-Za-z0-9._+\-]{0,63})\.bin(\.sig)?")
_LOG_EVERY_SECONDS = 60.0
# Of one kind, whatever the number of addresses: an IPv6 network has enough of them for any log.
_LOG_LINES = 20


class Service:
    """Answers requests. Safe for use by many threads; nothing here waits.

    A reply may leave once `flush` has returned; a reply with a transfer ends in `downloads.finish`.

    Attributes:
        more_chores: what others want to have done with its own chores.
    """

    def __init__(
        self,
        store: Store,
        policies: PolicyFiles,
        fleet: Fleet,
        rejected: Rejected,
        clock_ms: Callable[[], int],
        admission: Admission | None = None,
    ) -> None:
        self.store = store
        self.policies = policies
        self.fleet = fleet
        self.rejected = rejected
        self.offers = Offers(store, policies, fleet, admission)
        self.downloads = Downloads(store, self.offers, fleet, clock_ms)
        self.signatures = Signatures(store, policies, self.offers, fleet, clock_ms)
        self.clock_ms = clock_ms
        self.more_chores: list[Callable[[], None]] = []
        self._replies_second = 0
        self._replies: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})
        self._limit = RateLimit(_LOG_EVERY_SECONDS)
        self._crowd = Budget(_LOG_LINES, _LOG_EVERY_SECONDS)
        self._turned_away_said = 0

    def respond(self, request: Request, peer: Peer, may_wait: bool = True) -> Reply:
        """Answer one request.

        Raises:
            NotReady: an image has to be hashed first, and the caller may wait for that.
        """
        try:
            answer = self._route(request, peer, may_wait)
        except NotReady:
            raise
        except Unidentified as problem:
            answer = self._unauthorized(request, peer, problem)
        except Exception:
            log.exception("%s %r failed", request.method, request.path[:80])
            answer = reply.text(
                HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error", close=True
            )
        # A body that nobody reads must not be taken for the next request.
        answer.close = answer.close or request.content_length > 0
        if request.method == "HEAD":
            answer.body, answer.parts = b"", ()
        return answer

    def may_say(self, what: str, now_seconds: float) -> bool:
        """Say whether something may be logged again: each thing once a minute."""
        return self._limit.allows(what, now_seconds)

    def may_say_left(self, address: str, now_seconds: float) -> bool:
        """Say whether it may be logged that a client left a download."""
        return self.may_say(f"left {address}", now_seconds) and self._crowd.allows(now_seconds)

    @property
    def chores(self) -> tuple[Callable[[], None], ...]:
        """What no request should wait for, to be done a few times a second, one after the other."""
        return (
            self.fleet.look_after,
            self._save_rejected,
            self.store.look_after,
            self.offers.look_after,
            self._say_turned_away,
            *(() if self.offers.admission is None else (self.offers.admission.look_after,)),
            *self.more_chores,
        )

    def _save_rejected(self) -> None:
        self.rejected.save(time.monotonic())

    def _say_turned_away(self) -> None:
        turned_away = self.fleet.turned_away
        if turned_away > self._turned_away_said and self.may_say("turned away", time.monotonic()):
            self._turned_away_said = turned_away
            log.warning(
                "%d requests of new devices were answered but not kept: the table is full "
                "(--max-devices)",
                turned_away,
            )

    def close(self) -> None:
        """Close files once no request is left."""
        self.store.close()
        self.rejected.save(math.inf)
        self.fleet.close()

    def begin_turn(self) -> None:
        """Have files looked at once until the next turn, not for each request."""
        self.offers.begin_turn()

    def flush(self) -> None:
        """Bring the records of all replies so far to the journal."""
        self.fleet.journal.flush()

    @property
    def failures(self) -> int:
        """How often the journal began to fail.

        If that changes from before an answer to after its `flush`, it was made as if the journal
        could be written, and may not be on record: ask `must_not_leave`.
        """
        return self.fleet.journal.failures

    def must_not_leave(self, head: bytes, reported: str | None) -> bool:
        """Say whether an answer that is not on record must not be given: no rollout offers then.

        Args:
            head: all of it but an image.
            reported: as that of a `Reply`.
        """
        if reported is None or not self.policies.latest.rollouts:
            return False
        return head.rpartition(b"\r\n\r\n")[2].strip() != reported.encode("ascii").strip()

    def _route(self, request: Request, peer: Peer, may_wait: bool) -> Reply:
        """Answer in the order that DESIGN has: health, named images, identity, path, method."""
        if request.content_length > 0 and request.method in ("GET", "HEAD"):
            return reply.text(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A request here has no body.", close=True
            )
        if request.path == b"/healthz":
            return _wrong_method(request) or reply.text(HTTPStatus.OK, "ok")
        named = _NAMED_FILE.fullmatch(request.path)
        if named:
            version = named[1].decode("ascii")
            wrong = _wrong_method(request)
            if wrong is not None:
                return wrong
            if named[2]:
                return self.signatures.respond_by_name(version, peer, may_wait)
            return self.downloads.respond_by_name(request, version, peer, may_wait)
        report = parse_report(request.fields, request.repeated)
        if request.path not in (CHECK_PATH, IMAGE_PATH, SIGNATURE_PATH):
            answer: Reply | None = reply.text(HTTPStatus.NOT_FOUND, "Not Found")
        else:
            answer = _wrong_method(request)
            if answer is None and request.path == SIGNATURE_PATH:
                answer = self.signatures.respond(report, peer, may_wait)
        if answer is not None:
            self._note_version(report, peer)
            return answer
        if request.path == CHECK_PATH:
            return self._version(report, peer, may_wait)
        return self.downloads.respond(request, report, peer, may_wait)

    def _version(self, report: Report, peer: Peer, may_wait: bool) -> Reply:
        """Tell the device which version to run."""
        target_version: str | None = None
        now_ms = self.clock_ms()
        try:
            decision, end = self.offers.offer(report, peer, now_ms)
            target_version = decision.version
            answer = reply.text(HTTPStatus.OK, target_version + end)
            answer.reported = report.firmware_version
        except (NoTarget, NotNow):
            answer = reply.later("No target version.")
        except NotReady:
            if may_wait:
                raise
            answer = reply.later("The image is not ready yet.")
        details = {} if answer.status is HTTPStatus.OK else {"status": answer.status.value}
        self.fleet.check(report, target_version, peer.address, now_ms, details)
        return answer

    def check(self, report: Report, peer: Peer, keep_alive: bool) -> bytes | None:
        """Answer a common check at once: the whole reply, or None where `respond` has to look.

        The same decision and the same record by fewer steps.
        """
        try:
            now_ms = self.clock_ms()
            decision, end = self.offers.offer(report, peer, now_ms)
            target_version = decision.version
            content = self._version_reply(target_version + end, keep_alive, now_ms // 1000)
            # Last: what fails before it is on record once, by `respond`.
            self.fleet.check(report, target_version, peer.address, now_ms)
        except Exception:
            return None  # `respond` meets it again, and answers or logs it
        return content

    def _version_reply(self, text: str, keep_alive: bool, seconds: int) -> bytes:
        if self._replies_second != seconds:
            self._replies_second = seconds
            self._replies = ({}, {})
        replies = self._replies[keep_alive]
        content = replies.get(text)
        if content is None:
            answer = reply.text(HTTPStatus.OK, text)
            content = replies[text] = (
                reply_head(answer.status, answer.fields, len(answer.body), seconds, keep_alive, 1)
                + answer.body
            )
        return content

    def _note_version(self, report: Report, peer: Peer) -> None:
        """Keep a new version that comes to light where nothing else is recorded."""
        fleet = self.fleet
        with fleet.lock:
            before = fleet.get(report.mac)
            details = previous_version(before, report)
            if before is not None and details:
                device = reported(before, report, peer.address, self.clock_ms())
                fleet.record("report", report.mac, device, details)

    def _unauthorized(self, request: Request, peer: Peer, problem: Unidentified) -> Reply:
        mac = None
        if problem.field != MAC_FIELD.decode():
            mac = parse_mac(request.fields[MAC_FIELD].decode("latin-1"))
        count = self.rejected.note(peer.address, str(problem), mac, self.clock_ms())
        now_seconds = time.monotonic()
        if self.may_say(f"401 {peer.address}", now_seconds) and self._crowd.allows(now_seconds):
            log.warning(
                "401 for %s%s: %s (%d so far; `devices --rejected` lists them)",
                peer.address,
                f" ({mac})" if mac else "",
                problem,
                count,
            )
        challenge = f'Device realm="ota", header="{problem.field}"'
        return reply.text(HTTPStatus.UNAUTHORIZED, "Unauthorized", ("WWW-Authenticate", challenge))


def _wrong_method(request: Request) -> Reply | None:
    if request.method in ("GET", "HEAD"):
        return None
    if request.method in KNOWN_METHODS:
        return reply.text(
            HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", ("Allow", "GET, HEAD")
        )
    return reply.text(HTTPStatus.NOT_IMPLEMENTED, "Not Implemented")
