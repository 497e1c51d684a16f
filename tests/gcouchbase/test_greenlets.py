"""Many greenlets on one connection: shared and separate state."""

import gc
import subprocess
import sys
import textwrap
import time
import weakref
from unittest import TestCase

import gevent

from couchbase import Connection
from couchbase.asynchronous import Async
from couchbase.exceptions import (
    AuthError,
    BucketNotFoundError,
    ClientTemporaryFailError,
    NetworkError,
    NotFoundError,
    ObjectThreadError,
    TimeoutError,
)
from couchbase.result import AsyncResult, MultiResult
from gcouchbase import GConnection, GCouchbase
from tests.couchbase.scripted import ScriptedNode
from tests.couchbase.support import ROOT, ConnectionTestCase, NodeProcess, shared_node
from tests.gcouchbase.support import InGreenlets

GREENLETS = 1000


class NodeTests(InGreenlets, ConnectionTestCase):
    """Against a real node."""

    options = {"nodes": 2, "replicas": 1}

    def test_kind(self):
        """A GConnection is an Async, and so a Connection, under two names."""
        self.assertIs(GCouchbase, GConnection)
        self.assertIsInstance(self.cb, Async)
        self.assertIsInstance(self.cb, Connection)
        self.assertRaises(ValueError, Async, bucket="default")

    def test_a_thousand(self):
        """Each has its own results, exceptions included."""

        def work(number):
            key = self.key(str(number))
            with self.assertRaises(NotFoundError) as caught:
                self.cb.get(key)
            self.assertEqual(caught.exception.key, key)
            stored = self.cb.set(key, {"number": number}, replicate_to=1 if number % 100 == 0 else 0)
            self.cb.incr(self.key("count"), initial=1)
            found = self.cb.get_multi([key, self.key("count")])
            self.assertEqual(found[key].value, {"number": number})
            return stored.cas == found[key].cas

        greenlets = [gevent.spawn(work, number) for number in range(GREENLETS)]
        gevent.joinall(greenlets, raise_error=True)
        self.assertEqual([greenlet.value for greenlet in greenlets], [True] * GREENLETS)
        self.assertEqual(self.cb.get(self.key("count")).value, GREENLETS)
        cluster = self.cb._cluster
        self.assertEqual([len(node.pending) for node in cluster.data_nodes()], [0, 0])
        self.assertEqual((cluster._waiting, cluster._parked, cluster._watching), ({}, {}, []))

    def test_multi(self):
        """A multi operation gives an AsyncResult that is complete."""
        keys = {self.key(str(number)): number for number in range(50)}
        results = self.cb.set_multi(keys)
        self.assertIs(type(results), AsyncResult)
        self.assertIsInstance(results, MultiResult)
        self.assertEqual((len(results), results.all_ok, results.remaining), (50, 1, 0))
        self.assertIs(type(self.cb.stats()), AsyncResult)

    def test_others_run(self):
        """While one waits (also for statistics, copies or the cluster manager), others run."""
        self.cb.set(self.key(), 1)
        for wait in (
            lambda: self.cb.stats(),
            lambda: self.cb.observe(self.key()),
            lambda: self.cb.endure(self.key(), persist_to=0, replicate_to=1),
            lambda: self.cb.rget(self.key()),
            lambda: self.connect(),
            lambda: self.cb.design_create("others", {"views": {}}),
        ):
            ran = []
            other = gevent.spawn(lambda ran=ran: ran.append(1))
            wait()
            self.assertEqual(ran, [1])
            other.join()

    def test_connecting_fails(self):
        """The constructor raises what the blocking one raises, also in a greenlet."""
        refused = gevent.spawn(self.outcome, password="wrong")
        nowhere = gevent.spawn(self.outcome, bucket="nope")
        unknown = gevent.spawn(self.outcome, connection_string="couchbase://no-such-host.invalid")
        self.assertIsInstance(refused.get(), AuthError)
        self.assertIsInstance(nowhere.get(), BucketNotFoundError)
        self.assertTrue(unknown.get().is_network)

    def test_no_such_bucket_without_an_administrator(self):
        """A node that hides nothing says that a bucket is missing."""
        node = NodeProcess(administrator=False)
        self.addCleanup(node.stop)
        with self.assertRaises(BucketNotFoundError):
            GConnection(bucket="nope", host="127.0.0.1", port=node.rest_ports[0])

    def outcome(self, **keywords):
        """Return what connecting raises."""
        try:
            return self.connect(**keywords)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            return error

    def test_unused(self):
        """An unused connection does not keep the loop running, and closes when it is collected."""
        self.assertTrue(gevent.wait())
        cb = GConnection(
            bucket="default",
            connection_string=self.node.string,
            username="Administrator",
            password="password",
        )
        cluster, gone = cb._cluster, weakref.ref(cb)
        del cb
        gc.collect()
        self.assertIsNone(gone())
        self.assertTrue(cluster.closed)
        self.assertEqual((cluster.selector._watchers, cluster._clock._timers), ({}, set()))

    def test_other_thread(self):
        """Its greenlets are those of one thread."""
        thread = self.in_thread(self.cb.get, "key")
        thread.join()
        self.assertIsInstance(thread.outcome, ObjectThreadError)


class ScriptedTests(InGreenlets, TestCase):
    """Tests against a scripted node."""

    def setUp(self):
        self.node = ScriptedNode()
        self.addCleanup(self.node.stop)
        self.cb = GConnection(bucket="b", connection_string=self.node.string, password="p")
        self.addCleanup(self.cb._close)

    def test_pipelined(self):
        """The requests of a thousand greenlets are on one socket before the first answer."""
        held = []

        def script(peer, frame):
            held.append((peer, frame))
            if len(held) == GREENLETS:
                # In another order than they came.
                for one, question in reversed(held):
                    one.answer(question, extras=bytes(4), cas=1, value=question.key[1:])

        self.node.script = script
        greenlets = [gevent.spawn(self.cb.get, f"k{number}") for number in range(GREENLETS)]
        gevent.joinall(greenlets, raise_error=True)
        self.assertEqual([greenlet.value.value for greenlet in greenlets], list(range(GREENLETS)))
        self.assertEqual(len(self.node.peers), 1)

    def test_timeouts(self):
        """Each operation has its own time; the others are not held up."""

        def script(peer, frame):
            if frame.key != b"silent":
                peer.answer(frame, extras=bytes(4), cas=1, value=b"1")

        self.node.script = script
        self.cb.timeout = 0.2
        began = time.monotonic()
        silent = gevent.spawn(self.time_out, "silent")
        answered = 0
        while not silent.ready():
            self.assertEqual(self.cb.get("k").value, 1)
            answered += 1
        self.assertIsInstance(silent.value, TimeoutError)
        self.assertLess(time.monotonic() - began, 2)
        self.assertGreater(answered, 10)
        self.cb.timeout = 0.05
        first = gevent.spawn(self.time_out, "silent")
        gevent.sleep(0)
        self.cb.timeout = 30
        second = gevent.spawn(self.cb.get, "silent")
        self.assertIsInstance(first.get(), TimeoutError)
        self.assertFalse(second.ready())
        second.kill()
        self.assertEqual(self.cb._cluster.data_nodes()[0].pending, {})

    def time_out(self, key):
        """Return the exception that a read ends with."""
        try:
            return self.cb.get(key)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            return error

    def test_killed(self):
        """A killed greenlet, or one whose Timeout expires, leaves nothing behind."""
        held = []
        self.node.script = lambda peer, frame: held.append((peer, frame))
        killed = gevent.spawn(self.cb.get, "k")
        with self.assertRaises(gevent.Timeout), gevent.Timeout(0.1):
            self.cb.get_multi(["a", "b"])
        self.assertEqual(len(held), 3)
        killed.kill()
        cluster = self.cb._cluster
        self.assertEqual((cluster._waiting, cluster.data_nodes()[0].pending), ({}, {}))
        for ask in (self.cb.stats, lambda: self.cb.observe("k")):
            asking = gevent.spawn(ask)
            gevent.sleep(0.02)
            asking.kill()
        self.assertEqual((cluster._watching, cluster.data_nodes()[0].conversation._questions), ([], {}))
        for peer, frame in held:
            peer.answer(frame, extras=bytes(4), cas=1, value=b"0")
        del self.node.script
        self.assertEqual(self.cb.get("k").value, 1)
        self.assertEqual(len(self.node.peers), 1)

    def test_killed_before_others(self):
        """An operation that waits behind a repeated one is sent when the repeated one's greenlet is
        killed."""
        refused = []

        def script(peer, frame):
            refused.append(frame)
            peer.answer(frame, 0x86 if frame.value == b"1" else 0, cas=1)

        self.node.script = script
        killed = gevent.spawn(self.cb.set, "k", 1)
        while not refused:
            gevent.sleep(0.01)
        behind = gevent.spawn(self.cb.set, "k", 2)
        gevent.sleep(0)
        killed.kill()
        self.assertTrue(behind.get().success)

    def test_lost(self):
        """All that is in flight fails, later operations use a new connection."""
        self.node.script = lambda peer, frame: peer.cut() if frame.key == b"last" else None
        greenlets = [gevent.spawn(self.time_out, key) for key in ("a", "b", "last")]
        for greenlet in greenlets:
            self.assertIsInstance(greenlet.get(), NetworkError)
        del self.node.script
        self.assertEqual(self.cb.get("k").value, 1)

    def test_closed(self):
        """Closing ends operations in flight at once."""
        arrived = []
        self.node.script = lambda peer, frame: arrived.append(frame)
        greenlets = [gevent.spawn(self.time_out, key) for key in ("a", "b")]
        while len(arrived) < 2:
            gevent.sleep(0.001)
        began = time.monotonic()
        self.cb._close()
        for greenlet in greenlets:
            self.assertIsInstance(greenlet.get(), ClientTemporaryFailError)
        self.assertLess(time.monotonic() - began, 1)
        self.assertRaises(ClientTemporaryFailError, self.cb.get, "a")
        self.cb._close()

    def test_many_bytes(self):
        """More than a socket takes at once gets there, while answers are read."""
        value = "x" * 1_000_000
        self.node.script = lambda peer, frame: peer.answer(frame, cas=len(frame.value))
        greenlets = [gevent.spawn(self.cb.set, f"k{number}", value) for number in range(20)]
        gevent.joinall(greenlets, raise_error=True)
        self.assertEqual({greenlet.value.cas for greenlet in greenlets}, {len(value) + 2})


class ProgramTests(TestCase):
    """Complete programs."""

    def program(self, text):
        """Run a program and return what it prints."""
        node = shared_node()
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(text), node.string],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_patched(self):
        """It also works, like the blocking driver, in a program that patches the standard library."""
        printed = self.program(
            """
            from gevent import monkey
            monkey.patch_all()
            import sys
            import gevent
            from couchbase import Couchbase
            from gcouchbase import GConnection

            arguments = dict(bucket="default", connection_string=sys.argv[1], username="Administrator",
                             password="password")
            cb = GConnection(**arguments)
            def work(number):
                cb.set(f"patched-{number}", number)
                return cb.get(f"patched-{number}").value
            greenlets = [gevent.spawn(work, number) for number in range(100)]
            gevent.joinall(greenlets, raise_error=True)
            print(sum(greenlet.value for greenlet in greenlets))
            cb.design_create("patched", {"views": {"all": {"map": "function (d, m) { emit(m.id, d); }"}}},
                             use_devmode=False, syncwait=10)
            print(len(list(cb.query("patched", "all", startkey="patched-", endkey="patched-z",
                                    stale=False))))
            other = Couchbase.connect(experimental_gevent_support=True, **arguments)
            print(other.get("patched-7").value)
            """
        )
        self.assertEqual(printed.split(), ["4950", "100", "7"])

    def test_main_greenlet(self):
        """A program that does not mention greenlets ends normally, with its connection open."""
        printed = self.program(
            """
            import sys
            from gcouchbase import GConnection
            cb = GConnection(bucket="default", connection_string=sys.argv[1], username="Administrator",
                             password="password")
            cb["main"] = [1]
            print(cb["main"].value)
            """
        )
        self.assertEqual(printed, "[1]\n")
