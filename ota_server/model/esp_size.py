"""How many bytes an image for an ESP8266 or ESP32 has at least, by its segments. Pure.

esptool, "Firmware Image Format": a header, segments with a header of 8 bytes each, one byte that
ends on a multiple of 16, and, if the header says so, the SHA-256 of all that. More may follow, such
as a signature, or the application behind Arduino's boot loader for the ESP8266.
"""

import struct
from collections.abc import Callable

_MAGIC = 0xE9
_SEGMENTS_OFFSET, _HASH_APPENDED_OFFSET = 1, 23
_HEADER_BYTES = {"ESP8266": 8}  # on all others 24
_SEGMENT = struct.Struct("<4xI")
_ALIGNMENT, _SHA256_BYTES = 16, 32


def esp_size(read: Callable[[int, int], bytes], chip: str) -> int | None:
    """Return the least size in bytes; None: it is not such an image.

    Args:
        read: returns up to so many bytes (second) from an offset (first).
        chip: that the image is for.
    """
    head = read(0, 24)
    if len(head) < 24 or head[0] != _MAGIC:
        return None
    position = _HEADER_BYTES.get(chip, len(head))
    is_hashed = position == len(head) and head[_HASH_APPENDED_OFFSET] == 1
    for _ in range(head[_SEGMENTS_OFFSET]):
        segment = read(position, _SEGMENT.size)
        position += _SEGMENT.size
        if len(segment) < _SEGMENT.size:
            return position
        position += _SEGMENT.unpack(segment)[0]
    return (position // _ALIGNMENT + 1) * _ALIGNMENT + is_hashed * _SHA256_BYTES
