"""Checks: which version a device is told; and the fast path for common checks.

Nearly all requests of a fleet are common checks: a GET of the version by a known device that runs
the same version as before. `Checks.respond` answers any check; `Checks.answer_quickly` answers
common ones at a third of the cost. What that skips, and why the result is the same:

1. *The head* is matched by one pattern instead of `http1.read_request` and `caller_of`. Both
   accept all that it matches, and find the same MAC, version and keep-alive in it. The other fields
   that it allows do not change the answer to a check. Everything else is left to them.
2. *Routing*: method and path are part of the pattern, and no body is.
3. *The decision* is the same call. If there is none now (no target, or an image that has to be
   hashed first), nothing has been done yet, and the general path meets that again.
4. *The record* is the same call, `DeviceTable.check`. It has a short cut of its own: if a device
   reports the version on record, `device.checked_again` changes its packed row, without unpacking.
5. *The reply* is made once a second for each text, from the same parts; `Date` has seconds.
6. *The connection* (`httpd/driver.py`) learns only the time: nothing was under way, and the data
   was this one request, so that there is nothing else to remember.

Proof: tests/device_port/test_checks.py sends the same random requests to two services, one on
each path, and expects the same bytes and the same journal; and it compares what pattern and parsers
read. tests/httpd/test_fuzz.py mutates requests of both kinds.
"""

import re
from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port.offers import Offers
from ota_server.httpd import reply
from ota_server.httpd.app import QuickReply
from ota_server.httpd.http1 import Request, reply_head
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import DeviceTable
from ota_server.model.device import Report
from ota_server.policy.files import PolicyFiles
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.store import NotHashed, NotNow

CHECK_PATH = b"/version.txt"
IMAGE_PATH = b"/firmware.bin"

# The fields that nearly all devices send, in any order: MAC (`_br_mac_`), version (`_br_fwv_`) and
# Host once, as `caller_of` reads them, and others that do not change the answer. Spelled out:
# counts and flags cost a third more.
_PAIR = rb"[0-9A-Fa-f][0-9A-Fa-f]"
_FIELDS = (
    rb" HTTP/1\.1\r\n(?:"
    rb"_br_(?:mac_: ?(?(1)(?!)|((?!00:00:00:00:00:00|[Ff][Ff](?::[Ff][Ff]){5})%b))"
    rb"|fwv_: ?(?(2)(?!)|([!-~]{1,64}+)))\r\n"
    rb"|[Hh]ost: ?(?(3)(?!)|([A-Za-z0-9.\-]{1,200}+(?::[0-5]?[0-9]{1,4})?))\r\n"
    rb"|[Cc]onnection: ?(?(4)(?!)|([Cc]lose|[Kk]eep-[Aa]live))\r\n"
    rb"|(?:[Uu]ser-[Aa]gent|[Aa]ccept(?:-[Ee]ncoding)?|[Cc]ache-[Cc]ontrol|[Pp]ragma)"
    rb": ?[ -~]{0,500}+\r\n"
    rb"){3,20}+(?(1)|(?!))(?(2)|(?!))(?(3)|(?!))\r\n" % b":".join([_PAIR] * 6)
)
_COMMON_CHECK = re.compile(b"GET " + re.escape(CHECK_PATH) + _FIELDS)
_COMMON_IMAGE = re.compile(b"GET " + re.escape(IMAGE_PATH) + _FIELDS)


def read_common_check(data: bytes) -> tuple[Report, bool] | None:
    """Read `data` as one common check.

    Returns:
        The report, and whether the connection stays open; None if `data` is anything else.
    """
    match = _COMMON_CHECK.fullmatch(data)
    return None if match is None else _report_of(match)


def read_common_image(buffer: bytes) -> tuple[Request, int] | None:
    """Read a common request for the image; the result lacks fields that change nothing.

    Returns:
        As `http1.read_request`; None if that has to read it.
    """
    match = _COMMON_IMAGE.match(buffer)
    if match is None:
        return None
    report, keep_alive = _report_of(match)
    fields = report.as_fields()
    return Request("GET", IMAGE_PATH, b"", 1, fields, frozenset(), keep_alive, 0), match.end()


def _report_of(match: re.Match[bytes]) -> tuple[Report, bool]:
    key, version, _host, connection = match.groups()
    keep_alive = connection is None or connection.lower() != b"close"
    return Report(str(key, "ascii").lower(), str(version, "ascii")), keep_alive


class Checks:
    """Answers checks. Safe for use by many threads."""

    def __init__(
        self, offers: Offers, policies: PolicyFiles, fleet: DeviceTable, clock_ms: Callable[[], int]
    ) -> None:
        self._offers = offers
        self._policies = policies
        self._fleet = fleet
        self._clock_ms = clock_ms
        self._replies_second = 0
        self._replies: dict[tuple[str, bool, bool], QuickReply] = {}

    def respond(self, report: Report, peer: Peer, may_wait: bool, in_field: bool = False) -> Reply:
        """Tell a device which version to run.

        Args:
            in_field: in the field `x-version`, not in the body.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        target_version: str | None = None
        now_ms = self._clock_ms()
        try:
            decision, end = self._offers.offer(report, peer, now_ms)
            target_version = decision.version
            if in_field:
                answer = reply.text(HTTPStatus.OK, "", ("x-version", target_version))
            else:
                answer = reply.text(HTTPStatus.OK, target_version + end)
            answer.needs_record = self._needs_record(report, target_version)
        except (NoTarget, NotNow):
            answer = reply.later("No target version.", reply.AT_NEXT_POLL)
        except NotHashed:
            if may_wait:
                raise
            answer = reply.later("The image is not ready yet.")
        details = {} if answer.status is HTTPStatus.OK else {"status": answer.status.value}
        self._fleet.check(report, target_version, peer.address, now_ms, details)
        return answer

    def answer_quickly(self, data: bytes, peer: Peer) -> QuickReply | None:
        """Answer a common check; return None if it is not one, or `respond` has to answer it."""
        found = read_common_check(data)
        if found is None:
            return None
        report, keep_alive = found
        now_ms = self._clock_ms()
        try:
            decision, end = self._offers.offer(report, peer, now_ms)
        except (NoTarget, NotNow, NotHashed):
            return None
        version = decision.version
        needs_record = self._needs_record(report, version)
        quick = self._reply(version + end, keep_alive, needs_record, now_ms // 1000)
        self._fleet.check(report, version, peer.address, now_ms)
        return quick

    def _needs_record(self, report: Report, version: str) -> bool:
        """Return whether this may be an offer of a rollout, which only the record shows."""
        return version != report.firmware_version and bool(self._policies.latest.rollouts)

    def _reply(self, text: str, keep_alive: bool, needs_record: bool, seconds: int) -> QuickReply:
        if self._replies_second != seconds:
            self._replies_second = seconds
            self._replies = {}
        replies, key = self._replies, (text, keep_alive, needs_record)
        quick = replies.get(key)
        if quick is None:
            answer = reply.text(HTTPStatus.OK, text)
            length = len(answer.body)
            head = reply_head(answer.status, answer.fields, length, seconds, keep_alive, 1)
            quick = replies[key] = QuickReply(head + answer.body, keep_alive, needs_record)
        return quick
