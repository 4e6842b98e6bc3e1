"""`rollout devices`: who did not do well, and why, while a rollout is on and when it is over."""

import hashlib
import json
import re
from typing import Any

from ota_server.model.device import FREE_ATTEMPTS, Device, Download
from ota_server.model.manifest import Manifest, format_manifest
from ota_server.model.timestamp import format_time
from ota_server.policy.files import PolicyFiles
from ota_server.rollouts.device_outcome import outcome_of
from ota_server.rollouts.outcome_list import ListedDevice
from ota_server.system import clock
from tests.support import Client, Process, bare, until
from tests.support.fleet import (
    IMAGES,
    NEW,
    OLD,
    Fleet,
    RolloutCase,
    mac_of,
    run_command,
    run_rollout,
)


class DevicesOfRolloutCase(RolloutCase):
    def listed(self, *arguments: str) -> list[dict[str, str]]:
        """Return what `rollout devices --json` says."""
        code, out, said = run_rollout(self.data_dir, "devices", "--json", *arguments)
        self.assertEqual((code, said), (0, ""))
        return [json.loads(line) for line in out.splitlines()]

    def shown(self, *arguments: str) -> list[str]:
        """Return the lines of `rollout devices`."""
        code, out, said = run_rollout(self.data_dir, "devices", *arguments)
        self.assertEqual((code, said), (0, ""))
        return out.splitlines()


class HaltedTest(DevicesOfRolloutCase):
    def halt(self) -> str:
        """Have a release halted; return the log of the server."""
        server = self.serve()
        self.devices.ask(server.port)
        self.roll_out(waves=(50.0, 100.0))
        self.ask_until(
            server, lambda: self.state() == "halted", boots=lambda mac: int(mac[-2:], 16) % 2 == 0
        )
        return server.end()[1]

    def test_each_device_that_failed_is_listed_with_its_reason_and_the_log_names_them(self):
        log = self.halt()
        failed = self.listed("--failed")
        self.assertGreaterEqual(len(failed), 3)
        self.assertEqual({device["state"] for device in failed}, {"failed"})
        self.assertTrue(all(int(device["mac"][-2:], 16) % 2 for device in failed))
        reasons = {device["reason"] for device in failed}
        still, again = (
            f"it had the whole image, and reports {OLD} still",
            f"it had the whole image, reports {OLD}, and began to download it again",
        )
        self.assertLessEqual(reasons, {still, again})
        self.assertEqual(failed[0]["address"], "127.0.0.1")
        self.assertRegex(log, rf"\d+Z WARNING rollout of {NEW}: {failed[0]['mac']} \(failed\), ")
        named = re.search(rf"rollout of {NEW}: (02:.*)", log)
        assert named is not None
        self.assertLessEqual(named[1].count("(failed)"), 10)

    def test_the_log_says_whose_they_are_where_another_rollout_was_stopped_too(self):
        self.roll_out(group="beta", wanted="abort")
        self.assertIn("rollout devices --group ''", self.halt())

    def test_they_are_still_known_after_a_revert_took_its_place(self):
        self.halt()
        before = self.listed("--failed")
        code, _, said = run_rollout(self.data_dir, "abort", "--revert")
        self.assertEqual(code, 0, said)
        self.assertEqual(self.listed(NEW, "--failed"), before)
        lines = self.shown(NEW, "--failed", "--limit", "2")
        as_of = r"as of \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, when it ended \([a-z0-9 ]+\)$"
        self.assertRegex(lines[0], f"^rollout of {NEW} to the fleet: halted; {as_of}")
        local = self.shown(NEW, "--failed", "--local")[0]
        self.assertRegex(local, r"as of \S+T\d\d:\d\d:\d\d[+-]\d\d:\d\d, when it ended")
        self.assertRegex(lines[2], r"^failed, \d+: it had the whole image, ")
        self.assertEqual(lines[3].split(), ["MAC", "REPORTS", "LAST", "SEEN", "ADDRESS"])
        self.assertEqual(sum(line.startswith("02:") for line in lines), 2)
        self.assertIn(f"{len(before)} failed", lines[-1])
        history = run_rollout(self.data_dir, "history")[1]
        self.assertRegex(history, f"Z  .*  halted  {NEW}\n    to the fleet, wave 1 of 2, ")
        self.assertEqual(history.splitlines()[-1], "1 rollout")

    def test_after_it_the_reports_and_the_times_are_those_of_now(self):
        self.halt()
        before = {each["mac"]: each for each in self.listed("--failed")}
        mac = min(before)
        server = self.serve()
        self.devices.versions = {mac: "v1.5.0"}
        self.devices.off.clear()
        self.devices.ask(server.port)
        server.end()
        now = {each["mac"]: each for each in self.listed("--failed")}
        self.assertEqual(now.keys(), before.keys())
        self.assertEqual(now[mac]["firmware_version"], "v1.5.0")
        self.assertEqual(now[mac]["reason"], before[mac]["reason"])
        self.assertGreater(now[mac]["last_seen_time"], before[mac]["last_seen_time"])
        run_command(self.data_dir, "device", "forget", mac)
        now = {each["mac"]: each for each in self.listed("--failed")}
        self.assertEqual(now[mac]["last_seen_time"], "")

    def test_what_is_listed_is_what_why_says_of_each(self):
        self.halt()
        for device in self.listed("--failed")[:3]:
            policy = PolicyFiles(self.data_dir).current()
            case = outcome_of(self.data_dir, device["mac"], "", policy, clock.now_ms())
            self.assertEqual(case, (device["state"], device["reason"]))


class BrickedTest(DevicesOfRolloutCase):
    def test_those_that_had_the_image_at_the_halt_and_say_nothing_more_are_named_as_silent(self):
        server = self.serve()
        for _ in range(4):  # so that it is known how often they ask
            self.devices.ask(server.port)
        macs = list(self.devices.versions)
        bricked, back = set(macs[:3]), macs[3]

        def boots(mac: str) -> bool:
            if mac in bricked or (mac == back and self.state() != "halted"):
                self.devices.off.add(mac)
            return mac in macs[-5:]

        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        self.ask_until(server, lambda: self.state() == "halted", boots=boots)
        self.assertEqual(self.devices.off, {*bricked, back})
        kept = self.data_dir / "log" / "rollouts.jsonl"
        (entry,) = map(json.loads, kept.read_text().splitlines())
        states = {each["mac"]: each["state"] for each in entry["devices"]}
        self.assertEqual({states[mac] for mac in self.devices.off}, {"undecided"})
        self.devices.off.remove(back)  # it comes back after the halt
        self.devices.ask(server.port)
        self.assertTrue(until(lambda: len(self.listed("--silent")) == 3))
        silent = self.listed("--silent")
        self.assertEqual({each["mac"] for each in silent}, bricked)
        self.assertIn("has not been heard from since", silent[0]["reason"])
        # Others may have had the image at the halt, before they could report.
        undecided = {each["mac"] for each in self.listed("--undecided")}
        self.assertIn(back, undecided)
        self.assertEqual(undecided & bricked, set())
        reasons = {each["reason"] for each in self.listed("--undecided")}
        self.assertEqual(
            reasons, {"it had the image, and had not reported the release when the rollout ended"}
        )
        self.assertEqual(self.silent_now(), bricked)
        self.assertRegex(run_command(self.data_dir, "status")[1], r"\b3  silent\b")
        # Whatever comes after it: the way back, and an ordinary release.
        self.assertIn("to take back", run_rollout(self.data_dir, "abort", "--revert")[1])
        self.assertEqual(self.silent_now(), bricked)
        run_rollout(self.data_dir, "abort")
        self.put_image("v2.5.0", b"another image" * 100)
        code, _, said = run_rollout(self.data_dir, "start", "v2.5.0", "--count-new")
        self.assertEqual((code, self.silent_now()), (0, bricked), said)
        run_rollout(self.data_dir, "abort")
        code, _, said = run_command(self.data_dir, "release", "activate", "v2.5.0")
        self.assertEqual((code, self.silent_now()), (0, bricked), said)
        self.devices.off.clear()
        self.devices.ask(server.port)
        self.assertEqual(self.silent_now(), set())

    def silent_now(self) -> set[str]:
        """Return the devices that `devices` calls silent."""
        code, out, _ = run_command(self.data_dir, "devices", "--state", "silent", "--json")
        self.assertEqual(code, 0)
        return {json.loads(line)["mac"] for line in out.splitlines()}

    def test_where_it_is_not_known_how_often_one_asks_it_is_silent_after_15_minutes(self):
        had = Download(NEW, "ab" * 32, 1000, 5_000, 1, 10_000)
        device = Device(
            5_000, OLD, 5_000, None, NEW, "192.0.2.1", False, download=had, first_seen_ms=0
        )
        listed = ListedDevice(mac_of(1), "undecided", "", OLD, format_time(5_000), "192.0.2.1")
        for now_ms, state in ((10_000 + 900_000, "undecided"), (10_001 + 900_000, "silent")):
            self.assertEqual(listed.state_now(device, now_ms), state)
        slow = listed._replace(quiet_seconds=7200.0)
        self.assertEqual(slow.state_now(device, 7_000_000), "undecided")
        heard = device._replace(last_seen_ms=20_000)
        self.assertEqual(listed.state_now(heard, 10**9), "")

    def test_one_that_begins_another_download_is_heard_from(self):
        listed = ListedDevice(mac_of(1), "silent", "", OLD, format_time(9_000), "192.0.2.1")
        for request_ms, expected in ((9_500, "silent"), (20_000, "")):
            had = Download(NEW, "ab" * 32, 1000, request_ms, 1, 10_000)
            device = Device(request_ms, OLD, 9_000, None, NEW, "192.0.2.1", False, had, 0)
            with self.subTest(request_ms=request_ms):
                self.assertEqual(listed.state_now(device, 2_000_000), expected)

    def test_one_that_was_downloading_at_the_end_is_silent_only_if_it_had_all_of_it(self):
        listed = ListedDevice(mac_of(1), "downloading", "", OLD, format_time(9_000), "192.0.2.1")
        for attempt_ms, expected in ((5_000, ""), (10_000, "silent")):
            had = Download(NEW, "ab" * 32, 1000, 9_500, 1, attempt_ms)
            device = Device(9_500, OLD, 9_000, None, NEW, "192.0.2.1", False, had, 0)
            with self.subTest(attempt_ms=attempt_ms):
                self.assertEqual(listed.state_now(device, 2_000_000), expected)


class OthersTest(DevicesOfRolloutCase):
    """Of a few devices, some do nothing that shows how the release is."""

    def setUp(self) -> None:
        super().setUp()
        self.devices = Fleet(4)

    def get(self, server: Process, path: str, fields: dict[str, str]) -> int:
        with Client(server.port) as client:
            client.request(path, {**fields, "Connection": "close"})
            return client.answer().status

    def ask_too(self, server: Process, path: str, fields: dict[str, str], is_so: Any) -> None:
        """Have the fleet ask until something is so, and another device with it."""

        def so_by_now() -> bool:
            self.get(server, path, fields)
            return bool(is_so())

        self.ask_until(server, so_by_now)

    def test_one_that_has_no_room_is_not_needed_and_it_is_said_why(self):
        image = IMAGES[NEW]
        sha256, md5 = hashlib.sha256(image).hexdigest(), hashlib.md5(image).hexdigest()
        manifest = Manifest(NEW, sha256, md5, len(image), format_time(0))
        path = self.data_dir / "firmware" / f"firmware_{NEW}.json"
        path.write_bytes(format_manifest(manifest))
        mac, prefix = mac_of(99), "x-ESP32-"
        small = {f"{prefix}STA-MAC": mac, f"{prefix}mode": "sketch", f"{prefix}version": OLD}
        small |= {f"{prefix}free-space": "200", "User-Agent": "ESP32-http-Update"}
        server = self.serve()
        for _ in range(3):
            self.get(server, "/firmware.bin", small)
            self.devices.ask(server.port)
        self.roll_out(waves=(100.0,), min_devices=20, soak_seconds=3600.0)
        self.ask_too(
            server,
            "/firmware.bin",
            small,
            lambda: self.progress().get("counts", {}).get("updated") == 4,
        )
        (listed,) = self.listed()
        room = f"no room: the image has {len(image)} bytes, and the device has room for 200"
        self.assertEqual((listed["mac"], listed["state"]), (mac, "cannot_take_it"))
        self.assertEqual(listed["reason"], room)
        said = run_rollout(self.data_dir, "status")[1]
        self.assertIn("4 of 4 updated", said)
        self.assertIn("  1 cannot take it: no room (1)\n", said)
        self.assertEqual(self.shown()[-1], "1 cannot take it")
        why = run_command(self.data_dir, "why", mac)[1]
        self.assertRegex(why, r"counts as +cannot take it: no room: the image")
        plan = self.roll_out(waves=(100.0,), min_devices=20)
        self.ask_too(server, "/firmware.bin", small, lambda: self.state() == "done")
        self.assertEqual(self.progress()["id"], plan.id)

    def test_one_that_says_no_version_is_undecided_and_a_person_is_asked(self):
        mac, esphome = mac_of(99), {"User-Agent": "ESPHome/2026.1"}
        path = f"/d/{mac}/-/firmware.bin"
        server = self.serve()
        for _ in range(3):
            self.devices.ask(server.port)
        self.roll_out(waves=(100.0,), min_devices=20)
        for _ in range(FREE_ATTEMPTS + 1):  # at each poll, up to the loop breaker
            self.get(server, path, esphome)
        self.ask_too(server, path, esphome, lambda: self.progress().get("asks") == [mac])
        (listed,) = self.listed()
        words = "it had the whole image, and says no version"
        self.assertEqual((listed["state"], listed["reason"]), ("undecided", words))
        code, said, _ = run_rollout(self.data_dir, "status")
        self.assertEqual(code, 1)
        self.assertIn(f"missing: {mac} (says no version)", bare(said))
        self.assertIn("rollout promote", said)
        # The server tells after some seconds that its controller looks after the rollout.
        of = f"undecided: it had the whole image of {NEW}, and says no version"
        self.assertTrue(
            until(lambda: of in " ".join(run_command(self.data_dir, "why", mac)[1].split()))
        )
        why = " ".join(run_command(self.data_dir, "why", mac)[1].split())
        self.assertIn("says no version: put that into its URL", why)
        self.assertNotIn("--reports-as", why)
        self.assertEqual(run_rollout(self.data_dir, "promote")[0], 0)
        self.ask_too(server, path, esphome, lambda: self.state() == "done")


class RunningTest(DevicesOfRolloutCase):
    def test_while_it_is_on_devices_are_listed_as_the_controller_counts_them(self):
        server = self.serve()
        self.devices.ask(server.port)
        self.roll_out(waves=(50.0, 100.0), soak_seconds=3600.0, grace_seconds=3600.0)
        stays = set(list(self.devices.versions)[:40])

        def are_some_undecided() -> bool:
            self.devices.off |= self.devices.holders & stays
            return self.progress().get("counts", {}).get("undecided", 0) > 3

        self.ask_until(server, are_some_undecided, boots=lambda mac: mac not in stays)
        self.devices.off = set(self.devices.versions)
        self.assertTrue(
            until(lambda: len(self.listed("--undecided")) == self.progress()["counts"]["undecided"])
        )
        undecided = self.listed("--undecided", "--failed")
        self.assertIn("has not reported the release yet", undecided[0]["reason"])
        self.assertEqual(self.shown("--silent")[-1], "no device is silent")
        self.assertIn("running, wave 1 of 2", self.shown("--silent")[0])

    def test_those_that_were_not_heard_from_are_listed_while_it_waits_and_when_it_is_over(self):
        server = self.serve()
        self.devices.ask(server.port)
        gone = set(list(self.devices.versions)[:2])
        self.devices.off = set(gone)
        self.roll_out(waves=(100.0,))
        self.ask_until(server, lambda: self.progress().get("counts", {}).get("updated") == 58)
        unheard = self.listed("--unheard")
        self.assertEqual({device["mac"] for device in unheard}, gone)
        self.assertEqual({device["state"] for device in unheard}, {"not_heard_from"})
        self.assertEqual({device["firmware_version"] for device in unheard}, {OLD})
        lines = self.shown()
        self.assertIn("not heard from, 2: it has not been heard from since ", "\n".join(lines))
        self.assertEqual(lines[-1], "2 not heard from")
        self.assertEqual(self.shown("--failed", "--unheard")[-1], "2 not heard from")
        self.ask_until(server, lambda: self.state() == "done")
        self.assertEqual(self.shown()[-1], "2 not heard from")
        self.assertEqual({device["mac"] for device in self.listed()}, gone)

    def test_who_has_the_release_is_not_without_it_though_it_was_not_heard_from(self):
        server = self.serve()
        self.devices.ask(server.port)
        has_it = next(iter(self.devices.versions))
        self.devices.versions[has_it] = NEW
        self.devices.ask(server.port)
        self.devices.off = set(self.devices.versions)
        self.roll_out(waves=(100.0,))
        self.assertTrue(until(lambda: self.state() == "running"))
        self.assertEqual(len(self.listed("--unheard")), 59)
        self.assertNotIn(has_it, {device["mac"] for device in self.listed()})
        self.assertEqual(self.shown("--cut", "--failed")[-1], "no device is cut or failed")

    def test_without_a_rollout_it_is_said(self):
        code, out, said = run_rollout(self.data_dir, "devices")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("there was no such rollout", said)

    def test_several_that_are_on_have_to_be_told_apart(self):
        (self.data_dir / "version" / "groups").mkdir()
        (self.data_dir / "version" / "groups" / "beta.txt").write_text(mac_of(1))
        self.roll_out(time=format_time(clock.now_ms()))
        self.roll_out(time=format_time(clock.now_ms()), group="beta")
        code, _, said = run_rollout(self.data_dir, "devices")
        self.assertEqual(code, 1)
        self.assertIn("say which one: --group '' (v2.0.0), --group beta (v2.0.0)", said)
