"""The service: one request in, one reply out, its record queued; and the routes.

Here a request without an identity becomes 401, and a bug 500. Each answerer (`checks`, `downloads`,
`signatures`) turns what it meets, such as `NoTarget` and `NoImage`, into a status.
"""

import logging
import math
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port import ddi_messages
from ota_server.device_port.caller import Caller, caller_of, is_from_browser
from ota_server.device_port.checks import IMAGE_PATH, read_common_image
from ota_server.device_port.counts import CountedRoute, RequestCounts, route_of
from ota_server.device_port.ddi_messages import DdiPath
from ota_server.device_port.methods import not_allowed, wrong_method
from ota_server.device_port.products import (
    UNRECORDED_PATHS,
    ProductPort,
    Products,
    is_of_product,
    is_path,
)
from ota_server.device_port.proxy_signs import ProxySigns
from ota_server.device_port.refusals import Refusals
from ota_server.device_port.root_page import root_page
from ota_server.device_port.window import Standing
from ota_server.httpd import reply
from ota_server.httpd.app import NotReady, QuickReply
from ota_server.httpd.http1 import (
    BadRequest,
    Request,
    read_request,
    reply_head,
)
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import DeviceTable
from ota_server.journal.rejected import Rejected
from ota_server.model.device import (
    MAC_FIELD,
    Report,
    Unidentified,
    previous_version,
    reported,
)
from ota_server.model.identity import parse_mac
from ota_server.model.quoting import quoted
from ota_server.model.version import UNKNOWN_VERSION
from ota_server.policy.situation import ServerState
from ota_server.system.hints import hints
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

_NAMED_FILE = re.compile(rb"/firmware/firmware_([A-Za-z0-9][A-Za-z0-9._+\-]{0,63})\.bin(\.sig)?")
# In a head that cannot be read as a whole.
_MAC_LINE = re.compile(rb"\n(?i:_br_mac_):[ \t]*([0-9A-Fa-f:.\-]{12,17})[ \t]*\r?\n")
_LOG_EVERY_SECONDS = 60.0


class Service:
    """Answers requests, as the `App` of the device port. Safe for use by many threads.

    Attributes:
        default: the default product.
        counts: of its answers, but for quick ones.
        refusals: notes what it rejects.
        is_anonymous: answer clients that do not say which device they are.
        operators_url: where operators find the page.
    """

    def __init__(
        self,
        default: ProductPort,
        products: Products,
        fleet: DeviceTable,
        rejected: Rejected,
        clock_ms: Callable[[], int],
        is_behind_proxy: bool = False,
    ) -> None:
        self.default = default
        self.products = products
        self.store, self.policies, self.offers = default.store, default.policies, default.offers
        self.checks = default.checks
        self.downloads, self.signatures = default.downloads, default.signatures
        self.fleet = fleet
        self.rejected = rejected
        self.clock_ms = clock_ms
        self._proxy_signs = None if is_behind_proxy else ProxySigns()
        self.counts = RequestCounts()
        self.refusals = Refusals(rejected, self.counts, clock_ms)
        self.is_anonymous = False
        self.operators_url = ""
        self._limit = RateLimit(_LOG_EVERY_SECONDS)
        self._turned_away_logged = 0

    def answer_quickly(self, data: bytes, peer: Peer) -> QuickReply | None:
        """Answer `data` if it is one common check; return None if `respond` has to answer it."""
        try:
            return self.checks.answer_quickly(data, peer)
        except Exception:
            log.exception("a check from %s failed", peer.address)
            self.counts.failed_quickly()
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

    def most_body_bytes(self, request: Request) -> int:
        """Return how much of the body of a request is kept; 0 if it is not wanted."""
        return ddi_messages.most_body_bytes(request)

    def note_refused(self, problem: BadRequest, head: bytes, peer: Peer) -> None:
        """Put a request that breaks HTTP on the list of rejected ones."""
        found = _MAC_LINE.search(head)
        mac = parse_mac(found[1].decode("ascii")) if found else None
        self.refusals.note(problem.status, str(problem), mac, peer)
        self.counts.answered(CountedRoute.MALFORMED, problem.status)

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
        answer.close = answer.close or request.content_length > len(request.body)
        if request.method == "HEAD":
            answer.body, answer.parts = b"", ()
        self.counts.answered(self._route_counted(request.path, answer.status), answer.status)
        return answer

    def _route_counted(self, path: bytes, status: HTTPStatus) -> CountedRoute:
        if path == IMAGE_PATH:
            return CountedRoute.IMAGE
        if path == b"/healthz":
            return CountedRoute.HEALTH
        if ddi_messages.parse_path(path) is not None:
            return CountedRoute.DDI
        return route_of(self._port_of(path)[1], status)

    @property
    def chores(self) -> tuple[Callable[[], None], ...]:
        """Work that no request should wait for, to be done several times a second."""
        return (
            self.fleet.look_after,
            self._save_rejected,
            self.store.look_after,
            self.offers.look_after,
            self.products.look_after,
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
                "%d requests of new devices were answered but not kept: the table is full; %s",
                turned_away,
                hints.paste("`device forget --unseen 90d` makes room, or more --max-devices"),
            )

    def close(self) -> None:
        """Close all files, when no request is left."""
        self.store.close()
        self.products.close()
        self.rejected.save(math.inf)
        self.fleet.close()

    def begin_turn(self) -> None:
        """Look at files once until the next turn, not for each request."""
        self.offers.begin_turn()
        self.products.begin_turn()

    def flush(self) -> None:
        """Write the records of all replies so far to the journal."""
        self.fleet.journal.flush()

    def sync(self) -> None:
        """Sync records to the disk, unless that is done before each reply."""
        self.fleet.journal.sync()

    def standing(self, port: ProductPort) -> tuple[Standing, ServerState]:
        """Return what only this server knows about a product, for other processes."""
        standing, state = port.offers.standing(self.clock_ms())
        sign = "" if self._proxy_signs is None else self._proxy_signs.text
        return standing._replace(proxy_sign=sign), state

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
        return self.offers.withdrawals + self.products.withdrawals

    @property
    def ports(self) -> tuple[ProductPort, ...]:
        """All products, the default one first."""
        return (self.default, *self.products.ports.values())

    def _route(self, request: Request, peer: Peer, may_wait: bool) -> Reply:
        """Answer, in this order: no path, health, named images, identity, path, method."""
        if request.method == "CONNECT" or request.path == b"*":
            # What follows a CONNECT may be meant for the host that it names.
            refusal = not_allowed()
            refusal.close = request.method == "CONNECT"
            return refusal
        if request.content_length > 0 and request.method in ("GET", "HEAD"):
            mac = parse_mac(request.fields.get(MAC_FIELD, b"").decode("latin-1"))
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self.refusals.note(status, "the request has a body", mac, peer)
            return reply.text(status, "A request here has no body.", close=True)
        if request.path == b"/healthz":
            return wrong_method(request) or reply.text(HTTPStatus.OK, "ok")
        ddi = ddi_messages.parse_path(request.path)
        if ddi is not None:
            return self._route_ddi(request, ddi, peer, may_wait)
        port, path = self._port_of(request.path)
        named = _NAMED_FILE.fullmatch(path)
        if named:
            version = named[1].decode("ascii")
            wrong = wrong_method(request)
            if wrong is not None:
                return wrong
            if named[2]:
                return port.signatures.respond_by_name(version, peer, may_wait)
            return port.named_images.respond(request, version, peer, may_wait)
        if path == b"/" and is_from_browser(request):
            return root_page(self.operators_url)
        try:
            caller = port.recognised(caller_of(request, port.name, path))
        except Unidentified as unsaid:
            if unsaid.says_nothing and is_of_product(path):
                return self._not_found(request, None, peer)
            if not (self.is_anonymous and unsaid.says_nothing):
                raise
            return wrong_method(request) or port.respond_to_anybody(request, path, peer, may_wait)
        return self._route_device(port, request, caller, peer, may_wait)

    def _route_ddi(self, request: Request, path: DdiPath, peer: Peer, may_wait: bool) -> Reply:
        if path.identity is None:
            raise Unidentified("controllerId", "malformed", path.controller.encode("latin-1"))
        named = (path.product or "").encode()
        port = self.default if path.product == "" else self.products.port(named)
        answer = port and port.ddi.respond(request, path, path.identity, peer, may_wait)
        return answer or self._not_found(request, None, peer)

    def _not_found(self, request: Request, key: str | None, peer: Peer) -> Reply:
        problem = f"there is no {quoted(request.path)}"
        self.refusals.note(HTTPStatus.NOT_FOUND, problem, key, peer)
        return reply.text(HTTPStatus.NOT_FOUND, "Not Found")

    def _port_of(self, path: bytes) -> tuple[ProductPort, bytes]:
        """Return the product that a path is of, and the rest of the path."""
        if self.products.ports:
            name, slash, rest = path[1:].partition(b"/")
            port = self.products.port(name)
            if port is not None:
                return port, slash + rest
        return self.default, path

    def _route_device(
        self, port: ProductPort, request: Request, caller: Caller, peer: Peer, may_wait: bool
    ) -> Reply:
        """Answer a device, in this order: path, method."""
        report, path = caller.report, caller.path
        if self._proxy_signs is not None and port.policies.latest.rollouts:
            self._proxy_signs.look_at(request, report.key, peer, path == IMAGE_PATH)
        wrong = wrong_method(request)
        answer = None if wrong else port.respond(request, caller, peer, may_wait)
        if answer is not None:
            if path in UNRECORDED_PATHS:
                self._note_version(report, peer)
            return answer
        if wrong is None or not is_path(path):
            wrong = self._not_found(request, report.key, peer)
        # It may be of a product that is not there: that is no word of a device of this one.
        if path.count(b"/") == 1:
            self._note_version(report, peer)
        return wrong

    def _note_version(self, report: Report, peer: Peer) -> None:
        """Record a changed version in a request that records nothing else."""
        fleet = self.fleet
        with fleet.lock:
            before = fleet.get(report.key)
            details = previous_version(before, report)
            is_known = report.firmware_version != UNKNOWN_VERSION
            if before is not None and details and is_known:
                device = reported(before, report, peer.address, self.clock_ms())
                fleet.record("report", report.key, device, details)

    def _unauthorized(self, request: Request, peer: Peer, problem: Unidentified) -> Reply:
        mac = None
        if problem.field != MAC_FIELD.decode():
            mac = parse_mac(request.fields.get(MAC_FIELD, b"").decode("latin-1"))
        self.refusals.note(HTTPStatus.UNAUTHORIZED, str(problem), mac, peer)
        # ESP-IDF answers Basic only if it is offered, and first. wget takes the last of two fields.
        offered = f'Basic realm="ota", Device realm="ota", header="{problem.field}"'
        return reply.text(HTTPStatus.UNAUTHORIZED, "Unauthorized", ("WWW-Authenticate", offered))


def _broken() -> Reply:
    return reply.text(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error", close=True)
