"""What a server says about itself in a file: a sign of life, also where it cannot be written."""

import os
import time

from ota_server.device_port.admission_status import FILE_NAME, AdmissionFile, quiet_ms
from ota_server.device_port.window import Standing
from ota_server.policy.situation import ServerState
from tests.support import DataDirCase


class SignOfLifeTest(DataDirCase):
    def test_a_server_that_has_nothing_new_to_say_shows_that_it_lives(self):
        file = AdmissionFile(self.data_dir / "log", lambda: (Standing(), ServerState()))
        file.write()
        os.utime(self.data_dir / "log" / FILE_NAME, (0, 0))
        now_ms = time.time_ns() // 1_000_000
        self.assertGreaterEqual(quiet_ms(self.data_dir / "log", now_ms), now_ms)
        file.look_after()
        self.assertLess(quiet_ms(self.data_dir / "log", now_ms), 1000)

    def test_what_has_not_changed_is_not_written_again(self):
        path = self.data_dir / "log" / FILE_NAME
        file = AdmissionFile(path.parent, lambda: (Standing(), ServerState()))
        file.write()
        before = path.stat()
        os.utime(path, (0, 0))
        file.write()
        file.look_after()
        self.assertEqual(path.stat().st_ino, before.st_ino)

    def test_a_sign_from_a_clock_that_was_ahead_counts_as_one_of_now(self):
        file = AdmissionFile(self.data_dir / "log", lambda: (Standing(), ServerState()))
        file.write()
        self.assertEqual(quiet_ms(self.data_dir / "log", 0), 0)


class FailingTest(DataDirCase):
    def test_each_time_that_it_begins_to_fail_is_said(self):
        log = self.data_dir / "log"
        numbers = iter(range(1, 10))
        file = AdmissionFile(log, lambda: (Standing(max_downloads=next(numbers)), ServerState()))
        with self.assertLogs("ota_server.device_port.admission_status") as said:
            for _ in range(2):
                log.rmdir()
                file.write()
                file.write()
                log.mkdir()
                file.write()
                file.remove()
        self.assertEqual(len(said.output), 2)
