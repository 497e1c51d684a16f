"""Promises of docs/sdk-1.2.md about txcouchbase without another test."""

import importlib
import inspect

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

import txcouchbase
from couchbase.asynchronous.events import EventQueue
from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import (
    INVALID_USERNAME,
    ArgumentError,
    CouchbaseError,
    InternalSDKError,
    InvalidError,
    ValueFormatError,
)
from couchbase.result import AsyncResult, MultiResult
from couchbase.transcoder import Transcoder
from couchbase.user_constants import LOCKMODE_WAIT
from tests.couchbase import test_contract as blocking
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.connection import (
    BatchedView,
    Connection,
    ConnectionEventQueue,
    TxAsyncConnection,
    TxEventQueue,
)


class NamesTests(SynchronousTestCase):
    """Names, kinds, signatures."""

    def test_names(self):
        """Names of the package and its module."""
        self.assertIsInstance(txcouchbase.__version__, str)
        self.assertEqual(importlib.import_module("txcouchbase.connection").Connection, Connection)
        self.assertTrue(issubclass(Connection, TxAsyncConnection))
        self.assertTrue(issubclass(BatchedView, AsyncViewBase))
        self.assertTrue(issubclass(ConnectionEventQueue, TxEventQueue))
        self.assertTrue(issubclass(TxEventQueue, EventQueue))

    def test_signatures(self):
        """Operations take what those of the blocking connection take."""
        check = blocking.SignatureTests().check
        for cls in (TxAsyncConnection, Connection):
            for name, text in {**blocking.KEY_VALUE, **blocking.MULTI}.items():
                check(getattr(cls, name), text)
                if name.endswith("_multi"):
                    check(getattr(cls, f"{name[:-6]}Multi"), text)
        check(TxAsyncConnection.registerDeferred, "event, d")
        check(TxAsyncConnection.defer, "async_result")
        check(TxAsyncConnection.connect, "")
        kinds = [one.kind for one in inspect.signature(TxAsyncConnection.queryAll).parameters.values()]
        self.assertIn(inspect.Parameter.VAR_POSITIONAL, kinds)


class ArgumentTests(NodeTestCase):
    """Arguments of the constructor."""

    def test_wrong(self):
        """Arguments that are invalid for a Connection are invalid here."""
        for keywords in (
            {"bucket": ""},
            {"bucket": 5},
            {"quiet": None},
            {"quiet": "x"},
            {"username": 5},
            {"password": 5},
            {"lockmode": 7},
            {"unlock_gil": "x"},
            {"default_format": "x"},
            {"nonsense": 1},
            {"host": None},
            {"host": [5]},
            {"connection_string": 5},
        ):
            for cls in (Connection, TxAsyncConnection):
                with self.assertRaises(ArgumentError, msg=str(keywords)):
                    cls(**{"bucket": "default", **keywords})
        self.assertRaises(ValueError, Connection, bucket="default", timeout=0)
        self.assertRaises(TypeError, Connection, bucket="default", timeout="1")
        for host, port in (("a:1", 8091), ("", 8091), ("a", "x")):
            self.assertRaises(InvalidError, Connection, bucket="default", host=host, port=port)

    def test_other_user(self):
        """With ``host`` the user is the bucket's; a session of the cluster as a whole takes any."""
        for cls in (Connection, TxAsyncConnection):
            with self.assertRaises(CouchbaseError) as caught:
                cls(bucket="b", host="no-such-host.invalid", username="ada", password="p")
            self.assertEqual(caught.exception.rc, INVALID_USERNAME)
            self.assertIn("connection_string", str(caught.exception))
            for keywords in ({"bucket": "b", "username": "b"}, {"username": "ada"}):
                made = cls(host="127.0.0.1", port=1, password="p", **keywords)
                made.connect().addErrback(lambda failure: None)
                made._close()

    def test_accepted(self):
        """Those that mean nothing to the reactor, and the internal ones."""
        return self.open(
            timeout=None,
            lockmode=LOCKMODE_WAIT,
            unlock_gil=True,
            experimental_gevent_support=True,
            _no_connect_exceptions=True,
            _iops=0,
            _flags=0,
            _conntype=0,
            _errors=0,
        ).connect()


class _Broken(Transcoder):
    """Cannot read one of the documents."""

    def decode_value(self, value, flags):
        """Fail for the value 2."""
        if value == b"2":
            raise KeyError("inside")
        return value


class AnswerTests(NodeTestCase):
    """The order in which answers arrive."""

    @inlineCallbacks
    def test_decoding_first(self):
        """A value that cannot be decoded is reported before missing keys."""
        for cls in (Connection, TxAsyncConnection):
            cb = self.open(cls)
            yield cb.connect()
            keys = {f"k{number}": number for number in range(4)}
            stored = cb.set_multi(keys)
            yield stored if cls is Connection else cb.defer(stored)
            cb.transcoder = _Broken()
            found = cb.get_multi(["missing", *keys, "gone"])
            error = yield self.assertFailure(
                found if cls is Connection else cb.defer(found), ValueFormatError
            )
            self.assertIsInstance(error.inner_cause, KeyError)
            self.assertEqual(error.all_results["missing"].rc, 0x0D)
            self.assertEqual(error.all_results["k1"].value, b"1")
            self.assertIsNone(error.all_results["k2"].value)

    @inlineCallbacks
    def test_no_callback(self):
        """A result without a callback is reported as an InternalSDKError, and does not affect others."""
        cb = self.open(TxAsyncConnection)
        yield cb.connect()
        with capturedLogs() as seen:
            cb.set("k", 1)
            cb.get("nothing")
            yield cb.defer(cb.set("k", 2))
            yield deferLater(cb._client.reactor, 0)
        errors = [event["error"] for event in seen if "error" in event]
        self.assertEqual([type(error) for error in errors], [InternalSDKError] * 2)

    @inlineCallbacks
    def test_results(self):
        """A group fills as answers arrive, and counts what is open."""
        cb = self.open(TxAsyncConnection)
        yield cb.connect()
        pending = cb.set_multi({"a": 1, "b": 2})
        self.assertEqual((type(pending), pending.remaining, len(pending)), (AsyncResult, 2, 0))
        self.assertIsInstance(pending, MultiResult)
        done = Deferred()
        pending.callback, pending.errback = done.callback, done.errback
        self.assertIs((yield done), pending)
        self.assertEqual((pending.remaining, set(pending)), (0, {"a", "b"}))

    @inlineCallbacks
    def test_failures(self):
        """Exceptions have what those of the blocking connection have."""
        for cls in (Connection, TxAsyncConnection):
            cb = self.open(cls)
            yield cb.connect()
            for find in (
                lambda cb=cb: cb.get("nothing"),
                lambda cb=cb: cb.get_multi(["nothing"]),
                lambda cb=cb: cb.rget("nothing", 0),
                lambda cb=cb: cb.endure("nothing", 0, 0),
                lambda cb=cb: cb.endure_multi(["nothing"], 0, 0),
            ):
                found = find()
                error = yield self.assertFailure(
                    found if cls is Connection else cb.defer(found), CouchbaseError
                )
                self.assertEqual(error.key, "nothing")
                self.assertEqual(error.result.rc, error.rc)
                self.assertEqual(error.all_results["nothing"].rc, error.rc)
                self.assertFalse(error.all_results.all_ok)

    @inlineCallbacks
    def test_duplicates(self):
        """One RuntimeWarning for each repeated key, and no other; the last result is kept."""
        for cls in (Connection, TxAsyncConnection):
            cb = self.open(cls)
            yield cb.connect()
            found = cb.incr_multi([f"n{cls.__name__}"] * 3, initial=1)
            found = yield found if cls is Connection else cb.defer(found)
            self.assertEqual([result.value for result in found.values()], [3])
            self.assertEqual([one["category"] for one in self.flushWarnings()], [RuntimeWarning] * 2)
