"""The PROXY protocol, versions 1 and 2, as a receiver reads it. Pure.

A proxy that forwards bytes sends one header before them: a line of text (version 1), or binary
(version 2). Names of sections are those of HAProxy's doc/proxy-protocol.txt.

1. Only a connection from a trusted address is read so: anybody else could claim any address.
2. Nothing is answered before the whole header is there, and a header that is not exactly as the
   specification has it ends the connection.
3. A header without the address of a TCP client (UNKNOWN, LOCAL, UDP, a Unix socket) is skipped, and
   the address of the connection counts.
4. What follows the addresses in version 2 (TLVs) is skipped.
"""

import re
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address

from ota_server.httpd.http1 import BadRequest
from ota_server.model.address import plain_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_NAME = b"PROXY "
_MOST_LINE_BYTES = 107  # section 2.1
_LINE = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39})"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")
_HEAD_BYTES = 16
# The length field could say 65,535. Section 2.2: a header is always smaller than a TCP segment.
_MOST_BINARY_BYTES = 4096
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
# The bytes of the two addresses, and of their ports, by family: unspecified, IPv4, IPv6, Unix.
_ADDRESS_BYTES = (0, 12, 36, 216)
_PROTOCOLS = 3


def read_header(buffer: bytes) -> tuple[str | None, int] | None:
    """Read the header that a connection may begin with.

    Returns:
        The address of the client, and the length of the header; without an address, that of the
        connection counts; length 0: there is no header. None: more bytes are needed.

    Raises:
        BadRequest: the header is broken.
    """
    if SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
        return None if len(buffer) < _HEAD_BYTES else _read_binary(buffer)
    if _NAME.startswith(buffer[: len(_NAME)]):
        return None if len(buffer) < len(_NAME) else _read_line(buffer)
    return None, 0


def _read_line(buffer: bytes) -> tuple[str | None, int] | None:
    line, end, _ = buffer[:_MOST_LINE_BYTES].partition(b"\r\n")
    if not end:
        if len(buffer) >= _MOST_LINE_BYTES:
            raise _broken("its line does not end")
        return None
    length = len(line) + len(end)
    if _UNKNOWN.fullmatch(line):
        return None, length
    found = _LINE.fullmatch(line)
    if found is None or int(found[4]) > 65535 or int(found[5]) > 65535:
        raise _broken("its line is malformed")
    family = IPv4Address if found[1] == b"TCP4" else IPv6Address
    try:
        source, _destination = (family(each.decode("ascii")) for each in found.group(2, 3))
    except ValueError:
        raise _broken("its line has no such addresses") from None
    return plain_address(source), length


def _read_binary(buffer: bytes) -> tuple[str | None, int] | None:
    command, kind = buffer[12], buffer[13]
    length = int.from_bytes(buffer[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise _broken("it is not version 2, or its command is unknown")
    if _HEAD_BYTES + length > _MOST_BINARY_BYTES:
        raise _broken(f"it is over {_MOST_BINARY_BYTES} bytes")
    family, protocol = divmod(kind, 16)
    if command == _PROXY:
        if family >= len(_ADDRESS_BYTES) or protocol >= _PROTOCOLS:
            raise _broken("its kind of address is unknown")
        if protocol and length < _ADDRESS_BYTES[family]:
            raise _broken("its addresses are cut")
    if len(buffer) < _HEAD_BYTES + length:
        return None
    source: IPv4Address | IPv6Address | None = None
    if command == _PROXY and kind == _TCP4:
        source = IPv4Address(buffer[16:20])
    elif command == _PROXY and kind == _TCP6:
        source = IPv6Address(buffer[16:32])
    return None if source is None else plain_address(source), _HEAD_BYTES + length


def _broken(problem: str) -> BadRequest:
    return BadRequest(HTTPStatus.BAD_REQUEST, f"the PROXY header cannot be used: {problem}")
