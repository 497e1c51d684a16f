"""Mistakes with the blocking connection that type checkers must find, and their places."""

from __future__ import annotations

from couchbase import Connection, Couchbase
from couchbase.admin import Admin
from couchbase.items import Item, ItemOptionDict
from couchbase.views.iterator import View
from couchbase.views.params import Query


def connections() -> None:
    """Make connections wrongly."""
    Connection("default")  # wrong: call-arg | reportCallIssue
    Connection(bucket=1)  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", quiet="yes")  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", timeout="2.5")  # wrong: arg-type | reportArgumentType
    Connection(buckett="default")  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", host=8091)  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", port="8091")  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", transcoder="utf-8")  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", default_format="json")  # wrong: arg-type | reportArgumentType
    Couchbase.connect(bucket="default", timeout="2.5")  # wrong: arg-type | reportArgumentType
    Couchbase.connect(bucket="default", buckett="default")  # wrong: call-arg | reportCallIssue
    Admin("Administrator", 1)  # wrong: arg-type | reportArgumentType


def documents(connection: Connection) -> None:
    """Call operations wrongly."""
    connection.set(1, 2)  # wrong: arg-type | reportArgumentType
    connection.set("key")  # wrong: call-arg | reportCallIssue
    connection.set("key", 1, ttl="soon")  # wrong: arg-type | reportArgumentType
    connection.set("key", {}, format="nope")  # wrong: arg-type | reportArgumentType
    connection.set("key", {}, cas="0x1")  # wrong: arg-type | reportArgumentType
    connection.set("key", {}, persist_to="all")  # wrong: arg-type | reportArgumentType
    connection.set("key", {}, 0, 0, None, 0, 0, 1)  # wrong: call-arg | reportCallIssue
    connection.set("key", {}, expiry=3)  # wrong: call-arg | reportCallIssue
    connection.get("key", wrong=1)  # wrong: call-arg | reportCallIssue
    connection.get(None)  # wrong: arg-type | reportArgumentType
    connection.get(["a", "b"])  # wrong: arg-type | reportArgumentType
    connection.get("key", quiet="yes")  # wrong: arg-type | reportArgumentType
    print(connection.get("key").valeu)  # wrong: attr-defined | reportAttributeAccessIssue
    connection.get("key").cas = 3  # wrong: misc | reportAttributeAccessIssue
    print(connection.set("key", 1).expiry)  # wrong: attr-defined | reportAttributeAccessIssue
    print(connection.set("key", 1).flags)  # wrong: attr-defined | reportAttributeAccessIssue
    connection.incr("n", amount="2")  # wrong: arg-type | reportArgumentType
    connection.unlock("key")  # wrong: call-arg | reportCallIssue
    connection.unlock("key", None)  # wrong: arg-type | reportArgumentType
    connection.endure("key", timeout="5")  # wrong: arg-type | reportArgumentType
    connection.upsert("key", 1)  # wrong: attr-defined | reportAttributeAccessIssue
    connection[1] = 2  # wrong: index | reportArgumentType
    connection.timeout = "long"  # wrong: assignment | reportAttributeAccessIssue
    connection.bucket = "other"  # wrong: misc | reportAttributeAccessIssue
    text: str = connection.get("key").cas  # wrong: assignment | reportAssignmentType
    print(text)


def many(connection: Connection) -> None:
    """Call multi operations wrongly."""
    connection.get_multi(3)  # wrong: arg-type | reportArgumentType
    connection.get_multi([1, 2])  # wrong: list-item | reportArgumentType
    connection.get_multi("a", "b")  # wrong: arg-type | reportArgumentType
    connection.set_multi(["a", "b"])  # wrong: arg-type | reportArgumentType
    connection.set_multi({1: 2})  # wrong: arg-type | reportArgumentType
    connection.unlock_multi(["a", "b"])  # wrong: list-item | reportArgumentType
    print(connection.get_multi(["a"]).cas)  # wrong: attr-defined | reportAttributeAccessIssue
    print(connection.get_multi(["a"])["a"].expiry)  # wrong: attr-defined | reportAttributeAccessIssue
    connection.stats(3)  # wrong: arg-type | reportArgumentType
    connection.append_items(["a"])  # wrong: arg-type | reportArgumentType
    ItemOptionDict().add("key")  # wrong: arg-type | reportArgumentType
    Item("key").as_itcoll(3)  # wrong: call-arg | reportCallIssue


def collections(connection: Connection) -> None:
    """Use collections wrongly."""
    connection.collection()  # wrong: call-arg | reportCallIssue
    connection.collection(3)  # wrong: arg-type | reportArgumentType
    beers = connection.collection("beers", scope="shop")
    beers.query("beer", "by_name")  # wrong: attr-defined | reportAttributeAccessIssue
    beers.get("key", nothing=1)  # wrong: call-arg | reportCallIssue
    print(beers.get("key").sucess)  # wrong: attr-defined | reportAttributeAccessIssue


class NotAView:
    """Not a view."""


def views(connection: Connection) -> None:
    """Query views wrongly."""
    connection.query("beer")  # wrong: call-overload | reportCallIssue
    connection.query("beer", "by_name", limitt=3)  # wrong: call-overload | reportCallIssue
    connection.query("beer", "by_name", stale="maybe")  # wrong: call-overload | reportArgumentType
    connection.query("beer", "by_name", query=3)  # wrong: call-overload | reportArgumentType
    Query(limit=[3])  # wrong: call-overload | reportArgumentType
    print(Query(descending=True).desc)  # wrong: attr-defined | reportAttributeAccessIssue
    connection.query("beer", 3)  # wrong: call-overload | reportArgumentType
    print(connection.query("beer", "by_name").rows)  # wrong: attr-defined | reportAttributeAccessIssue
    view: list[str] = connection.query("beer", "by_name")  # wrong: assignment | reportAssignmentType
    connection.design_create("beer", 3)  # wrong: arg-type | reportArgumentType
    connection.design_get(3)  # wrong: arg-type | reportArgumentType
    connection.design_get("beer", syncwait=3)  # wrong: call-arg | reportCallIssue
    print(view, View(connection, "beer"))  # wrong: call-arg | reportCallIssue
