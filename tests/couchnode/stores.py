"""A store whose disk is a dictionary and whose writes end when a test says so, and copies that wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from couchnode.data import storecopy
from couchnode.data.helditems import VBucketRecord
from couchnode.data.item import Item
from couchnode.data.keys import document_key
from couchnode.data.storage import Opened, StoreFullError, Transaction
from couchnode.data.storecopy import Copying


class ManualStore:
    """Holds each batch until :meth:`finish`; set ``is_slow`` to false to write at once."""

    persistent = True
    disk_bytes = 0

    def __init__(self, is_slow: bool = False) -> None:
        self.is_slow = is_slow
        self.documents: dict[tuple[int, bytes], Item] = {}
        self.records: dict[int, VBucketRecord] = {}
        self.clean = True
        self.ended = ""
        self.batches: list[Transaction] = []
        self._waiting: list[tuple[Transaction, Deferred[None]]] = []

    def open(self, bucket: str, uuid: str) -> Deferred[Opened]:
        """Fire with the stored documents."""
        return succeed(Opened(list(self.records.values()), len(self.documents), self.clean))

    def load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> Deferred[None]:
        """Hand over everything in one chunk."""
        consume([(vbid, item) for (vbid, _), item in self.documents.items()])
        return succeed(None)

    def write(self, transaction: Transaction) -> Deferred[None]:
        """Take a batch."""
        self.batches.append(transaction)
        done: Deferred[None] = Deferred()
        self._waiting.append((transaction, done))
        if not self.is_slow:
            self.finish()
        return done

    def finish(self) -> None:
        """Complete the running batch."""
        transaction, done = self._waiting.pop(0)
        for vbid in transaction.wipes:
            self.documents = {place: item for place, item in self.documents.items() if place[0] != vbid}
            self.records.pop(vbid, None)
        for vbid, items in transaction.changes:
            for item in items:
                self.documents.pop((vbid, item.key), None)
                if not item.deleted or item.xattrs:
                    self.documents[vbid, item.key] = item
        for vbid, prefix in transaction.drops:
            for place in [one for one in self.documents if one[0] == vbid and one[1].startswith(prefix)]:
                del self.documents[place]
        self.records.update((record.vbid, record) for record in transaction.records)
        done.callback(None)

    def refuse(self) -> None:
        """Fail the running batch."""
        self._waiting.pop(0)[1].errback(StoreFullError("the disk is full"))

    def close(self) -> Deferred[None]:
        """End well."""
        self.ended, self.clean = "closed", True
        return succeed(None)

    def abandon(self) -> Deferred[None]:
        """End with something missing."""
        self.ended, self.clean = "abandoned", False
        return succeed(None)

    def values(self) -> dict[bytes, bytes]:
        """Return the documents on the disk, by their own keys."""
        return {document_key(key): item.value for (_, key), item in self.documents.items()}


def slow_copies(case: SynchronousTestCase) -> tuple[Event, Event]:
    """Have copies of stores wait at their first part, for the rest of a test.

    :returns: an event that is set when one has arrived there, and one to set so that copies go on.
    """
    arrived, go = Event(), Event()
    plain = Copying._between

    def between(copying: Copying, *numbers: int) -> None:
        arrived.set()
        go.wait(60)
        plain(copying, *numbers)

    case.patch(Copying, "_between", between)
    case.addCleanup(go.set)
    return arrived, go


def fill_disk_of_copies(case: SynchronousTestCase) -> None:
    """Let copies of stores have 40 KiB, for the rest of a test; SQLite then reports a full disk."""
    plain = sqlite3.connect

    def connect(path: Any, **options: Any) -> sqlite3.Connection:
        connection = plain(path, **options)
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA max_page_count = 10")
        return connection

    case.patch(storecopy, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": connect}))
