"""A real server in many situations: what it answers over a socket is what `why` says."""

import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations, product

from ota_server.device_port.admission import Admission
from ota_server.device_port.admission_status import AdmissionFile, read_server_state
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.window import Hours, parse_window
from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer
from ota_server.journal.replay import newest
from ota_server.model.device import Device, Download, Report
from ota_server.model.manifest import Manifest, format_manifest
from ota_server.model.timestamp import format_time
from ota_server.policy.decision import Decision
from ota_server.policy.explain import Explanation
from ota_server.policy.gather import explain_device
from ota_server.policy.reason import Reason
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    format_plan,
    plan_name,
    progress_name,
)
from ota_server.releases.store import NotHashed
from ota_server.system.clock import now_ms as clock_ms
from tests.journal.test_writer import file_size_limit
from tests.support import ROOT, TIMEOUT_SECONDS, TRANSPORT, ServerCase, request_head, until

OTHER = "a0:b1:c2:d3:e4:f5"
# The journal is longer than that, and so cannot be written where no file may be.
SMALL_FILES = 8192
PUT_OFF = (Reason.WINDOW_CLOSED, Reason.NO_SLOT)
SAMPLE = ROOT / "ota_server" / "firmware" / "firmware_v1.0.1.bin"
TIME = "2026-11-24T12:00:00Z"
Row = Mapping[str, str]
# What may be so, the common case first. v1.2 is what rollouts and pins name, v1.1 a stepping stone
# on the way to it, v1.3 the target of the group.
FACTORS: Mapping[str, tuple[str, ...]] = {
    "hold": ("", "on"),
    "group file": ("", "broken"),
    "pin": ("", "device", "group", "no image"),
    "rollout": ("", "open", "paused", "not yet", "of the group"),
    "group target": ("", "on"),
    "stone": ("", "on"),
    "withdrawn": ("", "v1.2", "v1.0.1"),
    "target": ("", "no image", "empty"),
    "image": ("", "altered", "bad manifest", "no file", "sample"),
    "record": ("unknown", "known", "repeating", "stuck", "retried"),
    "controller": ("", "away"),
    "journal": ("", "failing"),
    "table": ("", "full"),
    "turn": ("", "closed", "taken", "let in"),
    "reports": ("v1.0.0", "factory 7", "v1.0.1", "v1.2"),
}
MILD = {"hold": "", "group file": "", "withdrawn": ""}
IN_AN_OPEN_WAVE = {
    **MILD,
    "pin": "",
    "rollout": "open",
    "group target": "",
    "stone": "",
    "image": "",
    "turn": "",
    "reports": "v1.0.0",
}


def pairs_of(row: Row) -> set[tuple[tuple[str, str], ...]]:
    return set(combinations(row.items(), 2))


def covering_rows() -> Iterator[Row]:
    """Yield situations in which any two values of two factors occur together at least once."""
    chance = random.Random(11)
    wanted = {
        ((one, a), (other, b))
        for one, other in combinations(FACTORS, 2)
        for a, b in product(FACTORS[one], FACTORS[other])
    }
    yield {name: levels[0] for name, levels in FACTORS.items()}
    while wanted:
        (one, a), (other, b) = min(wanted)
        rows = [chosen(chance) | {one: a, other: b} for _ in range(60)]
        row = max(rows, key=lambda each: len(pairs_of(each) & wanted))
        wanted -= pairs_of(row)
        yield row
    # Few of these come to the later rules, and to what pauses a rollout.
    yield from (chosen(chance) | MILD for _ in range(50))
    pauses = ("controller", "journal", "table")
    for record, *levels in product(("unknown", "known"), *(FACTORS[name] for name in pauses)):
        paused = dict(zip(pauses, levels, strict=True))
        yield chosen(chance) | IN_AN_OPEN_WAVE | {"record": record} | paused


def chosen(chance: random.Random) -> dict[str, str]:
    return {name: chance.choice(levels) for name, levels in FACTORS.items()}


class WhyAndServerTest(ServerCase):
    OLD_IMAGE = b"old image " * 50
    IMAGE = bytes(range(256)) * 4

    def setUp(self) -> None:
        super().setUp()
        self.retries.unlink()
        for version in ("v1.1", "v1.3"):
            self.put_image(version, version.encode() * 300)
        service = self.start(service={"admission": Admission(DownloadSlots(1000))}).service
        self.fleet, self.offers = service.fleet, service.offers
        self.server.chores.remove(self.offers.look_after)  # it looks when `look_at_images` says so
        self.asked: list[Decision] = []
        offer = self.offers.offer

        def keep(report: Report, peer: Peer, now_ms: int) -> tuple[Decision, str]:
            found = offer(report, peer, now_ms)
            self.asked.append(found[0])
            return found

        self.offers.offer = keep
        path = self.data_dir / "log" / "devices.jsonl"
        while path.stat().st_size <= SMALL_FILES:
            self.check("v1.0.0", OTHER)
        self.assertTrue(until(lambda: not self.fleet.journal.needs_snapshot))

    def check(self, version: str, mac: str) -> None:
        self.get("/version.txt", {"_br_mac_": mac, "_br_fwv_": version})

    def write(self, name: str, content: bytes | str) -> None:
        """Put a file into the data directory by rename."""
        path = self.data_dir / name
        path.parent.mkdir(exist_ok=True)
        temporary = self.data_dir / "temporary"
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)

    def touch(self) -> None:
        """Move the time stamp of version/, as each command does at its end."""
        now = time.time_ns()  # the time of files goes in steps of some milliseconds
        os.utime(self.data_dir / "version", ns=(now, now))

    def clear(self) -> None:
        """Let nothing be decided, nor wrong, and have the server see that."""
        version_dir = self.data_dir / "version"
        for path in (*version_dir.glob("*.json"), *version_dir.glob("groups/*.txt")):
            path.unlink()
        for path in (self.data_dir / "firmware").glob("*.json"):
            path.unlink()
        self.set_target("v1.0.1")
        image = self.data_dir / "firmware" / "firmware_v1.2.bin"
        if image.is_dir():
            image.rmdir()
        self.put_image("v1.2", b"third " * 100)
        self.offers.attended.groups = None
        self.fleet._max_devices = 10**6
        self.touch()
        self.check("v1.0.0", OTHER)

    def test_each_answers_what_the_other_says(self) -> None:
        reasons, rows = set(), list(covering_rows())
        self.assertLess(len(rows), 120)
        self.assertGreater(len(rows), 90)
        for number, row in enumerate(rows):
            with self.subTest({name: each for name, each in row.items() if each}):
                self.clear()
                mac = f"00:11:22:33:44:{number:02x}"
                self.decide(row, mac)
                report = Report(mac, row["reports"])
                self.remember(row, report)
                decision = self.compare(row, report)
                reasons.add(None if decision is None else decision.reason)
                self.assertTrue(until(lambda: not self.fleet.journal.failing))
        self.assertGreater(len(reasons), 15, reasons)

    def decide(self, row: Row, mac: str) -> None:
        """Write the files of a situation."""
        for name, path, content in (
            ("hold", "hold.json", "{}"),
            ("group file", "groups/other.txt", "no MAC"),
            ("group target", "targets.json", '{"beta": "v1.3"}'),
            ("withdrawn", "stopped.json", f'{{"{row["withdrawn"]}": {{"state": "withdrawn"}}}}'),
        ):
            if row[name]:
                self.write(f"version/{path}", content)
        self.write("version/groups/beta.txt", mac)
        version = "v9" if row["pin"] == "no image" else "v1.2"
        whom = ("groups", "beta") if row["pin"] == "group" else ("devices", mac)
        if row["pin"]:
            pin = f'{{"{whom[0]}": {{"{whom[1]}": {{"version": "{version}"}}}}}}'
            self.write("version/pins.json", pin)
        self.roll_out(row["rollout"])
        self.put_release(row)
        if row["target"]:
            self.set_target("v8" if row["target"] == "no image" else "")
        self.touch()

    def roll_out(self, which: str) -> None:
        if not which:
            return
        group = "beta" if which == "of the group" else ""
        waves = (1e-9, 100.0) if which == "not yet" else (100.0,)
        plan = RolloutPlan("id1", "v1.2", group, waves, TIME, "v1.0.1")
        self.write(f"version/{plan_name(group)}", format_plan(plan))
        state = "paused" if which == "paused" else "running"
        progress = RolloutProgress("id1", state, 0, TIME)
        self.write(f"version/{progress_name(group)}", format_plan(progress))

    def put_release(self, row: Row) -> None:
        """Put the image of v1.2 and, where a situation has one, its manifest."""
        image = SAMPLE.read_bytes() if row["image"] == "sample" else b"image" * 100
        path = self.put_image("v1.2", b"other" * 100 if row["image"] == "altered" else image)
        if row["image"] == "no file":
            path.unlink()
            path.mkdir()
        if row["image"] == "bad manifest":
            self.write("firmware/firmware_v1.2.json", "{}")
        elif row["stone"] or row["image"] == "altered":
            via = "v1.1" if row["stone"] else None
            digest = sha256(image).hexdigest()
            manifest = Manifest("v1.2", digest, "0" * 32, len(image), TIME, via=via)
            self.write("firmware/firmware_v1.2.json", format_manifest(manifest))

    def remember(self, row: Row, report: Report) -> None:
        """Put on record what the device did before."""
        if row["record"] == "unknown":
            return
        now_ms, address = clock_ms(), "192.0.2.7" if row["image"] == "sample" else "127.0.0.1"
        reported, download = report.firmware_version, None
        device = Device(now_ms, reported, now_ms, None, None, address, False, None)
        attempts = {"known": 0, "stuck": 10}.get(row["record"], 3)
        release = explain_device(self.data_dir, report, device, now_ms).for_image.release
        path = self.data_dir / "firmware" / f"firmware_{release}.bin"
        if attempts and path.is_file():
            content = path.read_bytes()
            digest = sha256(content).hexdigest()
            download = Download(str(release), digest, len(content), 0, attempts, now_ms - 1000)
        with self.fleet.lock:
            self.fleet.record("device", report.key, device._replace(download=download))
        self.fleet.journal.flush()
        if row["record"] == "retried":
            retries = f'{{"{report.key}": "{format_time(now_ms)}"}}'
            self.write("version/retries.json", retries)
            self.touch()

    def let(self, row: Row, mac: str) -> None:
        """Let be so what the server alone knows."""
        if row["controller"]:
            self.offers.attended.groups = frozenset()
        if row["table"]:
            self.fleet._max_devices = 0
        hour = (datetime.now(UTC).hour + 12) % 24
        hours = Hours([parse_window(f"{hour:02}:00-{hour:02}:30")], UTC)
        admission = Admission(DownloadSlots(1), hours if row["turn"] == "closed" else None)
        if row["turn"] in ("taken", "let in"):
            admission.offer(OTHER if row["turn"] == "taken" else mac, clock_ms())
        # A transfer that still ends would end in the new one, which does not know it.
        before = self.offers.admission
        assert before is not None
        self.assertTrue(until(lambda: not before.downloading))
        self.offers.admission = admission

    def compare(self, row: Row, report: Report) -> Decision | None:
        """Compare what `why` says with what the server answers; return its decision."""
        log_dir = self.data_dir / "log"
        self.let(row, report.key)
        self.look_at_images()
        with file_size_limit(SMALL_FILES) if row["journal"] else nullcontext():
            if row["journal"]:
                with self.fleet.lock:
                    self.fleet.record("device", OTHER, self.fleet.get(OTHER))
                self.fleet.journal.flush()
                self.assertTrue(self.fleet.journal.failing)
                self.get("/healthz")  # the server notices, in whose turn nobody has to be cut off
            AdmissionFile(log_dir, lambda: self.offers.standing(clock_ms())).write()
            device, state = newest(log_dir, report.key), read_server_state(log_dir)
            found = explain_device(self.data_dir, report, device, clock_ms(), state)
            self.asked.clear()
            self.assertEqual(self.ask("/version.txt", row, report), version_reply(found))
            self.assertEqual([each.reason for each in self.asked], reasons_of(found))
            self.assertEqual(self.ask("/firmware.bin", row, report), image_reply(found))
        return found.decision

    def look_at_images(self) -> None:
        """Let the server know which images it cannot serve."""
        for _ in range(2):
            self.offers.look_after()
            self.assertTrue(until(lambda: not self.server.service.store._hasher._by_path))

    def ask(self, path: str, row: Row, report: Report) -> tuple[int, str]:
        """Return the status of an answer, and the version that it brings."""
        fields = {"_br_mac_": report.key, "_br_fwv_": report.firmware_version}
        if row["image"] != "sample":
            answer = self.get(path, fields)
            text, found = answer.body, answer.fields.get("x-firmware-version", "")
        else:
            # From another machine, which a test on one machine has no socket to.
            request = read_request(request_head(path, fields))
            assert request is not None
            service = self.server.service
            while True:
                if TRANSPORT != "threads":  # which know no turns
                    service.begin_turn()
                try:
                    answer = service.respond(request[0], Peer("192.0.2.7", False))
                    break
                except NotHashed as not_hashed:
                    self.assertTrue(not_hashed.hashing.done.wait(TIMEOUT_SECONDS))
            if answer.transfer is not None:
                answer.transfer.end(0, False)
            service.flush()
            brought = re.search(rb"X-Firmware-Version: (\S+)", answer.fields)
            text, found = answer.body, "" if brought is None else brought[1].decode()
        if path == "/version.txt" and answer.status == 200:
            found = text.decode().strip()
        return int(answer.status), found


def version_reply(found: Explanation) -> tuple[int, str]:
    """Return what /version.txt is to answer, by what `why` says."""
    return (503, "") if found.decision is None else (200, found.decision.version)


def reasons_of(found: Explanation) -> list[Reason]:
    return [] if found.decision is None else [found.decision.reason]


def image_reply(found: Explanation) -> tuple[int, str]:
    """Return what /firmware.bin is to answer, by what `why` says."""
    if found.decision is None:
        return 503, ""
    if found.for_image.reason in PUT_OFF:
        return 429, ""
    if found.image_problem:
        return 404, ""
    if found.image is None:
        return 503, ""
    return 200, found.image.name.removeprefix("firmware_").removesuffix(".bin")
