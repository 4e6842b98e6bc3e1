"""Which site a request is for, and which site's page sent it. Pure.

A browser sends what a page of any other site tells it to send, also to this machine and into its
network. Two guards stand against that:

- *Host.* A site may have its own name lead here (DNS rebinding): then the browser takes what it
  gets for a part of that site. Its requests have that name as their Host, so only addresses,
  `localhost`, this machine's name and those that were named at the start are accepted.
- *Origin.* A page of another site may send a form, but not choose its Origin. Sec-Fetch-Site says
  the same; a browser sends it only by https and to this machine.
"""

import re
from ipaddress import ip_address
from typing import NamedTuple

_SITE = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class SiteName(NamedTuple):
    """Scheme, host in lower case, and port."""

    scheme: str
    host: str
    port: int


def site_of(origin: str) -> SiteName | None:
    """Return the site of an origin as browsers write it; None: it is not one, such as `null`."""
    match = _SITE.fullmatch(origin)
    if match is None:
        return None
    scheme, host, port = match.groups()
    # `localhost.` is the same name, written as absolute.
    return SiteName(scheme, host.lower().removesuffix("."), int(port or _DEFAULT_PORTS[scheme]))


def is_known_host(site: SiteName, names: frozenset[str]) -> bool:
    """Return whether no other site can have this host: an address, or one of these names."""
    if site.host in names:
        return True
    try:
        ip_address(site.host.strip("[]"))
    except ValueError:
        return False
    return True


def is_from_elsewhere(own: SiteName, origin: str | None, fetch_site: str | None) -> bool:
    """Return whether a page of another site sent a request that may change something.

    The scheme is not compared: behind a proxy that ends TLS it is not known.

    Args:
        origin: the field Origin; None: it was not sent, which proves nothing.
        fetch_site: the field Sec-Fetch-Site; None: as above.
    """
    if fetch_site not in (None, "same-origin", "none"):
        return True
    if origin is None:
        return False
    if origin == "null":
        # Also what a browser sends for a page of ours that allows no Referer.
        return fetch_site != "same-origin"
    theirs = site_of(origin)
    if theirs is None:
        return True
    return (theirs.host, theirs.port) != (own.host, _port(own, theirs.scheme))


def is_embedded_elsewhere(fetch_site: str | None, fetch_mode: str | None) -> bool:
    """Return whether a page of another site loads something as a part of itself.

    It could not read it, but learn from its size or its time, or hold streams open. A link that
    leads here is a navigation.
    """
    return fetch_site in ("cross-site", "same-site") and fetch_mode != "navigate"


def _port(own: SiteName, scheme: str) -> int:
    """Return the port of a site; one that was not said is that of the scheme."""
    is_default = own.port == _DEFAULT_PORTS[own.scheme]
    return _DEFAULT_PORTS[scheme] if is_default else own.port
