"""Lines of one device found in a large journal: from its end back, and forward."""

from ota_server.journal.record import format_marker, format_record
from ota_server.journal.record_fields import whose
from ota_server.journal.search import LinePlace, newest_first, oldest_first
from ota_server.model.device import Device
from tests.support import MAC, DataDirCase
from tests.support.fleet import mac_of
from tests.support.story import START_MS


def line(mac: str, second: int, event: str = "check") -> bytes:
    """Return a record."""
    time_ms = START_MS + second * 1000
    device = Device(time_ms, "v1", time_ms, None, "v1", "192.0.2.7", False, None)
    return format_record(event, mac, device)


class SearchCase(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.logs = self.data_dir / "log"

    def write(self, *lines: bytes, name: str = "devices.jsonl") -> None:
        (self.logs / name).write_bytes(b"".join(lines))

    def offsets(self) -> list[int]:
        return [place.offset for place, _ in newest_first(self.logs, MAC)]


class BackTest(SearchCase):
    def test_every_line_is_found_wherever_blocks_begin(self):
        others = b"".join(line(mac_of(number), 0) for number in range(100)) * 400
        self.assertGreater(len(others), 8 * 1024 * 1024)
        parts, expected, at = [], [], 0
        for second in range(40):
            mine = line(MAC, second)
            # So that some begin in one block and end in the next.
            part = others[: second * 7919 * 37 % len(others)]
            part = part[: part.rfind(b"\n") + 1]
            parts += [part, mine]
            expected.append(at + len(part))
            at += len(part) + len(mine)
        self.write(*parts)
        self.assertEqual(self.offsets(), expected[::-1])
        found = [place.offset for place, _ in oldest_first(self.logs, MAC)]
        self.assertEqual(found, expected)

    def test_a_line_that_is_too_long_hides_no_other(self):
        long = b'{"x":"' + b"y" * (9 * 1024 * 1024) + whose(MAC).encode() + b'"}\n'
        first, last = line(MAC, 1), line(MAC, 2)
        self.write(first, long, last)
        self.assertEqual(self.offsets(), [len(first) + len(long), 0])

    def test_a_last_line_without_its_end_is_found_if_it_is_whole(self):
        self.write(line(MAC, 1), line(MAC, 2)[:-1])
        self.assertEqual(len(self.offsets()), 2)
        self.write(line(MAC, 1), line(MAC, 2)[:50])
        self.assertEqual(len(self.offsets()), 1)

    def test_a_place_is_the_same_after_the_file_is_rotated(self):
        self.write(line(MAC, 1), line(MAC, 2))
        place, _ = next(newest_first(self.logs, MAC))
        self.write(line(MAC, 1), line(MAC, 2), name="devices.000001.jsonl")
        self.write(line(MAC, 3))
        found = [found for found, _ in newest_first(self.logs, MAC, place)]
        self.assertEqual(found, [LinePlace(1, 0)])


class ForwardTest(SearchCase):
    def test_places_are_those_of_the_way_back(self):
        self.write(line(MAC, 1), line(mac_of(9), 2), line(MAC, 3), name="devices.000001.jsonl")
        self.write(line(mac_of(9), 4), line(MAC, 5), b'"mac":"' + MAC.encode() + b'" torn')
        back = [*newest_first(self.logs, MAC)]
        self.assertEqual(len(back), 3)
        self.assertEqual([*oldest_first(self.logs, MAC)], back[::-1])

    def test_of_the_lines_that_are_wanted_once_the_first_one_comes(self):
        marker = format_marker(START_MS, 1)
        self.write(line(MAC, 1), marker, line(MAC, 2), marker, name="devices.000001.jsonl")
        self.write(marker, line(MAC, 3))
        found = [*oldest_first(self.logs, MAC, once=b'"event":"snapshot"')]
        events = [fields["event"] for _, fields in found]
        self.assertEqual(events, ["check", "snapshot", "check", "check"])
