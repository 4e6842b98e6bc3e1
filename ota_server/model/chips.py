"""Names of chips, by the numbers that images have for them. Pure."""

# esptool, "Firmware Image Format".
ESP_CHIPS = {
    0: "ESP32",
    2: "ESP32-S2",
    5: "ESP32-C3",
    9: "ESP32-S3",
    12: "ESP32-C2",
    13: "ESP32-C6",
    16: "ESP32-H2",
    18: "ESP32-P4",
    20: "ESP32-C61",
    23: "ESP32-C5",
    25: "ESP32-H21",
    28: "ESP32-H4",
    31: "ESP32-E22",
    32: "ESP32-S31",
}

# U-Boot, include/image.h, with mkimage's names; 0 is not an architecture.
_U_BOOT_NAMES = """
    alpha arm x86 ia64 mips mips64 powerpc s390 sh sparc sparc64 m68k nios microblaze nios2
    blackfin avr32 st200 sandbox nds32 or1k arm64 arc x86_64 xtensa riscv
"""
U_BOOT_ARCHITECTURES = dict(enumerate(_U_BOOT_NAMES.split(), 1))

# microsoft/uf2, utils/uf2families.json, and the Pico SDK: the boards that are flashed by UF2.
UF2_FAMILIES = {
    0x55114460: "SAMD51",
    0x68ED2B88: "SAMD21",
    0xADA52840: "nRF52840",
    0xBFDD4EEE: "ESP32-S2",
    0xC47E5767: "ESP32-S3",
    0xE48BFF56: "RP2040",
    0xE48BFF59: "RP2350",
    0xE48BFF5A: "RP2350",
    0xE48BFF5B: "RP2350",
}

# The ELF specification and its supplements: e_machine.
ELF_MACHINES = {
    3: "x86",
    8: "mips",
    40: "arm",
    62: "x86_64",
    83: "avr",
    94: "xtensa",
    183: "arm64",
    243: "riscv",
}
