"""The SQLite store: what it reports as written exists, whatever happens."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet import reactor, threads
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase

from couchnode.data.bucket import NodeBucket
from couchnode.data.helditems import VBucketRecord
from couchnode.data.item import Item
from couchnode.data.storage import (
    Opened,
    SqliteStore,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
    Transaction,
)
from couchnode.data.storemode import StoreMode
from tests.couchnode.nodes import UUID

Steps = Generator[Deferred[Any], Any, None]
ROOT = Path(__file__).resolve().parents[3]


def item(key: bytes, value: bytes = b"v", seqno: int = 1, deleted: bool = False) -> Item:
    """Return an item with numbers that use all their bits."""
    return Item(key, value, 2**32 - 1, 2**32 - 1, 2**62 + seqno, seqno, 3, deleted=deleted)


def transaction(*items: Item, vbid: int = 5, wipes: Iterable[int] = ()) -> Transaction:
    """Return a batch of one vbucket, with its record."""
    seqno = max((one.seqno for one in items), default=0)
    return Transaction(
        list(wipes), [(vbid, items)], [VBucketRecord(vbid, seqno, 2**62, 4, ((2**47, 1), (7, 0)))]
    )


class StoreCase(TestCase):
    """Tests with a separate file."""

    timeout = 120

    def setUp(self) -> None:
        """Name a file."""
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir()
        self.path = self.path / "bucket.sqlite"
        self.stores: list[SqliteStore] = []

    @inlineCallbacks
    def tearDown(self) -> Steps:
        """Close what a failed test left open."""
        for store in self.stores:
            yield store.abandon()

    def open(self, uuid: str = UUID) -> Deferred[tuple[SqliteStore, Opened]]:
        """Open the file."""
        store = SqliteStore(self.path)
        self.stores.append(store)
        return store.open("b", uuid).addCallback(lambda opened: (store, opened))

    @inlineCallbacks
    def contents(self, store: SqliteStore) -> Generator[Deferred[Any], Any, dict[tuple[int, bytes], Item]]:
        """Load everything."""
        found: dict[tuple[int, bytes], Item] = {}
        yield store.load(lambda chunk: found.update({(vb, one.key): one for vb, one in chunk}))
        return found

    @inlineCallbacks
    def lines_of_killed(self, program: str, count: int) -> Steps:
        """Run a program on the store's file, kill it when it has written that many lines, and return those
        that it has written by then."""
        process = subprocess.Popen(
            [sys.executable, "-c", program, self.path, UUID],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        lines: list[bytes] = yield threads.deferToThread(
            lambda: [process.stdout.readline() for _ in range(count)]  # type: ignore[union-attr]
        )
        process.send_signal(signal.SIGKILL)
        rest, _ = yield threads.deferToThread(process.communicate)
        return lines + [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]


class Writing(StoreCase):
    """Batches and what a reopened file holds."""

    @inlineCallbacks
    def test_everything_about_a_document_comes_back(self) -> Steps:
        """Keys of any bytes, values, flags, expiry, CAS, seqno and revision survive, as do records."""
        store, opened = yield self.open()
        self.assertEqual(opened, Opened([], 0, True))
        written = transaction(item(b"\0\xff'\"", b"\0\1", 7), item(b"k", b"", 8))
        yield store.write(written)
        yield store.close()
        store, opened = yield self.open()
        self.assertEqual(opened, Opened(written.records, 2, True))
        found = (yield self.contents(store))[5, b"\0\xff'\""]
        self.assertEqual(
            (found.value, found.flags, found.expiry, found.cas, found.seqno, found.revid),
            (b"\0\1", 2**32 - 1, 2**32 - 1, 2**62 + 7, 7, 3),
        )

    @inlineCallbacks
    def test_versions_replace_and_tombstones_remove(self) -> Steps:
        """A key has at most one row; a deleted one has none, and is unaffected in another vbucket."""
        store, _ = yield self.open()
        yield store.write(transaction(*(item(b"%d" % n, b"old", n) for n in range(600))))
        yield store.write(transaction(item(b"0", b"elsewhere"), vbid=6))
        yield store.write(transaction(*(item(b"%d" % n, b"new", n) for n in range(300))))
        yield store.write(transaction(*(item(b"%d" % n, seqno=n, deleted=True) for n in range(0, 600, 2))))
        found = yield self.contents(store)
        self.assertEqual({key: one.value for (vb, key), one in found.items() if vb == 5},
                         {b"%d" % n: b"new" if n < 300 else b"old" for n in range(1, 600, 2)})  # fmt: skip
        self.assertEqual(found[6, b"0"].value, b"elsewhere")

    @inlineCallbacks
    def test_vbuckets_are_written_in_order(self) -> Steps:
        """A batch may have its vbuckets in any order; rows are written in that of the index, each record with
        its own failover log."""
        logs = {9: ((2**47, 1), (7, 0)), 2: ((7, 0),), 5: ((7, 0),)}
        records = [VBucketRecord(vb, vb, 2**62, 4, log) for vb, log in logs.items()]
        store, _ = yield self.open()
        yield store.write(Transaction([], [(vb, [item(b"k", seqno=vb)]) for vb in logs], records))
        yield store.close()
        with closing(sqlite3.connect(self.path)) as db:
            rows = db.execute("SELECT vb FROM documents ORDER BY rowid").fetchall()
            texts = db.execute("SELECT failover_log FROM vbuckets ORDER BY vb").fetchall()
        self.assertEqual(rows, [(2,), (5,), (9,)])
        self.assertEqual(texts, [("[[7, 0]]",), ("[[7, 0]]",), (f"[[{2**47}, 1], [7, 0]]",)])
        store, opened = yield self.open()
        self.assertEqual(opened, Opened(sorted(records), 3, True))
        self.assertEqual(
            {vb: one.seqno for (vb, _), one in (yield self.contents(store)).items()}, {2: 2, 5: 5, 9: 9}
        )

    @inlineCallbacks
    def test_a_wipe_comes_before_the_documents_of_its_batch(self) -> Steps:
        """Wiping a vbucket affects only this one, and documents of the same batch are kept."""
        store, _ = yield self.open()
        yield store.write(transaction(item(b"old")))
        yield store.write(transaction(item(b"other"), vbid=6))
        yield store.write(transaction(item(b"new"), wipes=[5]))
        self.assertEqual(sorted((yield self.contents(store))), [(5, b"new"), (6, b"other")])

    @inlineCallbacks
    def test_loading_comes_in_chunks_and_stops_with_its_consumer(self) -> Steps:
        """Many documents arrive in several chunks; a consumer that raises ends the load with that."""
        store, _ = yield self.open()
        yield store.write(transaction(*(item(b"%d" % n, seqno=n) for n in range(2500))))
        sizes: list[int] = []
        yield store.load(lambda chunk: sizes.append(len(chunk)))
        self.assertEqual(sizes, [1000, 1000, 500])

        def refuse(chunk: Any) -> None:
            raise KeyError("enough")

        yield self.assertFailure(store.load(refuse), KeyError)

    @inlineCallbacks
    def test_freed_space_is_given_back(self) -> Steps:
        """A file whose documents were deleted shrinks."""
        store, _ = yield self.open()
        keys = [b"%d" % n for n in range(3000)]
        yield store.write(transaction(*(item(key, bytes(10_000), n) for n, key in enumerate(keys))))
        yield store.write(transaction(*(item(key, seqno=n, deleted=True) for n, key in enumerate(keys))))
        for n in range(6):
            yield store.write(transaction(item(b"x", seqno=n, deleted=True)))
        yield store.close()
        self.assertLess(self.path.stat().st_size, 10_000_000)


class Trouble(StoreCase):
    """Errors name the file and the cause, and lose nothing."""

    @inlineCallbacks
    def test_a_full_disk(self) -> Steps:
        """A batch that does not fit is refused as a whole; existing documents remain, and it works again
        later."""
        store, _ = yield self.open()
        yield store.write(transaction(item(b"first")))
        yield store._submit(lambda: store._db.execute("PRAGMA max_page_count=40").fetchall())
        big = [item(b"%d" % n, bytes(4000), n) for n in range(100)]
        failure = yield self.assertFailure(store.write(transaction(*big)), StoreFullError)
        self.assertIn(str(self.path), str(failure))
        self.assertEqual(list((yield self.contents(store))), [(5, b"first")])
        yield store._submit(lambda: store._db.execute("PRAGMA max_page_count=100000").fetchall())
        yield store.write(transaction(*big))
        self.assertEqual(len((yield self.contents(store))), 101)

    @inlineCallbacks
    def test_another_process(self) -> Steps:
        """A file that another process has open is refused, and free again once it is closed."""
        store, _ = yield self.open()
        script = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0.1); "
            "c.execute('PRAGMA locking_mode=EXCLUSIVE'); c.execute('BEGIN IMMEDIATE'); "
            "print('mine', flush=True); "
            "sys.stdin.read()"
        )
        outcome = yield threads.deferToThread(
            subprocess.run,
            [sys.executable, "-c", script, self.path],
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        self.assertIn(b"locked", outcome.stderr)
        yield store.close()
        process = subprocess.Popen(
            [sys.executable, "-c", script, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            yield threads.deferToThread(process.stdout.readline)  # type: ignore[union-attr]
            yield self.assertFailure(self.open(), StoreLockedError)
        finally:
            process.communicate()
        yield self.open()

    @inlineCallbacks
    def test_files_that_are_no_store(self) -> Steps:
        """Garbage, a database of another program, a cut off file: damaged, each time."""
        self.path.write_bytes(os.urandom(8192))
        yield self.assertFailure(self.open(), StoreDamagedError)
        self.path.unlink()
        with sqlite3.connect(self.path) as other:
            other.execute("CREATE TABLE recipes (name TEXT)")
        other.close()
        yield self.assertFailure(self.open(), StoreDamagedError)
        self.path.unlink()
        store, _ = yield self.open()
        yield store.write(transaction(*(item(b"%d" % n, bytes(500), n) for n in range(200))))
        yield store.close()
        data = bytearray(self.path.read_bytes())
        data[100:4096] = os.urandom(3996)
        self.path.write_bytes(data)
        yield self.assertFailure(self.open(), StoreDamagedError)

    @inlineCallbacks
    def test_another_version_and_another_bucket(self) -> Steps:
        """A newer schema and a store of another bucket are refused, and left as they are."""
        store, _ = yield self.open()
        yield store.close()
        failure = yield self.assertFailure(self.open(uuid="f" * 32), StoreError)
        self.assertIn("belongs to bucket 'b'", str(failure))
        with sqlite3.connect(self.path) as database:
            database.execute("UPDATE node SET value = '99' WHERE name = 'schema'")
        database.close()
        failure = yield self.assertFailure(self.open(), StoreVersionError)
        self.assertIn("99", str(failure))

    @inlineCallbacks
    def test_no_folder_and_not_open(self) -> Steps:
        """A missing folder is named; a store that is closed says so."""
        lost = SqliteStore(self.path.parent / "nowhere" / "b.sqlite")
        failure = yield self.assertFailure(lost.open("b", UUID), StoreError)
        self.assertIn("nowhere", str(failure))
        yield self.assertFailure(lost.write(transaction()), StoreClosedError)

    @inlineCallbacks
    def test_a_crash_is_noticed(self) -> Steps:
        """A store that was not closed says so once it is opened again."""
        store, _ = yield self.open()
        yield store.abandon()
        store, opened = yield self.open()
        self.assertFalse(opened.clean)
        yield store.close()
        store, opened = yield self.open()
        self.assertTrue(opened.clean)


_WRITER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from couchnode.data.bucket import NodeBucket
from couchnode.data.storage import SqliteStore
from couchnode.data.storemode import StoreMode

@inlineCallbacks
def write():
    bucket = NodeBucket("b", sys.argv[2], vbucket_count=4, quota_bytes=2**28, store=SqliteStore(sys.argv[1]),
                        clock=reactor)
    yield bucket.start()
    for round in range(1000000):
        waits = []
        for n in range(40):
            vb = bucket.vbuckets[n % 4]
            item = vb.store(StoreMode.SET, b"\\0%d" % n, b"%d" % round)
            waits.append((vb.id, n, item, bucket.flusher.wait(vb, item.seqno)))
        for vbid, n, item, persisted in waits:
            yield persisted
            print(vbid, n, round, item.seqno, item.cas, bucket.vbuckets[vbid].uuid, flush=True)

def failed(failure):
    print(failure, file=sys.stderr)
    reactor.stop()

write().addErrback(failed)
reactor.run()
"""


class KillNine(StoreCase):
    """A process that is killed in the middle of writing."""

    @inlineCallbacks
    def test_what_was_reported_as_persisted_is_there(self) -> Steps:
        """After SIGKILL the file opens without help and has every version that was reported, or a newer one;
        history branches, and CAS still grows."""
        lines = yield self.lines_of_killed(_WRITER, 1000)
        reported = {}
        for line in lines:
            vbid, n, number, seqno, cas, uuid = map(int, line.split())
            reported[n] = vbid, number, seqno, cas, uuid
        bucket = NodeBucket(
            "b", UUID, vbucket_count=4, quota_bytes=2**28, store=SqliteStore(self.path), clock=reactor
        )
        yield bucket.start()
        self.assertEqual(len(reported), 40)
        for n, (vbid, number, seqno, cas, uuid) in reported.items():
            vbucket = bucket.vbuckets[vbid]
            assert vbucket is not None
            found = vbucket.get(b"\0%d" % n)
            assert found is not None, n
            self.assertGreaterEqual(int(found.value), number)
            self.assertGreaterEqual(found.seqno, seqno)
            self.assertGreaterEqual(vbucket.persisted_seqno, seqno)
            self.assertNotEqual(vbucket.uuid, uuid)
            self.assertEqual(vbucket.failover_log[1][0], uuid)
            self.assertGreater(vbucket.store(StoreMode.SET, b"\0new", b"").cas, cas)
        yield bucket.close()
