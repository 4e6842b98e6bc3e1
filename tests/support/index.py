"""An index of devices, its writer and its reader, on a data directory with a journal by hand."""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ota_server.journal.record import format_marker, format_record
from ota_server.journal.replay import replay
from ota_server.model.device import Device, Download
from ota_server.model.updater import Updater
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.device_index import DeviceIndex
from ota_server.operations.index_schema import FILE_NAME
from ota_server.operations.index_writer import IndexWriter
from tests.support.client import until
from tests.support.data_dir import DataDirCase

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
OLD, NEW = "v1.9.0", "v1.10.0"
SHA = "a" * 64
MANY_VERSIONS = (OLD, NEW, "1.10.0", "v1.0.0", "v2.0.0-rc1", "factory", "2024%_\\x")
MANY_ADDRESSES = ("192.0.2.7", "192.0.2.200", "10.1.2.3", "2001:db8::7", "2001:db8:1::9", "")
MANY_FAMILIES = (None, Updater("esp32", 1_310_720), Updater("hawkbit"), Updater("tasmota"))
# Far from the hour and the day at which states change by themselves.
MANY_AGES_MS = (MINUTE_MS, 20 * MINUTE_MS, 3 * HOUR_MS, 2 * DAY_MS, 30 * DAY_MS)


def key_of(number: int) -> str:
    """Return the key of a device of the default product."""
    return f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"


def a_device(seen_ms: int, version: str = NEW, **fields: Any) -> Device:
    """Return a device that is as plain as possible."""
    plain = Device(seen_ms, version, seen_ms, None, NEW, "192.0.2.7", False, None)
    return plain._replace(**fields)


def had(version: str, attempt_ms: int, attempts: int = 1) -> Download:
    """Return a download of which a device had all at a time."""
    return Download(version, SHA, 5000, attempt_ms - 5000, attempts, attempt_ms, 0)


def any_device(chance: random.Random, now_ms: int) -> Device:
    """Return a device of some kind."""
    seen_ms = now_ms - chance.choice(MANY_AGES_MS) - chance.randrange(MINUTE_MS)
    attempt_ms = seen_ms + chance.choice((-30, -5, 1, 2)) * MINUTE_MS
    last = had(chance.choice((OLD, NEW, "v2.0.0-rc1")), attempt_ms, chance.choice((0, 1, 1, 12)))
    return a_device(
        seen_ms,
        chance.choice(MANY_VERSIONS),
        update_ms=chance.choice((None, seen_ms - HOUR_MS)),
        target_version=chance.choice((None, OLD, NEW)),
        address=chance.choice(MANY_ADDRESSES),
        download=chance.choice((None, last)),
        first_seen_ms=chance.choice((None, (seen_ms // HOUR_MS + 1) * HOUR_MS)),
        updater=chance.choice(MANY_FAMILIES),
    )


class IndexCase(DataDirCase):
    """Devices on record, and an index of them."""

    def setUp(self) -> None:
        super().setUp()
        for version in (OLD, NEW):
            self.put_image(version, version.encode() * 1000)
        self.set_target(NEW)
        self.now_ms = time.time_ns() // 1_000_000
        self.journal = self.data_dir / "log" / "devices.jsonl"
        self.file = self.data_dir / "log" / FILE_NAME
        self.writer = self.new_writer()
        self.index = DeviceIndex(self.data_dir)
        self.addCleanup(self.index.close)

    def new_writer(self) -> IndexWriter:
        """Return a writer that looks at what was decided in each step."""
        writer = IndexWriter(self.data_dir, look_seconds=0.0)
        self.addCleanup(writer.close)
        return writer

    def note(self, key: str, device: Device, event: str = "check", **details: Any) -> None:
        """Put a record into the journal."""
        with self.journal.open("ab") as file:
            file.write(format_record(event, key, device, details))

    def know(self, number: int, version: str = NEW, **fields: Any) -> None:
        """Put a device on record that was just heard from."""
        fields.setdefault("last_seen_ms", self.now_ms - MINUTE_MS)
        seen_ms = fields.pop("last_seen_ms")
        self.note(key_of(number), a_device(seen_ms, version, **fields))

    def rotate(self, number: int, devices: dict[str, Device]) -> Path:
        """Begin a new file of the journal with a snapshot."""
        path = self.journal.with_name(f"devices.{number:06d}.jsonl")
        self.journal.rename(path)
        for key, device in devices.items():
            self.note(key, device, "device")
        with self.journal.open("ab") as file:
            file.write(format_marker(self.now_ms, len(devices)))
        return path

    def catch_up(self) -> None:
        """Have the writer do all that there is to do."""

        def is_done() -> bool:
            # While it makes the index there are steps in which it waits for a thread.
            return not self.writer.step(self.now_ms) and not self.writer.is_making

        self.assertTrue(until(is_done, pause_seconds=0.0))

    def pass_time(self, ms: int) -> None:
        """Let time pass in steps in which no clock jumps, and the writer notice it."""
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms = min(self.now_ms + 4 * MINUTE_MS, end_ms)
            self.catch_up()

    def decide(self, name: str, content: str) -> None:
        """Write a file of the policy."""
        path = self.data_dir / "version" / name
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(content, "utf-8")
        temporary.replace(path)

    def pages(self, *arguments: Any, **options: Any) -> Iterator[list[str]]:
        """Yield the keys of all parts of a list."""
        cursor = None
        while True:
            page = self.index.page(*arguments, cursor=cursor, **options)
            yield [row.key for row in page.rows]
            cursor = page.next
            if cursor is None:
                return

    def assert_whole(self) -> None:
        """Check that the index holds what the journal does, and that its counts add up."""
        found = replay(self.data_dir / "log")
        try:
            expected = {key: _as_indexed(device) for key, device in found.devices()}
        finally:
            found.close()
        indexed = dict(self.index.devices("", DeviceFilter(), self.now_ms))
        self.assertEqual(indexed, expected)
        with closing(sqlite3.connect(self.file)) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            for table, columns in (
                ("state_tally", "product, condition, apart, reason"),
                ("version_tally", "product, version"),
            ):
                counted = database.execute(
                    f"SELECT * FROM {table} WHERE devices ORDER BY {columns}"
                )
                again = database.execute(
                    f"SELECT {columns}, count(*) FROM devices GROUP BY {columns} ORDER BY {columns}"
                )
                self.assertEqual(counted.fetchall(), again.fetchall())


def _as_indexed(device: Device) -> Device:
    """Return a device as far as the index has it."""
    return device._replace(time_ms=device.last_seen_ms)
