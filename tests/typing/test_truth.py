"""The declared result types of calls are the real ones, for every driver, from a real node."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

import couchbase.subdocument as SD
from couchbase import signatures
from couchbase.commands import Commands
from couchbase.designs import DesignCommands
from couchbase.result import (
    AsyncResult,
    ExpiryResult,
    HttpResult,
    MultiResult,
    OperationResult,
    ValueResult,
)
from couchbase.subdocument import SubdocResult
from tests.couchbase.support import ConnectionTestCase
from tests.gcouchbase.support import InGreenlets
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.connection import Connection as TxConnection
from txcouchbase.connection import TxAsyncConnection

DEFAULTS: dict[str, Any] = {
    # As in couchbase.signatures, where only a type checker sees them.
    "ValueT": ValueResult,
    "ExpiryT": ExpiryResult,
    "OperationT": OperationResult,
    "ValuesT": MultiResult[ValueResult],
    "OperationsT": MultiResult[OperationResult],
    "StatsT": MultiResult[dict[str, Any]],
    "DesignT": HttpResult,
    "SubdocT": SubdocResult,
    "SubdocsT": MultiResult[SubdocResult],
}

CALLS: tuple[tuple[str, tuple[object, ...]], ...] = (
    # In an order in which each succeeds.
    ("set", ("a", 1)),
    ("add", ("b", 1)),
    ("replace", ("b", "text")),
    ("touch", ("b", 60)),
    ("get", ("a",)),
    ("get", ("a", 60)),
    ("get_with_expiry", ("a",)),
    ("observe", ("a",)),
    ("endure", ("a", 0, 1)),
    ("incr", ("n", 1, 0)),
    ("decr", ("n",)),
    ("arithmetic", ("n", 2)),
    ("set", ("f", {"a": 1})),
    ("lookup_in", ("f", SD.get("a"))),
    ("mutate_in", ("f", SD.upsert("b", 1))),
    ("lookup_in_multi", (["f"], SD.get("a"), SD.exists("b"))),
    ("mutate_in_multi", (["f"], SD.upsert("c", 1))),
    ("set_multi", ({"c": 1, "d": 2},)),
    ("add_multi", ({"e": 1},)),
    ("replace_multi", ({"e": 2},)),
    ("get_multi", (["c", "d"],)),
    ("get_multi", ({"c": 60},)),
    ("touch_multi", ({"c": 0},)),
    ("observe_multi", (["c", "d"],)),
    ("endure_multi", (["c"], 0, 1)),
    ("incr_multi", (["n"],)),
    ("decr_multi", ({"n": 1},)),
    ("arithmetic_multi", ({"n": 1},)),
    ("lock_multi", (["d"],)),
    ("delete_multi", (["c"],)),
    ("stats", ("memory",)),
    ("delete", ("a",)),
    ("design_create", ("typed", {"views": {"all": {"map": "function (d, m) { emit(m.id); }"}}})),
    ("design_get", ("typed",)),
    ("design_publish", ("typed",)),
    ("design_delete", ("typed",)),
)
MORE = {
    *("append", "prepend", "append_multi", "prepend_multi", "rget", "rget_multi", "lock", "unlock"),
    "unlock_multi",
}
"""Operations that return what a sibling returns, by the same lines of code."""


def declared(name: str, types: dict[str, Any]) -> Any:
    """Return what a method returns by its annotation.

    :param types: name of a type variable -> what a face puts in its place.
    """
    base = DesignCommands if name.startswith("design_") else Commands
    return types[get_type_hints(getattr(base, name))["return"].__name__]


def of_face(cls: type, base: type) -> dict[str, Any]:
    """Return what a class puts in the place of its generic base's variables."""
    (found,) = (one for one in cls.__orig_bases__ if get_origin(one) is base)  # type: ignore[attr-defined]
    return {one.__name__: kind for one, kind in zip(base.__parameters__, get_args(found), strict=True)}  # type: ignore[attr-defined]


def fits(value: object, kind: Any) -> bool:
    """Return whether a value has a type; the values of a dict count, too."""
    if kind is Any:
        return True
    if not isinstance(value, get_origin(kind) or kind):
        return False
    if isinstance(value, dict) and get_args(kind):
        return bool(value) and all(fits(one, get_args(kind)[-1]) for one in value.values())
    return True


class BlockingTests(ConnectionTestCase):
    """The blocking connection."""

    options = {"nodes": 2, "replicas": 1}

    def test_calls(self) -> None:
        """Each call returns what its annotation says."""
        for name, arguments in CALLS:
            result = getattr(self.cb, name)(*arguments)
            self.assertTrue(fits(result, declared(name, DEFAULTS)), f"{name}: {result!r}")
        self.assertTrue(fits(self.cb["b"], declared("get", DEFAULTS)))


class GeventTests(InGreenlets, BlockingTests):
    """The connection for greenlets, which can stand in for the blocking one."""

    # A separate node without documents.
    options = {"nodes": 2, "replicas": 1, "data_dir": None}


class TwistedTests(NodeTestCase):
    """Both connections on Twisted."""

    nodes = 2
    replicas = 1

    @inlineCallbacks
    def test_deferreds(self) -> Any:
        """Each call returns a Deferred of what its annotation says."""
        types = {"DesignT": Deferred[HttpResult], **of_face(TxConnection, TxAsyncConnection)}
        connection = self.open()
        for name, arguments in CALLS:
            started = getattr(connection, name)(*arguments)
            kind = declared(name, types)
            self.assertIs(get_origin(kind), Deferred)
            self.assertIsInstance(started, Deferred)
            result = yield started
            self.assertTrue(fits(result, get_args(kind)[0]), f"{name}: {result!r}")

    @inlineCallbacks
    def test_async_results(self) -> Any:
        """Each call returns an AsyncResult; what it brings fits the blocking connection's annotation."""
        connection = self.open(TxAsyncConnection)
        yield connection.connect()
        for name, arguments in CALLS:
            if name.startswith("design_"):
                continue
            started = getattr(connection, name)(*arguments)
            self.assertIs(type(started), AsyncResult, name)
            result = yield connection.defer(started)
            self.assertTrue(fits(result, declared(name, DEFAULTS)), f"{name}: {result!r}")


class TableTests(SynchronousTestCase):
    """The table of calls above."""

    def test_complete(self) -> None:
        """Every operation is called, except those that a sibling represents."""
        called = {name for name, _ in CALLS}
        variables = {name for name in DEFAULTS if name != "DesignT"}
        everyone = {
            name
            for name in dir(Commands)
            if not name.startswith("_")
            and callable(getattr(Commands, name))
            and getattr(get_type_hints(getattr(Commands, name)).get("return"), "__name__", "") in variables
        }
        self.assertEqual(everyone - called, MORE)
        for name in MORE:
            self.assertIn(declared(name, {one: one for one in DEFAULTS}), variables)

    def test_variables(self) -> None:
        """The defaults above name exactly the variables of couchbase.signatures."""
        found = {name for name in vars(signatures) if name.endswith("T") and name[0].isupper()}
        self.assertEqual(found, set(DEFAULTS))

    def test_a_wrong_type_is_found(self) -> None:
        """The comparison distinguishes results, and checks the values of dicts."""
        self.assertFalse(fits(OperationResult(), ValueResult))
        self.assertTrue(fits(ValueResult(), OperationResult))
        self.assertFalse(fits(MultiResult({"a": OperationResult()}), MultiResult[ValueResult]))
        self.assertFalse(fits(MultiResult(), MultiResult[ValueResult]))
