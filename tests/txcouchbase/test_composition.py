"""A connection has a driver: nothing of the blocking one hangs on a connection for Twisted."""

import inspect

import couchbase
from couchbase.asynchronous import Async
from couchbase.blocking.driver import BlockingDriver
from couchbase.driver import Driver
from couchbase.exceptions import NotSupportedError, ObjectThreadError, PipelineError
from gcouchbase import GConnection
from tests.txcouchbase.memory import MemoryTestCase
from txcouchbase.connection import Connection, TxAsyncConnection
from txcouchbase.driver import AsyncDriver, DeferredDriver

BLOCKING = "couchbase.blocking"
FACES = (TxAsyncConnection, Connection)


def functions_of(value):
    """Return the functions behind an attribute of a class."""
    if isinstance(value, property):
        return [one for one in (value.fget, value.fset, value.fdel) if one is not None]
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    return [inspect.unwrap(value)] if callable(value) else []


def reachable(owner):
    """Return every callable that can be reached by name on an object, as (name, module)."""
    found = []
    for name in dir(owner):
        for value in (inspect.getattr_static(owner, name), inspect.getattr_static(type(owner), name, None)):
            found += [(name, getattr(one, "__module__", None) or "") for one in functions_of(value)]
    return found


class CompositionTests(MemoryTestCase):
    """Composition of connections and drivers."""

    def test_whose_subclass(self):
        """The classes of SDK 1.2 are subclasses of each other as they were."""
        for face in (*FACES, GConnection):
            self.assertTrue(issubclass(face, Async))
            self.assertTrue(issubclass(face, couchbase.Connection))
        self.assertTrue(issubclass(Async, couchbase.Connection))
        for face in FACES:
            self.assertEqual([cls for cls in face.__mro__ if cls.__module__.startswith(BLOCKING)], [])
            self.assertFalse(issubclass(face._driver_type, BlockingDriver))

    def test_no_callable_of_the_blocking_driver(self):
        """None can be reached on a connection, nor on its driver."""
        for face in FACES:
            connection = self.connect(face)
            for owner in (connection, connection._driver):
                self.assertEqual([one for one in reachable(owner) if one[1].startswith(BLOCKING)], [])
        self.assertIs(type(self.connect(TxAsyncConnection)._driver), AsyncDriver)
        self.assertIs(type(self.connect(Connection)._driver), DeferredDriver)

    def test_the_rule_finds_them(self):
        """The rule finds violations."""
        found = {name for name, module in reachable(BlockingDriver) if module.startswith(BLOCKING)}
        self.assertTrue({"submit", "bootstrap", "_run", "_collect_stats"} <= found)

    def test_names_of_the_blocking_driver(self):
        """Attributes of a blocking driver are not attributes of a Twisted connection."""
        connection = self.connect(Connection)
        public = {name for name in vars(Driver) if not name.startswith("__")}
        private = {name for name in vars(BlockingDriver) if name not in public and not name.startswith("__")}
        self.assertTrue(private)
        self.assertEqual([name for name in sorted(private) if hasattr(connection, name)], [])

    def test_what_blocking_connections_alone_can(self):
        """Methods of SDK 1.2 that wait are refused in words of the SDK, and not by an accident."""
        for face in FACES:
            connection = self.connect(face)
            pipeline = connection.pipeline()
            for refused, method, arguments in (
                (ObjectThreadError, connection._thr_lockop, (0,)),
                (PipelineError, pipeline.__enter__, ()),
                (NotSupportedError, connection._view, ("d", "v")),
                (NotImplementedError, connection._iterate_view, (object(),)),
            ):
                self.assertRaises(refused, method, *arguments)
        self.assertRaises(NotSupportedError, self.connect(TxAsyncConnection).append_items, {})

    def test_each_face_carries_out_with_its_driver(self):
        """Every method of the interface is a driver's own, or refuses in words of the SDK."""
        for driver in (AsyncDriver, DeferredDriver, BlockingDriver):
            for name, value in vars(Driver).items():
                if inspect.isfunction(value) and not name.startswith("_"):
                    mine = getattr(driver, name)
                    if mine is value:
                        self.assertIn(name, ("begin_pipeline", "end_pipeline", "lock_by_hand", "view_once",
                                             "iterate_view", "close", "submit_level"))  # fmt: skip

    def test_settings_are_the_drivers(self):
        """Settings of a connection apply to its driver, and the reverse."""
        connection = self.connect(Connection)
        connection.timeout = 7
        connection._durability_timeout = 3.0
        with connection.durability(persist_to=1, replicate_to=2, timeout=4):
            driver = connection._driver
            self.assertEqual(
                (driver.timeout, driver.durability_timeout, driver.dur_persist_to, driver.dur_replicate_to),
                (7.0, 3.0, 1, 2),
            )
            self.assertEqual(driver.dur_timeout, 4_000_000)
        self.assertEqual(driver.dur_persist_to, 0)
        driver.timeout = 2.0
        self.assertEqual((connection.timeout, connection._client.turn.timeout), (2.0, 2.0))
