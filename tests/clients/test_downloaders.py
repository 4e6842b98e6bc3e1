"""Real clients fetch real images: cut in the middle, resumed, to the last byte the source's."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ota_server.model.timestamp import parse_time
from tests.support import MAC, ROOT, TIMEOUT_SECONDS
from tests.support.real_clients import (
    LARGE,
    MEBIBYTE,
    SMALL,
    RealClientCase,
    Update,
    needs,
    needs_images,
)

# What a client can write when its link falls silent; aria2 takes blocks of 16 KiB for its own.
WRITTEN_BYTES = 16 * 1024
ARIA2_CHECKSUM_FAILED = 32  # aria2c(1), EXIT STATUS


def size_of(path: Path) -> int:
    """Return the size of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def now_ms() -> int:
    """Return the time as the journal counts it."""
    return time.time_ns() // 1_000_000


@needs_images
class Updates:
    """What every client must bring about; a class for each says how it is called."""

    # A power cut leaves a client no time; only aria2 has to write down which pieces it has.
    end_by = signal.SIGKILL
    resumed: Sequence[str] = ()
    basic: Sequence[str] = ()
    is_named_by_path = False

    def command(self, url: str, output: Path, fields: Sequence[str]) -> list[str]:
        """Return how the client is called; `fields` are those of the device."""
        raise NotImplementedError

    def fetch(self, path: str, version: str, output: Path, port: int | None = None) -> list[str]:
        """Return the command by which the device asks for something."""
        if self.is_named_by_path:
            path = f"/d/{MAC}/{version}{path}"
            return self.command(f"http://127.0.0.1:{port or self.port}{path}", output, ())
        fields = [f"_br_mac_: {MAC}", f"_br_fwv_: {version}"]
        return self.command(f"http://127.0.0.1:{port or self.port}{path}", output, fields)

    def check(self, version: str) -> str:
        """Let the device ask which version it should run, and return the answer."""
        output = self.folder / "version.txt"
        output.unlink(missing_ok=True)
        self.run_client(self.fetch("/version.txt", version, output))
        return output.read_text()

    def publish(self, update: Update) -> None:
        self.put_image("v2.0.0", update.image)
        self.put_image("v3.0.0", update.next_image)
        self.set_target("v2.0.0")

    def download_and_cut(self, update: Update) -> Path:
        """Let the device begin its download, and end the client in the middle of it."""
        output = self.folder / "new.bin"
        link = self.weak_link(update.cut_after)
        client = self.start_client(self.fetch("/firmware.bin", "v1.0.0", output, link.port))
        self.wait_for(link.is_silent.is_set, client)
        self.wait_for(lambda: size_of(output) >= WRITTEN_BYTES, client)
        self.assertNotEqual(self.end_client(client, self.end_by), 0)
        link.close()
        return output

    def resume(self, output: Path, *options: str) -> str:
        """Let the client go on, and return the SHA-256 of what it has then."""
        command = self.fetch("/firmware.bin", "v1.0.0", output)
        self.run_client([*command, *self.resumed, *options])
        return sha256(output.read_bytes()).hexdigest()

    def range_starts(self) -> list[int]:
        """Return where the ranges start that were asked for, and answered with 206."""
        return [record["range_start"] for record in self.records(event="begin", status=206)]

    def assert_resumed_whole(self, update: Update, switch_target: bool) -> None:
        self.publish(update)
        output = self.download_and_cut(update)
        before = len(self.range_starts())
        if switch_target:
            self.set_target("v3.0.0")
            self.assertEqual(self.check("v1.0.0"), "v3.0.0")
        self.assertEqual(self.resume(output), sha256(update.image).hexdigest())
        starts = self.range_starts()[before:]
        self.assertTrue(any(starts), f"it began again from the first byte: {starts}")

    def test_a_large_image_is_whole_after_a_cut_and_a_resume(self):
        self.assert_resumed_whole(LARGE, switch_target=False)

    def test_a_small_image_is_whole_after_a_cut_and_a_resume(self):
        self.assert_resumed_whole(SMALL, switch_target=False)

    def test_the_table_shows_the_device_moving_from_the_old_version_to_the_new_one(self):
        self.publish(LARGE)
        self.check("v1.0.0")
        self.assertRegex(self.table(), r"v1\.0\.0 +v2\.0\.0 +behind +(now|\d+s ago) +127\.0\.0\.1")
        self.resume(self.download_and_cut(LARGE))
        self.check("v2.0.0")
        moved = r"v2\.0\.0 +v2\.0\.0 +up to date +(now|\d+s ago) +127\.0\.0\.1"
        self.assertRegex(self.table(), moved)

    def test_the_table_shows_a_device_moving_that_its_url_names(self):
        self.is_named_by_path = True
        self.test_the_table_shows_the_device_moving_from_the_old_version_to_the_new_one()
        self.assertEqual({record["mac"] for record in self.records(event="download")}, {MAC})

    def test_a_device_that_says_who_it_is_by_basic_gets_the_image(self):
        self.publish(LARGE)
        output = self.folder / "new.bin"
        url = f"http://127.0.0.1:{self.port}/firmware.bin"
        self.run_client([*self.command(url, output, ()), *self.basic])
        self.assertEqual(output.read_bytes(), LARGE.image)
        self.assertRegex(self.table(), r" - +v2\.0\.0 +behind ")

    def test_the_times_on_record_are_those_of_the_check_and_of_the_first_with_the_new_version(self):
        self.publish(SMALL)
        first = self.seen_within(lambda: self.check("v1.0.0"))
        self.assertIsNone(first["update_time"])
        self.resume(self.folder / "new.bin")
        second = self.seen_within(lambda: self.check("v2.0.0"))
        self.assertEqual(second["update_time"], second["last_seen_time"])
        third = self.seen_within(lambda: self.check("v2.0.0"))
        self.assertEqual(third["update_time"], second["update_time"])

    def seen_within(self, check: Callable[[], object]) -> dict[str, Any]:
        """Return the device after a check; it was last seen neither before the check nor after."""
        began = now_ms()
        check()
        ended = now_ms()
        (device,) = map(json.loads, self.devices_command("--json").splitlines())
        self.assertIn(parse_time(device["last_seen_time"]), range(began, ended + 1))
        return device

    def table(self) -> str:
        """Return the row of the device."""
        output = self.devices_command()
        (row,) = re.findall(rf"^{MAC} .*$", output, re.MULTILINE)
        return row

    def devices_command(self, *options: str) -> str:
        command = [sys.executable, "-m", "ota_server", "devices", "--data-dir", self.data_dir]
        return subprocess.run(
            [*command, *options],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        ).stdout


class FinishedUpdates(Updates):
    """What a client that goes on by a Range alone brings about on top of that."""

    def test_a_large_image_that_was_cut_is_finished_though_the_target_was_switched(self):
        self.assert_resumed_whole(LARGE, switch_target=True)

    def test_a_small_image_that_was_cut_is_finished_though_the_target_was_switched(self):
        self.assert_resumed_whole(SMALL, switch_target=True)


@needs("curl")
class CurlTest(FinishedUpdates, RealClientCase):
    resumed = ("-C", "-")
    basic = ("-u", f"{MAC}:")

    def command(self, url: str, output: Path, fields: Sequence[str]) -> list[str]:
        headers = [part for field in fields for part in ("-H", field)]
        return ["curl", "-q", "-sS", "--fail", *headers, "-o", str(output), url]


@needs("wget")
class WgetTest(FinishedUpdates, RealClientCase):
    resumed = ("-c",)
    basic = (f"--user={MAC}", "--password=-")

    def command(self, url: str, output: Path, fields: Sequence[str]) -> list[str]:
        headers = [f"--header={field}" for field in fields]
        return ["wget", "--no-config", "-nv", "--no-hsts", *headers, "-O", str(output), url]


@needs("aria2c")
class Aria2Test(Updates, RealClientCase):
    """aria2 goes on by a GET without Range first, which begins a download on the current target."""

    end_by = signal.SIGTERM
    resumed = ("-c",)
    basic = (f"--http-user={MAC}", "--http-passwd=-")

    def command(self, url: str, output: Path, fields: Sequence[str]) -> list[str]:
        headers = [f"--header={field}" for field in fields]
        segments = ["-x4", "-s4", "-k1M", "--file-allocation=none", "--disk-cache=0"]
        where = ["-d", str(output.parent), "-o", output.name]
        return ["aria2c", "--no-conf", "-q", *segments, *headers, *where, url]

    def test_four_segments_are_fetched_as_four_ranges(self):
        self.publish(LARGE)
        output = self.download_and_cut(LARGE)
        before = len(self.range_starts())
        # Slow enough that no segment ends before the last one has begun.
        self.resume(output, "--max-download-limit=4M")
        segments = {start // MEBIBYTE for start in self.range_starts()[before:]}
        self.assertEqual(segments, {0, 1, 2, 3})

    def test_a_mixture_of_two_images_is_noticed_and_downloaded_anew(self):
        self.publish(LARGE)
        output = self.download_and_cut(LARGE)
        self.set_target("v3.0.0")
        resume = [*self.fetch("/firmware.bin", "v1.0.0", output), *self.resumed]
        client = self.start_client(resume)
        client.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(client.returncode, ARIA2_CHECKSUM_FAILED)
        self.run_client(resume)
        self.assertEqual(output.read_bytes(), LARGE.next_image)
