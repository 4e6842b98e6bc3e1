"""Proxies whose word about their clients is believed, and connections from them.

Without `--trusted-proxy` nothing here is used, and what anybody says about addresses is ignored.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from ota_server.httpd.app import App
from ota_server.httpd.connection import HEAD, IDLE, Connection
from ota_server.httpd.http1 import Request, is_host
from ota_server.httpd.proxy_protocol import read_header
from ota_server.httpd.reply import Peer
from ota_server.model.address import is_loopback, plain_address

FORWARDED_FIELD = b"x-forwarded-for"
Network = IPv4Network | IPv6Network
_FORWARDED_LINE = re.compile(
    rb"\r\n[Xx]-[Ff]orwarded-[Ff]or:[ \t]*([0-9A-Fa-f.:, ]{2,200})(?=\r\n)"
)
# A longer list is walked each time: thousands of them would fill the memory.
_LONGEST_KEPT = 200
# Some proxies add the port: 192.0.2.1:4711, [2001:db8::1]:4711.
_WITH_PORT = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}|\[([0-9A-Fa-f.:]{2,45})\](?::[0-9]{1,5})?")


class TrustedProxies:
    """The networks of trusted proxies. Does not change; threads may share it."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self.has = lru_cache(maxsize=16384)(self._has)
        self._client_of = lru_cache(maxsize=16384)(self._walk)

    def _has(self, address: str) -> bool:
        """Return whether this is the address of a trusted proxy."""
        found = ip_address(address.partition("%")[0])
        return any(found in network for network in self._networks)

    def client_of(self, peer: Peer, forwarded: bytes | None) -> Peer:
        """Return the client that X-Forwarded-For names.

        Each proxy appends the address that it sees, so the list is read from its end, as long as
        the address that was read before is that of a trusted proxy. What is not an address ends it.
        """
        if forwarded is None:
            return peer
        walk = self._client_of if len(forwarded) <= _LONGEST_KEPT else self._walk
        return walk(peer, forwarded)

    def _walk(self, peer: Peer, forwarded: bytes) -> Peer:
        client = peer
        for text in reversed(forwarded.decode("latin-1").split(",")):
            found = _plain(text.strip(" \t")) if self.has(client.address) else None
            if found is None:
                break
            client = seen_by(client, found)
        return client

    def unwrap(self, data: bytes, peer: Peer) -> tuple[bytes, Peer]:
        """Return a request without its X-Forwarded-For, and its client: the rest may be common.

        Without data if it has no such field, or the peer is not trusted.
        """
        found = _FORWARDED_LINE.search(data) if self.has(peer.address) else None
        if found is None:
            return b"", peer
        return data[: found.start()] + data[found.end() :], self.client_of(peer, found[1])


def seen_by(peer: Peer, address: str) -> Peer:
    """Return the client that a proxy sees at an address."""
    return Peer(address, is_loopback(address) and peer.is_local)


def _plain(text: str) -> str | None:
    """Return an address as this server writes it; None if it is not an address."""
    with_port = _WITH_PORT.fullmatch(text)
    try:
        found = ip_address(text if with_port is None else with_port[1] or with_port[2])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        return None
    return plain_address(found)


class ProxiedConnection(Connection):
    """A connection from a trusted proxy; `peer` is the client once a PROXY header has named it."""

    __slots__ = ("_is_new", "_proxies")

    def __init__(
        self,
        app: App,
        peer: Peer,
        idle_seconds: float,
        now: float,
        proxies: TrustedProxies,
    ) -> None:
        super().__init__(app, peer, idle_seconds, now)
        self._proxies = proxies
        self._is_new = True  # a PROXY header may come

    def answered_quickly(self, reply_bytes: int, keep_alive: bool, now: float) -> None:
        """Record a reply that was made without this class: no PROXY header can come any more."""
        self._is_new = False
        super().answered_quickly(reply_bytes, keep_alive, now)

    def _read_request(self, now: float) -> Request | None:
        if self._is_new and self._state is HEAD:
            found = read_header(self._buffer)
            if found is None:
                return None
            self._is_new = False
            address, length = found
            if address is not None:
                self.peer = seen_by(self.peer, address)
            if length:
                self._buffer = self._buffer[length:]
                self._head_began = self._idle_since = now
                self._state = HEAD if self._buffer else IDLE
        return super()._read_request(now)

    def _client_of(self, request: Request) -> Peer:
        client = self._proxies.client_of(self.peer, request.get(FORWARDED_FIELD))
        # After a PROXY header these fields are the client's own.
        return client._replace(is_proxied=self._proxies.has(self.peer.address))


def origin_of(request: Request, peer: Peer) -> str:
    """Return scheme and host by which a client reaches this server; "" if it does not say.

    A trusted proxy may know better, by X-Forwarded-Proto and X-Forwarded-Host.
    """
    host, scheme = request.fields.get(b"host", b""), b"http"
    if peer.is_proxied:
        # The first one is that of the client; proxies append theirs.
        named, proto = (
            request.fields.get(name, b"").partition(b",")[0].strip()
            for name in (b"x-forwarded-host", b"x-forwarded-proto")
        )
        host = named if named and is_host(named) else host
        scheme = proto.lower() if proto.lower() in (b"http", b"https") else scheme
    return f"{scheme.decode()}://{host.decode('latin-1')}" if host else ""
