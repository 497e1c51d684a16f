"""Programs on Twisted; type checkers must find nothing, and know what each call returns."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTCP

import couchbase.subdocument as SD
from couchbase import FMT_JSON
from couchbase import Connection as AnyConnection
from couchbase.exceptions import CouchbaseError, KeyExistsError
from couchbase.manifest import Manifest
from couchbase.result import (
    AsyncResult,
    ExpiryResult,
    HttpResult,
    MultiResult,
    OperationResult,
    ValueResult,
)
from couchbase.subdocument import SubdocResult
from couchbase.transcoder import RawTranscoder
from txcouchbase import AsyncViewBase, Connection, Query, TxAsyncConnection
from txcouchbase.admin import Admin
from txcouchbase.connection import BatchedView
from txcouchbase.direct import DirectCall

if TYPE_CHECKING:
    from typing_extensions import assert_type

ValueT = TypeVar("ValueT")


def latest(connection: AnyConnection[ValueT, Any, Any, Any, Any, Any, Any, Any, Any], name: str) -> ValueT:
    """Work on a connection of any face."""
    return connection.get(f"latest-{name}")


def of_each(mine: Connection, other: TxAsyncConnection, blocking: AnyConnection) -> None:
    """Know what each face returns."""
    assert_type(latest(mine, "beer"), Deferred[ValueResult])
    assert_type(latest(other, "beer"), AsyncResult)
    assert_type(latest(blocking, "beer"), ValueResult)


class Names(AsyncViewBase):
    """Rows as they arrive; parameters have the names of the program."""

    def on_rows(self, rows: Iterable[Any]) -> None:
        """Print the rows."""
        for row in rows:
            print(row.key, row.docid)

    def on_error(self, error: BaseException) -> None:
        """Print the error."""
        print(error)

    def on_done(self) -> None:
        """Print how many rows there are."""
        print(self.indexed_rows)


def connect(reactor: IReactorTCP) -> Connection:
    """Return a connection, made in each of the ways."""
    connection = Connection(
        bucket="default",
        connection_string="couchbase://one.example",
        username="ada",
        password="secret",
        default_format=FMT_JSON,
        reactor=reactor,
    )
    raw = Connection(bucket="default", host=["one.example"], transcoder=RawTranscoder)
    assert_type(raw.get(b"key"), Deferred[ValueResult])
    assert_type(connection.connect(), Deferred[None])
    connection.registerDeferred("_dtor", Deferred())
    connection.timeout = 5
    return connection


async def documents(connection: Connection) -> int:
    """Read and write documents with coroutines."""
    stored = await connection.set("key", {"n": 1}, ttl=60, durability_level=1)
    assert_type(stored, OperationResult)
    found = await connection.get("key", quiet=True)
    assert_type(found, ValueResult)
    assert_type(found.cas, int)
    assert_type(connection.get("key"), Deferred[ValueResult])
    assert_type(connection["key"], Deferred[ValueResult])
    assert_type(connection.get_with_expiry("key"), Deferred[ExpiryResult])
    assert_type(connection.lookup_in("key", SD.get("a")), Deferred[SubdocResult])
    assert_type(connection.mutate_in("key", SD.upsert("a", 1), cas=found.cas), Deferred[SubdocResult])
    assert_type(connection.lookup_in_multi(["key"], SD.get("a")), Deferred[MultiResult[SubdocResult]])
    for changed in (
        connection.add("key", 1),
        connection.replace("key", 1, cas=found.cas, preserve_expiry=True),
        connection.append("key", "more"),
        connection.delete("key"),
        connection.touch("key", 5),
        connection.unlock("key", found.cas),
        connection.endure("key", replicate_to=1),
    ):
        assert_type(changed, Deferred[OperationResult])
    for read in (
        connection.rget("key"),
        connection.lock("key", ttl=5),
        connection.incr("n", initial=0),
        connection.decr("n", 2),
        connection.arithmetic("n", -2),
        connection.observe("key"),
    ):
        assert_type(read, Deferred[ValueResult])
    try:
        results = await connection.get_multi(["a", "b"])
    except CouchbaseError as error:
        return error.rc
    assert_type(results, MultiResult[ValueResult])
    assert_type(connection.getMulti(["a", "b"]), Deferred[MultiResult[ValueResult]])
    assert_type(connection.setMulti({"a": 1}, ttl=3), Deferred[MultiResult[OperationResult]])
    assert_type(connection.delete_multi(results), Deferred[MultiResult[OperationResult]])
    figures = await connection.stats("memory")
    assert_type(figures, MultiResult[dict[str, Any]])
    return sum(result.cas for result in results.values())


@inlineCallbacks
def changed(connection: Connection) -> Generator[Deferred[Any], Any, int]:
    """Read and write a document with inlineCallbacks."""
    found: ValueResult = yield connection.get("key")
    try:
        yield connection.replace("key", found.value, cas=found.cas)
    except KeyExistsError:
        return 0
    return found.flags


def chained(connection: Connection) -> Deferred[str]:
    """Chain callbacks."""

    def name(result: ValueResult) -> str:
        return str(result.value["name"])

    return connection.get("key").addCallback(name)


def views(connection: Connection) -> Names:
    """Query views."""
    assert_type(connection.queryAll("beer", "by_name", limit=3, stale=False), Deferred[BatchedView])
    assert_type(connection.queryAll("beer", "by_name", use_devmode=True), Deferred[BatchedView])
    started = connection.queryEx(Names, "beer", "by_name", mapkey_range=["Q", "Q" + Query.STRING_RANGE_END])
    assert_type(started, Names)
    assert_type(connection.queryEx(Names, "beer", "by_name", use_devmode=True), Names)
    started.pause()
    assert_type(connection.design_create("beer", {"views": {}}, syncwait=5), Deferred[HttpResult])
    assert_type(connection.design_list(), Deferred[HttpResult])
    view = connection.query("beer", "by_name", itercls=Names, limit=3)
    assert_type(view, Names)
    return view.start()


def async_results(connection: TxAsyncConnection) -> Deferred[Any]:
    """Use AsyncResults."""
    answer = connection.get("key")
    assert_type(answer, AsyncResult)
    assert_type(connection.set_multi({"a": 1}), AsyncResult)
    assert_type(connection.getMulti(["a"]), AsyncResult)
    assert_type(answer.remaining, int)
    answer.set_callbacks(print, lambda result, kind, error, trace: print(error))
    assert_type(connection.design_get("beer"), Deferred[HttpResult])
    return connection.defer(answer)


def collections(connection: Connection, other: TxAsyncConnection) -> Deferred[ValueResult]:
    """Use collections."""
    beers = connection.collection("beers", "shop")
    assert_type(beers.set("key", 1), Deferred[OperationResult])
    assert_type(beers.getMulti(["a"]), Deferred[MultiResult[ValueResult]])
    assert_type(beers.direct().get("key"), DirectCall)
    assert_type(other.collection("beers").get("key"), AsyncResult)
    return beers.get("key")


def administer() -> Deferred[Manifest]:
    """Manage a cluster."""
    admin = Admin("Administrator", "secret", host="one.example")
    assert_type(admin.connect(), Deferred[Admin])
    assert_type(admin.bucket_create("beers", ram_quota=200), Deferred[HttpResult])
    assert_type(admin.user_upsert("local", "ada", "secret", ["ro_admin"]), Deferred[HttpResult])
    return admin.scopes("beers")


class Counter:
    """Receives ends of operations."""

    def __init__(self) -> None:
        self.good = 0

    def succeeded(self, result: Any) -> None:
        """Count."""
        self.good += 1

    def failed(self, error: BaseException) -> None:
        """Print."""
        print(error)


def direct(connection: Connection) -> None:
    """Do without Deferreds."""
    operations = connection.direct(together=10)
    call = operations.get("key")
    assert_type(call, DirectCall)
    call.receiver = Counter()
    assert_type(operations.set("key", 1), DirectCall)
    operations.incr("n").abandon()
