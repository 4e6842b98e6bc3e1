"""Notices a proxy in front of a server that was not told of one.

What the server sends to a proxy is acknowledged by the proxy: then a device whose link breaks looks
as if it had the whole image, and a rollout of a good release is halted. So while a rollout is on,
an operator is told once, in the log and by `rollout status`.
"""

import logging

from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer

log = logging.getLogger(__name__)

_FIELDS = (b"via", b"x-forwarded-for")
# So many devices download from one address of this machine, and none from another address.
_LEAST_DEVICES = 3
_ADVICE = (
    "so a proxy seems to be in front of this server. What it has fetched counts as what the device "
    "has, and all devices seem to be at one address, so that a rollout can halt or pause without "
    "cause: serve with --trusted-proxy %s, or, if it sends no X-Forwarded-For, --buffering-proxy"
)


class ProxySigns:
    """Looks at the requests of a rollout. Threads may share it: at worst it says it twice.

    Attributes:
        text: what was noticed, and what to do; "": nothing.
    """

    def __init__(self) -> None:
        self.text = ""
        self._macs: set[str] = set()
        self._address: str | None = ""  # where all downloads come from; None: from more than one

    def look_at(self, request: Request, mac: str, peer: Peer, is_download: bool) -> None:
        """Look at one request of a device."""
        if self.text:
            return
        for field in _FIELDS:
            if field in request.fields:
                name = field.decode("ascii").title()
                self._say(f"a request came with {name} (from {peer.address})", peer)
                return
        if not is_download or self._address is None:
            return
        if not peer.is_local or self._address not in ("", peer.address):
            self._address = None
            return
        self._address = peer.address
        self._macs.add(mac)
        if len(self._macs) >= _LEAST_DEVICES:
            self._say(f"all devices download from {peer.address}, this machine itself", peer)

    def _say(self, sign: str, peer: Peer) -> None:
        # A stranger can send these fields: only this machine's address is worth naming.
        self.text = f"{sign}, {_ADVICE % (peer.address if peer.is_local else 'ADDRESS')}"
        log.warning("%s", self.text)
