"""Rejected requests: on the list of them, counted, and some of them in the server's log. I/O."""

import logging
import time
from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port.counts import RequestCounts
from ota_server.httpd.reply import Peer
from ota_server.journal.rejected import Rejected
from ota_server.system.server_log import Budget, RateLimit

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 60.0
# In all, from any number of addresses: an IPv6 network has enough of them to fill any log.
_LOG_LINES = 20


class Refusals:
    """Notes the requests that are rejected. Safe for use by many threads.

    Attributes:
        logs_each: log all of them, not some of each kind.
    """

    def __init__(
        self, rejected: Rejected, counts: RequestCounts, clock_ms: Callable[[], int]
    ) -> None:
        self.logs_each = False
        self._rejected = rejected
        self._counts = counts
        self._clock_ms = clock_ms
        self._limit = RateLimit(_LOG_EVERY_SECONDS)
        self._budget = Budget(_LOG_LINES, _LOG_EVERY_SECONDS)

    def note(self, status: HTTPStatus, problem: str, mac: str | None, peer: Peer) -> None:
        """Note a request that is rejected.

        Args:
            mac: the device's, or its key, as far as that is known.
        """
        self._counts.rejects(status)
        is_401 = status is HTTPStatus.UNAUTHORIZED
        reason = problem if is_401 else f"{status.value}: {problem}"
        count = self._rejected.note(peer.address, reason, mac, self._clock_ms())
        if self.logs_each or self._may_log(f"{status.value} {peer.address}"):
            log.warning(
                "%d for %s%s: %s (%d so far; `devices --rejected` lists them)",
                status.value,
                peer.address,
                f" ({mac})" if mac else "",
                problem,
                count,
            )

    def _may_log(self, key: str) -> bool:
        now_seconds = time.monotonic()
        return self._limit.allows(key, now_seconds) and self._budget.allows(now_seconds)
