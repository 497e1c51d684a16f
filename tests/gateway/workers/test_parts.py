"""Workers without processes: messages, settings, sums, and who takes a connection."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.filepath import FilePath
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gateway.limits import Limits
from gateway.metricvalues import MetricValues
from gateway.service import with_account
from gateway.settings import Settings, resolve
from gateway.workers.balance import Balancer, ConnectionCounts
from gateway.workers.handover import read_settings, settings_for_worker
from gateway.workers.messages import MAX_MESSAGE_BYTES, ChannelError, MessageReader, encode
from gateway.workers.reload import reread
from gateway.workers.supervisor import Supervisor
from gateway.workers.totals import ANSWER_SECONDS, Totals

LOOPBACK = "tcp:0:interface=127.0.0.1"


class ChannelTests(SynchronousTestCase):
    """Messages between supervisor and worker."""

    @given(
        st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), max_size=5),
        st.integers(1, 50),
    )
    def test_any_pieces(self, told: list[dict[str, Any]], size: int) -> None:
        """Messages arrive, in any pieces."""
        sent = b"".join(encode("x", told=one) for one in told)
        reader = MessageReader()
        found = []
        for at in range(0, len(sent), size):
            found += reader.receive(sent[at : at + size])
        self.assertEqual(found, [{"type": "x", "told": one} for one in told])

    def test_malformed(self) -> None:
        """Anything else is refused by what is wrong with it."""
        for line, words in (
            (b"\n", "not JSON"),
            (b"hello\n", "not JSON"),
            (b"\xff\n", "not JSON"),
            (b"[1]\n", "not an object with a type"),
            (b"{}\n", "not an object with a type"),
            (b'{"type":1}\n', "not an object with a type"),
        ):
            with self.assertRaises(ChannelError) as caught:
                MessageReader().receive(line)
            self.assertIn(words, str(caught.exception))

    def test_endless(self) -> None:
        """A message that does not end is not kept."""
        reader = MessageReader()
        part = b"x" * (MAX_MESSAGE_BYTES // 4)
        for _ in range(4):
            reader.receive(part)
        self.assertRaises(ChannelError, reader.receive, b"x")


class HandoverTests(SynchronousTestCase):
    """Settings on their way to a worker."""

    def settings(self, **given: Any) -> Settings:
        return resolve({"cluster": "couchbase://h", "workers": "3", **given}, {})

    def handed(self, settings: Settings) -> Settings:
        return read_settings(json.loads(json.dumps(settings_for_worker(settings))))

    def test_all_arrive(self) -> None:
        """Settings that are not shared out are passed on unchanged."""
        settings = replace(self.settings(listen=[LOOPBACK, "unix:/s"]), user="u", password='p"\nä')
        handed = self.handed(settings)
        self.assertEqual(replace(handed, limits=settings.limits), settings)

    def test_shares(self) -> None:
        """Limits of the service are divided, rounded up; limits of one request are not."""
        limits = self.handed(
            self.settings(**{"max-clients": "100", "max-connections": "2", "max-buffered": "300M"})
        ).limits
        self.assertEqual((limits.max_clients, limits.max_connections), (34, 1))
        self.assertEqual(limits.max_buffered, 100 * 2**20)
        self.assertEqual((limits.max_body, limits.max_line), (Limits().max_body, Limits().max_line))

    def test_the_largest_request_fits(self) -> None:
        """However many workers there are, each can hold the largest document and operation."""
        limits = self.handed(self.settings(workers="64")).limits
        self.assertEqual(limits.max_buffered, limits.max_line)
        small = self.handed(self.settings(workers="64", **{"max-buffered": "1M"})).limits
        self.assertEqual(small.max_buffered, 2**20)

    def test_upgrade(self) -> None:
        """A worker that knows more settings than its supervisor uses defaults, and ignores unknown ones."""
        told = settings_for_worker(self.settings())
        del told["views_timeout"], told["limits"]["idle_seconds"]
        told["new"] = told["limits"]["new"] = 1
        settings = read_settings(told)
        self.assertEqual((settings.views_timeout, settings.limits.idle_seconds), (75.0, 60.0))

    def test_systemd(self) -> None:
        """A socket that only its first process can find by name is any socket to a worker."""
        settings = replace(self.settings(), listen=["systemd:domain=INET:index=0", LOOPBACK])
        self.assertEqual(self.handed(settings).listen, ["tcp:0", LOOPBACK])


class ReloadTests(SynchronousTestCase):
    """Settings read again."""

    def setUp(self) -> None:
        self.path = FilePath(self.mktemp())
        self.given = {"config": self.path.path, "workers": "2", "listen": [LOOPBACK]}

    def running(self, content: str, **given: Any) -> Settings:
        self.path.setContent(content.encode())
        self.given.update(given)
        return resolve(self.given, {})

    def reread(self, running: Settings, content: str) -> Settings:
        self.path.setContent(content.encode())
        return reread(self.given, {}, running)

    def test_new_values(self) -> None:
        """Limits, timeouts, plugins and the cluster are new."""
        running = self.running('cluster = "couchbase://a"\n')
        settings = self.reread(
            running, 'cluster = "couchbase://b"\nmax-body = "1K"\nwithout-plugin = ["x"]\n'
        )
        self.assertEqual(
            (settings.cluster, settings.limits.max_body, settings.without_plugin),
            ("couchbase://b", 1024, ["x"]),
        )

    def test_tracing_without_its_library(self) -> None:
        """New settings with tracing are refused as at the start if OpenTelemetry is missing, or a variable of
        its own is wrong; the workers keep running."""
        running = self.running('cluster = "couchbase://a"\n')
        # The import statement looks in this very dictionary, whatever sys.modules names at the time.
        with mock.patch.dict(sys.modules, {"gateway.tracing.export": None}):
            told = self.assertRaises(
                UsageError, self.reread, running, 'cluster = "couchbase://a"\ntracing = true\n'
            )
        self.assertIn("--tracing: OpenTelemetry is not installed", str(told))
        self.assertIn("couchgateway[otel]", str(told))

    def test_kept(self) -> None:
        """Settings that are bound to the process are kept, and this is reported."""
        del self.given["listen"], self.given["workers"]
        running = self.running(f'workers = 2\nlisten = "{LOOPBACK}"\nephemeral = true\nbucket = "a"\n')
        running = replace(running, user="Administrator", password="made up")
        logged = self.capture()
        settings = self.reread(
            running, 'workers = 3\nlisten = "unix:s"\nephemeral = true\nbucket = "b"\ntimeout = 9\n'
        )
        self.assertEqual(settings, replace(running, timeout=9.0))
        self.assertEqual(logged, ["listen", "workers", "bucket"])

    def capture(self) -> list[str]:
        """Return a list to which the names of settings are added that are warned of."""
        names: list[str] = []

        class Log:
            def warn(self, text: str, name: str) -> None:
                names.append(name)

        self.patch(__import__("gateway.workers.reload", fromlist=["_log"]), "_log", Log())
        return names

    def test_who_may_call(self) -> None:
        """It is judged by the sockets that are open, not by those that are wanted now."""
        del self.given["listen"]
        password = FilePath(self.mktemp())
        password.setContent(b"secret")
        account = f'user = "u"\npassword-file = "{password.path}"\nephemeral = true\n'
        running = self.running(account + 'listen = "tcp:0"\n')
        self.assertEqual(running.auth, "passthrough")
        with self.assertRaises(UsageError) as caught:
            self.reread(running, account + f'listen = "{LOOPBACK}"\nauth = "none"\n')
        self.assertIn("'tcp:0'", str(caught.exception))

    def test_wrong(self) -> None:
        """Invalid values are reported, and so are changes that need a restart."""
        running = self.running("ephemeral = true\n")
        for content, words in (("timeout = 0\n", "timeout"), ('cluster = "couchbase://b"\n', "restart")):
            with self.assertRaises(UsageError) as caught:
                self.reread(running, content)
            self.assertIn(words, str(caught.exception))


class Source:
    """A worker that reports its metrics on command."""

    def __init__(self, **counters: float) -> None:
        self.asked: list[Deferred[None]] = []
        self.tells(**counters)

    def tells(self, **counters: float) -> None:
        self.metrics = MetricValues()
        self.metrics.counters.update({(name,): [value] for name, value in counters.items()})
        self.metrics.gauges["alive",] = [1]

    def ask_metrics(self) -> Deferred[None]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self, **counters: float) -> None:
        self.tells(**counters)
        asked, self.asked = self.asked, []
        for one in asked:
            one.callback(None)


class TotalsTests(SynchronousTestCase):
    """Sums over workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.one, self.two = Source(n=1), Source(n=10)
        self.alive = {self.one, self.two}
        self.totals = Totals(self.clock, self.alive)

    def sums(self, total: MetricValues) -> tuple[float, float]:
        return total.counters["n",][0], total.gauges["alive",][0]

    def test_sum(self) -> None:
        """The sum of all current values, when all have reported."""
        waiting = self.totals.gather()
        self.one.answer(n=2)
        self.assertNoResult(waiting)
        self.two.answer(n=20)
        self.assertEqual(self.sums(self.successResultOf(waiting)), (22, 2))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stuck(self) -> None:
        """If a worker does not answer in time, its last metrics count."""
        waiting = self.totals.gather()
        self.one.answer(n=2)
        self.clock.advance(ANSWER_SECONDS)
        self.assertEqual(self.sums(self.successResultOf(waiting)), (12, 2))
        self.two.answer(n=20)
        again = self.totals.gather()
        self.one.answer(n=3)
        self.two.answer(n=21)
        self.assertEqual(self.sums(self.successResultOf(again)), (24, 2))

    def test_ended(self) -> None:
        """An ended worker still counts with its last metrics; it is no longer alive."""
        self.one.tells(n=5)
        self.alive.discard(self.one)
        self.totals.retire(self.one)
        waiting = self.totals.gather()
        self.two.answer(n=10)
        self.assertEqual(self.sums(self.successResultOf(waiting)), (15, 1))

    def test_next_round(self) -> None:
        """A caller during a round gets the result of the next round, so that it is not older than the
        call."""
        first = self.totals.gather()
        self.one.answer(n=2)
        later = [self.totals.gather(), self.totals.gather()]
        self.two.answer(n=20)
        self.assertEqual(self.sums(self.successResultOf(first)), (22, 2))
        for waiting in later:
            self.assertNoResult(waiting)
        self.assertEqual(len(self.one.asked), 1)
        self.one.answer(n=3)
        self.two.answer(n=20)
        for waiting in later:
            self.assertEqual(self.sums(self.successResultOf(waiting)), (23, 2))

    def test_nobody(self) -> None:
        """Without workers there is only what those before have counted."""
        self.alive.clear()
        self.totals.retire(self.two)
        self.assertEqual(self.successResultOf(self.totals.gather()).counters, {("n",): [10]})


class BalanceTests(SynchronousTestCase):
    """Distribution of connections to workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counts = ConnectionCounts.make(4)
        self.addCleanup(self.counts.close)
        self.slot, self.other = self.counts.take(), self.counts.take()
        self.count = 0
        self.balancer = Balancer(self.counts, self.slot, lambda: self.count, self.clock.seconds)

    def takes(self) -> bool:
        pause = 0.0 if self.balancer.is_due(lambda: 0) else self.balancer.pause()
        self.clock.advance(pause)
        if not pause:
            self.count += 1
            self.balancer.tell()
        return not pause

    def test_slots(self) -> None:
        """Each worker has its own, and those that are gone leave theirs."""
        self.assertEqual(len({self.slot, self.other, self.counts.take(), self.counts.take()}), 4)
        self.assertRaises(OSError, self.counts.take)
        self.counts.give_back(self.other)
        self.assertEqual(self.counts.take(), self.other)

    def test_shared(self) -> None:
        """Values that one writes are read by others."""
        again = ConnectionCounts(os.dup(self.counts.descriptor), 4)
        self.addCleanup(again.close)
        self.counts.set(self.slot, 7)
        self.counts.set(self.other, 5)
        self.assertEqual(again.least(), 5)
        again.clear(self.other)
        self.assertEqual(self.counts.least(), 7)

    def test_alone(self) -> None:
        """Slots without a worker that takes connections do not count."""
        for _ in range(100):
            self.assertTrue(self.takes())

    def test_fair(self) -> None:
        """A worker with as many as the others accepts; one with more leaves connections to them."""
        self.counts.set(self.other, 10)
        while self.takes():
            pass
        self.assertEqual(self.count, 12)
        self.counts.set(self.other, 12)
        self.assertTrue(self.takes())

    def test_full_or_stuck(self) -> None:
        """If no other worker accepts the waiting connections, this one does, soon at full speed."""
        self.counts.set(self.other, 0)
        for _ in range(1000):
            self.takes()
        self.assertGreater(self.count, 950)
        self.assertLess(self.clock.seconds(), 0.05)

    def test_burst(self) -> None:
        """Each worker takes its share of connections that wait together without a pause, in either order."""
        for first, second in ((0, 0), (3, 40), (40, 3)):
            self.count, waiting = first, 128
            self.counts.set(self.other, second)
            while self.balancer.is_due(lambda left=waiting: left):  # type: ignore[misc]
                self.count += 1
                waiting -= 1
                self.balancer.tell()
            self.assertEqual(self.count, -(-(first + second + 128) // 2))

    def test_polite_again(self) -> None:
        """After a while it starts again."""
        self.counts.set(self.other, 0)
        for _ in range(100):
            self.takes()
        self.clock.advance(1)
        self.assertEqual([self.takes() for _ in range(4)], [False, True, False, True])


class SupervisorTests(SynchronousTestCase):
    """A supervisor without its workers."""

    def test_no_descriptor(self) -> None:
        """One that cannot begin for lack of descriptors gives up with a reason, instead of staying idle."""

        def refuse(slots: int) -> ConnectionCounts:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(ConnectionCounts, "make", refuse)
        lines: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_level") is LogLevel.critical:
                lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        settings = with_account(resolve({"ephemeral": True, "workers": "2"}, {}))
        failures: list[bool] = []
        clock: Any = Clock()
        supervisor = Supervisor(settings, None, clock, lambda: failures.append(True))
        supervisor.running = True
        supervisor._start()
        self.assertEqual(failures, [True])
        self.assertEqual(
            lines,
            ["couchgateway cannot start: the memory that workers share: Too many open files"],
        )
        self.successResultOf(supervisor.stopService())
