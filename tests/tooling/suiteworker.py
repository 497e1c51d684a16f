"""One process of :mod:`tests.tooling.suite`: runs the modules whose names it reads, and reports each test.

Names come on standard input, one a line; JSON goes to standard output, an object a line. Its ``event`` is
``begins``, ``outcome`` and ``ended`` for each test, then ``done`` for the name. What tests print goes into
``output.log`` of the current folder, what they log into ``test.log``.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import TestCase
from unittest.case import doModuleCleanups

from twisted.python.failure import Failure
from twisted.python.log import FileLogObserver, startLoggingWithObserver
from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader, TrialSuite

from tests.tooling.forking import fork_views

Report = Callable[[dict[str, Any]], None]


class Outcomes(TestResult):
    """Reports the outcome of each test as it is known.

    :param report: called with each event.
    """

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self._began = self._used = 0.0

    def startTest(self, test: TestCase) -> None:
        """Trial: a test begins."""
        super().startTest(test)
        self._began, self._used = time.monotonic(), processor_seconds()
        self._report({"event": "begins", "test": test.id()})

    def stopTest(self, test: TestCase) -> None:
        """Trial: a test has ended."""
        super().stopTest(test)
        seconds, used = time.monotonic() - self._began, processor_seconds() - self._used
        self._report({"event": "ended", "test": test.id(), "seconds": seconds, "processor": used})

    def addSuccess(self, test: TestCase) -> None:
        """Trial: it succeeded."""
        super().addSuccess(test)
        self._say(test, "successes", "")

    def addFailure(self, test: TestCase, fail: Any) -> None:
        """Trial: an assertion failed."""
        super().addFailure(test, fail)
        self._say(test, "failures", self._traceback(fail))

    def addError(self, test: TestCase, error: Any) -> None:
        """Trial: it raised an exception, or left something behind."""
        super().addError(test, error)
        self._say(test, "errors", self._traceback(error))

    def addSkip(self, test: TestCase, reason: str) -> None:
        """Trial: it was not run."""
        super().addSkip(test, reason)
        self._say(test, "skips", str(reason))

    def addExpectedFailure(self, test: TestCase, error: Any, todo: Any = None) -> None:
        """Trial: it failed, as its ``todo`` says."""
        super().addExpectedFailure(test, error, todo)
        self._say(test, "expectedFailures", str(todo))

    def addUnexpectedSuccess(self, test: TestCase, todo: Any = None) -> None:
        """Trial: it succeeded in spite of its ``todo``."""
        super().addUnexpectedSuccess(test, todo)
        self._say(test, "unexpectedSuccesses", str(todo))

    def _say(self, test: TestCase, outcome: str, text: str) -> None:
        self._report({"event": "outcome", "test": test.id(), "outcome": outcome, "text": text})

    def _traceback(self, error: Any) -> str:
        failure = error if isinstance(error, Failure) else Failure(error[1], error[0], error[2])
        return str(failure.getTraceback())


def processor_seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def run(name: str, report: Report) -> None:
    """Run the tests of a module, a class or a method, or of several with spaces between them."""
    before = processor_seconds()
    tests = [TestLoader().loadByName(one, recurse=True) for one in name.split()]
    # Modules stay: collections that look at them, too, took up to half of the time of tests.
    gc.collect()
    gc.freeze()
    TrialSuite(tests).run(Outcomes(report))
    # What trial leaves to its callers.
    doModuleCleanups()
    _forget_orphans()
    report({"event": "done", "name": name, "processor": processor_seconds() - before})


def _forget_orphans() -> None:
    """Wait for what has ended among the processes that this one has adopted: see tests.tooling.forking."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # there are none


def main() -> None:
    """Serve until standard input ends."""
    # A shell has background jobs ignore it, and they pass that on: programs under test are sent it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests and their children must neither read names nor write between the reports.
    names = os.fdopen(os.dup(0), encoding="utf-8")
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    with open(os.devnull, "rb") as nothing, open("output.log", "ab") as output:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    fork_views()
    with open("test.log", "a", encoding="utf-8") as log:
        startLoggingWithObserver(FileLogObserver(log).emit, setStdout=False)
        for name in names:
            run(name.strip(), lambda event: print(json.dumps(event), file=reports))


if __name__ == "__main__":
    sys.exit(main())
