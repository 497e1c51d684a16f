"""The cost of one operation in calls and bytecode, which does not depend on the machine's load.

Connections talk to a node in memory. Counted is what runs on the client's side: starting operations, the end
of the turn, and handing out the answers, Twisted's Deferreds included.
"""

import gc
import sys
from collections import Counter

from couchbase.protocol.call import Call
from couchbase.result import Result
from couchbase.transcoder import RawTranscoder
from tests import work
from tests.txcouchbase.memory import STORED, MemoryTestCase
from txcouchbase.connection import Connection, TxAsyncConnection

OPERATIONS = 64
KEYS = [f"key-{number}" for number in range(OPERATIONS)]
RAW = {"transcoder": RawTranscoder()}
VALUE = {"text": "x" * 85, "number": 7}


class Receiver:
    """Is notified of the end of an operation."""

    def __init__(self, ended):
        self.succeeded = self.failed = ended


# For each operation: calls, then bytecode instructions on each of work.INSTRUCTIONS_OF. The limits are a
# little above what was counted when they were written; lower them with every improvement.
LIMITS = {
    "get, Deferred": (31.5, 640, 656),
    "set, Deferred": (34.5, 680, 700),
    "get, AsyncResult": (23.5, 506, 516),
    "set, AsyncResult": (26.5, 544, 558),
    "get_multi": (18, 434, 443),
    "set_multi": (20, 481, 489),
    "raw get_with_expiry": (22.5, 528, 534),
    "raw set": (24.5, 529, 540),
}


class CostTests(MemoryTestCase):
    """Calls and instructions per operation: over the limit, a change has slowed the fast path down."""

    def check(self, name, start):
        """Compare the cost of each of the operations that ``start`` starts with its limit."""
        most, *by_version = LIMITS[name]
        self.count(name, work.calls, start, most)
        if sys.implementation.name == "cpython" and sys.version_info[:2] in work.INSTRUCTIONS_OF:
            most = by_version[work.INSTRUCTIONS_OF.index(sys.version_info[:2])]
            self.count(name, work.instructions, start, most)

    def cost(self, unit, start):
        """Return what each of the operations that ``start`` starts costs."""
        ended = Counter()

        def end(result):
            ended["ended"] += 1

        # Once for what happens the first time only, and until the id of a collection is known.
        for _ in range(2):
            start(end)
            for _ in range(3):
                self.carry_out()
        ended.clear()
        gc.disable()
        try:
            counted = unit(lambda: start(end)) + unit(lambda: self.clock.advance(0))
            answers = self.node.answers()
            counted += unit(lambda: self.node.protocol.dataReceived(answers))
        finally:
            gc.enable()
        self.assertIn(ended["ended"], (1, OPERATIONS))
        return counted / OPERATIONS

    def count(self, name, unit, start, most):
        ended = Counter()

        def end(result):
            ended["ended"] += 1

        # Once for what happens the first time only.
        start(end)
        self.carry_out()
        expected = ended.pop("ended")
        self.assertIn(expected, (1, OPERATIONS))
        gc.disable()
        try:
            counted = unit(lambda: start(end)) + unit(lambda: self.clock.advance(0))
            (written,) = self.node.transport.writes
            answers = self.node.answers()
            counted += unit(lambda: self.node.protocol.dataReceived(answers))
        finally:
            gc.enable()
        self.assertEqual(ended["ended"], expected)
        each = counted / OPERATIONS
        self.assertLessEqual(each, most, f"{name}: {unit.__name__} for each operation")
        # A limit far above what is counted would guard nothing.
        self.assertGreater(each, most * 0.8, f"{name}: {unit.__name__} for each operation")

    def test_deferreds(self):
        """A Connection's, Twisted's own share included."""
        connection = self.connect(Connection)

        def get(end):
            for key in KEYS:
                connection.get(key).addCallback(end)

        def store(end):
            for key in KEYS:
                connection.set(key, VALUE).addCallback(end)

        self.check("get, Deferred", get)
        self.check("set, Deferred", store)
        self.check("get_multi", lambda end: connection.get_multi(KEYS).addCallback(end))
        documents = dict.fromkeys(KEYS, VALUE)
        self.check("set_multi", lambda end: connection.set_multi(documents).addCallback(end))

    def test_async_results(self):
        """A TxAsyncConnection's."""
        connection = self.connect(TxAsyncConnection)

        def get(end):
            for key in KEYS:
                connection.get(key).set_callbacks(end, end)

        def store(end):
            for key in KEYS:
                connection.set(key, VALUE).set_callbacks(end, end)

        self.check("get, AsyncResult", get)
        self.check("set, AsyncResult", store)
        self.check("get_multi", lambda end: connection.get_multi(KEYS).set_callbacks(end, end))

    def test_no_cycles(self):
        """What operations leave behind is freed at once: finding it would take the garbage collector a fifth
        of the time of a ``get_multi``."""
        connection = self.connect(Connection)
        asynchronous = self.connect(TxAsyncConnection)
        documents = dict.fromkeys(KEYS, VALUE)
        for start in (
            lambda: [connection.get(key).addCallback(id) for key in KEYS],
            lambda: [connection.set(key, VALUE).addCallback(id) for key in KEYS],
            lambda: connection.get_multi(KEYS).addCallback(id),
            lambda: connection.set_multi(documents).addCallback(id),
            lambda: [asynchronous.get(key).set_callbacks(id, id) for key in KEYS],
            lambda: asynchronous.get_multi(KEYS).set_callbacks(id, id),
        ):
            # Once for what happens the first time only.
            start()
            self.carry_out()
            gc.collect()
            gc.disable()
            try:
                start()
                self.carry_out()
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                self.assertEqual([one for one in gc.garbage if isinstance(one, (Call, Result))], [])
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()

    def test_collections(self):
        """A named collection costs at most a tenth more than the default one."""
        keys = [key.encode() for key in KEYS]
        documents = dict.fromkeys(KEYS, VALUE)

        def gets(view):
            return lambda end: [view.get(key).addCallback(end) for key in KEYS]

        def stores(view):
            return lambda end: [view.set(key, VALUE).addCallback(end) for key in KEYS]

        def many(view):
            return lambda end: view.get_multi(KEYS).addCallback(end)

        def many_stores(view):
            return lambda end: view.set_multi(documents).addCallback(end)

        def raw_gets(view):
            def start(end):
                for key in keys:
                    view.get_with_expiry(key).receiver = Receiver(end)

            return start

        def raw_stores(view):
            def start(end):
                for key in keys:
                    view.set(key, STORED, format=5, preserve_expiry=True).receiver = Receiver(end)

            return start

        for makers, options in (((gets, stores, many, many_stores), {}), ((raw_gets, raw_stores), RAW)):
            connection = self.connect(Connection, **options)
            default, named = connection, connection.collection("c", "s")
            if options:
                default, named = default.direct(), named.direct()
            for make in makers:
                costs = [self.cost(work.instructions, make(view)) for view in (default, named)]
                self.assertLessEqual(costs[1], 1.1 * costs[0], (make.__name__, costs))

    def test_receivers(self):
        """The gateway's way: raw documents, without Deferreds."""
        direct = self.connect(Connection, transcoder=RawTranscoder()).direct()
        keys = [key.encode() for key in KEYS]

        def get(end):
            for key in keys:
                direct.get_with_expiry(key).receiver = Receiver(end)

        def store(end):
            for key in keys:
                call = direct.set(key, STORED, format=0x02000000, preserve_expiry=True)
                call.receiver = Receiver(end)

        self.check("raw get_with_expiry", get)
        self.check("raw set", store)
