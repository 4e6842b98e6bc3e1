"""Make a PNG small: with a palette of the colours that it has most of. Pure.

Pages have few colours, and shades of them at the edges of letters: 64 are enough for the eye, and
take a third of the bytes.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">IIBBBBB")
_RGB = 2
_PALETTE = 3
Colour = tuple[int, int, int]


def make_small(content: bytes, colours: int = 64) -> bytes:
    """Return a PNG of 8-bit RGB, as browsers draw it, with at most so many colours."""
    chunks = [*_chunks(content)]
    width, height, depth, kind, *_ = _HEAD.unpack(chunks[0][1])
    assert (depth, kind) == (8, _RGB), "not 8-bit RGB"
    packed = b"".join(data for name, data in chunks if name == b"IDAT")
    rows = [*_rows(zlib.decompress(packed), 3 * width)]
    palette, places = _palette(rows, colours)
    body = b"".join(
        b"\0" + bytes(places[colour] for colour in zip(row[::3], row[1::3], row[2::3], strict=True))
        for row in rows
    )
    head = _HEAD.pack(width, height, 8, _PALETTE, 0, 0, 0)
    return _SIGNATURE + b"".join(
        (
            _chunk(b"IHDR", head),
            _chunk(b"PLTE", bytes(part for colour in palette for part in colour)),
            _chunk(b"IDAT", zlib.compress(body, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += length + 12


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _rows(filtered: bytes, length: int) -> Iterator[bytes]:
    """Yield the rows of pixels without their filters (PNG, section 9)."""
    above = bytes(length)
    for at in range(0, len(filtered), length + 1):
        kind, row = filtered[at], bytearray(filtered[at + 1 : at + 1 + length])
        if kind == 2:
            row = bytearray((one + other) & 255 for one, other in zip(row, above, strict=True))
        elif kind:
            for place in range(length):
                left = row[place - 3] if place >= 3 else 0
                corner = above[place - 3] if place >= 3 else 0
                row[place] = (row[place] + _guess(kind, left, above[place], corner)) & 255
        above = bytes(row)
        yield above


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 1:
        return left
    if kind == 3:
        return (left + up) // 2
    near = left + up - corner
    return min((left, up, corner), key=lambda each: abs(near - each))


def _palette(rows: list[bytes], colours: int) -> tuple[list[Colour], dict[Colour, int]]:
    """Return the colours that are kept, and for each one of the picture the place of its nearest.

    Those that are used most, and of the others every one that is far from all of these: a small
    spot of red stays red.
    """
    counts: Counter[Colour] = Counter()
    for row in rows:
        counts.update(zip(row[::3], row[1::3], row[2::3], strict=True))
    palette = [colour for colour, _ in counts.most_common(colours // 3)]
    for least in (24 * 24, 12 * 12, 0):
        for colour, _ in counts.most_common():
            if len(palette) < colours and all(_apart(colour, each) > least for each in palette):
                palette.append(colour)
    places = {
        colour: min(range(len(palette)), key=lambda at: _apart(colour, palette[at]))
        for colour in counts
    }
    return palette, places


def _apart(one: Colour, other: Colour) -> int:
    return sum((left - right) ** 2 for left, right in zip(one, other, strict=True))
