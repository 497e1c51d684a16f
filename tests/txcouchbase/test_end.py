"""Messages when a program stops the reactor, or when all timers were cancelled before a connection is
lost."""

import gc
import subprocess
import sys
import textwrap
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.connection import Connection, TxAsyncConnection

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
    import sys
    from twisted.internet import reactor
    from twisted.internet.defer import inlineCallbacks
    from txcouchbase.connection import Connection, TxAsyncConnection

    place = {{"bucket": "default", "connection_string": "{string}"}}
    web = {{"bucket": "default", "host": "127.0.0.1", "port": {port}}}
    counts = {{}}
    kept = []

    def on_and_on(name, work):
        # Nobody handles a failure.
        def again(_=None):
            counts[name] = counts.get(name, 0) + 1
            if len(counts) == 9 and min(counts.values()) > 2 and reactor.running and not kept[-1]:
                kept[-1] = [reactor.callLater(0, reactor.stop)]
            work().addCallback(again)

        again()

    @inlineCallbacks
    def main():
        cb = Connection(**place)
        kept[:] = [cb, []]
        yield cb.connect()
        yield cb.set("k", 1)
        design = {{"views": {{"v": {{"map": "function (doc, meta) {{ emit(1); }}"}}}}}}
        yield cb.design_create("d", design, use_devmode=False)

        @inlineCallbacks
        def coroutine():
            yield cb.get_multi(["k", "l"], quiet=True)
            yield cb.incr("n", initial=0)

        def connected():
            kept.insert(0, Connection(**web))
            return kept[0].connect()

        def early():
            kept.insert(0, Connection(**place))
            return kept[0].get("k")

        def raw():
            kept.insert(0, TxAsyncConnection(**web))
            return kept[0].connect()

        on_and_on("set", lambda: cb.set("k", 1))
        on_and_on("coroutine", coroutine)
        on_and_on("view", lambda: cb.queryAll("d", "v"))
        on_and_on("stats", cb.stats)
        on_and_on("observe", lambda: cb.observe("k"))
        on_and_on("design", lambda: cb.design_get("d", use_devmode=False))
        on_and_on("connect", connected)
        on_and_on("early", early)
        on_and_on("raw", raw)

    reactor.callWhenRunning(main)
    reactor.run()
    print("ended", min(counts.values()) > 2)
"""


class StopTests(NodeTestCase):
    """Separate programs, against a node in this process."""

    timeout = 120

    @inlineCallbacks
    def test_operations_under_way(self):
        """The reactor stops while nine kinds of operations run: not a word of those that did not end."""
        port = int(self.node.rest_urls[0].rpartition(":")[2])
        text = textwrap.dedent(PROGRAM).format(string=self.node.connection_string, port=port)
        done = yield deferToThread(
            subprocess.run,
            [sys.executable, "-c", text],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
        )
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("ended True\n", "", 0))

    @inlineCallbacks
    def test_timers_that_the_reactor_holds(self):
        """A reactor that holds on to timers that have fired does not keep a connection from going, nor is the
        cycle collector needed: by a query that ended well, one that failed, and one of a refused kind."""
        first = Connection(bucket="default", connection_string=self.node.connection_string, timeout=30)
        self.addCleanup(first._close)
        yield first.design_create("d", {"views": {"v": {"map": "function (doc) {}"}}}, use_devmode=False)
        held, call_later = [], reactor.callLater

        def hold(*args, **kwargs):
            held.append(call_later(*args, **kwargs))
            return held[-1]

        self.patch(reactor, "callLater", hold)
        self.addCleanup(gc.enable)
        gc.disable()
        for design, options in (("d", {}), ("nonesuch", {}), ("d", {"include_docs": True})):
            connection = Connection(
                bucket="default", connection_string=self.node.connection_string, timeout=30
            )
            gone = Deferred()
            connection.registerDeferred("_dtor", gone)
            asked = connection.queryAll(design, "v", **options)
            del connection
            errors = []
            # Kept, as a program may.
            asked.addErrback(lambda failure, errors=errors: errors.append(failure.value))
            yield asked
            del asked
            yield gone
            self.assertEqual(bool(errors), design == "nonesuch" or bool(options))

    @inlineCallbacks
    def test_stats_at_once(self):
        """Statistics asked for before the nodes are connected come from each of them."""
        port = int(self.node.rest_urls[0].rpartition(":")[2])
        for place in (
            {"host": "127.0.0.1", "port": port},
            {"connection_string": self.node.connection_string},
        ):
            for cls in (Connection, TxAsyncConnection):
                connection = cls(bucket="default", timeout=30, **place)
                self.addCleanup(connection._close)
                if cls is Connection:
                    stats = yield connection.stats()
                else:
                    yield connection.connect()
                    stats = yield connection.defer(connection.stats())
                self.assertEqual(len(stats["curr_items"]), 1)

    @inlineCallbacks
    def test_timers_that_somebody_cancelled(self):
        """A connection dropped after all timers were cancelled, as trial does, still closes."""
        connection = Connection(bucket="default", connection_string=self.node.connection_string, timeout=30)
        gone = Deferred()
        connection.registerDeferred("_dtor", gone)
        yield connection.design_create("d", {"views": {"v": {"map": "function (doc) {}"}}}, use_devmode=False)
        yield connection.queryAll("d", "v")
        web, client = connection._http._web, connection._client
        timers = [web._timer, client._sweep, client._poll]
        self.assertTrue(web._timer.active())
        for timer in timers:
            if timer is not None and timer.active():
                timer.cancel()
        # Nothing sweeps any more, so nothing keeps it.
        client._kept = None
        said = []
        self.patch(sys, "unraisablehook", said.append)
        del connection, client
        gc.collect()
        yield gone
        self.assertEqual((said, web._timer, web._idle), ([], None, {}))
        self.assertTrue(reactor.running)
