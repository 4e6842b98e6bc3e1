"""Following the journal: each record once, in the order of lines, whatever happens to the files."""

import json
import os

from ota_server.journal.follow import Follower, Position, end_of
from tests.support import DataDirCase


class FollowCase(DataDirCase):
    def setUp(self):
        super().setUp()
        self.log_dir = self.data_dir / "log"
        self.current = self.log_dir / "devices.jsonl"
        self.count = 0

    def write(self, number: int = 1, pad: str = "") -> None:
        """Append records, numbered from 1."""
        with self.current.open("a") as file:
            for _ in range(number):
                self.count += 1
                file.write(json.dumps({"event": "check", "n": self.count, "pad": pad}) + "\n")

    def rotate(self, number: int) -> None:
        self.current.rename(self.log_dir / f"devices.{number:06d}.jsonl")

    def follower(self, position: Position | None = None) -> Follower:
        follower = Follower(self.log_dir, position)
        self.addCleanup(follower.close)
        return follower

    def read_all(self, follower: Follower) -> list[int]:
        numbers: list[int] = []
        while records := follower.read():
            numbers += [record["n"] for record in records]
        return numbers


class FollowTest(FollowCase):
    def test_records_come_from_the_oldest_file_on(self):
        self.write(2)
        self.rotate(1)
        self.write(2)
        self.rotate(2)
        self.write(2)
        self.assertEqual(self.read_all(self.follower()), [1, 2, 3, 4, 5, 6])

    def test_a_line_is_read_once_it_is_whole(self):
        follower = self.follower()
        self.assertEqual(follower.read(), [])
        self.write()
        with self.current.open("a") as file:
            file.write('{"n": ')
        self.assertEqual(self.read_all(follower), [1])
        with self.current.open("a") as file:
            file.write("2}\n")
        self.assertEqual(self.read_all(follower), [2])

    def test_bad_lines_are_skipped_and_counted(self):
        self.write()
        with self.current.open("ab") as file:
            file.write(b"no json\n[1]\n" + b"\0" * 1_000_000 + b"\n")
        self.write()
        follower = self.follower()
        self.assertEqual(self.read_all(follower), [1, 2])
        self.assertEqual(follower.bad_lines, 3)

    def test_a_file_that_is_rotated_meanwhile_is_read_to_its_end(self):
        self.write(2)
        follower = self.follower()
        self.assertEqual(self.read_all(follower), [1, 2])
        self.write(2)
        self.rotate(1)
        self.write(2)
        self.assertEqual(self.read_all(follower), [3, 4, 5, 6])

    def test_two_rotations_between_two_looks_lose_nothing(self):
        self.write()
        follower = self.follower()
        self.read_all(follower)
        for number in (1, 2, 3):
            self.write()
            self.rotate(number)
        self.write()
        self.assertEqual(self.read_all(follower), [2, 3, 4, 5])
        self.assertEqual(follower.losses, 0)

    def test_a_file_that_was_moved_away_is_read_until_there_is_a_new_one(self):
        self.write()
        self.rotate(1)
        self.write()
        follower = self.follower()
        self.read_all(follower)
        away = self.data_dir / "away"
        self.current.rename(away)
        self.assertEqual(follower.read(), [])
        with away.open("a") as file:
            file.write('{"n": 3}\n')
        self.assertEqual(self.read_all(follower), [3])
        with away.open("a") as file:
            file.write('{"n": 4}\n')
        self.count = 4
        self.write()
        self.assertEqual(self.read_all(follower), [4, 5])
        self.assertEqual(follower.losses, 0)

    def test_one_goes_on_from_a_position_also_after_rotations(self):
        self.write(3)
        follower = self.follower()
        self.read_all(follower)
        position = follower.position
        self.write()
        self.rotate(1)
        self.write()
        anew = self.follower(position)
        self.assertEqual(self.read_all(anew), [4, 5])
        self.assertEqual(anew.losses, 0)

    def test_a_position_survives_without_anything_read(self):
        self.write()
        first = self.follower()
        self.read_all(first)
        position = first.position
        self.assertEqual(self.follower(position).position, position)

    def test_who_finds_its_file_gone_is_told_and_reads_nothing_twice(self):
        self.write()
        self.rotate(1)
        self.write()
        first = self.follower()
        self.read_all(first)
        self.current.unlink()
        self.write()
        anew = self.follower(first.position)
        self.assertEqual(self.read_all(anew), [3])
        self.assertEqual(anew.losses, 1)

    def test_an_inode_that_was_given_to_another_file_is_not_taken_for_the_old_one(self):
        self.write(5)
        first = self.follower()
        self.read_all(first)
        self.current.write_text("")
        self.write(20)
        anew = self.follower(first.position)
        self.assertEqual(self.read_all(anew)[:1], [6])
        self.assertEqual(anew.losses, 1)

    def test_a_file_that_is_cut_is_read_anew_and_that_is_said(self):
        self.write(5)
        follower = self.follower()
        self.read_all(follower)
        os.truncate(self.current, 0)
        self.write()
        self.assertEqual(self.read_all(follower), [6])
        self.assertEqual(follower.losses, 1)

    def test_a_large_journal_is_read_in_pieces(self):
        self.write(3000, pad="x" * 1000)
        follower = self.follower()
        first = follower.read()
        self.assertLess(len(first), 1000)
        self.assertEqual([len(first) + 1, 3000], [self.read_all(follower)[0], 3000])

    def test_lines_that_a_snapshot_repeats_are_handed_on_as_such(self):
        self.current.write_text('{"event": "device", "n": 1}\n{"event": "snapshot", "n": 2}\n')
        events = [record["event"] for record in self.follower().read()]
        self.assertEqual(events, ["device", "snapshot"])


class EndTest(FollowCase):
    def test_from_the_end_on_only_what_is_new_is_read(self):
        self.assertIsNone(end_of(self.log_dir))
        self.write(3)
        with self.current.open("a") as file:
            file.write('{"n": ')
        end = end_of(self.log_dir)
        with self.current.open("a") as file:
            file.write("4}\n")
        follower = self.follower(end)
        self.assertEqual(self.read_all(follower), [4])
        self.assertEqual((follower.position, follower.losses), (end_of(self.log_dir), 0))

    def test_it_is_where_a_follower_ends(self):
        for size in (0, 10, 400, 70_000):
            self.write(1, "x" * size)
            follower = self.follower()
            self.read_all(follower)
            self.assertEqual(end_of(self.log_dir), follower.position)

    def test_of_an_empty_file_it_is_the_beginning(self):
        self.current.touch()
        end = end_of(self.log_dir)
        self.write(2)
        self.assertEqual(self.read_all(self.follower(end)), [1, 2])
