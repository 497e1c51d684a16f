"""Attributes and tombstones that have them: on the disk, in other copies, after a kill, and damaged."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import closing
from struct import pack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from couchnode.data.attributes import canonical, section, section_bytes, system_only
from couchnode.data.bucket import NodeBucket
from couchnode.data.edits import Edit, edit
from couchnode.data.item import Item, StatusError
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.storage import SqliteStore, StoreDamagedError
from couchnode.data.storefile import History, StoreFile
from couchnode.data.vbucket import VBucket
from tests import tries
from tests.couchnode.data.test_damage import FolderCase, repair
from tests.couchnode.data.test_replication import MAJORITY, ClusterCase
from tests.couchnode.data.test_storage import StoreCase, item, transaction
from tests.couchnode.nodes import UUID

Steps = Generator[Deferred[Any], Any, Any]
SYSTEM, USER, BOTH = b'{"_s":1}', b'{"u":1}', b'{"_s":1,"u":1}'
FIRST_SCHEMA = """
CREATE TABLE node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE vbuckets (
    vb INTEGER PRIMARY KEY, high_seqno INTEGER NOT NULL, max_cas INTEGER NOT NULL,
    max_deleted_revid INTEGER NOT NULL, failover_log TEXT NOT NULL
, crc INTEGER NOT NULL DEFAULT 0);
CREATE TABLE documents (
    vb INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, flags INTEGER NOT NULL,
    expiry INTEGER NOT NULL, cas INTEGER NOT NULL, seqno INTEGER NOT NULL, revid INTEGER NOT NULL
, crc INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX documents_by_key ON documents (vb, key);
"""
"""The tables of version 2."""


def put(
    vbucket: VBucket,
    key: bytes,
    xattrs: bytes,
    value: bytes = b"{}",
    deleted: bool = False,
    durable: bool = False,
) -> Item:
    """Store a document, or a tombstone, with attributes."""
    body = b"" if deleted else value
    change = Edit(body, 7, 0, xattrs, deleted, lambda cas, seqno: xattrs)
    key = DEFAULT_PREFIX + key
    return edit(vbucket, key, vbucket.find(key), change, preserve_expiry=False, durable=durable)


def state(vbucket: VBucket, key: bytes) -> tuple[Any, ...] | None:
    """Return what a copy has of a document or its tombstone."""
    found = vbucket.find(DEFAULT_PREFIX + key)
    if found is None:
        return None
    return found.value, found.xattrs, found.deleted, found.flags, found.cas, found.seqno, found.revid


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(_TEXTS, values, max_size=4),
)


class FormTests(SynchronousTestCase):
    """The stored form of attributes."""

    def test_canonical(self) -> None:
        """Compact, in the order of their names, the last of equal ones."""
        for text, stored in (
            (b"{}", b""),
            (b' { "b" : [1, 2] , "a" : {"d":1,"c":2} } ', b'{"a":{"c":2,"d":1},"b":[1,2]}'),
            (b'{"a":1,"a":2}', b'{"a":2}'),
            (rb'{"a":"\u00e9"}', '{"a":"é"}'.encode()),
            (b'{"a":123456789012345678901234567890}', b'{"a":123456789012345678901234567890}'),
        ):
            self.assertEqual(canonical(text), stored)

    @settings(max_examples=tries(100), deadline=None)
    @given(st.dictionaries(_TEXTS.filter(bool), JSON_VALUES, max_size=4), st.booleans())
    def test_section(self, attributes: dict[str, Any], with_system: bool) -> None:
        """It has the values as they would be encoded again, and its size is known."""
        expected = b""
        for key in sorted(attributes):
            if with_system or key[0] != "_":
                value = json.dumps(attributes[key], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
                pair = f"{key}\0{value}\0".encode()
                expected += pack(">I", len(pair)) + pair
        expected = pack(">I", len(expected)) + expected if expected else b""
        stored = canonical(json.dumps(attributes).encode())
        self.assertEqual(section(stored, with_system), expected)
        self.assertEqual(sum(section_bytes(stored)), len(section(stored)))

    def test_what_a_deletion_leaves(self) -> None:
        """The system's attributes, and of these all."""
        for text, left in ((BOTH, SYSTEM), (USER, b""), (b"", b""), (b'{"u":{"_s":1}}', b"")):
            self.assertEqual(system_only(text), left)


class StoreTests(StoreCase):
    """The file of a bucket."""

    @inlineCallbacks
    def test_everything_comes_back(self) -> Steps:
        """Attributes and tombstones with attributes survive; a tombstone without removes its row."""
        store, _ = yield self.open()
        yield store.write(
            transaction(
                item(b"plain", seqno=1),
                item(b"both", seqno=2).with_xattrs(BOTH),
                item(b"dead", b"", 3, deleted=True).with_xattrs(SYSTEM),
                item(b"gone", b"", 4, deleted=True).with_xattrs(SYSTEM),
                item(b"bare", seqno=5).with_xattrs(USER),
            )
        )
        yield store.write(transaction(item(b"gone", b"", 6, deleted=True), item(b"bare", seqno=7)))
        yield store.close()
        store, opened = yield self.open()
        self.assertEqual(opened.documents, 4)
        found = {
            key: (one.value, one.xattrs, one.deleted, one.flags, one.cas)
            for (_, key), one in (yield self.contents(store)).items()
        }
        most = 2**32 - 1
        self.assertEqual(
            found,
            {
                b"plain": (b"v", b"", False, most, 2**62 + 1),
                b"both": (b"v", BOTH, False, most, 2**62 + 2),
                b"dead": (b"", SYSTEM, True, most, 2**62 + 3),
                b"bare": (b"v", b"", False, most, 2**62 + 7),
            },
        )

    @inlineCallbacks
    def test_flipped_bits(self) -> Steps:
        """Damaged data is not served: attributes, and the mark of a tombstone."""
        store, _ = yield self.open()
        written = (
            item(b"a", seqno=1).with_xattrs(BOTH),
            item(b"b", b"", 2, deleted=True).with_xattrs(SYSTEM),
            item(b"c", seqno=3),
        )
        yield store.write(transaction(*written))
        yield store.close()
        for change in (
            "xattrs = x'7b7d' WHERE key = x'61'",
            "xattrs = x'' WHERE key = x'61'",
            "xattrs = 'text' WHERE key = x'61'",
            "deleted = 0 WHERE key = x'62'",
            "deleted = 1 WHERE key = x'61'",
            "deleted = 1 WHERE key = x'63'",
            "value = x'76', xattrs = x'' WHERE key = x'62'",
        ):
            with closing(sqlite3.connect(self.path)) as database:
                before = database.execute("SELECT rowid, * FROM documents").fetchall()
                database.execute(f"UPDATE documents SET {change}")
                database.commit()
            store, _ = yield self.open()
            fault = yield self.assertFailure(store.load(lambda chunk: None), StoreDamagedError)
            self.assertIn("1 document(s)", str(fault), change)
            yield store.close()
            with closing(sqlite3.connect(self.path)) as database:
                database.execute("DELETE FROM documents")
                marks = ", ".join("?" * len(before[0]))
                columns = [row[1] for row in database.execute("PRAGMA table_info(documents)")]
                database.executemany(
                    f"INSERT INTO documents (rowid, {', '.join(columns)}) VALUES ({marks})", before
                )
                database.commit()

    @inlineCallbacks
    def test_migration(self) -> Steps:
        """A file of version 2 opens with its documents, takes attributes, and keeps what was set aside."""
        with closing(sqlite3.connect(self.path)) as database:
            database.executescript(FIRST_SCHEMA)
            facts = {"schema": "2", "bucket": "b", "uuid": UUID, "clean": "1", "starts": "1"}
            database.executemany("INSERT INTO node VALUES (?, ?)", facts.items())
            database.execute("CREATE TABLE damaged (vb, key, value, flags, expiry, cas, seqno, revid, crc)")
            database.execute("INSERT INTO damaged VALUES (1, x'61', x'62', 0, 0, 0, 0, 0, 0)")
            database.commit()
        file = StoreFile(self.path)
        file.open("b", UUID, History(1, True), 2)
        file.write(transaction(item(b"k").with_xattrs(BOTH)))
        columns = [row[1] for row in file.db.execute("PRAGMA table_info(damaged)")]
        self.assertEqual(set(columns), {row[1] for row in file.db.execute("PRAGMA table_info(documents)")})
        self.assertEqual(file.db.execute("SELECT count(*) FROM damaged").fetchone(), (1,))
        file.close(True)
        store, _ = yield self.open()
        self.assertEqual([one.xattrs for one in (yield self.contents(store)).values()], [BOTH])


_WRITER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from couchnode.data.bucket import NodeBucket
from couchnode.data.storage import SqliteStore
from tests.couchnode.data.test_attributes import put

@inlineCallbacks
def write():
    bucket = NodeBucket("b", sys.argv[2], vbucket_count=4, quota_bytes=2**28, store=SqliteStore(sys.argv[1]),
                        clock=reactor)
    yield bucket.start()
    for number in range(1000000):
        waits = []
        for n in range(40):
            vb = bucket.vbuckets[n % 4]
            item = put(vb, b"%d" % n, b'{"_s":%d}' % number, b"%d" % number, deleted=n % 3 == 0)
            waits.append((n, bucket.flusher.wait(vb, item.seqno)))
        for n, persisted in waits:
            yield persisted
            print(n, number, flush=True)

def failed(failure):
    print(failure, file=sys.stderr)
    reactor.stop()

write().addErrback(failed)
reactor.run()
"""


class KillTests(StoreCase):
    """A process that is killed in the middle of writing attributes."""

    @inlineCallbacks
    def test_what_was_reported_is_there(self) -> Steps:
        """After SIGKILL each document and tombstone has the attributes that were reported, or newer ones."""
        lines = yield self.lines_of_killed(_WRITER, 400)
        reported = {int(n): int(number) for n, number in (line.split() for line in lines)}
        self.assertEqual(len(reported), 40)
        bucket = NodeBucket(
            "b", UUID, vbucket_count=4, quota_bytes=2**28, store=SqliteStore(self.path), clock=reactor
        )
        yield bucket.start()
        for n, number in reported.items():
            vbucket = bucket.vbuckets[n % 4]
            assert vbucket is not None
            found = vbucket.find(b"\0%d" % n)
            assert found is not None, n
            self.assertEqual(found.deleted, n % 3 == 0)
            self.assertGreaterEqual(int(found.xattrs[len(b'{"_s":') : -1]), number)
            if not found.deleted:
                self.assertEqual(found.xattrs, b'{"_s":%b}' % found.value)
        yield bucket.close()


class CopiesTests(ClusterCase):
    """Attributes on replicas."""

    def assertSame(self, *keys: bytes) -> None:
        """Assert that all copies have the same of these keys."""
        self.turn()
        for node in (1, 2):
            for key in keys:
                self.assertEqual(state(self.vb(node), key), state(self.vb(), key), (node, key))

    def test_following(self) -> None:
        """Attributes, deletions and tombstones arrive with the same numbers."""
        put(self.vb(), b"a", BOTH)
        put(self.vb(), b"t", USER, deleted=True)
        self.assertSame(b"a", b"t")
        self.set(b"\0a", b"1")
        self.assertSame(b"a")
        self.vb().delete(b"\0a")
        self.set(b"\0t")
        self.assertSame(b"a", b"t")
        self.assertEqual([state(self.vb(1), key)[1] for key in (b"a", b"t")], [SYSTEM, b""])  # type: ignore[index]

    def test_promotion(self) -> None:
        """A replica that becomes the active copy serves attributes and tombstones."""
        put(self.vb(), b"a", BOTH)
        put(self.vb(), b"t", USER, deleted=True)
        self.turn()
        before = [state(self.vb(), key) for key in (b"a", b"t")]
        self.buckets[1].set_topology(["active"])
        self.assertEqual([state(self.vb(1), key) for key in (b"a", b"t")], before)

    def test_new_replica(self) -> None:
        """A copy that begins from nothing gets tombstones with attributes, too."""
        put(self.vb(), b"t", USER, deleted=True)
        put(self.vb(), b"a", BOTH)
        self.turn()
        self.buckets[0].set_replicas(0, self.buckets[2:])
        self.buckets[1].set_topology(["dead"])
        self.buckets[1].set_topology(["replica"])
        self.buckets[0].set_replicas(0, self.buckets[1:])
        self.assertSame(b"a", b"t")

    def test_durable(self) -> None:
        """A synchronous write of attributes is held everywhere until it is settled."""
        item = put(self.vb(), b"t", USER, deleted=True, durable=True)
        settled = self.buckets[0].settle(self.vb(), item, MAJORITY, None)
        self.assertIsNone(state(self.vb(), b"t"))
        self.assertRaises(StatusError, self.set, b"\0t")
        self.turn()
        self.successResultOf(settled)
        self.assertSame(b"t")
        self.assertEqual(state(self.vb(2), b"t")[1], USER)  # type: ignore[index]

    def test_abort(self) -> None:
        """A write that is given up leaves the tombstone that was there, on the disk too."""
        put(self.vb(), b"t", SYSTEM, deleted=True)
        put(self.vb(), b"t", USER, deleted=True, durable=True)
        self.vb().abort(b"\0t")
        self.clock.advance(1)
        self.assertEqual(self.stores[0].documents[0, b"\0t"].xattrs, SYSTEM)
        self.assertEqual(self.vb().find(b"\0t").xattrs, SYSTEM)  # type: ignore[union-attr]

    def test_purge(self) -> None:
        """Tombstones with attributes go after three days, from memory and from the disk of every copy."""
        put(self.vb(), b"t", SYSTEM, deleted=True)
        put(self.vb(), b"later", SYSTEM, deleted=True)
        self.turn()
        self.clock.advance(1)
        self.assertIn((0, b"\0t"), self.stores[1].documents)
        for _ in range(3 * 24 * 6 + 2):
            self.clock.advance(600)
            self.turn()
            put(self.vb(), b"later", SYSTEM, deleted=True)
            self.turn()
        self.clock.advance(1)
        for node in range(3):
            self.assertIsNone(self.vb(node).find(b"\0t"))
            self.assertNotIn((0, b"\0t"), self.stores[node].documents)
            self.assertIn((0, b"\0later"), self.stores[node].documents)

    def test_memory(self) -> None:
        """Every copy is charged for attributes, waiting for the disk included, and gives all back."""
        self.stores[0].is_slow = True
        put(self.vb(), b"a", b'{"u":"%b"}' % (b"x" * 500))
        put(self.vb(), b"t", b'{"_s":"%b"}' % (b"x" * 500), deleted=True)
        self.assertGreater(self.buckets[0].ledger.queued_bytes, 1000)
        put(self.vb(), b"a", USER)
        self.assertEqual(
            self.buckets[0].ledger.queued_bytes,
            sum(len(one.value) + len(one.xattrs) for one in self.vb().dirty.values()),
        )
        self.turn()
        for node in range(3):
            held = [*self.vb(node).items.values(), *self.vb(node).lasting.values()]
            self.assertEqual(self.buckets[node].memory_bytes, sum(one.size for one in held))
            self.vb(node).discard()
            self.assertEqual(
                (self.buckets[node].memory_bytes, self.buckets[node].ledger.queued_bytes), (0, 0)
            )


class RestartTests(FolderCase):
    """A data directory."""

    @inlineCallbacks
    def test_restart(self) -> Steps:
        """After a stop and a start all is there: attributes, tombstones, and the number of documents."""
        node = yield self.start()
        put(self.part(node, b"key1"), b"key1", BOTH)
        put(self.part(node, b"key2"), b"key2", SYSTEM, deleted=True)
        put(self.part(node, b"new"), b"new", USER, deleted=True)
        self.part(node, b"key3").delete(b"\0key3")
        keys = (b"key1", b"key2", b"new", b"key3")
        before = [state(self.part(node, key), key) for key in keys]
        count = sum(one.buckets["default"].item_count for one in node.cluster.nodes)
        yield node.stop()
        node = yield self.start()
        self.assertEqual([state(self.part(node, key), key) for key in keys[:3]], before[:3])
        self.assertIsNone(state(self.part(node, b"key3"), b"key3"))
        self.assertEqual(sum(one.buckets["default"].item_count for one in node.cluster.nodes), count)
        self.assertEqual(self.part(node, b"new").store(0, b"\0new", b"{}").revid, before[2][6] + 1)  # type: ignore[index]

    @inlineCallbacks
    def test_repair(self) -> Steps:
        """A damaged attribute takes its document along into the table of the damaged, and nothing else."""
        node = yield self.start()
        for key in self.values:
            put(self.part(node, key), key, BOTH, self.values[key])
        yield node.stop()
        key = self.keys_of(self.file)[0]
        with closing(sqlite3.connect(self.file)) as database:
            database.execute("UPDATE documents SET xattrs = x'7b7d' WHERE key = ?", (DEFAULT_PREFIX + key,))
            database.commit()
        yield self.refused("1 document(s)")
        status, text = repair(self.path)
        self.assertEqual(status, 0, text)
        self.assertIn("damaged", text)
        node = yield self.start()
        served = self.served(node)
        self.assertEqual(set(self.values) - set(served), {key})
        self.assertEqual({self.part(node, one).find(DEFAULT_PREFIX + one).xattrs for one in served}, {BOTH})
