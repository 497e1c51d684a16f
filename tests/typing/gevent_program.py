"""A program on gevent; type checkers must find nothing, and know what each call returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import couchbase.subdocument as SD
from couchbase import FMT_AUTO, Connection
from couchbase.exceptions import NotFoundError
from couchbase.items import Item, ItemOptionDict
from couchbase.result import ExpiryResult, HttpResult, MultiResult, OperationResult, ValueResult
from couchbase.subdocument import SubdocResult
from couchbase.views.iterator import ViewRow
from couchbase.views.params import Query
from gcouchbase import GConnection, GCouchbase, GView

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Rows(GView):
    """A custom view class."""

    def names(self) -> list[str]:
        """Return the ids of all rows."""
        return [row.docid for row in self if row.docid is not None]


def connect() -> GConnection:
    """Return a connection, made in each of the ways."""
    connection = GConnection(
        bucket="default", host="one.example", password="secret", quiet=True, default_format=FMT_AUTO
    )
    assert_type(GCouchbase(connection_string="couchbase://one.example/default"), GConnection)
    assert_type(connection.timeout, float)
    assert_type(connection.server_nodes, "list[str]")
    return connection


def for_any_connection(connection: Connection) -> ValueResult:
    """Work on a blocking connection, which one for greenlets can stand in for."""
    return connection.get("key")


def documents(connection: GConnection) -> int:
    """Read and write documents."""
    stored = connection.set("key", {"n": 1}, ttl=60, replicate_to=-1)
    assert_type(stored, OperationResult)
    found = connection.get("key", quiet=True)
    assert_type(found, ValueResult)
    assert_type(found.value, Any)
    assert_type(connection["key"], ValueResult)
    connection["key"] = "text"
    assert_type(connection.get_with_expiry("key"), ExpiryResult)
    assert_type(connection.lookup_in("key", SD.get("a")), SubdocResult)
    assert_type(connection.mutate_in_multi(["key"], SD.counter("a", 1)), MultiResult[SubdocResult])
    assert_type(connection.replace("key", 2, cas=stored.cas), OperationResult)
    assert_type(connection.incr("n", initial=1), ValueResult)
    assert_type(connection.lock("key"), ValueResult)
    assert_type(connection.get_multi(["a", "b"]), MultiResult[ValueResult])
    assert_type(connection.set_multi({"a": 1}), MultiResult[OperationResult])
    assert_type(connection.touch_multi(["a"], ttl=5), MultiResult[OperationResult])
    assert_type(connection.endure_multi({"a": stored.cas}, persist_to=1), MultiResult[OperationResult])
    assert_type(connection.stats(["memory", "vbucket"]), MultiResult[dict[str, Any]])
    options = ItemOptionDict({Item("a"): {"fragment": "more"}})
    assert_type(connection.append_items(options), MultiResult[OperationResult])
    assert_type(for_any_connection(connection), ValueResult)
    with connection.durability(persist_to=1):
        connection.delete("key")
    try:
        return found.cas + connection.get("other").flags
    except NotFoundError as error:
        return error.rc


def collections(connection: GConnection) -> int:
    """Use collections."""
    beers = connection.collection("beers", "shop")
    assert_type(beers.get("key"), ValueResult)
    return beers.set("key", 1).cas


def views(connection: GConnection) -> list[str]:
    """Query views."""
    view = connection.query("beer", "by_name", limit=3, stale=False)
    assert_type(view, GView)
    assert_type(view.rows_returned, int)
    assert_type(list(view), list[ViewRow])
    assert_type(connection.design_get("beer"), HttpResult)
    rows = connection.query("beer", "by_name", use_devmode=True, itercls=Rows, query=Query(limit=3))
    assert_type(rows, Rows)
    return rows.names()
