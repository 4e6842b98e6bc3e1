"""Classes of tests that run side by side are reported as if they had run one after another."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from contextlib import suppress
from pathlib import Path

from tests.support import ROOT, TIMEOUT_SECONDS, until
from tests.support.side_by_side import SideBySide


class BytecodeTest(unittest.TestCase):
    def test_what_a_test_starts_keeps_bytecode_whatever_was_asked_for(self):
        code = """if True:
            import os, subprocess, sys, tests
            command = [sys.executable, "-c", "import tests.support.client"]
            subprocess.run(command, check=True)
            print(*(name for _, _, names in os.walk(sys.argv[1]) for name in names))
        """
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": folder},
            )  # fmt: skip
            self.assertIn(f"client.{sys.implementation.cache_tag}.pyc", done.stdout, done.stderr)
            self.assertEqual(os.listdir(folder), [])


class Samples:
    """Classes that no loader finds here."""

    class Ends(unittest.TestCase):
        def test_success(self):
            pass

        def test_failure(self):
            self.assertEqual("what was", "what should be")

        def test_error(self):
            raise ValueError("what was wrong")

        def test_skip(self):
            self.skipTest("a reason")

        @unittest.expectedFailure
        def test_failure_that_was_expected(self):
            self.fail()

        @unittest.expectedFailure
        def test_success_that_was_not_expected(self):
            pass

        def test_subtests(self):
            for number in range(4):
                with self.subTest(number=number):
                    self.assertGreater(number, 0)
                    self.assertLess(6 / (number - 1), 6)

    class NeverSetUp(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            raise OSError("no room")

        def test_anything(self):
            pass

    class Dies(unittest.TestCase):
        def test_a_process_that_ends(self):
            os._exit(0)

    class DiesToo(Dies):
        pass

    class Meets(unittest.TestCase):
        folder: Path

        def test_the_other_one(self):
            (self.folder / type(self).__name__).touch()
            self.assertTrue(until(lambda: len(list(self.folder.iterdir())) == 2))

    class MeetsToo(Meets):
        pass

    class Alone(unittest.TestCase):
        NEEDS_QUIET = True
        folder: Path

        def test_what_others_have_done(self):
            self.assertEqual(len(list(self.folder.iterdir())), 2)

    class Long(Alone):
        NEEDS_QUIET = False
        TAKES_LONG = True

        def test_what_others_have_done(self):
            self.assertEqual(list(self.folder.iterdir()), [])

    class NeverEnds(unittest.TestCase):
        def test_that_leaves_a_thread_at_work(self):
            never = threading.Event()
            threading.Thread(target=never.wait).start()
            os.write(1, b"ready\n")
            never.wait()

    class NeverEndsToo(NeverEnds):
        pass


def run(*classes: type[unittest.TestCase], processes: int = 2) -> unittest.TestResult:
    """Run the tests of classes."""
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    result = unittest.TestResult()
    SideBySide(map(load, classes), processes).run(result)
    return result


def ends(result: unittest.TestResult) -> dict[str, object]:
    """Return what a result holds, as texts."""
    lists = {name: getattr(result, name) for name in ("errors", "failures", "expectedFailures")}
    return {
        **{name: sorted(str(test) for test, _ in found) for name, found in lists.items()},
        "skipped": [(str(test), reason) for test, reason in result.skipped],
        "unexpectedSuccesses": list(map(str, result.unexpectedSuccesses)),
        "testsRun": result.testsRun,
    }


def end_group(pid: int) -> None:
    """End a process and what it started, whether they are there or not."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class SideBySideTest(unittest.TestCase):
    def test_whatever_a_test_ends_by_is_reported(self):
        classes = (Samples.Ends, Samples.NeverSetUp)
        alone = ends(run(*classes, processes=1))
        self.assertEqual(ends(run(*classes)), alone)
        self.assertTrue(all(alone.values()), alone)

    def test_a_failure_comes_with_its_traceback(self):
        found = run(Samples.Ends, Samples.NeverSetUp)
        texts = "".join(text for _, text in (*found.failures, *found.errors))
        for part in ('self.assertEqual("what was"', 'ValueError("what was wrong")', "no room"):
            self.assertIn(part, texts)

    def test_a_process_that_dies_is_an_error_and_all_others_are_run(self):
        found = run(Samples.Dies, Samples.DiesToo, Samples.Ends, Samples.NeverSetUp)
        self.assertEqual(found.testsRun, 7)
        told = [text for test, text in found.errors if "Dies" in str(test)]
        self.assertEqual([("its process died" in text) for text in told], [True, True])

    def test_classes_do_not_wait_for_each_other(self):
        Samples.Meets.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.assertTrue(run(Samples.Meets, Samples.MeetsToo).wasSuccessful())

    def test_a_class_that_needs_quiet_is_run_when_all_others_are_over(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        Samples.Meets.folder = Samples.Alone.folder = folder
        found = run(Samples.Alone, Samples.Meets, Samples.MeetsToo, processes=3)
        self.assertEqual((found.testsRun, found.failures), (3, []))

    def test_an_interrupt_ends_every_process_whatever_its_test_is_at(self):
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "from tests.whole.test_side_by_side import Samples, run;"
            "run(Samples.NeverEnds, Samples.NeverEndsToo)"
        )
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=pipe, stderr=pipe, start_new_session=True
        )
        self.addCleanup(end_group, process.pid)
        self.assertEqual([process.stdout.readline() for _ in range(2)], [b"ready\n"] * 2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        # Both ends are at their end when no process is left that has them.
        _, said = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertIn(b"KeyboardInterrupt", said)

    def test_the_first_failure_ends_the_run_where_that_was_asked_for(self):
        result = unittest.TestResult()
        result.failfast = True
        load = unittest.defaultTestLoader.loadTestsFromTestCase
        SideBySide(map(load, (Samples.Ends, Samples.NeverSetUp)), 2).run(result)
        self.assertLess(result.testsRun, 7)
