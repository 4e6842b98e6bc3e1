"""What images say of themselves, by the layouts that their makers document."""

import gzip
import io
import lzma
import random
import struct
import subprocess
import unittest
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ota_server.model.image_header import HEAD_BYTES, ImageHeader, describe, read_header
from tests.support import TIMEOUT_SECONDS
from tests.support.images import rp2040_image
from tests.support.real_clients import needs

KIB, MIB = 1024, 1024 * 1024
SEED = 20261124
RANDOM_INPUTS = 2000

# All that the mkimage of Debian 12 writes.
U_BOOT_ARCHITECTURES = """
    alpha arm x86 ia64 mips mips64 powerpc s390 sh sparc sparc64 m68k nios2 microblaze blackfin
    avr32 sandbox nds32 or1k arm64 arc x86_64 xtensa riscv
"""


def cpio_archive(files: Mapping[str, bytes]) -> bytes:
    """Return files as `cpio -H crc` writes them."""
    entries = []
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], start=1):
        mode, links = 0o100644, 1
        # inode, mode, uid, gid, links, mtime, size, device numbers, length of the name, sum
        numbers = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1)
        head = b"070702" + b"".join(b"%08X" % field for field in (*numbers, sum(content)))
        for part in (head + name.encode("ascii") + b"\0", content):
            entries.append(part + b"\0" * (-len(part) % 4))
    return b"".join(entries)


def esp32(
    chip: int = 9,
    flash: int = 2,
    content: bytes = b"",
    *,
    segments: int = 2,
    spi_mode: int = 0,
    wp_pin: int = 0xEE,
    drive: bytes = bytes(3),
    length: int = 320,
    hash_appended: int = 1,
) -> bytes:
    """Return an image as esptool writes it: header, extended header, header of a segment."""
    return (
        struct.pack("<BBBBI", 0xE9, segments, spi_mode, flash << 4, 0x40374000)
        + struct.pack("<B3sHBHH4xB", wp_pin, drive, chip, 0, 0, 0xFFFF, hash_appended)
        + struct.pack("<II", 0x3C000020, length)
        + content
    )


def application(version: bytes = b"v1.2.0", project: bytes = b"blink", made: bool = True) -> bytes:
    """Return an esp_app_desc_t."""
    time, date = (b"12:34:56", b"Nov 24 2026") if made else (b"", b"")
    return struct.pack("<II8x32s32s16s16s", 0xABCD5432, 0, version, project, time, date) + bytes(
        144
    )


def boot_loader(idf_version: bytes = b"v5.3.1") -> bytes:
    """Return an esp_bootloader_desc_t."""
    return struct.pack("<B2xBI32s24s16x", 80, 0, 1, idf_version, b"Nov 24 2026 12:00:00")


def esp8266(
    flash: int = 4, address: int = 0x40100000, entry: int = 0x40100004, content: bytes = bytes(64)
) -> bytes:
    """Return an image for the boot loader in ROM: header, header of a segment."""
    header = struct.pack("<BBBBI", 0xE9, 2, 0, flash << 4, entry)
    return header + struct.pack("<II", address, len(content)) + content


def esp8266_second(flash: int = 0, entry: int = 0x40100004, address: int = 0) -> bytes:
    """Return an image for a boot loader in flash: its first part is the code for flash."""
    header = struct.pack("<BBBBI", 0xEA, 4, 0, flash << 4, entry)
    return header + struct.pack("<II", address, 64) + bytes(64) + esp8266(flash)


def u_boot(
    architecture: int = 22, name: bytes = b"Linux-6.1.0", time: int = 0, size: int = 3000
) -> bytes:
    """Return the header of a legacy image; of the rest, only its size is told."""

    def header(crc: int) -> bytes:
        addresses = (0x80000, 0x80000)
        return struct.pack(
            ">IIIIIIIBBBB32s",
            0x27051956,
            crc,
            time,
            size,
            *addresses,
            0,
            5,
            architecture,
            2,
            1,
            name,
        )

    return header(zlib.crc32(header(0)))


def device_tree(version: int = 17, compatible_version: int = 16, size: int = 5000) -> bytes:
    offsets = (56, 4000, 40)
    rest = (0, 900, 3944)
    return struct.pack(">10I", 0xD00DFEED, size, *offsets, version, compatible_version, *rest)


def mcuboot(build: int = 4, header_size: int = 32) -> bytes:
    sizes = (header_size, 16, 3000)
    return struct.pack("<IIHHIIBBHI4x", 0x96F3B83D, 0, *sizes, 0, 1, 2, 3, build)


def uf2(family: int = 0xE48BFF56, flags: int = 0x2000, end: int = 0x0AB16F30) -> bytes:
    header = (0x0A324655, 0x9E5D5157, flags, 0x10000000, 256, 0, 10, family)
    return struct.pack("<8I476xI", *header, end)


def elf(machine: int, order: str = "<") -> bytes:
    ident = b"\x7fELF" + bytes((1, 1 if order == "<" else 2, 1)) + bytes(9)
    return ident + struct.pack(order + "HHI", 2, machine, 1)


def hex_record(kind: int, content: bytes) -> bytes:
    record = bytes((len(content), 0, 0, kind)) + content
    return b":%s\r\n" % (record + bytes((-sum(record) % 256,))).hex().upper().encode("ascii")


def zipped() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("firmware.bin", b"x")
    return archive.getvalue()


class HeaderCase(unittest.TestCase):
    """Images whose whole head is in hand."""

    def header(self, image: bytes) -> ImageHeader:
        header = read_header(image)
        if header is None:
            self.fail(f"nothing was read of {image[:40]!r}")
        return header

    def line(self, image: bytes) -> str:
        return describe(self.header(image))


class Esp32Test(HeaderCase):
    def test_an_application_tells_its_chip_flash_project_and_version(self):
        header = self.header(esp32(content=application()))
        self.assertEqual(header.format, "ESP32 image")
        self.assertEqual(header.chip, "ESP32-S3")
        self.assertEqual(header.flash_size, 4 * MIB)
        self.assertEqual((header.project, header.version), ("blink", "v1.2.0"))
        self.assertEqual(header.built, "Nov 24 2026 12:34:56")

    def test_the_first_bytes_that_esptool_wrote_are_read(self):
        # esptool 5.6.0, elf2image --chip esp32s3 --flash-size 8MB; image-info says what is here.
        head = bytes.fromhex("e902003000403740 ee00000009000000 00ffff0000000001 2000003c40010000")
        self.assertEqual(self.line(head), "ESP32-S3 image, 8 MB flash")
        self.assertEqual(head, esp32(flash=3), "these tests write another layout than esptool")

    def test_every_chip_of_the_family_is_named(self):
        for chip, name in (
            (0, "ESP32"),
            (2, "ESP32-S2"),
            (5, "ESP32-C3"),
            (9, "ESP32-S3"),
            (12, "ESP32-C2"),
            (13, "ESP32-C6"),
            (16, "ESP32-H2"),
            (18, "ESP32-P4"),
            (20, "ESP32-C61"),
            (23, "ESP32-C5"),
            (25, "ESP32-H21"),
            (28, "ESP32-H4"),
            (31, "ESP32-E22"),
            (32, "ESP32-S31"),
        ):
            with self.subTest(name):
                self.assertEqual(self.header(esp32(chip)).chip, name)

    def test_a_chip_that_is_not_known_yet_is_named_by_its_number(self):
        self.assertEqual(self.line(esp32(chip=99)), "ESP chip 99 image, 4 MB flash")

    def test_flash_is_counted_as_the_family_does(self):
        for code, size in enumerate((1, 2, 4, 8, 16, 32, 64, 128)):
            with self.subTest(code):
                self.assertEqual(self.header(esp32(flash=code)).flash_size, size * MIB)
        self.assertIsNone(self.header(esp32(flash=8)).flash_size)

    def test_an_image_without_a_description_is_still_one(self):
        self.assertEqual(self.line(esp32(content=bytes(400))), "ESP32-S3 image, 4 MB flash")
        self.assertEqual(
            self.line(esp32(content=application()[:100])), "ESP32-S3 image, 4 MB flash"
        )

    def test_what_a_description_leaves_empty_is_not_told(self):
        header = self.header(esp32(content=application(b"", b"", made=False)))
        self.assertEqual((header.version, header.project, header.built), (None, None, None))

    def test_a_boot_loader_is_told_from_an_application(self):
        self.assertEqual(
            self.line(esp32(content=boot_loader())),
            "ESP32-S3 boot loader or factory image, 4 MB flash, built Nov 24 2026 12:00:00",
        )
        self.assertEqual(self.header(esp32(content=boot_loader(b""))).format, "ESP32 image")

    def test_an_entry_point_in_memory_of_an_esp8266_makes_no_esp8266_of_an_image(self):
        image = bytearray(esp32(chip=0))
        struct.pack_into("<I", image, 4, 0x40100004)
        self.assertEqual(self.header(bytes(image)).chip, "ESP32")

    def test_the_greatest_drive_strengths_make_no_esp8266_of_an_image(self):
        for wp_pin in (0, 7, 0xEE, 0xFF):
            with self.subTest(wp_pin):
                header = self.header(esp32(chip=0, wp_pin=wp_pin, drive=b"\x33\x33\x33"))
                self.assertEqual(header.chip, "ESP32")

    def test_fields_that_cannot_be_make_it_no_image(self):
        for name, image in (
            ("no segment", esp32(segments=0)),
            ("17 segments", esp32(segments=17)),
            ("SPI mode", esp32(spi_mode=6)),
            ("hash appended", esp32(hash_appended=2)),
            ("16 MiB in one segment", esp32(length=16 * MIB)),
            ("nothing but 0xe9", b"\xe9" * HEAD_BYTES),
        ):
            with self.subTest(name):
                self.assertIsNone(read_header(image))


class DamagedTest(HeaderCase):
    def test_an_esp_image_whose_first_segment_no_boot_loader_takes_is_called_damaged(self):
        odd = "damaged (a segment of {} bytes, not a multiple of 4)"
        self.assertIn(f"ESP32-S3 image, {odd.format(321)}", self.line(esp32(length=321)))
        line = self.line(esp8266(content=bytes(66)))
        self.assertIn(f"ESP8266 image, {odd.format(66)}", line)
        self.assertEqual(self.header(esp32(length=321)).chip, "ESP32-S3")
        self.assertIsNone(read_header(esp32(chip=999, length=321)))


class Esp8266Test(HeaderCase):
    def test_an_image_is_told_from_that_of_an_esp32_by_where_it_loads(self):
        for address in (0x3FFE8000, 0x40100000, 0x4010F000, 0x40201010):
            with self.subTest(hex(address)):
                header = self.header(esp8266(address=address))
                self.assertEqual((header.format, header.chip), ("ESP8266 image", "ESP8266"))

    def test_the_first_bytes_that_esptool_wrote_are_read(self):
        # esptool 5.6.0, elf2image --chip esp8266: --version 1 with 4 MB, --version 2 with 512 KB.
        first = bytes.fromhex("e902004004001040 0000104040000000") + b"\1" * 16
        second = bytes.fromhex("ea04000004001040 0000000040000000") + b"\3" * 16
        self.assertEqual(self.line(first), "ESP8266 image, 4 MB flash")
        self.assertEqual(self.line(second), "ESP8266 image, 512 KB flash")

    def test_flash_is_counted_as_this_chip_does(self):
        for code, size in (
            (0, 512 * KIB),
            (1, 256 * KIB),
            (2, MIB),
            (3, 2 * MIB),
            (4, 4 * MIB),
            (5, 2 * MIB),
            (6, 4 * MIB),
            (7, None),
            (8, 8 * MIB),
            (9, 16 * MIB),
            (15, None),
        ):
            with self.subTest(code):
                self.assertEqual(self.header(esp8266(code)).flash_size, size)
                self.assertEqual(self.header(esp8266_second(code)).flash_size, size)

    def test_a_description_at_the_head_of_the_first_segment_is_read(self):
        image = esp8266(address=0x40210010, content=application())
        header = self.header(image)
        self.assertEqual((header.project, header.version), ("blink", "v1.2.0"))

    def test_fields_that_cannot_be_make_it_no_image(self):
        for name, image in (
            ("SPI mode of the second form", b"\xea\x04\x06" + esp8266_second()[3:]),
            ("entry of the second form", esp8266_second(entry=0x40080000)),
            ("address of the second form", esp8266_second(address=4)),
        ):
            with self.subTest(name):
                self.assertIsNone(read_header(image))


class UBootTest(HeaderCase):
    def test_a_legacy_image_tells_its_architecture_name_and_time(self):
        header = self.header(u_boot(time=0x7FFFFFFF + 1))
        self.assertEqual(header.format, "U-Boot legacy image")
        self.assertEqual((header.chip, header.name), ("arm64", "Linux-6.1.0"))
        self.assertEqual(header.built, "2038-01-19T03:14:08Z")

    def test_a_name_that_fills_its_field_ends_with_it(self):
        self.assertEqual(self.header(u_boot(name=b"x" * 32)).name, "x" * 32)

    def test_a_legacy_image_tells_how_many_bytes_it_has(self):
        self.assertEqual(self.header(u_boot(size=3000)).least_size, 64 + 3000)

    def test_an_architecture_that_is_not_known_is_left_out(self):
        for architecture in (0, 27, 255):
            with self.subTest(architecture):
                self.assertIsNone(self.header(u_boot(architecture)).chip)

    def test_a_header_whose_checksum_is_wrong_says_nothing(self):
        image = u_boot()
        for offset in (4, 8, 29, 40, 63):
            with self.subTest(offset):
                damaged = image[:offset] + bytes((image[offset] ^ 1,)) + image[offset + 1 :]
                self.assertIsNone(read_header(damaged))

    def test_a_fit_tells_its_size_without_data_that_lies_behind_it(self):
        header = self.header(device_tree())
        self.assertEqual((header.format, header.least_size), ("U-Boot FIT / device tree", 5000))

    def test_a_device_tree_of_an_unknown_version_says_nothing(self):
        for versions in ((15, 15), (18, 18), (16, 17)):
            with self.subTest(versions):
                self.assertIsNone(read_header(device_tree(*versions)))


class OtherFormatTest(HeaderCase):
    def test_an_mcuboot_image_tells_its_version_and_least_size(self):
        header = self.header(mcuboot())
        self.assertEqual((header.format, header.version), ("MCUboot image", "1.2.3+4"))
        self.assertEqual(header.least_size, 32 + 16 + 3000)
        self.assertEqual(self.header(mcuboot(build=0)).version, "1.2.3")
        self.assertIsNone(read_header(mcuboot(header_size=31)))

    def test_gzip_tells_the_original_name(self):
        file = io.BytesIO()
        with gzip.GzipFile("blink.bin.gz", "wb", fileobj=file) as packed:
            packed.write(bytes(1000))
        self.assertEqual(self.line(file.getvalue()), "gzip, named blink.bin")

    def test_gzip_without_a_name_is_still_gzip(self):
        self.assertEqual(self.header(gzip.compress(b"x")), ImageHeader("gzip"))

    def test_the_extra_field_of_gzip_is_passed_over(self):
        head = b"\x1f\x8b\x08\x0c" + bytes(6) + b"\x05\x00no\0no" + b"yes.bin\0"
        self.assertEqual(self.header(head).name, "yes.bin")

    def test_a_name_of_gzip_that_does_not_end_in_the_head_is_left_out(self):
        head = b"\x1f\x8b\x08\x08" + bytes(6)
        self.assertIsNone(self.header(head + b"x" * 10_000 + b"\0").name)
        self.assertIsNone(self.header(head + b"x").name)

    def test_gzip_with_a_reserved_flag_says_nothing(self):
        self.assertIsNone(read_header(b"\x1f\x8b\x08\x20" + bytes(100)))

    def test_xz_zip_and_zstd_are_known_by_their_first_bytes(self):
        for image, format_ in (
            (lzma.compress(b"x"), "xz"),
            (zipped(), "zip"),
            (struct.pack("<I", 0xFD2FB528) + b"\0", "zstd"),
        ):
            with self.subTest(format_):
                self.assertEqual(self.header(image), ImageHeader(format_))

    def test_an_swupdate_archive_is_told_from_another_by_its_first_file(self):
        description = cpio_archive({"sw-description": b"software = {}", "image": b"x"})
        self.assertEqual(self.line(description), "SWUpdate (cpio newc)")
        self.assertEqual(self.line(cpio_archive({"image": b"x"})), "cpio newc")

    def test_an_elf_tells_its_machine_in_either_byte_order(self):
        for machine, order, chip in (
            (94, "<", "xtensa"),
            (243, "<", "riscv"),
            (40, "<", "arm"),
            (8, ">", "mips"),
            (4660, ">", None),
        ):
            with self.subTest(machine):
                self.assertEqual(self.header(elf(machine, order)), ImageHeader("ELF", chip))
        self.assertIsNone(read_header(elf(40)[:5] + b"\3" + elf(40)[6:]))

    def test_intel_hex_is_known_by_a_first_record_with_the_right_sum(self):
        for record in (hex_record(4, b"\x08\x00"), hex_record(0, bytes(16)), hex_record(1, b"")):
            with self.subTest(record):
                self.assertEqual(self.line(record), "Intel HEX")
        for text in (b":020000040800F3\n", b":030000040800F1\n", b":00000001FF", b":-)\n"):
            with self.subTest(text):
                self.assertIsNone(read_header(text))

    def test_uf2_tells_its_chip_and_how_many_bytes_it_has(self):
        for family, chip in ((0xE48BFF56, "RP2040"), (0xE48BFF59, "RP2350"), (1, None)):
            with self.subTest(chip):
                self.assertEqual(
                    self.header(uf2(family)), ImageHeader("UF2", chip, least_size=5120)
                )

    def test_uf2_without_a_family_tells_no_chip(self):
        for flags in (0, 0x1, 0x4000):
            with self.subTest(flags):
                self.assertIsNone(self.header(uf2(flags=flags)).chip)

    def test_uf2_without_its_last_magic_number_says_nothing(self):
        self.assertIsNone(read_header(uf2(end=0)))


class RealToolTest(HeaderCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.content = self.folder / "content"
        self.content.write_bytes(random.Random(SEED).randbytes(3000))
        self.image = self.folder / "image"

    def run_tool(self, *command: str | Path) -> bytes:
        """Run a tool that writes `self.image`, and return the image."""
        outcome = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        self.assertEqual(outcome.returncode, 0, outcome.stdout + outcome.stderr)
        return self.image.read_bytes()


@needs("mkimage")
class MkimageTest(RealToolTest):
    def test_what_mkimage_is_told_is_read_again(self):
        for architecture in U_BOOT_ARCHITECTURES.split():
            with self.subTest(architecture):
                kind = ("-A", architecture, "-O", "linux", "-T", "kernel", "-C", "none")
                name = f"Linux for {architecture}"
                image = self.run_tool("mkimage", *kind, "-n", name, "-d", self.content, self.image)
                header = self.header(image)
                self.assertEqual((header.chip, header.name), (architecture, name))
                self.assertEqual(header.least_size, len(image))


@needs("mksquashfs")
class MksquashfsTest(RealToolTest):
    def test_a_squashfs_tells_how_many_bytes_it_uses(self):
        options = ("-quiet", "-no-progress", "-nopad", "-processors", "1")
        image = self.run_tool("mksquashfs", self.content, self.image, *options)
        header = self.header(image)
        self.assertEqual(header.format, "squashfs (e.g. RAUC bundle)")
        self.assertEqual(header.least_size, len(image))


class HostileTest(unittest.TestCase):
    def images(self) -> list[bytes]:
        return [
            esp32(content=application()),
            esp32(content=boot_loader()),
            esp8266(content=application()),
            esp8266_second(),
            u_boot(time=0xFFFFFFFF, size=0xFFFFFFFF),
            device_tree(),
            mcuboot(),
            uf2(),
            b"hsqs" + bytes(24) + struct.pack("<HHQQ", 4, 0, 0, 4096),
            elf(94),
            b"\x1f\x8b\x08\x0c" + bytes(6) + b"\x02\x00noblink.bin\0",
            cpio_archive({"sw-description": b"x"}),
            hex_record(0, bytes(16)),
            lzma.compress(b"x"),
            zipped(),
        ]

    def read(self, head: bytes) -> None:
        """Read it and describe it: neither may raise, and the line must be one of ASCII."""
        header = read_header(head)
        if header is not None:
            self.assertRegex(describe(header), r"\A[ -~]+\Z")

    def test_random_bytes_raise_nothing(self):
        source = random.Random(SEED)
        for _ in range(RANDOM_INPUTS):
            self.read(source.randbytes(source.randrange(HEAD_BYTES + 8)))

    def test_random_bytes_behind_a_magic_number_raise_nothing(self):
        source, images = random.Random(SEED), self.images()
        for number in range(RANDOM_INPUTS):
            magic = images[number % len(images)][: source.randrange(1, 40)]
            self.read(magic + source.randbytes(source.randrange(HEAD_BYTES)))

    def test_damaged_headers_raise_nothing(self):
        source, images = random.Random(SEED), self.images()
        for number in range(RANDOM_INPUTS):
            damaged = bytearray(images[number % len(images)])
            for _ in range(source.randrange(1, 4)):
                damaged[source.randrange(min(len(damaged), 160))] = source.randrange(256)
            self.read(bytes(damaged))

    def test_an_image_for_a_raspberry_pi_pico_is_known_by_its_boot_loader_or_its_block(self):
        image = rp2040_image("v1")
        self.assertEqual(describe(read_header(image)), "RP2040 image")
        self.assertIsNone(read_header(image[:100] + b"?" + image[101:]))
        for kind, end in ((b"\x21\x10", "arm"), (b"\x01\x11", "riscv")):
            block = b"\xd3\xde\xff\xff\x42\x01" + kind + b"\xff\x01\x00\x00" + bytes(4)
            with self.subTest(end):
                self.assertEqual(read_header(bytes(272) + block + bytes(300)).chip, "RP2350")
        for nothing in (bytes(512), b"\xff" * 512, image[:255]):
            self.assertIsNone(read_header(nothing))

    def test_headers_that_are_cut_anywhere_raise_nothing(self):
        for image in self.images():
            for length in range(min(len(image), HEAD_BYTES)):
                self.read(image[:length])

    def test_bytes_that_say_nothing_are_no_image(self):
        for head in (
            b"",
            b"\0",
            bytes(HEAD_BYTES),
            b"\xff" * HEAD_BYTES,
            b"#!/bin/sh\n",
            b"sample",
        ):
            with self.subTest(head[:10]):
                self.assertIsNone(read_header(head))

    def test_bytes_beyond_the_head_change_nothing(self):
        for image in self.images():
            head = image.ljust(HEAD_BYTES, b"\0")
            with self.subTest(image[:8]):
                self.assertEqual(read_header(head + b"x" * HEAD_BYTES), read_header(head))

    def test_text_that_is_not_printable_ascii_is_left_out(self):
        for text in (b"\x1b[31mred", b"a\nb", b"caf\xc3\xa9", b"\xff" * 32, b"   "):
            with self.subTest(text):
                header = read_header(esp32(content=application(version=text)))
                self.assertEqual(header and header.project, "blink")
                self.assertIsNone(header and header.version)

    def test_text_ends_at_its_first_nul(self):
        header = read_header(esp32(content=application(version=b"v1\0\x1b[31m")))
        self.assertEqual(header and header.version, "v1")

    def test_long_text_is_cut_short(self):
        header = read_header(b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 400 + b"\0")
        self.assertEqual(header and header.name, "x" * 64)


class DescribeTest(unittest.TestCase):
    def test_the_line_has_all_that_is_known(self):
        header = ImageHeader("ESP32 image", "ESP32-S3", 4 * MIB, "blink", "v1.2.0")
        expected = "ESP32-S3 image, 4 MB flash, project blink, version v1.2.0"
        self.assertEqual(describe(header), expected)

    def test_the_line_of_a_format_that_is_no_chip_s_has_both(self):
        header = ImageHeader("U-Boot legacy image", "arm64", name="Linux-6.1.0", built="2026-11-24")
        expected = "U-Boot legacy image, arm64, named Linux-6.1.0, built 2026-11-24"
        self.assertEqual(describe(header), expected)

    def test_flash_below_a_mebibyte_is_told_in_kilobytes(self):
        header = ImageHeader("ESP8266 image", "ESP8266", 512 * KIB)
        self.assertEqual(describe(header), "ESP8266 image, 512 KB flash")

    def test_the_line_of_a_format_alone_is_its_name(self):
        self.assertEqual(describe(ImageHeader("xz")), "xz")
