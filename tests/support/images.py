"""Images of microcontrollers, as far as a server looks at them."""

import hashlib
import struct
import zlib

ESP_CHIP_IDS = {"ESP32": 0, "ESP32-C3": 5, "ESP32-S3": 9}
# Each byte with its bits in the opposite order.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def esp8266_image(seed: str, mode: int = 2, size: int = 3000) -> bytes:
    """Return an image for an ESP8266; `mode` is the flash mode that the build gave it."""
    head = struct.pack("<BBBBI", 0xE9, 1, mode, 0x40, 0x40100000)
    head += struct.pack("<II", 0x40100000, (size - 32) // 4 * 4)
    return _filled(head, seed, size)


def esp32_image(seed: str, chip: str = "ESP32", size: int = 3008) -> bytes:
    """Return an image for a chip of the ESP32 family; its build has appended its SHA-256.

    Args:
        size: a multiple of 16, as all of them have.
    """
    head = struct.pack("<BBBBI", 0xE9, 1, 0, 0x20, 0x40080000)
    head += struct.pack("<4xH9xB", ESP_CHIP_IDS[chip], 1)
    head += struct.pack("<II", 0x3F400020, size - 80)
    image = _filled(head, seed, size - 32)
    return image + hashlib.sha256(image).digest()


def rp2040_image(seed: str, size: int = 3000) -> bytes:
    """Return an image for an RP2040: it begins with a checked boot loader of 256 bytes."""
    boot = _filled(b"", seed, 252)
    # CRC-32 with the bits of each byte, and of the result, the other way round.
    crc = zlib.crc32(boot.translate(_REVERSED)) ^ 0xFFFFFFFF
    return _filled(boot + struct.pack("<I", int(f"{crc:032b}"[::-1], 2)), seed, size)


def _filled(head: bytes, seed: str, size: int) -> bytes:
    text = f"the image {seed} ".encode() * (size // 10)
    return (head + text)[:size]
