"""The direct reactor: Twisted's own tests of reactors, errors, the end of a turn, and its cost."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from unittest import SkipTest
from unittest.mock import patch

from twisted.application.reactors import getReactorTypes
from twisted.internet import default, main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionLost
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bench.instructions import CAN_COUNT, InstructionCounter
from reactor import direct
from reactor.direct import DirectReactor, install

HAS_EPOLL = hasattr(select, "epoll")
TWISTEDS: Any = DirectReactor.__base__
"""Twisted's reactor."""

SUITES = ("core", "fdset", "tcp", "threads", "time", "udp", "unix")
"""Modules of ``twisted.internet.test``; others take long. Two of these need PyHamcrest."""

WITHOUT_CONTEXT = "test_logPrefix"
"""Expects a log context around a reader."""


def as_epoll(case: object) -> Any:
    """Return a direct reactor that looks like Twisted's: its tests know what epoll cannot do by that name."""
    return type("EPollReactor", (DirectReactor,), {})()


def suites() -> Iterator[type[Any]]:
    """Yield Twisted's test cases of reactors, for the direct reactor."""
    for name in SUITES:
        try:
            module = import_module(f"twisted.internet.test.test_{name}")
        except ImportError:
            continue
        for builder in list(vars(module).values()):
            made = f"{getattr(builder, '__name__', '')}_SelectReactorTests"
            if isinstance(builder, type) and made in vars(sys.modules[builder.__module__]):
                yield type(
                    f"{name.title()}{builder.__name__}",
                    (builder, SynchronousTestCase),
                    {"__module__": __name__, "reactorFactory": as_epoll, **changed(builder)},
                )


def changed(builder: type[Any]) -> dict[str, Callable[[Any], None]]:
    """Return the tests of a builder that the direct reactor does not pass, with what holds instead."""

    def no_context(case: Any) -> None:
        """Readers have no log context."""

    return {WITHOUT_CONTEXT: no_context} if hasattr(builder, WITHOUT_CONTEXT) else {}


if HAS_EPOLL:
    globals().update({case.__name__: case for case in suites()})


class Reader(FileDescriptor):
    """Reads from a pipe, and calls a function then.

    :param run: what it does after it has read; returns why to end.
    """

    def __init__(self, reactor: Any, run: Callable[[Reader], Any]) -> None:
        super().__init__(reactor)
        self._run = run
        self._reading, self.writing = os.pipe()
        self.count = 0
        self.lost: Any = None
        self.startReading()

    def fileno(self) -> int:
        """Return the end to read from."""
        return self._reading

    def logPrefix(self) -> str:
        """Return its name in the log."""
        return "the reader"

    def send(self) -> None:
        """Make it ready."""
        os.write(self.writing, b"x")

    def doRead(self) -> Any:
        """Read."""
        os.read(self._reading, 1)
        self.count += 1
        return self._run(self)

    def connectionLost(self, reason: Any) -> None:
        """Note the end."""
        super().connectionLost(reason)
        self.lost = reason.value

    def end(self) -> None:
        """Close the pipe."""
        self.stopReading()
        os.close(self._reading)
        os.close(self.writing)


class ReactorTestCase(ReactorBuilder, SynchronousTestCase):
    """Has a direct reactor."""

    reactorFactory = DirectReactor
    if not HAS_EPOLL:
        skip = "no epoll"

    def reader(self, reactor: Any, run: Callable[[Reader], Any]) -> Reader:
        """Return a reader, which ends with the test."""
        reader = Reader(reactor, run)
        self.addCleanup(reader.end)
        return reader


class ErrorTests(ReactorTestCase):
    """Readers that fail."""

    def test_exception(self) -> None:
        """An exception ends the reader, and is logged with its name; the reactor runs on."""
        for failure in (ZeroDivisionError, SystemExit):
            reactor = self.buildReactor()
            events: list[Any] = []
            globalLogPublisher.addObserver(events.append)
            self.addCleanup(globalLogPublisher.removeObserver, events.append)

            def fail(_: Reader, failure: type[BaseException] = failure) -> None:
                raise failure

            reader = self.reader(reactor, fail)
            reader.send()
            reactor.callLater(0.05, reactor.stop)
            self.runReactor(reactor)
            self.assertIsInstance(reader.lost, failure)
            self.assertEqual(len(self.flushLoggedErrors(failure)), 1)
            (logged,) = (event for event in events if event.get("isError"))
            self.assertEqual(logged["log_system"], "the reader")

    def test_returned(self) -> None:
        """A reason that the reader returns ends it."""
        reactor = self.buildReactor()
        reader = self.reader(reactor, lambda _: main.CONNECTION_LOST)
        reader.send()
        reactor.callLater(0.05, reactor.stop)
        self.runReactor(reactor)
        self.assertIsInstance(reader.lost, ConnectionLost)

    def test_ended_by_another(self) -> None:
        """A reader that another one stopped in the same turn is not called."""
        reactor = self.buildReactor()

        def stop_all(_: Reader) -> None:
            for reader in readers:
                reader.stopReading()
            reactor.callLater(0, reactor.stop)

        readers = [self.reader(reactor, stop_all) for _ in range(3)]
        for reader in readers:
            reader.send()
        self.runReactor(reactor)
        self.assertEqual(sum(reader.count for reader in readers), 1)


class TurnTests(ReactorTestCase):
    """What ends the waits of a turn."""

    def run_with(self, run: Callable[[Any, Reader], Any]) -> list[str]:
        """Run a reactor with a reader that is always ready; return what ``run`` and timers noted."""
        reactor = self.buildReactor()
        reactor.noted = []

        def read(reader: Reader) -> None:
            reader.send()
            if reader.count == 10:
                run(reactor, reader)
            elif reader.count == 2000:
                reactor.noted.append("late")
                reactor.stop()

        self.reader(reactor, read).send()
        self.runReactor(reactor)
        noted: list[str] = reactor.noted
        return noted

    def test_no_timeout(self) -> None:
        """Without delayed calls it waits for an event, with a number as timeout: PyPy's epoll needs one."""

        class Poller:
            def __init__(self, poller: Any) -> None:
                self.poller = poller
                self.timeouts: list[Any] = []

            def __getattr__(self, name: str) -> Any:
                return getattr(self.poller, name)

            def poll(self, timeout: Any, most: int) -> Any:
                self.timeouts.append(timeout)
                return self.poller.poll(timeout, most)

        reactor = self.buildReactor()
        poller = reactor._poller = Poller(reactor._poller)

        def read(reader: Reader) -> None:
            reader.send()
            if reader.count == 3:
                reactor.stop()

        self.reader(reactor, read).send()
        reactor.run()
        self.assertIn(-1, poller.timeouts)
        self.assertNotIn(None, poller.timeouts)

    def test_stop(self) -> None:
        """The reactor stops although its reader always has something to read."""
        self.assertEqual(self.run_with(lambda reactor, _: reactor.stop()), [])

    def test_crash(self) -> None:
        """So it does after a crash."""
        self.assertEqual(self.run_with(lambda reactor, _: reactor.crash()), [])

    def test_call_later(self) -> None:
        """A call is made as soon as it is due."""
        self.assertEqual(self.run_with(lambda reactor, _: reactor.callLater(0, reactor.stop)), [])

    def test_sooner(self) -> None:
        """So is one that was moved."""

        def move(reactor: Any, _: Reader) -> None:
            reactor.callLater(60, reactor.stop).reset(0)

        self.assertEqual(self.run_with(move), [])

    def test_other_thread(self) -> None:
        """So is one from a thread."""
        self.assertEqual(self.run_with(lambda reactor, _: reactor.callFromThread(reactor.stop)), [])

    def test_iterate(self) -> None:
        """A single turn waits once, also within the main loop."""
        reactor = self.buildReactor()
        reader = self.reader(reactor, lambda reader: reader.send())
        reader.send()
        reactor.iterate(0.1)
        reactor.iterate(0.1)
        self.assertEqual(reader.count, 2)

        def iterate() -> None:
            before = reader.count
            reactor.iterate(0.1)
            self.assertEqual(reader.count, before + 1)
            reactor.stop()

        reactor.callWhenRunning(iterate)
        self.runReactor(reactor)

    def test_cancelled(self) -> None:
        """Calls that were cancelled are forgotten while the reader is busy."""
        reactor = self.buildReactor()

        def read(reader: Reader) -> None:
            reader.send()
            reactor.callLater(60, reader.send).cancel()
            if reader.count == 5000:
                most.append(len(reactor._pendingTimedCalls))
                reactor.stop()

        most: list[int] = []
        self.reader(reactor, read).send()
        self.runReactor(reactor)
        self.assertLess(most[0], 500)


class InstallTests(SynchronousTestCase):
    """Which reactor is installed."""

    def installed(self) -> list[Any]:
        """Return what install() installs."""
        made: list[Any] = []
        with (
            patch.object(main, "installReactor", made.append),
            patch.object(default, "install", lambda: made.append("the default one")),
        ):
            install()
        return made

    def test_direct(self) -> None:
        """The direct one."""
        (made,) = self.installed()
        self.assertIs(type(made), DirectReactor)
        made.removeAll()

    def test_fallback(self) -> None:
        """Twisted's default one, if a version of Twisted has changed what this one uses; or without epoll."""
        with patch.object(direct, "_USED", (*direct._USED, "_renamed")):
            self.assertEqual(self.installed(), ["the default one"])
        with patch.object(direct, "DirectReactor", object):
            self.assertEqual(self.installed(), ["the default one"])

    def test_plugin(self) -> None:
        """twistd has it by name, and not by default."""
        (found,) = (one for one in getReactorTypes() if one.shortName == "direct")
        with patch.object(direct, "install") as called:
            found.install()
        called.assert_called_once_with()


class CostTests(ReactorTestCase):
    """What an event costs, in bytecode instructions."""

    def cost(self, make: Callable[[], Any]) -> float:
        """Return the instructions of an event of a reader that only counts."""
        counted: list[int] = []
        counter = InstructionCounter()
        for events in (10, 60):
            self.reactorFactory = make
            reactor: Any = self.buildReactor()
            reactor.callLater(60, reactor.stop)

            def read(reader: Reader, reactor: Any = reactor, events: int = events) -> None:
                reader.send()
                if reader.count == 1:
                    counter.start()
                elif reader.count == events:
                    counted.append(counter.stop())
                    reactor.crash()

            self.reader(reactor, read).send()
            self.runReactor(reactor)
        return (counted[1] - counted[0]) / 50

    def test_event(self) -> None:
        """An event costs less than half of one of Twisted's reactor, the reader's own cost included."""
        if not CAN_COUNT:
            raise SkipTest("instructions are not counted here")
        # 158 and 380, of which the reader has 43.
        own, twisteds = self.cost(DirectReactor), self.cost(TWISTEDS)
        self.assertLessEqual(own, 170)
        self.assertLess(own, twisteds / 2)
