"""Mistakes on gevent that type checkers must find, and their places."""

from __future__ import annotations

from couchbase import Connection
from couchbase.views.iterator import View
from gcouchbase import GConnection, GView
from txcouchbase import Connection as TxConnection


def connections() -> GConnection:
    """Make connections wrongly."""
    GConnection(bucket=1)  # wrong: arg-type | reportArgumentType
    GConnection(bucket="default", timeout="2.5")  # wrong: arg-type | reportArgumentType
    GConnection(buckett="default")  # wrong: call-arg | reportCallIssue
    GConnection(bucket="default", transcoder=3)  # wrong: arg-type | reportArgumentType
    return Connection(bucket="default")  # wrong: return-value | reportReturnType


def documents(connection: GConnection) -> None:
    """Call operations wrongly."""
    connection.set(1, 2)  # wrong: arg-type | reportArgumentType
    connection.set("key", 1, ttl="soon")  # wrong: arg-type | reportArgumentType
    connection.set("key", 1, format="json")  # wrong: arg-type | reportArgumentType
    connection.get("key", wrong=1)  # wrong: call-arg | reportCallIssue
    connection.get("key", quiet=2.5)  # wrong: arg-type | reportArgumentType
    print(connection.get("key").valeu)  # wrong: attr-defined | reportAttributeAccessIssue
    print(connection.get_multi(["a"])["a"].expiry)  # wrong: attr-defined | reportAttributeAccessIssue
    print(connection.get_multi([1]))  # wrong: list-item | reportArgumentType
    print(connection.getMulti(["a"]))  # wrong: attr-defined | reportAttributeAccessIssue
    print(connection.decr("n", "3"))  # wrong: arg-type | reportArgumentType
    print(connection.endure("key", interval="1"))  # wrong: arg-type | reportArgumentType
    connection.get("key").addCallback(print)  # wrong: attr-defined | reportAttributeAccessIssue


def views(connection: GConnection, other: TxConnection) -> None:
    """Query views wrongly."""
    connection.query("beer")  # wrong: call-overload | reportCallIssue
    connection.query("beer", "by_name", itercls=View)  # wrong: type-var | reportArgumentType
    connection.query("beer", "by_name", reduce="maybe")  # wrong: call-overload | reportArgumentType
    connection.query("beer", "by_name", limitt=1)  # wrong: call-overload | reportCallIssue
    connection.design_publish("beer", syncwait="5")  # wrong: arg-type | reportArgumentType
    result: str = connection.design_delete("beer")  # wrong: assignment | reportAssignmentType
    mine: GConnection = other  # wrong: assignment | reportAssignmentType
    rows: GView = View(connection, "beer", "by_name")  # wrong: assignment | reportAssignmentType
    print(result, mine, rows)
