"""Families: who a request says it is, whatever client sends it."""

import unittest
from base64 import b64encode

from ota_server.device_port.caller import Caller, caller_of
from ota_server.device_port.dialects import BR, BY_PATH, FAMILIES, HAWKBIT, OTHER, NoUpdate
from ota_server.httpd.http1 import Request, parse_head
from ota_server.model.device import Report, Unidentified
from ota_server.model.updater import FAMILY_NAMES, NO_UPDATE_STATUS, family_of

MAC = "00:11:22:aa:bb:cc"


def report_of(fields: dict[bytes, bytes], repeated: frozenset[bytes] = frozenset()) -> Report:
    return caller_of(Request("GET", b"/version.txt", b"", 1, fields, repeated, True, 0)).report


def read(*lines: str, path: str = "/firmware.bin", version: str = "1.1") -> Caller:
    head = "\r\n".join((f"GET {path} HTTP/{version}", "Host: h", *lines))
    return caller_of(parse_head(head.encode("latin-1")))


def basic(user: str) -> str:
    return "Authorization: Basic " + b64encode(f"{user}:secret".encode()).decode()


class OwnFieldsTest(unittest.TestCase):
    def test_a_report_is_read_from_both_fields(self):
        fields = {b"_br_mac_": b"001122AABBCC", b"_br_fwv_": b'v1.0 (beta) "x" \\ ~'}
        self.assertEqual(report_of(fields), Report(MAC, 'v1.0 (beta) "x" \\ ~'))

    def test_a_version_may_have_64_characters(self):
        fields = {b"_br_mac_": b"001122aabbcc", b"_br_fwv_": b"x" * 64}
        self.assertEqual(report_of(fields).firmware_version, "x" * 64)

    def test_what_is_wrong_with_a_field_is_said_by_its_name(self):
        mac, version = (b"_br_mac_", b"001122aabbcc"), (b"_br_fwv_", b"v1")
        for fields, repeated, problem in (
            ([version], [], "_br_mac_ missing"),
            ([mac], [], "_br_fwv_ missing"),
            ([], [], "_br_mac_ missing"),
            ([mac, version], [b"_br_mac_"], "_br_mac_ sent twice"),
            ([mac, version], [b"_br_fwv_"], "_br_fwv_ sent twice"),
            ([mac, (b"_br_fwv_", b"")], [], "_br_fwv_ empty"),
            ([(b"_br_mac_", b""), version], [], "_br_mac_ empty"),
            ([(b"_br_mac_", b"x"), version], [], "_br_mac_ malformed: 'x'"),
            (
                [(b"_br_mac_", b"\xff" * 12), version],
                [],
                "_br_mac_ malformed: '" + "\\xff" * 12 + "'",
            ),
            ([(b"_br_mac_", b"000000000000"), version], [], "_br_mac_ malformed: '000000000000'"),
            ([mac, (b"_br_fwv_", b"x" * 65)], [], f"_br_fwv_ malformed: '{'x' * 40}' ..."),
            ([mac, (b"_br_fwv_", b"v\t1")], [], "_br_fwv_ malformed: 'v\\t1'"),
            ([mac, (b"_br_fwv_", b"v\xc3\xbc")], [], "_br_fwv_ malformed: 'v\\xc3\\xbc'"),
            ([mac, (b"_br_fwv_", b"v\x7f")], [], "_br_fwv_ malformed: 'v\\x7f'"),
        ):
            with self.subTest(problem), self.assertRaises(Unidentified) as raised:
                report_of(dict(fields), frozenset(repeated))
            self.assertEqual(str(raised.exception), problem)
            self.assertEqual(raised.exception.field, problem.split()[0])


# As WIRE's clients send them: their lines, then family, version, and what "no update" is.
ESP8266 = (
    "User-Agent: ESP8266-http-Update",
    "Connection: close",
    "x-ESP8266-Chip-ID: 1193046",
    "x-ESP8266-STA-MAC: 00:11:22:AA:BB:CC",
    "x-ESP8266-AP-MAC: 02:11:22:AA:BB:CC",
    "x-ESP8266-free-space: 2818048",
    "x-ESP8266-sketch-size: 312704",
    "x-ESP8266-sketch-md5: 0cc175b9c0f1b6a831c399e269772661",
    "x-ESP8266-chip-size: 4194304",
    "x-ESP8266-sdk-version: 2.2.2-dev(38a443e)",
    "x-ESP8266-mode: sketch",
)
ESP32 = (
    "User-Agent: ESP32-http-Update",
    "Cache-Control: no-cache",
    "x-ESP32-BASE-MAC: 00:11:22:AA:BB:CC",
    "x-ESP32-STA-MAC: 00:11:22:AA:BB:CC",
    "x-ESP32-AP-MAC: 00:11:22:AA:BB:CD",
    "x-ESP32-free-space: 1310720",
    "x-ESP32-sketch-size: 312704",
    "x-ESP32-sketch-md5: 0cc175b9c0f1b6a831c399e269772661",
    "x-ESP32-sketch-sha256: " + "AB" * 32,
    "x-ESP32-chip-size: 4194304",
    "x-ESP32-sdk-version: v5.1",
    "x-ESP32-mode: sketch",
)
PICO = (
    "User-Agent: Pico-HTTP-Update",
    "x-Pico-Chip-ID: E6614104",
    "x-Pico-STA-MAC: 00:11:22:AA:BB:CC",
    "x-Pico-AP-MAC: 00:11:22:AA:BB:CC",
    "x-Pico-Mode: sketch",
    "x-Pico-Version: 1.0",
)
MONGOOSE = (
    "X-MGOS-Device-ID: esp8266_AABBCC 001122AABBCC",
    "X-MGOS-FW-Version: esp8266 1.0 20260101-120000/g1234567",
)
N = NoUpdate
CLIENTS = {
    "esp8266": (ESP8266, "-", N.NOT_MODIFIED),
    "esp8266 with a version": ((*ESP8266, "x-ESP8266-version: 1.0"), "1.0", N.NOT_MODIFIED),
    "esp32": (ESP32, "-", N.NOT_MODIFIED),
    "esp32 with a version": ((*ESP32, "x-ESP32-version: v1"), "v1", N.NOT_MODIFIED),
    "tasmota on an ESP8266": (
        (*ESP8266, "x-ESP8266-version: 14.1.0(tasmota)"),
        "14.1.0(tasmota)",
        N.NOT_FOUND,
    ),
    "tasmota on an ESP32": (
        (*ESP32, "x-ESP32-version: 14.1.0(release-tasmota32)"),
        "14.1.0(release-tasmota32)",
        N.NOT_FOUND,
    ),
    "pico": (PICO, "1.0", N.NOT_MODIFIED),
    "mongoose": (MONGOOSE, "1.0", N.NOT_MODIFIED),
    "mongoose without an id": (
        ("X-MGOS-Device-ID: - 001122AABBCC", MONGOOSE[1]),
        "1.0",
        N.NOT_MODIFIED,
    ),
    "esp-idf by Basic": (("User-Agent: ESP32 HTTP Client/1.0", basic(MAC)), "-", N.NOT_MODIFIED),
    "curl by Basic": (("User-Agent: curl/8.5.0", basic("001122AABBCC")), "-", N.NONE),
}


class TableTest(unittest.TestCase):
    def test_commands_know_the_names_of_all_families(self):
        names = [row.name for row in (BR, *FAMILIES, *BY_PATH.values(), HAWKBIT, OTHER)]
        self.assertEqual(FAMILY_NAMES, tuple(dict.fromkeys(names)))

    def test_commands_know_by_which_status_each_family_is_told_that_there_is_nothing(self):
        statuses = {row.name: row.no_update.value for row in FAMILIES if row.no_update.value}
        self.assertEqual(NO_UPDATE_STATUS, statuses)


class ClientTest(unittest.TestCase):
    def test_each_client_is_known_by_what_it_sends(self):
        for name, (lines, version, no_update) in CLIENTS.items():
            with self.subTest(name):
                caller = read(*lines)
                self.assertEqual(caller.family.name, name.split()[0])
                self.assertEqual(caller.report[:2], (MAC, version))
                self.assertEqual(family_of(caller.report.updater), caller.family.name)
                self.assertEqual(caller.family.no_update, no_update)

    def test_what_an_esp_says_of_itself_is_read(self):
        old, new = read(*ESP8266), read(*ESP32)
        self.assertEqual(
            (old.sketch_md5, old.sketch_sha256), ("0cc175b9c0f1b6a831c399e269772661", "")
        )
        self.assertEqual((old.report.updater.free_space, old.mode), (2818048, "sketch"))
        self.assertEqual((new.sketch_sha256, new.report.updater.free_space), ("ab" * 32, 1310720))

    def test_a_chip_without_wifi_is_its_base_mac(self):
        lines = [line for line in ESP32 if "STA-MAC" not in line and "AP-MAC" not in line]
        self.assertEqual(read(*lines).report.key, MAC)

    def test_rauc_is_what_its_url_says_in_each_request_of_a_stream(self):
        lines = ("User-Agent: rauc/1.12", "RAUC-Machine-ID: " + "ab" * 16)
        for sent in (lines, lines[:1]):
            self.assertEqual(read(*sent, path=f"/d/{MAC}/1/firmware.bin").report[:2], (MAC, "1"))
            self.assertEqual(read(*sent, basic(MAC)).report.key, MAC)

    def test_rauc_is_its_machine_id(self):
        caller = read("User-Agent: rauc/1.11", "RAUC-Machine-ID: " + "ab" * 16)
        self.assertEqual((caller.family.name, *caller.report[:2]), ("rauc", "/" + "ab" * 16, "-"))
        self.assertEqual(caller.family.no_update, NoUpdate.NO_CONTENT)

    def test_a_device_that_sends_our_headers_is_asked_nothing_more(self):
        own = ("_br_mac_: 001122aabbcc", "_br_fwv_: v1")
        for agent in ("ESP32 HTTP Client/1.0", "ESP32-http-Update", "curl/8.5.0", "rauc/1.11"):
            caller = read(*own, f"User-Agent: {agent}")
            self.assertEqual((caller.family.name, caller.report), ("br", Report(MAC, "v1")))

    def test_an_updater_that_can_add_headers_keeps_its_way_to_say_no(self):
        caller = read(*ESP32, "_br_mac_: 001122aabbcc", "_br_fwv_: v1")
        self.assertEqual((caller.family.name, *caller.report[:2]), ("esp32", MAC, "v1"))

    def test_names_of_families_are_words_of_their_own(self):
        for family in FAMILIES:
            self.assertRegex(family.name, r"\A[a-z][a-z0-9-]*\Z")


class IdentityTest(unittest.TestCase):
    def test_the_path_says_who_it_is_and_what_it_runs(self):
        caller = read(path="/d/00-11-22-AA-BB-CC/v1.0/firmware.bin")
        self.assertEqual((*caller.report[:2], caller.path), (MAC, "v1.0", b"/firmware.bin"))
        self.assertEqual(read(path=f"/d/{MAC}/-/version.txt").report.firmware_version, "-")

    def test_the_version_of_a_header_counts_more_than_that_of_the_path(self):
        caller = read(*PICO, path=f"/d/{MAC}/2.0/firmware.bin")
        self.assertEqual(caller.report.firmware_version, "1.0")

    def test_esp32fota_sends_its_mac_as_a_number(self):
        number = int.from_bytes(bytes.fromhex("001122aabbcc"), "little")
        caller = read(path=f"/esp32fota.json?id={number}")
        self.assertEqual(caller.report[:2], (MAC, "-"))

    def test_two_that_disagree_are_refused_by_their_names(self):
        other = "00:11:22:aa:bb:dd"
        for lines, path, names in (
            ((*ESP8266, f"_br_mac_: {other}"), "/firmware.bin", "_br_mac_, x-esp8266-sta-mac"),
            ((*ESP32, basic(other)), "/firmware.bin", "x-esp32-sta-mac, authorization"),
            (
                (*ESP32, f"x-ESP8266-STA-MAC: {other}"),
                "/firmware.bin",
                "x-esp8266-sta-mac, x-esp32-sta-mac",
            ),
            ((*PICO, f"x-ESP32-STA-MAC: {other}"), "/f", "x-esp32-sta-mac, x-pico-sta-mac"),
            ((basic(other),), f"/d/{MAC}/1/firmware.bin", "authorization, the path"),
            (PICO, f"/d/{other}/1/firmware.bin", "x-pico-sta-mac, the path"),
            ((basic(MAC),), "/esp32fota.json?id=5", "authorization, id"),
        ):
            with self.subTest(names), self.assertRaises(Unidentified) as raised:
                read(*lines, path=path)
            self.assertEqual(raised.exception.field, names)
            self.assertIn("disagree", str(raised.exception))

    def test_two_that_agree_are_one(self):
        caller = read(*ESP8266, basic("001122aabbcc"), path=f"/d/{MAC}/1/firmware.bin")
        self.assertEqual(caller.report[:2], (MAC, "1"))

    def test_a_user_who_is_no_device_is_passed_over(self):
        self.assertEqual(read(*PICO, basic("operator")).report.key, MAC)
        for line in (basic("operator"), "Authorization: Basic !", "Authorization: Bearer x"):
            with self.subTest(line), self.assertRaises(Unidentified):
                read(line)

    def test_a_mode_that_is_sent_twice_is_not_taken_for_one_of_firmware(self):
        lines = [line for line in ESP8266 if "mode" not in line]
        with self.assertRaises(Unidentified) as raised:
            read(*lines, *["x-ESP8266-mode: spiffs"] * 2)
        self.assertEqual(str(raised.exception), "x-esp8266-mode sent twice")

    def test_what_is_malformed_or_sent_twice_is_refused_by_its_name(self):
        for lines, path, name in (
            (("x-ESP8266-STA-MAC: nonsense",), "/firmware.bin", "x-esp8266-sta-mac"),
            ((*PICO, PICO[2]), "/firmware.bin", "x-pico-sta-mac"),
            ((*PICO, PICO[5]), "/firmware.bin", "x-pico-version"),
            ((), "/d/00:11/1/firmware.bin", "the path"),
            ((), f"/d/{MAC}/{'x' * 65}/firmware.bin", "_br_mac_"),
            ((), "/esp32fota.json?id=281474976710656", "id"),
            (("X-MGOS-Device-ID: esp8266_AABBCC",), "/firmware.bin", "x-mgos-device-id"),
        ):
            with self.subTest(name), self.assertRaises(Unidentified) as raised:
                read(*lines, path=path)
            self.assertEqual(raised.exception.field, name)

    def test_who_says_nothing_is_told_apart_from_who_is_wrong(self):
        for lines, says_nothing in (
            ((), True),
            (("_br_fwv_: v1",), False),
            (("_br_mac_: x",), False),
        ):
            with self.assertRaises(Unidentified) as raised:
                read(*lines)
            self.assertEqual(raised.exception.says_nothing, says_nothing)
