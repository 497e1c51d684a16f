"""Members of a connection beside its operations: settings, errors, the map, statistics, the end."""

import gc
import os
import warnings

from couchbase.exceptions import (
    ArgumentError,
    ClientTemporaryFailError,
    CouchbaseError,
    NotSupportedError,
)
from tests.couchbase.support import ConnectionTestCase


class MemberTests(ConnectionTestCase):
    """Section 13 of the reference."""

    def test_timeouts(self):
        """Seconds as floats, settable at any time."""
        self.cb = self.connect(timeout=2.5)
        self.cb = self.connect(timeout=None)
        for name, start in (("timeout", 2.5), ("views_timeout", 75.0)):
            self.assertEqual(getattr(self.cb, name), start)
            setattr(self.cb, name, 5)
            self.assertIsInstance(getattr(self.cb, name), float)
            for bad in (0, -1):
                self.assertRaises(ValueError, setattr, self.cb, name, bad)
            for bad in ("1", None, True):
                self.assertRaises(TypeError, setattr, self.cb, name, bad)
            self.assertEqual(getattr(self.cb, name), 5.0)

    def test_read_only(self):
        """AttributeError on assignment."""
        for name in (
            "lockmode",
            "unlock_gil",
            "bucket",
            "server_nodes",
            "configured_replica_count",
            "connected",
            "closed",
        ):
            self.assertRaises(AttributeError, setattr, self.cb, name, 1)
        self.assertEqual(self.cb.configured_replica_count, 0)

    def test_quiet_and_passthrough_types(self):
        """Ints and bools; others are a TypeError."""
        for name in ("quiet", "data_passthrough"):
            self.assertFalse(getattr(self.cb, name))
            setattr(self.cb, name, 1)
            self.assertTrue(getattr(self.cb, name))
            for bad in (None, "x"):
                self.assertRaises(TypeError, setattr, self.cb, name, bad)

    def test_default_format_types(self):
        """Any number, or FMT_AUTO; a bool, None or another object is an ArgumentError."""
        self.cb.default_format = 123
        self.assertEqual(self.cb.default_format, 123)
        for bad in (True, None, "x", object()):
            self.assertRaises(ArgumentError, setattr, self.cb, "default_format", bad)

    def test_closing(self):
        """Later operations raise ClientTemporaryFailError; ``connected`` keeps its value."""
        self.cb._close()
        self.cb._close()
        self.assertTrue(self.cb.closed)
        self.assertTrue(self.cb.connected)
        for operation in (
            lambda: self.cb.get("k"),
            lambda: self.cb.set_multi({"k": 1}),
            lambda: self.cb.observe("k"),
            lambda: self.cb.stats(),
            lambda: self.cb.rget("k"),
            lambda: self.cb._vbmap("k"),
        ):
            with self.assertRaises(ClientTemporaryFailError) as caught:
                operation()
            self.assertEqual(caught.exception.rc, 0x1B)

    def test_forgotten(self):
        """A connection without references closes its sockets without a warning."""
        cb = self.connect()
        self._cleanups.pop()
        cb.set(self.key(), 1)
        cluster = cb._cluster
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del cb
            gc.collect()
            gc.collect()
        self.assertTrue(cluster.closed)
        self.assertEqual(caught, [])

    def test_fork(self):
        """A child makes its own connections; the parent's still work."""
        self.cb.set(self.key(), "before")
        read, write = os.pipe()
        child = os.fork()
        if not child:
            outcome = b"failed"
            try:
                if self.cb.get(self.key()).value == "before" and self.cb.set(self.key("child"), 1).success:
                    outcome = b"good"
            finally:
                os.write(write, outcome)
                os._exit(0)
        os.close(write)
        for _ in range(20):
            self.assertEqual(self.cb.get(self.key()).value, "before")
        with os.fdopen(read, "rb") as pipe:
            self.assertEqual(pipe.read(), b"good")
        os.waitpid(child, 0)
        self.assertEqual(self.cb.get(self.key("child")).value, 1)

    def test_fork_while_busy(self):
        """A lock that another thread held at the fork does not hold the child."""
        self.cb.set(self.key(), 1)
        self.cb._thr_lockop(0)
        child = os.fork()
        if not child:
            try:
                os._exit(0 if self.cb.get(self.key()).value == 1 else 1)
            finally:
                os._exit(2)
        self.cb._thr_lockop(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_version(self):
        """A pair whose number callers compare."""
        text, number = self.cb.lcb_version()
        self.assertIsInstance(text, str)
        self.assertGreaterEqual(number, 0x020301)

    def test_vbmap(self):
        """vbucket and server index, as ints."""
        self.assertEqual(self.cb._vbmap("hello"), (528, 0))

    def test_timings(self):
        """A histogram while it is switched on."""
        self.assertEqual(self.cb._get_timings(), [])
        self.cb._start_timings()
        for _ in range(5):
            self.cb.set(self.key(), 1)
        self.cb.get_multi([self.key()])
        found = self.cb._get_timings()
        self.assertEqual(sum(entry["count"] for entry in found), 6)
        for entry in found:
            self.assertLess(entry["min"], entry["max"])
        self.cb._stop_timings()
        self.assertEqual(self.cb._get_timings(), [])

    def test_stats(self):
        """Name -> node -> value, an int where it is one."""
        stats = self.cb.stats()
        self.assertTrue(stats.all_ok)
        node = f"127.0.0.1:{self.node.kv_ports[0]}"
        self.assertEqual(set(stats["curr_items"]), {node})
        self.assertIsInstance(stats["curr_items"][node], int)
        self.assertTrue(any(isinstance(value[node], str) for value in stats.values()))
        self.assertIn("mem_used", self.cb.stats("memory"))
        self.assertGreater(len(self.cb.stats(["memory", ""])), len(self.cb.stats(b"memory")))
        self.assertIsInstance(self.cb.stats("no-such-group"), dict)
        self.assertEqual(self.cb.stats(["memory", "no-such-group"]).refused, {"no-such-group": 1})
        self.assertEqual(stats.refused, {})
        for bad in (5, [5], [None]):
            self.assertRaises(ArgumentError, self.cb.stats, bad)


class ControlTests(ConnectionTestCase):
    """``_cntl``."""

    def test_defaults(self):
        """Values that can be read without a type."""
        self.cb = self.connect(timeout=2.5)
        self.cb = self.connect(timeout=None)
        for op, value in {
            0x00: 2_500_000,
            0x01: 75_000_000,
            0x0D: 5_000_000,
            0x0E: 100_000,
            0x0F: 75_000_000,
            0x12: 5_000_000,
            0x14: False,
            0x15: False,
            0x17: 3,
        }.items():
            self.assertEqual(self.cb._cntl(op), value)

    def test_the_same_settings(self):
        """0x00 and 0x01 are the properties; an int is microseconds, a float seconds."""
        self.assertEqual(self.cb._cntl(0x00, 1_000_000), 1_000_000)
        self.assertEqual(self.cb.timeout, 1.0)
        self.assertEqual(self.cb._cntl(0x01, 2.5), 2_500_000)
        self.assertEqual(self.cb.views_timeout, 2.5)
        self.cb.timeout = 3
        self.assertEqual(self.cb._cntl(0x00), 3_000_000)

    def test_typed(self):
        """With a type: floats are seconds, setting returns True."""
        self.cb = self.connect(timeout=2.5)
        self.cb = self.connect(timeout=None)
        self.assertEqual(self.cb._cntl(0x00, value_type="timeout"), 2.5)
        self.assertIs(self.cb._cntl(0x00, 0.5, value_type="timeout"), True)
        self.assertEqual(self.cb._cntl(0x00, value_type="uint32_t"), 500_000)
        self.assertEqual(self.cb.timeout, 0.5)
        self.assertIs(self.cb._cntl(0x0E, 10_000, value_type="uint32_t"), True)
        self.assertEqual(self.cb._cntl(0x0E, value_type="interval"), 0.01)
        self.assertEqual(self.cb._cntl(0x1B, value_type="timeout"), 2.0)
        self.assertEqual(self.cb._cntl(0x30, value_type="string"), "default")
        self.assertIsInstance(self.cb._cntl(0x1F, value_type="str"), str)
        self.assertEqual(self.cb._cntl(0x17, value_type="int"), 3)
        self.assertIs(self.cb._cntl(0x14, 1, value_type="int"), True)
        self.assertIs(self.cb._cntl(0x14), True)

    def test_refused(self):
        """ArgumentError for invalid arguments, rc 0x13 for unsupported ones."""
        for args in (
            (0x1B,),
            (0x99,),
            (0x30,),
            (0x00, "x"),
            (0x00, 0),
            (0x00, True),
            (0x17, "x"),
            (0x14, "x"),
            ("x",),
        ):
            with self.assertRaises(ArgumentError, msg=str(args)):
                self.cb._cntl(*args)
        for keywords in (
            {"value_type": "blah"},
            {"value_type": "string"},
            {"value": 0, "value_type": "timeout"},
        ):
            self.assertRaises(ArgumentError, self.cb._cntl, 0x00, **keywords)
        self.assertRaises(NotSupportedError, self.cb._cntl, 0x99, value_type="int")
        with self.assertRaises(CouchbaseError) as caught:
            self.cb._cntl(0x15, True)
        self.assertEqual(caught.exception.rc, 0x13)

    def test_at_the_start(self):
        """The keyword ``_cntl`` sets before connecting."""
        cb = self.connect(_cntl={0x00: 400_000, 0x14: True})
        self.assertEqual((cb.timeout, cb._cntl(0x14)), (0.4, True))
