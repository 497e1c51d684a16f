"""Mistakes on Twisted that type checkers must find, and their places."""

from __future__ import annotations

import couchbase.subdocument as SD
from couchbase import Connection as BlockingConnection
from couchbase.views.iterator import View
from txcouchbase import AsyncViewBase, Connection, TxAsyncConnection


class Wrong(AsyncViewBase):
    """Hooks that cannot be called."""

    def on_done(self, rows: int) -> None:  # wrong: override | reportIncompatibleMethodOverride
        """Take too much."""

    def on_rows(self) -> None:  # wrong: override | reportIncompatibleMethodOverride
        """Take too little."""


def connections() -> None:
    """Make connections wrongly."""
    Connection("default")  # wrong: call-arg | reportCallIssue
    Connection(bucket=1)  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", quiet="yes")  # wrong: arg-type | reportArgumentType
    Connection(buckett="default")  # wrong: arg-type | reportArgumentType
    Connection(bucket="default", timeout="2.5")  # wrong: arg-type | reportArgumentType
    TxAsyncConnection(bucket="default", port="8091")  # wrong: arg-type | reportArgumentType
    TxAsyncConnection(bucket="default", transcoder="raw")  # wrong: arg-type | reportArgumentType


async def documents(connection: Connection) -> None:
    """Call operations wrongly."""
    await connection.set(1, 2)  # wrong: arg-type | reportArgumentType
    await connection.set("key", 1, ttl="soon")  # wrong: arg-type | reportArgumentType
    await connection.get("key", wrong=1)  # wrong: call-arg | reportCallIssue
    await connection.lookup_in("key", "a")  # wrong: arg-type | reportArgumentType
    await connection.mutate_in("key", SD.upsert("a"))  # wrong: call-arg | reportCallIssue
    await connection.setMulti(["a"])  # wrong: arg-type | reportArgumentType
    await connection.getMulti(3)  # wrong: arg-type | reportArgumentType
    await connection.getMulty(["a"])  # wrong: attr-defined | reportAttributeAccessIssue
    print(connection.get("key").value)  # wrong: attr-defined | reportAttributeAccessIssue
    print((await connection.get("key")).valeu)  # wrong: attr-defined | reportAttributeAccessIssue
    print((await connection.set("key", 1)).flags)  # wrong: attr-defined | reportAttributeAccessIssue
    text: str = (await connection.get("key")).cas  # wrong: assignment | reportAssignmentType
    connection.connect("now")  # wrong: call-arg | reportCallIssue
    connection.registerDeferred("connect", None)  # wrong: arg-type | reportArgumentType
    connection.get("key").addCallback(text)  # wrong: call-overload | reportCallIssue, reportArgumentType


def blocking(connection: BlockingConnection) -> None:
    """Expect results, not Deferreds."""
    print(connection.get("key").value)


def views(connection: Connection, other: TxAsyncConnection) -> None:
    """Query views wrongly, and take one connection for another."""
    connection.queryAll("beer")  # wrong: call-overload | reportCallIssue
    connection.queryAll("beer", "by_name", limitt=3)  # wrong: call-overload | reportCallIssue
    connection.queryEx(View, "beer", "by_name")  # wrong: call-overload | reportArgumentType
    connection.queryEx(AsyncViewBase, "beer")  # wrong: call-overload | reportCallIssue
    connection.queryEx(AsyncViewBase, "beer", "by_name", limitt=3)  # wrong: call-arg | reportCallIssue
    connection.design_create("beer", 3)  # wrong: arg-type | reportArgumentType
    other.get("key").addCallback(print)  # wrong: attr-defined | reportAttributeAccessIssue
    other.get("key").callbak = print  # wrong: attr-defined | reportAttributeAccessIssue
    other.defer(3)  # wrong: arg-type | reportArgumentType
    blocking(connection)  # wrong: arg-type | reportArgumentType
    blocking(other)  # wrong: arg-type | reportArgumentType
    direct = connection.direct()
    direct.get("key").receiver = 3  # wrong: assignment | reportAttributeAccessIssue
    direct.get("key").addCallback(print)  # wrong: attr-defined | reportAttributeAccessIssue
