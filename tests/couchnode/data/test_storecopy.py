"""Copies of a store that is in use: what they have, and that the store goes on as if nothing was."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from threading import Event

from twisted.internet import threads
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from couchnode.data.storage import History, SqliteStore, StoreClosedError, StoreError
from couchnode.data.storecopy import PAGES, Copying
from couchnode.data.storeerrors import StoreDamagedError, StoreFullError
from tests.couchnode.data.test_storage import Steps, item, transaction
from tests.couchnode.nodes import UUID
from tests.couchnode.stores import fill_disk_of_copies, slow_copies

KEYS = [b"k%d" % number for number in range(2000)]


class CopyTests(TestCase):
    """A store with some MiB, on which writes go on."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Steps:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.store = SqliteStore(self.folder / "b.sqlite")
        yield self.store.open("b", UUID)
        yield self.store.write(transaction(*(item(key, b"v" * 1000, n + 1) for n, key in enumerate(KEYS))))

    @inlineCallbacks
    def tearDown(self) -> Steps:
        yield self.store.close()

    @inlineCallbacks
    def read(self, path: Path) -> Steps:
        """Open a file as the store of a crashed node, and return its documents."""
        store = SqliteStore(path, history=History(1, False))
        found: dict[bytes, bytes] = {}
        yield store.open("b", UUID)
        yield store.load(lambda chunk: found.update({one.key: one.value for _, one in chunk}))
        yield store.close()
        return found

    @inlineCallbacks
    def test_copy(self) -> Steps:
        """It has every document, and its size is returned; a second copy can be made."""
        for name in ("one.sqlite", "two.sqlite"):
            copy = self.folder / name
            size = yield self.store.copy(copy)
            self.assertEqual(size, copy.stat().st_size)
            self.assertGreater(size, 4096 * PAGES, "more than one part")
            self.assertEqual((yield self.read(copy)), dict.fromkeys(KEYS, b"v" * 1000))

    @inlineCallbacks
    def test_writes_meanwhile(self) -> Steps:
        """Writes are carried out between two parts, in their order, and are in both files."""
        arrived, go = slow_copies(self)
        copying = self.store.copy(self.folder / "copy.sqlite")
        yield threads.deferToThread(arrived.wait, 60)
        writes = [
            self.store.write(transaction(item(b"k0", b"first", 3000))),
            self.store.write(transaction(item(b"k0", b"second", 3001), item(b"new", b"new", 3002))),
            self.store.write(transaction(item(b"k1", b"", 3003, deleted=True))),
        ]
        go.set()
        yield gatherResults(writes)
        yield copying
        yield self.store.write(transaction(item(b"k2", b"later", 3004)))
        copied = yield self.read(self.folder / "copy.sqlite")
        self.assertEqual((copied[b"k0"], copied[b"new"], copied[b"k2"]), (b"second", b"new", b"v" * 1000))
        self.assertNotIn(b"k1", copied)
        yield self.store.close()
        kept = yield self.read(self.folder / "b.sqlite")
        self.assertEqual({**copied, b"k2": b"later"}, kept)

    @inlineCallbacks
    def test_order_at_the_end(self) -> Steps:
        """Writes that come when a copy is complete but not reported are carried out before later ones."""
        ended = Event()
        plain = Copying.run

        def run(copying: Copying, connection: sqlite3.Connection) -> int:
            try:
                return plain(copying, connection)
            finally:
                ended.set()

        self.patch(Copying, "run", run)
        done: list[int] = []
        copying = self.store.copy(self.folder / "copy.sqlite")
        # Without a turn of the reactor, which would report the end.
        self.assertTrue(ended.wait(60))
        for number in range(3):
            write = self.store.write(transaction(item(b"n", b"%d" % number, 4000 + number)))
            write.addCallback(lambda _, number=number: done.append(number))
        yield copying
        yield self.store.write(transaction(item(b"n", b"last", 4010)))
        self.assertEqual(done, [0, 1, 2])
        yield self.store.close()
        self.assertEqual((yield self.read(self.folder / "b.sqlite"))[b"n"], b"last")

    @inlineCallbacks
    def test_stop(self) -> Steps:
        """A copy that is stopped fails, leaves nothing, and loses no write."""
        for end in ("stop_copying", "close"):
            arrived, go = slow_copies(self)
            copy = self.folder / f"{end}.sqlite"
            copying = self.store.copy(copy)
            yield threads.deferToThread(arrived.wait, 60)
            write = self.store.write(transaction(item(b"k0", end.encode(), 5000)))
            ended = getattr(self.store, end)()
            go.set()
            yield self.assertFailure(copying, StoreClosedError)
            yield write
            yield ended
            self.assertEqual([path for path in self.folder.iterdir() if path.name.startswith(end)], [])
        self.assertEqual((yield self.read(self.folder / "b.sqlite"))[b"k0"], b"close")

    @inlineCallbacks
    def test_failures(self) -> Steps:
        """No folder, or two at a time, are errors; the store goes on."""
        yield self.assertFailure(self.store.copy(self.folder / "none" / "copy.sqlite"), StoreError)
        copying = self.store.copy(self.folder / "copy.sqlite")
        self.assertRaises(ValueError, self.store.copy, self.folder / "other.sqlite")
        yield copying
        yield self.store.write(transaction(item(b"k0", b"after", 6000)))
        yield self.store.close()
        yield self.assertFailure(self.store.copy(self.folder / "third.sqlite"), StoreClosedError)
        self.assertEqual((yield self.read(self.folder / "b.sqlite"))[b"k0"], b"after")

    @inlineCallbacks
    def test_full_disk(self) -> Steps:
        """The message names the copy, which is what found no room; nothing of it is left."""
        fill_disk_of_copies(self)
        copy = self.folder / "copy.sqlite"
        failure = yield self.assertFailure(self.store.copy(copy), StoreFullError)
        self.assertEqual(str(failure), f"{copy}: database or disk is full")
        self.assertEqual([path.name for path in self.folder.glob("copy*")], [])

    @inlineCallbacks
    def test_damaged_store(self) -> Steps:
        """The message names the store, and what to do, if it is the one that cannot be read."""

        def run(copying: Copying, connection: sqlite3.Connection) -> int:
            raise copying._blamed(sqlite3.DatabaseError("database disk image is malformed"))

        self.patch(Copying, "run", run)
        failure = yield self.assertFailure(self.store.copy(self.folder / "copy.sqlite"), StoreDamagedError)
        self.assertIn(
            f"{self.folder / 'b.sqlite'} is damaged (database disk image is malformed)", str(failure)
        )
        self.assertIn("couchnode.repair", str(failure))
