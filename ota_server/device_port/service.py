"""The service: one request in, one reply out, its record queued; and the routes.

Only here exceptions become statuses.
"""

import logging
import math
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port.admission import Admission
from ota_server.device_port.checks import (
    CHECK_PATH,
    IMAGE_PATH,
    Checks,
    read_common_image,
)
from ota_server.device_port.downloads import Downloads
from ota_server.device_port.offers import Offers
from ota_server.device_port.signatures import Signatures
from ota_server.device_port.window import Standing
from ota_server.httpd import reply
from ota_server.httpd.app import NotReady, QuickReply
from ota_server.httpd.http1 import KNOWN_METHODS, Request, read_request, reply_head
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import DeviceTable
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
from ota_server.policy.lease import Attended
from ota_server.policy.situation import ServerState
from ota_server.releases.store import Store
from ota_server.system.server_log import Budget, RateLimit

log = logging.getLogger(__name__)

SIGNATURE_PATH = b"/firmware.bin.sig"
_NAMED_FILE = re.compile(rb"/firmware/firmware_([A-Za-z0-9][A-Za-z0-9._+\-]{0,63})\.bin(\.sig)?")
_LOG_EVERY_SECONDS = 60.0
# In all, from any number of addresses: an IPv6 network has enough of them to fill any log.
_LOG_LINES = 20


class Service:
    """Answers requests, as the `App` of the device port. Safe for use by many threads."""

    def __init__(
        self,
        store: Store,
        policies: PolicyFiles,
        fleet: DeviceTable,
        rejected: Rejected,
        clock_ms: Callable[[], int],
        admission: Admission | None = None,
    ) -> None:
        self.store = store
        self.policies = policies
        self.fleet = fleet
        self.rejected = rejected
        self.offers = Offers(store, policies, fleet, admission)
        self.checks = Checks(self.offers, policies, fleet, clock_ms)
        self.downloads = Downloads(store, policies, self.offers, fleet, clock_ms)
        self.signatures = Signatures(store, policies, self.offers, fleet, clock_ms)
        self.clock_ms = clock_ms
        self._limit = RateLimit(_LOG_EVERY_SECONDS)
        self._log_budget = Budget(_LOG_LINES, _LOG_EVERY_SECONDS)
        self._turned_away_logged = 0

    def answer_quickly(self, data: bytes, peer: Peer) -> QuickReply | None:
        """Answer `data` if it is one common check; return None if `respond` has to answer it."""
        try:
            return self.checks.answer_quickly(data, peer)
        except Exception:
            log.exception("a check from %s failed", peer.address)
            answer, seconds = _broken(), self.clock_ms() // 1000
            length = len(answer.body)
            head = reply_head(answer.status, answer.fields, length, seconds, False, 1)
            return QuickReply(head + answer.body, keep_alive=False, needs_record=False)

    def read_request(self, buffer: bytes) -> tuple[Request, int] | None:
        """Read a request head.

        Raises:
            BadRequest: the bytes break HTTP or a limit.
        """
        return read_common_image(buffer) or read_request(buffer)

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
            answer = _broken()
        # Nobody reads the body, and it must not be read as the next request.
        answer.close = answer.close or request.content_length > 0
        if request.method == "HEAD":
            answer.body, answer.parts = b"", ()
        return answer

    @property
    def chores(self) -> tuple[Callable[[], None], ...]:
        """Work that no request should wait for, to be done several times a second."""
        return (
            self.fleet.look_after,
            self._save_rejected,
            self.store.look_after,
            self.offers.look_after,
            self._log_turned_away,
            *(() if self.offers.admission is None else (self.offers.admission.look_after,)),
        )

    def _save_rejected(self) -> None:
        self.rejected.save(time.monotonic())

    def _log_turned_away(self) -> None:
        turned_away = self.fleet.turned_away
        if turned_away > self._turned_away_logged and self._limit.allows(
            "turned away", time.monotonic()
        ):
            self._turned_away_logged = turned_away
            log.warning(
                "%d requests of new devices were answered but not kept: the table is full "
                "(--max-devices)",
                turned_away,
            )

    def close(self) -> None:
        """Close all files, when no request is left."""
        self.store.close()
        self.rejected.save(math.inf)
        self.fleet.close()

    def begin_turn(self) -> None:
        """Look at files once until the next turn, not for each request."""
        self.offers.begin_turn()

    def flush(self) -> None:
        """Write the records of all replies so far to the journal."""
        self.fleet.journal.flush()

    def sync(self) -> None:
        """Sync records to the disk, unless that is done before each reply."""
        self.fleet.journal.sync()

    @property
    def attended(self) -> Attended:
        """The rollouts that the controller attends to, as far as this server knows."""
        return self.offers.attended

    def standing(self) -> tuple[Standing, ServerState]:
        """Return what only this server knows, for other processes."""
        return self.offers.standing(self.clock_ms())

    def reopen_journal(self) -> None:
        """Ask for the journal to be opened by its name again. Safe in a signal handler."""
        self.fleet.reopen_journal()

    def end_chores(self) -> None:
        """Make long chores end soon."""
        self.fleet.end()

    @property
    def failures(self) -> int:
        """How often the journal began to fail."""
        return self.fleet.journal.failures

    @property
    def withdrawals(self) -> int:
        """How often an open image was found to be withdrawn."""
        return self.offers.withdrawals

    def _route(self, request: Request, peer: Peer, may_wait: bool) -> Reply:
        """Answer, in this order: health, named images, identity, path, method."""
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
            return self.checks.respond(report, peer, may_wait)
        return self.downloads.respond(request, report, peer, may_wait)

    def _note_version(self, report: Report, peer: Peer) -> None:
        """Record a changed version in a request that records nothing else."""
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
        if self._limit.allows(f"401 {peer.address}", now_seconds) and self._log_budget.allows(
            now_seconds
        ):
            log.warning(
                "401 for %s%s: %s (%d so far; `devices --rejected` lists them)",
                peer.address,
                f" ({mac})" if mac else "",
                problem,
                count,
            )
        challenge = f'Device realm="ota", header="{problem.field}"'
        return reply.text(HTTPStatus.UNAUTHORIZED, "Unauthorized", ("WWW-Authenticate", challenge))


def _broken() -> Reply:
    return reply.text(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error", close=True)


def _wrong_method(request: Request) -> Reply | None:
    if request.method in ("GET", "HEAD"):
        return None
    if request.method in KNOWN_METHODS:
        return reply.text(
            HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", ("Allow", "GET, HEAD")
        )
    return reply.text(HTTPStatus.NOT_IMPLEMENTED, "Not Implemented")
