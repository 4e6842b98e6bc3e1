"""Locks: who gets them, who waits, and that they end with who held them."""

import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from threading import Timer

from ota_server.system.locks import LOCK_NAME, Busy, InUse, acquire, is_served, locked, take_lock
from tests.support import ROOT


class LocksTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data_dir = Path(folder.name)
        self.log_dir = self.data_dir / "log"

    def open(self, path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_one_descriptor_at_a_time_holds_an_exclusive_lock(self):
        path = self.data_dir / "file"
        self.assertTrue(acquire(self.open(path)))
        self.assertFalse(acquire(self.open(path)))
        self.assertFalse(acquire(self.open(path), is_shared=True))

    @unittest.skipUnless(os.geteuid() == 0, "only root may run as another user")
    def test_a_lock_that_a_user_may_not_make_is_refused_and_not_missing(self):
        self.data_dir.chmod(0o755)
        self.log_dir.mkdir()
        code = (
            "import os, sys; from pathlib import Path;"
            "from ota_server.system.locks import take_lock;"
            "os.setgroups([]); os.setuid(65534); take_lock(Path(sys.argv[1]))"
        )
        command = [sys.executable, "-c", code, str(self.log_dir / LOCK_NAME)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        self.assertRegex(done.stderr, "\nPermissionError: .*/log/.lock'\n$")

    def test_several_hold_a_shared_lock(self):
        path = self.data_dir / "file"
        self.assertTrue(acquire(self.open(path), is_shared=True))
        self.assertTrue(acquire(self.open(path), is_shared=True))
        self.assertFalse(acquire(self.open(path)))

    def test_who_waits_gets_the_lock_when_it_is_given_back(self):
        path = self.data_dir / "file"
        held = os.open(path, os.O_RDWR | os.O_CREAT)
        acquire(held)
        Timer(0.05, os.close, (held,)).start()
        begun = time.monotonic()
        self.assertTrue(acquire(self.open(path), 10.0))
        self.assertLess(time.monotonic() - begun, 5.0)

    def test_a_second_command_is_told_which_lock_is_held(self):
        with locked(self.data_dir), self.assertRaises(Busy) as raised, locked(self.data_dir, 0.0):
            self.fail("both hold it")
        self.assertIn(str(self.data_dir / "version" / LOCK_NAME), str(raised.exception))

    @unittest.skipUnless(os.geteuid() == 0, "only root may mount a disk")
    def test_on_a_read_only_disk_the_lock_is_that_of_what_is_there(self):
        folder = self.data_dir / "version"
        folder.mkdir()
        for name in (LOCK_NAME, "other"):
            with self.subTest(name):
                (folder / name).touch()
                subprocess.run(["mount", "--bind", folder, folder], check=True)
                try:
                    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
                    with locked(self.data_dir), self.assertRaises(Busy), locked(self.data_dir, 0.0):
                        self.fail("both hold it")
                finally:
                    subprocess.run(["umount", "-l", folder], check=True)
                (folder / name).unlink()

    def test_a_command_gives_the_lock_back_where_it_fails(self):
        with self.assertRaises(ZeroDivisionError), locked(self.data_dir):
            raise ZeroDivisionError
        with locked(self.data_dir, 0.0):
            pass

    def test_a_directory_is_served_while_the_lock_of_a_server_is_held(self):
        self.assertFalse(is_served(self.log_dir))
        lock = take_lock(self.log_dir / LOCK_NAME)
        self.assertTrue(is_served(self.log_dir))
        with self.assertRaises(InUse):
            take_lock(self.log_dir / LOCK_NAME)
        os.close(lock)
        self.assertFalse(is_served(self.log_dir))
        self.assertTrue((self.log_dir / LOCK_NAME).exists())

    def test_a_server_starts_while_a_command_looks_whether_one_runs(self):
        self.log_dir.mkdir()
        looks = os.open(self.log_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        acquire(looks, is_shared=True)
        Timer(0.05, os.close, (looks,)).start()
        os.close(take_lock(self.log_dir / LOCK_NAME))

    def test_a_process_that_is_killed_gives_its_lock_back(self):
        path = self.log_dir / LOCK_NAME
        code = (
            "import sys, time; from pathlib import Path;"
            "from ota_server.system.locks import take_lock;"
            "take_lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as holder:
            self.assertEqual(holder.stdout.readline(), b"held\n")
            self.assertTrue(is_served(self.log_dir))
            holder.kill()
        os.close(take_lock(path))
