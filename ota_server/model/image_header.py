"""What a firmware image says of itself in its first bytes. Pure.

It helps the person who publishes, and never stops a device: most raw images say nothing at all.
Integers are read where the vendors document them. A reader returns None if a value is impossible,
so random bytes are seldom taken for an image.
"""

import re
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ota_server.model.archive import is_archive
from ota_server.model.chips import (
    ELF_MACHINES,
    ESP_CHIPS,
    U_BOOT_ARCHITECTURES,
    UF2_FAMILIES,
)

# A block of UF2 is 512 bytes and ends with a magic number. All else is within the first 256, except
# the file name of a gzip header.
HEAD_BYTES = 512

_MAX_TEXT = 64  # the longest field is 32; a gzip file name has no limit
_PRINTABLE = re.compile(rb"[ -~]+")

# esptool, "Firmware Image Format", and ESP-IDF, esp_app_format.h: a header of 8 bytes, on the ESP32
# family 16 more, then segments with a header of 8 bytes each. All little-endian.
_ESP_HEADER = struct.Struct("<BBBBI")  # magic, segments, SPI mode, flash size and speed, entry
_ESP_EXTENSION = struct.Struct("<4xH9xB")  # WP pin, drive strengths; chip; revisions; hash appended
_ESP_SEGMENT = struct.Struct("<II")  # load address, length
_ESP8266_FIRST_DATA = _ESP_HEADER.size + _ESP_SEGMENT.size
_ESP32_FIRST_DATA = _ESP_HEADER.size + _ESP_EXTENSION.size + _ESP_SEGMENT.size
_ESP_MOST_SEGMENTS = 16
# A boot loader refuses a segment of another length than a multiple of 4.
DAMAGED = ", damaged"
_ESP_MOST_SPI_MODE = 5
_ESP_MOST_SEGMENT_BYTES = 16 << 20
# By the high four bits of byte 3, in KiB. The two families count differently.
_ESP32_FLASH = {code: 1024 << code for code in range(8)}
_ESP8266_FLASH = {0: 512, 1: 256, 2: 1024, 3: 2048, 4: 4096, 5: 2048, 6: 4096, 8: 8192, 9: 16384}
# Where an ESP8266 can load a segment: data memory, instruction memory (the last half is the cache,
# or Arduino's boot loader), and the MiB of flash that is mapped.
_ESP8266_INSTRUCTIONS = range(0x40100000, 0x40110000)
_ESP8266_MEMORY = (
    range(0x3FFE8000, 0x40000000),
    _ESP8266_INSTRUCTIONS,
    range(0x40200000, 0x40300000),
)
_ESP_APPLICATION = struct.Struct("<I12x32s32s16s16s")  # magic, version, project, time, date
_ESP_APPLICATION_MAGIC = 0xABCD5432
_ESP_BOOT_LOADER = struct.Struct("<B7x32s24s")  # magic, version of ESP-IDF, date and time
_ESP_BOOT_LOADER_MAGIC = 80

# U-Boot, include/image.h: big-endian. magic, CRC of the header, time, size, load address, entry,
# CRC of the data, operating system, architecture, type, compression, name.
_U_BOOT = struct.Struct(">4xIII12xxBxx32s")
_U_BOOT_CRC = slice(4, 8)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# RP2040 datasheet, section 2.8.1.3.1: flash begins with a boot loader of 252 bytes and their
# CRC-32, whose bits stand the other way round than in zlib's.
_BOOT2_CRC = struct.Struct("<252xI")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# RP2350 datasheet, section 5.9.5: a block whose first item says that this is a program for the
# chip, somewhere in the first 4 KiB. The Pico SDK puts it behind the vectors.
_RP2350_BLOCK = re.compile(rb"\xd3\xde\xff\xff\x42\x01.[\x10\x11\x90\x91]", re.DOTALL)

# Devicetree Specification, chapter 5: total size, five fields of which the last two are versions.
_DEVICE_TREE = struct.Struct(">4xI12xII")
_DEVICE_TREE_VERSIONS = range(16, 18)

# MCUboot, docs/design.md: header size, size of protected TLVs, image size, version. Little-endian.
_MCUBOOT = struct.Struct("<8xHHI4xBBHI")
_MCUBOOT_LEAST_HEADER = 32

_UF2 = struct.Struct("<8xI12xII")  # flags, blocks, family
_UF2_END = b"\x30\x6f\xb1\x0a"
_UF2_END_OFFSET = 508
_UF2_BLOCK_BYTES = 512
_UF2_HAS_FAMILY = 0x2000

_SQUASHFS = struct.Struct("<28xH10xQ")  # major version, bytes used
_SQUASHFS_VERSION = 4

_ELF_ORDER_OFFSET, _ELF_MACHINE_OFFSET = 5, 18
_ELF_LITTLE_ENDIAN, _ELF_BIG_ENDIAN = 1, 2

_GZIP_EXTRA, _GZIP_NAME, _GZIP_RESERVED = 0x04, 0x08, 0xE0  # RFC 1952 section 2.3.1
_GZIP_HEADER_BYTES = 10

_CPIO_NAME_OFFSET = 110
_SWUPDATE_FIRST_FILE = b"sw-description\0"

# The first record of a file, whole: length, address, type, data, sum.
_HEX_RECORD = re.compile(rb":((?:[0-9A-Fa-f]{2}){5,})\r?\n")
_HEX_FRAME_BYTES = 5


class ImageHeader(NamedTuple):
    """What an image says of itself; None: it says nothing.

    `flash_size` is in bytes, of the flash that it was built for. `name` is what U-Boot's header or
    gzip's calls it, `built` when it was made, as the image has it or in UTC. A file of fewer bytes
    than `least_size` has been cut.
    """

    format: str
    chip: str | None = None
    flash_size: int | None = None
    project: str | None = None
    version: str | None = None
    name: str | None = None
    built: str | None = None
    least_size: int | None = None


def read_header(head: bytes) -> ImageHeader | None:
    """Return what the first `HEAD_BYTES` of an image say of it; None: nothing."""
    head = head[:HEAD_BYTES]
    for magic, least_bytes, read in _READERS:
        if head.startswith(magic) and len(head) >= least_bytes:
            return read(head)
    for magic, format_ in _BY_MAGIC_ALONE.items():
        if head.startswith(magic):
            return ImageHeader(format_)
    return ImageHeader("tar archive") if is_archive(head) else _raspberry_pi(head)


def describe(header: ImageHeader) -> str:
    """Return one line for a person: `ESP32-S3 image, 4 MB flash, project blink, version v1.2.0`."""
    chip, size = header.chip, header.flash_size
    family, _, kind = header.format.partition(" ")
    if chip and family in ("ESP32", "ESP8266", "RP2040", "RP2350"):
        parts = [f"{chip} {kind}"]
    else:
        parts = [header.format, *([chip] if chip else [])]
    if size:
        parts.append(f"{size >> 20} MB flash" if size >= 1 << 20 else f"{size >> 10} KB flash")
    for word, text in (
        ("project", header.project),
        ("version", header.version),
        ("named", header.name),
        ("built", header.built),
    ):
        if text:
            parts.append(f"{word} {text}")
    return ", ".join(parts)


def _text(field: bytes) -> str | None:
    """Return a field up to its NUL; None if it is empty or not all printable ASCII."""
    field = field.partition(b"\0")[0].strip(b" ")[:_MAX_TEXT]
    return field.decode("ascii") if _PRINTABLE.fullmatch(field) else None


def _esp(head: bytes) -> ImageHeader | None:
    """Read an image with the magic number that ESP8266 and the ESP32 family share.

    Bytes 8 to 11 tell them apart. On an ESP8266 they are the load address of the first segment, so
    the highest byte is 0x3f or 0x40. On an ESP32 that byte holds two drive strengths, of 0 to 3
    each, and esptool writes 0. The entry point cannot tell: 0x4010xxxx is instruction memory on an
    ESP8266 and mapped flash on an ESP32. Nor can an application's description: not all have one.
    """
    _, segments, spi_mode, flash, _ = _ESP_HEADER.unpack_from(head)
    if not 1 <= segments <= _ESP_MOST_SEGMENTS or spi_mode > _ESP_MOST_SPI_MODE:
        return None
    address, length = _ESP_SEGMENT.unpack_from(head, _ESP_HEADER.size)
    if not any(address in memory for memory in _ESP8266_MEMORY):
        return _esp32(head, flash)
    if length >= _ESP_MOST_SEGMENT_BYTES:
        return None
    return _with_application(_esp8266_header(flash, length), head, _ESP8266_FIRST_DATA)


def _esp32(head: bytes, flash: int) -> ImageHeader | None:
    chip, hash_appended = _ESP_EXTENSION.unpack_from(head, _ESP_HEADER.size)
    _, length = _ESP_SEGMENT.unpack_from(head, _ESP_HEADER.size + _ESP_EXTENSION.size)
    is_likely = length % 4 == 0 or chip in ESP_CHIPS
    if hash_appended > 1 or length >= _ESP_MOST_SEGMENT_BYTES or not is_likely:
        return None
    kibibytes = _ESP32_FLASH.get(flash >> 4)
    header = ImageHeader(
        f"ESP32 image{_damage(length)}",
        chip=ESP_CHIPS.get(chip, f"ESP chip {chip}"),
        flash_size=kibibytes << 10 if kibibytes else None,
    )
    boot_loader = _esp_boot_loader(head)
    if boot_loader:
        # Usually published by mistake: a device that takes it for its application is lost.
        format_ = "ESP32 boot loader or factory image"
        return header._replace(format=format_, built=boot_loader)
    return _with_application(header, head, _ESP32_FIRST_DATA)


def _esp8266_second(head: bytes) -> ImageHeader | None:
    """Read an image that a boot loader in flash starts: code for address 0, then a whole image."""
    _, _, spi_mode, flash, entry = _ESP_HEADER.unpack_from(head)
    address, length = _ESP_SEGMENT.unpack_from(head, _ESP_HEADER.size)
    if spi_mode > _ESP_MOST_SPI_MODE or entry not in _ESP8266_INSTRUCTIONS or address:
        return None
    is_length = length < _ESP_MOST_SEGMENT_BYTES and length % 4 == 0
    return _esp8266_header(flash, length) if is_length else None


def _esp8266_header(flash: int, length: int) -> ImageHeader:
    kibibytes = _ESP8266_FLASH.get(flash >> 4)
    size = kibibytes << 10 if kibibytes else None
    return ImageHeader(f"ESP8266 image{_damage(length)}", chip="ESP8266", flash_size=size)


def _damage(length: int) -> str:
    return f"{DAMAGED} (a segment of {length} bytes, not a multiple of 4)" * bool(length % 4)


def _with_application(header: ImageHeader, head: bytes, offset: int) -> ImageHeader:
    """Add what esp_app_desc_t says, at the head of the first segment of most applications."""
    if len(head) < offset + _ESP_APPLICATION.size:
        return header
    magic, version, project, time, date = _ESP_APPLICATION.unpack_from(head, offset)
    if magic != _ESP_APPLICATION_MAGIC:
        return header
    built = " ".join(text for text in (_text(date), _text(time)) if text)
    return header._replace(version=_text(version), project=_text(project), built=built or None)


def _esp_boot_loader(head: bytes) -> str | None:
    """Return when a boot loader (ESP-IDF 5.2 or newer) was built, or None if it is not one."""
    if len(head) < _ESP32_FIRST_DATA + _ESP_BOOT_LOADER.size:
        return None
    magic, idf_version, built = _ESP_BOOT_LOADER.unpack_from(head, _ESP32_FIRST_DATA)
    # A magic number of one byte proves nothing; the texts behind it do.
    return _text(built) if magic == _ESP_BOOT_LOADER_MAGIC and _text(idf_version) else None


def _u_boot(head: bytes) -> ImageHeader | None:
    crc, time, size, architecture, name = _U_BOOT.unpack_from(head)
    zeroed = bytearray(head[: _U_BOOT.size])
    zeroed[_U_BOOT_CRC] = bytes(4)
    if zlib.crc32(zeroed) != crc:
        return None
    # Not fromtimestamp: with a time_t of 32 bits it fails after 2038.
    built = _EPOCH + timedelta(seconds=time)
    return ImageHeader(
        "U-Boot legacy image",
        chip=U_BOOT_ARCHITECTURES.get(architecture),
        name=_text(name),
        built=f"{built:%Y-%m-%dT%H:%M:%SZ}" if time else None,
        least_size=_U_BOOT.size + size,
    )


def _device_tree(head: bytes) -> ImageHeader | None:
    size, version, compatible_version = _DEVICE_TREE.unpack_from(head)
    if version not in _DEVICE_TREE_VERSIONS or compatible_version > version:
        return None
    return ImageHeader("U-Boot FIT / device tree", least_size=size)


def _mcuboot(head: bytes) -> ImageHeader | None:
    header_size, protected, size, major, minor, revision, build = _MCUBOOT.unpack_from(head)
    if header_size < _MCUBOOT_LEAST_HEADER:
        return None
    version = f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")
    return ImageHeader("MCUboot image", version=version, least_size=header_size + size + protected)


def _uf2(head: bytes) -> ImageHeader | None:
    if not head.startswith(_UF2_END, _UF2_END_OFFSET):
        return None
    flags, blocks, family = _UF2.unpack_from(head)
    chip = UF2_FAMILIES.get(family) if flags & _UF2_HAS_FAMILY else None
    return ImageHeader("UF2", chip=chip, least_size=blocks * _UF2_BLOCK_BYTES)


def _raspberry_pi(head: bytes) -> ImageHeader | None:
    """Read an image for a Raspberry Pi Pico, which has no magic number at its head."""
    if _RP2350_BLOCK.search(head):
        return ImageHeader("RP2350 image", chip="RP2350")
    if len(head) < _BOOT2_CRC.size:
        return None
    crc = zlib.crc32(head[: _BOOT2_CRC.size - 4].translate(_REVERSED)) ^ 0xFFFFFFFF
    if _BOOT2_CRC.unpack_from(head)[0] != int(f"{crc:032b}"[::-1], 2):
        return None
    return ImageHeader("RP2040 image", chip="RP2040")


def _squashfs(head: bytes) -> ImageHeader | None:
    major, used = _SQUASHFS.unpack_from(head)
    if major != _SQUASHFS_VERSION:
        return None
    return ImageHeader("squashfs (e.g. RAUC bundle)", least_size=used)


def _elf(head: bytes) -> ImageHeader | None:
    little, order = _ELF_LITTLE_ENDIAN, head[_ELF_ORDER_OFFSET]
    if order not in (little, _ELF_BIG_ENDIAN):
        return None
    field = head[_ELF_MACHINE_OFFSET : _ELF_MACHINE_OFFSET + 2]
    machine = int.from_bytes(field, "little" if order == little else "big")
    return ImageHeader("ELF", chip=ELF_MACHINES.get(machine))


def _gzip(head: bytes) -> ImageHeader | None:
    flags, offset = head[3], _GZIP_HEADER_BYTES
    if flags & _GZIP_RESERVED:
        return None
    if flags & _GZIP_EXTRA:
        offset += 2 + int.from_bytes(head[offset : offset + 2], "little")
    if not flags & _GZIP_NAME or b"\0" not in head[offset:]:
        return ImageHeader("gzip")
    return ImageHeader("gzip", name=_text(head[offset:]))


def _cpio(head: bytes) -> ImageHeader:
    is_swupdate = head.startswith(_SWUPDATE_FIRST_FILE, _CPIO_NAME_OFFSET)
    return ImageHeader("SWUpdate (cpio newc)" if is_swupdate else "cpio newc")


def _intel_hex(head: bytes) -> ImageHeader | None:
    match = _HEX_RECORD.match(head)
    record = bytes.fromhex(match[1].decode("ascii")) if match else b""
    if not record or len(record) != record[0] + _HEX_FRAME_BYTES or sum(record) % 256:
        return None
    return ImageHeader("Intel HEX")


# What an image begins with, how many bytes its reader needs at least, the reader.
_READERS: tuple[tuple[bytes, int, Callable[[bytes], ImageHeader | None]], ...] = (
    (b"\xe9", _ESP32_FIRST_DATA, _esp),
    (b"\xea\x04", _ESP8266_FIRST_DATA, _esp8266_second),
    (b"\x27\x05\x19\x56", _U_BOOT.size, _u_boot),
    (b"\xd0\x0d\xfe\xed", _DEVICE_TREE.size, _device_tree),
    (b"\x3d\xb8\xf3\x96", _MCUBOOT.size, _mcuboot),
    (b"UF2\n\x57\x51\x5d\x9e", _UF2_BLOCK_BYTES, _uf2),
    (b"hsqs", _SQUASHFS.size, _squashfs),
    (b"\x7fELF", _ELF_MACHINE_OFFSET + 2, _elf),
    (b"\x1f\x8b\x08", _GZIP_HEADER_BYTES, _gzip),
    (b"070701", _CPIO_NAME_OFFSET, _cpio),
    (b"070702", _CPIO_NAME_OFFSET, _cpio),
    (b":", 1, _intel_hex),
)
_BY_MAGIC_ALONE = {
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
