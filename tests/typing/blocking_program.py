"""A program on the blocking connection; type checkers must find nothing, and know what each call returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import couchbase
import couchbase.subdocument as SD
from couchbase import FMT_AUTO, FMT_UTF8, LOCKMODE_NONE, Connection, Couchbase
from couchbase.admin import Admin
from couchbase.exceptions import CouchbaseError, NotFoundError, TimeoutError
from couchbase.items import Item, ItemOptionDict, ItemSequence
from couchbase.manifest import CollectionSpec
from couchbase.result import (
    ExpiryResult,
    HttpResult,
    MultiResult,
    MutationToken,
    ObserveInfo,
    OperationResult,
    ValueResult,
)
from couchbase.subdocument import SubdocResult
from couchbase.transcoder import RawTranscoder, Transcoder
from couchbase.views.iterator import View, ViewRow
from couchbase.views.params import Query

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Beer(Item):
    """A custom document class."""

    def __init__(self, key: str, strength: float) -> None:
        super().__init__(key, {"strength": strength})
        self.strength = strength


class Rows(View):
    """A custom view class."""

    def names(self) -> list[str]:
        """Return the ids of all rows."""
        return [row.docid for row in self if row.docid is not None]


class Keys:
    """A custom row processor."""

    def handle_rows(self, rows: Iterable[dict[str, str]], connection: object, docs: bool) -> list[str]:
        """Return the keys."""
        return [row["key"] for row in rows]


class Upper(Transcoder):
    """A custom transcoder."""

    def encode_key(self, key: object) -> bytes:
        """Return a key in capitals."""
        return str(key).upper().encode()


def connect() -> Connection:
    """Return a connection, made in each of the ways."""
    connection = Connection(
        bucket="default",
        host=["one.example", ("two.example", 8092)],
        password="secret",
        quiet=True,
        timeout=2.5,
        transcoder=Upper,
        default_format=FMT_AUTO,
        lockmode=LOCKMODE_NONE,
    )
    raw = Connection(connection_string="couchbase://one.example/default", transcoder=RawTranscoder())
    raw.set(b"key", b"value", format=0)
    assert_type(Couchbase.connect(bucket="default", host="one.example"), Connection)
    assert_type(connection.timeout, float)
    connection.timeout = 3
    assert_type(connection.quiet, bool)
    assert_type(connection.server_nodes, "list[str]")
    assert_type(couchbase.__version__, str)
    return connection


def documents(connection: Connection) -> int:
    """Read and write single documents."""
    stored = connection.set("key", {"n": 1}, ttl=60, format=FMT_UTF8, persist_to=1, durability_level=1)
    assert_type(stored, OperationResult)
    assert_type(stored.cas, int)
    assert_type(stored.success, bool)
    if stored.mutation_token is not None:
        assert_type(stored.mutation_token, MutationToken)
    found = connection.get("key", quiet=True, replica=False)
    assert_type(found, ValueResult)
    assert_type(found.flags, int)
    assert_type(found.rc, int)
    assert_type(found.value, Any)
    assert_type(connection["key"], ValueResult)
    connection["key"] = [1, 2]
    del connection["key"]
    assert_type(connection.get_with_expiry("key"), ExpiryResult)
    assert_type(connection.get_with_expiry("key").expiry, int)
    looked = connection.lookup_in("key", SD.get("a"), SD.exists("b"), quiet=True)
    assert_type(looked, SubdocResult)
    assert_type(looked.exists("b"), bool)
    assert_type(looked.content_as[str](0), str)
    mutated = connection.mutate_in(
        "key", [SD.upsert("a", 1)], cas=looked.cas, store_semantics=SD.StoreSemantics.REPLACE
    )
    assert_type(mutated, SubdocResult)
    assert_type(mutated["a"], Any)
    assert_type(connection.lookup_in_multi(["a"], SD.count("")), MultiResult[SubdocResult])
    assert_type(connection.mutate_in_multi({"a": SD.remove("b")}, ttl=5), MultiResult[SubdocResult])
    for changed in (
        connection.add("key", "text"),
        connection.replace("key", None, cas=stored.cas, preserve_expiry=True),
        connection.append("key", "more"),
        connection.prepend("key", b"less"),
        connection.delete("key", cas=found.cas),
        connection.touch("key", ttl=10),
        connection.unlock("key", connection.lock("key", ttl=5).cas),
        connection.endure("key", persist_to=-1, timeout=2.5),
    ):
        assert_type(changed, OperationResult)
    assert_type(connection.rget("key", replica_index=1), ValueResult)
    assert_type(connection.observe("key", master_only=True), ValueResult)
    counter = connection.incr("n", amount=2, initial=0, ttl=0)
    assert_type(counter, ValueResult)
    assert_type(connection.decr("n"), ValueResult)
    assert_type(connection.arithmetic("n", -3), ValueResult)
    number: int = counter.value
    return number + found.cas


def many(connection: Connection) -> list[int]:
    """Work on many documents at once."""
    results = connection.get_multi(["a", "b"], ttl=10)
    assert_type(results, MultiResult[ValueResult])
    assert_type(results["a"], ValueResult)
    assert_type(results.all_ok, int)
    assert_type(connection.get_multi({"a": 10, "b": 0}), MultiResult[ValueResult])
    assert_type(connection.get_multi(("a", "b")), MultiResult[ValueResult])
    assert_type(connection.get_multi({"a"}), MultiResult[ValueResult])
    assert_type(connection.get_multi(options_by_key()), MultiResult[ValueResult])
    assert_type(connection.rget_multi(["a"]), MultiResult[ValueResult])
    stored = connection.set_multi({"a": 1, "b": [2]}, ttl=60)
    assert_type(stored, MultiResult[OperationResult])
    connection.add_multi({b"raw": b"bytes"})
    connection.replace_multi({"a": None})
    connection.append_multi({"a": "more"}, format=FMT_UTF8)
    connection.delete_multi(stored)
    connection.delete_multi({"a": stored["a"].cas})
    connection.touch_multi({"a": 5})
    locked = connection.lock_multi(["a", "b"], ttl=3)
    connection.unlock_multi(locked)
    assert_type(connection.unlock_multi({"a": locked["a"].cas}), MultiResult[OperationResult])
    assert_type(connection.incr_multi({"a": 5, "b": {"delta": 1, "initial": 3}}), MultiResult[ValueResult])
    assert_type(connection.observe_multi(["a"]), MultiResult[ValueResult])
    assert_type(connection.endure_multi(["a"], persist_to=1), MultiResult[OperationResult])
    for name, servers in connection.stats("memory").items():
        for server, figure in servers.items():
            print(name, server, figure)
    beers = [Beer("lager", 5.1), Beer("porter", 6.3)]
    connection.set_multi(ItemSequence(beers))
    connection.get_multi(beers[0].as_itcoll(ttl=10))
    options = ItemOptionDict()
    options.add(beers[0], fragment=" more")
    connection.append_items(options)
    return [result.cas for result in results.values()]


def options_by_key() -> dict[str, dict[str, int]]:
    """Return keys with options."""
    return {"a": {"ttl": 3}}


def copies(connection: Connection) -> list[ObserveInfo]:
    """Say where copies of a document are."""
    infos: list[ObserveInfo] = connection.observe("key").value
    assert_type(infos[0].flags, int)
    with connection.durability(persist_to=1, timeout=5):
        connection.set("key", 1)
    with connection.pipeline() as nothing:
        assert_type(nothing, None)
        connection.set("key", 1)
    return infos


def views(connection: Connection) -> list[str | None]:
    """Query views."""
    assert_type(connection.query("beer", "by_name", limit=3, stale=False), View)
    rows = connection.query("beer", "by_name", use_devmode=True, itercls=Rows, query=Query(limit=3))
    assert_type(rows, Rows)
    assert_type(rows.indexed_rows, int)
    for row in connection.query("beer", "by_name", key="Q"):
        assert_type(row, ViewRow)
    assert_type(list(connection.query("beer", "by_name", row_processor=Keys())), "list[str]")
    result = connection.design_create("beer", {"views": {}}, syncwait=5)
    assert_type(result, HttpResult)
    assert_type(result.http_status, int)
    assert_type(connection.design_get("beer").headers, "dict[str, str] | None")
    assert_type(connection.design_publish("beer"), HttpResult)
    assert_type(connection.design_delete("beer"), HttpResult)
    return [row.docid for row in connection.query("beer", "by_name", include_docs=True)]


def collections(connection: Connection) -> str:
    """Use collections."""
    beers = connection.collection("beers", "shop")
    assert_type(beers.get("key"), ValueResult)
    assert_type(beers.set_multi({"a": 1}), MultiResult[OperationResult])
    assert_type(beers["key"], ValueResult)
    assert_type(beers.get_with_expiry("key"), ExpiryResult)
    assert_type(beers.timeout, float)
    beers.quiet = True
    with beers.pipeline() as nothing, connection.collection("other").durability(persist_to=1):
        assert_type(nothing, None)
        beers.incr("count", initial=1)
    return f"{beers.scope}.{beers.name}"


def administer() -> HttpResult:
    """Manage buckets."""
    admin = Admin("Administrator", "secret", host="one.example")
    assert_type(admin.bucket_list(), HttpResult)
    assert_type(admin.scope_create("beers", "shop"), HttpResult)
    admin.collection_create("beers", "orders", "shop", max_ttl=60)
    manifest = admin.scopes("beers")
    assert_type(manifest.uid, int)
    for scope in manifest.scopes:
        for collection in scope.collections:
            assert_type(collection.max_ttl, int)
    found = manifest.collection("orders", "shop")
    assert found is not None
    assert_type(found, CollectionSpec)
    admin.bucket_create("beers", ram_quota=200, flush_enabled=True)
    return admin.http_request("/pools", method="GET")


def careful(connection: Connection) -> int | None:
    """Handle what can go wrong."""
    try:
        return connection.get("key").cas
    except NotFoundError as error:
        assert_type(error.rc, int)
        return error.rc
    except TimeoutError:
        return None
    except CouchbaseError as error:
        assert_type(error.message, "str | None")
        raise
