"""Runs classes of tests side by side, each in one of several processes.

Two thirds of the time of a run is waiting: for deadlines, for clients on purpose slow, for servers
that start. Processes and not threads, since tests count the threads, open files and processor time
of their own process.
"""

import gc
import multiprocessing
import os
import unittest
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

# More than there are cores, since most tests wait: with four, two cores were idle a third of it.
# Few enough that who measures time is not late.
PROCESSES = int(os.environ.get("OTA_SERVER_TEST_PROCESSES", "6"))


class Outcome(NamedTuple):
    """What a process says of a test: which method of a result to call, for what, with what text."""

    method: str
    test_id: str
    name: str
    text: str | None


class Elsewhere(Exception):
    """A failure in another process; the message is its traceback."""


class Stranger:
    """Stands for what fails and is no test of the suite: a subtest, a setUpClass."""

    failureException = AssertionError

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __str__(self) -> str:
        return self._outcome.name

    def id(self) -> str:
        return self._outcome.test_id

    def shortDescription(self) -> None:  # noqa: N802
        """Return nothing: its name says it all."""


class Messenger(unittest.TestResult):
    """The result in the process that runs a test: tells the other one when the test is over."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._outcomes: list[Outcome] = []

    def _add(self, method: str, test: Any, text: str | None = None) -> None:
        self._outcomes.append(Outcome(method, test.id(), str(test), text))

    def tell(self) -> None:
        """Tell what came to light since the last time."""
        if self._outcomes:
            self._connection.send(self._outcomes)
            self._outcomes = []

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self._add("startTest", test)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        self._add("stopTest", test)
        self.tell()

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self._add("addSuccess", test)

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._add("addError", test, self.errors[-1][1])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._add("addFailure", test, self.failures[-1][1])

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        if err is not None:
            is_failure = issubclass(err[0], test.failureException)
            (self.addFailure if is_failure else self.addError)(subtest, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self._add("addSkip", test, reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addExpectedFailure(test, err)
        self._add("addExpectedFailure", test, self.expectedFailures[-1][1])

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self._add("addUnexpectedSuccess", test)


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests of a suite, in its order."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        else:
            yield each


class SideBySide(unittest.TestSuite):
    """A suite of which several classes run at once.

    A class that has NEEDS_QUIET is run at the end, with no other beside it. One that TAKES_LONG is
    begun before the others, so that no process is left alone with it at the end. What is reported
    is what one process would have reported, in the order in which tests end.
    """

    def __init__(
        self,
        tests: Iterable[unittest.TestCase | unittest.TestSuite] = (),
        processes: int = PROCESSES,
    ) -> None:
        super().__init__(tests)
        self._processes = processes

    def run(self, result: unittest.TestResult, debug: bool = False) -> unittest.TestResult:
        """Run the tests; `debug` is by one process, as is a single class."""
        classes: dict[type, unittest.TestSuite] = {}
        for test in tests_of(self):
            classes.setdefault(type(test), unittest.TestSuite()).addTest(test)
        # The order of the others stays as it was.
        classes = dict(
            sorted(classes.items(), key=lambda item: not getattr(item[0], "TAKES_LONG", False))
        )
        if debug or min(self._processes, len(classes)) < 2:
            return super().run(result, debug)
        gc.freeze()  # or each process looks through all tests for garbage, again and again
        for is_quiet, processes in ((False, self._processes), (True, 1)):
            suites = [
                suite
                for each, suite in classes.items()
                if getattr(each, "NEEDS_QUIET", False) is is_quiet
            ]
            Run(suites, result).run(min(processes, len(suites)))
        return result


class Run:
    """One run: hands out suites by number to processes that ask, and reports what they tell."""

    def __init__(self, suites: list[unittest.TestSuite], result: unittest.TestResult) -> None:
        self._suites = suites
        self._result = result
        self._tests = {test.id(): test for suite in suites for test in tests_of(suite)}
        self._numbers = iter(range(len(suites)))
        self._at_work: dict[Connection, int] = {}
        self._started: list[Any] = []

    def run(self, processes: int) -> None:
        """Run all; on return every process is over."""
        try:
            for _ in range(processes):
                self._start()
            while self._at_work:
                for connection in wait(list(self._at_work)):
                    self._listen(connection)
        finally:
            # After an interrupt too: they had the same signal from the terminal.
            for process in self._started:
                process.join()

    def _start(self) -> None:
        # A fork has all tests as they were found, with what `-k` left out and `-b` asked for.
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()
        process = fork.Process(target=self._work, args=(theirs, (ours, *self._at_work)))
        process.start()
        theirs.close()
        self._started.append(process)
        self._hand_out(ours)

    def _hand_out(self, connection: Connection) -> None:
        number = None if self._result.shouldStop else next(self._numbers, None)
        connection.send(number)
        if number is None:
            self._at_work.pop(connection, None)
            connection.close()
        else:
            self._at_work[connection] = number

    def _listen(self, connection: Connection) -> None:
        try:
            outcomes = connection.recv()
        except (EOFError, ConnectionError):
            died_at = self._suites[self._at_work.pop(connection)]
            connection.close()
            name = next(test.id() for test in tests_of(died_at)).rpartition(".")[0]
            self._report(Outcome("addError", name, name, "its process died in one of its tests"))
            self._start()
            return
        for outcome in outcomes:
            self._report(outcome)
        if not outcomes:
            self._hand_out(connection)

    def _report(self, outcome: Outcome) -> None:
        test = self._tests.get(outcome.test_id) or Stranger(outcome)
        method = getattr(self._result, outcome.method)
        if outcome.method in ("addError", "addFailure", "addExpectedFailure"):
            method(test, (Elsewhere, Elsewhere(f"\n{outcome.text}"), None))
        elif outcome.method == "addSkip":
            method(test, outcome.text)
        else:
            method(test)

    def _work(self, connection: Connection, others: tuple[Connection, ...]) -> None:
        """Run suites in this process until there is no more."""
        for other in others:
            other.close()  # or the end of the first process would be noticed by none of us
        try:
            while (number := connection.recv()) is not None:
                messenger = Messenger(connection)
                messenger.buffer = self._result.buffer
                messenger.failfast = self._result.failfast
                self._suites[number].run(messenger)
                messenger.tell()
                connection.send([])
        except KeyboardInterrupt:
            os._exit(1)  # an end in order would wait for a server that a test has left running
        except (EOFError, ConnectionError):
            pass  # the first process is gone
