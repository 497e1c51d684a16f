"""Documents that are gone, older than they should be, or not what was written: a node does not serve them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase.protocol.hashing import vbucket_of
from couchnode.cluster.metadata import DataDirectory, DataDirectoryError
from couchnode.data.helditems import VBucketRecord
from couchnode.data.item import Item
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.storeerrors import StoreDamagedError, StoreError, StoreFullError, StoreLostError
from couchnode.data.storefile import History, StoreFile, Transaction
from couchnode.data.storeschema import checksum
from couchnode.repair import main, repaired
from couchnode.service import EmbeddedNode
from tests import tries
from tests.couchnode.nodes import UUID

Steps = Generator[Deferred[Any], Any, Any]
VERSION_1 = """
CREATE TABLE node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE vbuckets (
    vb INTEGER PRIMARY KEY, high_seqno INTEGER NOT NULL, max_cas INTEGER NOT NULL,
    max_deleted_revid INTEGER NOT NULL, failover_log TEXT NOT NULL
);
CREATE TABLE documents (
    vb INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, flags INTEGER NOT NULL,
    expiry INTEGER NOT NULL, cas INTEGER NOT NULL, seqno INTEGER NOT NULL, revid INTEGER NOT NULL
);
CREATE UNIQUE INDEX documents_by_key ON documents (vb, key);
"""


def repair(path: Path) -> tuple[int, str]:
    """Run the program; return its status and what it printed."""
    with mock.patch("sys.stdout", StringIO()) as out, mock.patch("sys.stderr", StringIO()) as err:
        status = main([str(path)])
    return status, out.getvalue() + err.getvalue()


class FolderCase(TestCase):
    """A data directory with documents on two nodes."""

    timeout = 60

    @inlineCallbacks
    def setUp(self) -> Steps:
        self.path = Path(self.mktemp()).absolute()
        self.nodes: list[EmbeddedNode] = []
        self.values = {b"key%d" % n: b'{"n":%d}' % n for n in range(40)}
        node = yield self.start()
        for key, value in self.values.items():
            self.part(node, key).store(0, DEFAULT_PREFIX + key, value)
        yield node.stop()
        self.file = self.path / "node0" / "default.sqlite"

    @inlineCallbacks
    def tearDown(self) -> Steps:
        for node in self.nodes:
            yield node.stop()

    @inlineCallbacks
    def start(self) -> Steps:
        """Start a node on the directory."""
        node = EmbeddedNode(self.path, nodes=2)
        self.nodes.append(node)
        yield node.start()
        return node

    def part(self, node: EmbeddedNode, key: bytes) -> Any:
        """Return the active vbucket of a key."""
        vbid = vbucket_of(key, 1024)
        index = node.cluster.bucket("default").rows[vbid][0]
        return node.cluster.nodes[index].buckets["default"].vbuckets[vbid]

    def served(self, node: EmbeddedNode) -> dict[bytes, bytes]:
        """Return the documents that a node has."""
        found = {key: self.part(node, key).get(DEFAULT_PREFIX + key) for key in self.values}
        return {key: item.value for key, item in found.items() if item is not None}

    def keys_of(self, file: Path) -> list[bytes]:
        """Return the keys in one file."""
        with closing(sqlite3.connect(file)) as database:
            return [key[1:] for (key,) in database.execute("SELECT key FROM documents ORDER BY key")]

    @inlineCallbacks
    def refused(self, *expected: str) -> Steps:
        """Check that no node starts on the directory; the reason is one line and names what is expected."""
        fault = yield self.assertFailure(self.start(), StoreError)
        text = str(fault)
        self.assertEqual(len(text.splitlines()), 1, text)
        for part in (*expected, "python -m couchnode.repair"):
            self.assertIn(part, text)
        return fault


class LostTests(FolderCase):
    """Files that vanished, were emptied or replaced."""

    @inlineCallbacks
    def test_a_file_that_is_gone(self) -> Steps:
        """The start names it; the repair creates a new one, and the other node's documents exist."""
        lost = set(self.keys_of(self.file))
        self.file.unlink()
        yield self.refused(str(self.file), "is gone")
        self.assertFalse(self.file.exists())
        status, said = repair(self.path)
        self.assertEqual(status, 0, said)
        self.assertIn("recreated without documents", said)
        node = yield self.start()
        self.assertEqual(set(self.served(node)), set(self.values) - lost)
        self.part(node, b"key1").store(0, b"\0key1", b"again")

    @inlineCallbacks
    def test_a_folder_of_one_node_that_is_gone(self) -> Steps:
        """The same for all of a node's folder."""
        shutil.rmtree(self.path / "node1")
        yield self.refused("node1/default.sqlite", "is gone")

    @inlineCallbacks
    def test_files_cut_to_nothing_or_less(self) -> Steps:
        """A file of no bytes, or one cut off anywhere, is refused."""
        whole = self.file.read_bytes()
        self.file.write_bytes(b"")
        yield self.refused(str(self.file), "is empty")
        for size in (1, 50, 100, 4096, 4100, len(whole) // 2, len(whole) - 4096):
            self.file.write_bytes(whole[:size])
            yield self.refused(str(self.file))
        self.file.write_bytes(whole)
        node = yield self.start()
        self.assertEqual(self.served(node), self.values)

    @inlineCallbacks
    def test_an_older_copy(self) -> Steps:
        """A copy of before the last start, or of while the node ran, is refused; repaired, it counts."""
        first = self.file.read_bytes()
        key = self.keys_of(self.file)[0]
        node = yield self.start()
        item = self.part(node, key).store(0, DEFAULT_PREFIX + key, b"newer")
        yield node.cluster.nodes[0].buckets["default"].flusher.wait(self.part(node, key), item.seqno)
        running = self.file.read_bytes()
        yield node.stop()
        last = self.file.read_bytes()
        for copy in (first, running):
            self.file.write_bytes(copy)
            yield self.refused(str(self.file), "is older than cluster.json")
            shutil.rmtree(self.path / "node0")
            (self.path / "node0").mkdir()
            self.file.write_bytes(last)
        self.file.write_bytes(first)
        self.assertEqual(repair(self.path)[0], 0)
        node = yield self.start()
        self.assertEqual(self.served(node)[key], self.values[key])

    @inlineCallbacks
    def test_a_file_of_another_bucket(self) -> Steps:
        """The file of another bucket, or of another directory's, is refused."""
        with closing(sqlite3.connect(self.file)) as database:
            database.execute("UPDATE node SET value = 'f' WHERE name = 'uuid'")
            database.commit()
        fault = yield self.assertFailure(self.start(), StoreError)
        self.assertIn("belongs to bucket 'default' (f)", str(fault))

    @inlineCallbacks
    def crash_after_a_write(self) -> Steps:
        """Leave the directory as a crash does after "newer" was written; fires with the document's key."""
        key = self.keys_of(self.file)[0]
        node = yield self.start()
        item = self.part(node, key).store(0, DEFAULT_PREFIX + key, b"newer")
        yield node.cluster.nodes[0].buckets["default"].flusher.wait(self.part(node, key), item.seqno)
        shutil.copytree(self.path, self.path.with_name("killed"))
        yield node.stop()
        self.put_back()
        return key

    def put_back(self) -> None:
        """Have the directory as the crash left it."""
        shutil.rmtree(self.path)
        shutil.copytree(self.path.with_name("killed"), self.path)

    @inlineCallbacks
    def test_a_log_that_is_gone_after_a_crash(self) -> Steps:
        """Without the write-ahead log that a crash left, changes are missing; in order it leaves none."""
        key = yield self.crash_after_a_write()
        node = yield self.start()
        self.assertEqual(self.served(node)[key], b"newer")
        yield node.stop()
        self.put_back()
        Path(f"{self.file}-wal").unlink()
        yield self.refused("default.sqlite-wal is gone")
        self.assertEqual(repair(self.path)[0], 0)
        yield self.start()

    @inlineCallbacks
    def test_folders_of_two_nodes_that_changed_places(self) -> Steps:
        """Neither start nor repair takes another node's documents; after the folders are swapped back, all
        exist."""

        def swap() -> None:
            (self.path / "node0").rename(self.path / "aside")
            (self.path / "node1").rename(self.path / "node0")
            (self.path / "aside").rename(self.path / "node1")

        swap()
        for _ in range(2):
            fault = yield self.assertFailure(self.start(), StoreError)
            self.assertRegex(str(fault), "belongs to node[01], not to node[10]: move the directories")
        status, said = repair(self.path)
        self.assertEqual(status, 2)
        self.assertIn("belongs to node1, not to node0", said)
        self.assertNotIn("bucket is then empty", said)
        swap()
        node = yield self.start()
        self.assertEqual(self.served(node), self.values)

    @inlineCallbacks
    def test_a_start_that_fails_after_a_crash(self) -> Steps:
        """SQLite may finish the log of the crash when the start fails; the log is then not reported as
        missing."""
        key = yield self.crash_after_a_write()
        with mock.patch.object(
            StoreFile, "_check_schema", side_effect=sqlite3.OperationalError("disk is full")
        ):
            fault = yield self.assertFailure(self.start(), StoreError)
            self.assertIn("disk is full", str(fault))
        node = yield self.start()
        self.assertEqual(self.served(node)[key], b"newer")

    @inlineCallbacks
    def test_a_repair_that_is_cut_short(self) -> Steps:
        """A repair that was killed after any file leaves a directory that a node starts on."""
        for count in (1, 2):
            directory = DataDirectory(self.path)
            steps = repaired(directory)
            for _ in range(count):
                self.assertTrue(next(steps)[1])
            steps.close()
            directory.close()
            node = yield self.start()
            self.assertEqual(self.served(node), self.values)
            yield node.stop()

    @inlineCallbacks
    def test_a_bucket_whose_making_was_cut_short(self) -> Steps:
        """A crash between the entry in cluster.json and the file does not keep the node from starting."""
        data = DataDirectory(self.path)
        known = data.load()
        known["buckets"]["default"]["made"] = False
        data.save({name: part for name, part in known.items() if name != "format"})
        data.close()
        self.file.unlink()
        yield self.start()

    @inlineCallbacks
    def test_a_start_that_fails_harms_nothing(self) -> Steps:
        """After a start with one missing file all others are unchanged: when it is back, everything
        exists."""
        kept = self.file.rename(self.file.with_suffix(".kept"))
        for _ in range(2):
            yield self.refused("is gone")
        kept.rename(self.file)
        node = yield self.start()
        self.assertEqual(self.served(node), self.values)


class BitTests(FolderCase):
    """Bytes that changed."""

    @inlineCallbacks
    def test_a_flipped_bit_in_a_value(self) -> Steps:
        """The start names bucket, vbucket, key and how many; the repair sets the document aside."""
        key = self.keys_of(self.file)[0]
        data = self.file.read_bytes()
        value = self.values[key]
        self.assertEqual(data.count(key + value), 1)
        self.file.write_bytes(data.replace(key + value, key + bytes([value[0] ^ 4]) + value[1:]))
        yield self.refused(
            "1 document(s) are damaged (wrong checksum)", f"vbucket {vbucket_of(key, 1024)} ", repr(key)
        )
        status, said = repair(self.path)
        self.assertEqual(status, 0, said)
        self.assertIn(repr(key), said)
        node = yield self.start()
        left = self.served(node)
        self.assertEqual(left, {other: text for other, text in self.values.items() if other != key})
        yield node.stop()
        with closing(sqlite3.connect(self.file)) as database:
            self.assertEqual(
                database.execute("SELECT key FROM damaged").fetchall(), [(DEFAULT_PREFIX + key,)]
            )

    @inlineCallbacks
    def test_each_member_counts(self) -> Steps:
        """Another flag, expiry, CAS or number is found as another value is; so is one in a record."""
        key = self.keys_of(self.file)[0]
        vbid = vbucket_of(key, 1024)
        whole = self.file.read_bytes()
        for member in ("vb", "flags", "expiry", "cas", "seqno", "revid", "crc"):
            with closing(sqlite3.connect(self.file)) as database:
                database.execute(
                    f"UPDATE documents SET {member} = {member} + 1 WHERE key = ?", (DEFAULT_PREFIX + key,)
                )
                database.commit()
            yield self.refused("1 document(s) are damaged (wrong checksum)")
            self.file.write_bytes(whole)
        for member, change in [("high_seqno", "+ 1"), ("max_cas", "+ 1"), ("failover_log", "|| ' '")]:
            with closing(sqlite3.connect(self.file)) as database:
                database.execute(f"UPDATE vbuckets SET {member} = {member} {change} WHERE vb = ?", (vbid,))
                database.commit()
            yield self.refused(f"the record of vbucket {vbid} has a wrong checksum")
            self.file.write_bytes(whole)

    @inlineCallbacks
    def test_records_are_made_anew(self) -> Steps:
        """After a repair of a vbucket's record its documents exist, and its numbers continue from theirs."""
        key = self.keys_of(self.file)[0]
        vbid = vbucket_of(key, 1024)
        with closing(sqlite3.connect(self.file)) as database:
            database.execute("UPDATE vbuckets SET high_seqno = 0 WHERE vb = ?", (vbid,))
            database.commit()
        yield self.refused(f"the record of vbucket {vbid}")
        status, said = repair(self.path)
        self.assertEqual(status, 0, said)
        self.assertIn("records of 1 vbucket(s) recreated", said)
        node = yield self.start()
        self.assertEqual(self.served(node), self.values)
        before = self.part(node, key).get(DEFAULT_PREFIX + key)
        after = self.part(node, key).store(0, DEFAULT_PREFIX + key, b"x")
        self.assertGreater((after.seqno, after.cas), (before.seqno, before.cas))

    @inlineCallbacks
    def test_structure(self) -> Steps:
        """If SQLite finds a malformed file, the message names the file and the remedy; the repair says that
        it cannot help."""
        data = bytearray(self.file.read_bytes())
        data[4096:12288] = bytes(8192)
        self.file.write_bytes(data)
        yield self.refused(str(self.file), "is damaged")
        status, said = repair(self.path)
        self.assertEqual(status, 2, said)
        self.assertIn("is damaged", said)

    @inlineCallbacks
    def test_any_byte_of_the_metadata(self) -> Steps:
        """Each changed byte of cluster.json is found, in hashes and salts too; the message names the file."""
        yield self.nodes[0].stop()
        file = self.path / "cluster.json"
        whole = file.read_bytes()
        directory = DataDirectory(self.path)
        try:
            places = [*range(0, len(whole), 97), whole.index(b'"salt":"') + 12, len(whole) - 3]
            for place in places:
                file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                fault = self.assertRaises(DataDirectoryError, directory.load)
                self.assertIn(str(file), str(fault))
            file.write_bytes(whole)
            directory.load()
        finally:
            directory.close()

    def test_repair_refuses_what_is_no_directory(self) -> None:
        """The program says what it takes, and touches nothing else."""
        self.assertEqual(
            repair(self.path / "nowhere"), (1, f"{self.path / 'nowhere'}: there is no such directory\n")
        )
        empty = Path(self.mktemp())
        empty.mkdir()
        status, said = repair(empty)
        self.assertEqual(status, 1)
        self.assertIn("has no cluster.json", said)


def written(path: Path) -> tuple[dict[tuple[int, bytes], Any], list[VBucketRecord]]:
    """Make a store of several pages; return what is in it."""
    file = StoreFile(path)
    file.open("b", UUID, None, 1)
    items = [(n % 4, Item(b"k%d" % n, b"v%d" % n * (n % 90), n, n, 2**60 + n, n + 1, 1)) for n in range(120)]
    records = [VBucketRecord(vb, 200, 2**61, 3, ((7, 0),)) for vb in range(4)]
    changes = [(vb, [item for at, item in items if at == vb]) for vb in range(4)]
    file.write(Transaction([], changes, records))
    file.close(True)
    return {(vb, item.key): members(item) for vb, item in items}, records


def members(item: Item) -> tuple[Any, ...]:
    """Return all that is stored of an item."""
    return item.value, item.flags, item.expiry, item.cas, item.seqno, item.revid


class FuzzTests(SynchronousTestCase):
    """Files in which anything may have changed."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        (self.path / "node0").mkdir(parents=True)
        self.file = self.path / "node0" / "b.sqlite"
        self.expected, self.records = written(self.file)
        self.whole = self.file.read_bytes()

    def read(self) -> tuple[dict[tuple[int, bytes], Any], list[VBucketRecord]]:
        """Open the file and read everything."""
        file = StoreFile(self.file)

        def work() -> Any:
            opened = file.open("b", UUID, History(1, True), 2)
            try:
                found = [pair for chunk in file.chunks() for pair in chunk]
            finally:
                file.close(True)
            documents = {(vb, item.key): members(item) for vb, item in found}
            self.assertEqual(len(documents), len(found))
            return documents, opened.records

        return file.translated(work)

    @settings(max_examples=tries(100), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_served_is_right(self, data: st.DataObject) -> None:
        """Whatever bytes are flipped, the store is refused or everything in it is what was written."""
        changed = bytearray(self.whole)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(changed) - 1))
            changed[at] ^= data.draw(st.integers(1, 255))
        for suffix in ("-wal", "-open", "-journal"):
            Path(f"{self.file}{suffix}").unlink(missing_ok=True)
        self.file.write_bytes(changed)
        try:
            documents, records = self.read()
        except StoreError as fault:
            self.assertIn(str(self.file), str(fault))
            return
        self.assertEqual(documents, self.expected)
        self.assertEqual(records, self.records)

    @given(st.integers(0, 9), st.data())
    def test_checksum_depends_on_each_member(self, which: int, data: st.DataObject) -> None:
        """Two documents that differ in one member have different checksums, unless CRC-32 is at its limit."""
        row: list[Any] = [5, b"key", b"value", 1, 2, 3, 4, 5, 1, b"{}"]
        other = list(row)
        if which in (1, 2, 9):
            at = data.draw(st.integers(0, len(row[which]) - 1))
            change = bytearray(row[which])
            change[at] ^= data.draw(st.integers(1, 255))
            other[which] = bytes(change)
        else:
            other[which] ^= data.draw(st.integers(1, 255))
        self.assertNotEqual(checksum(*row), checksum(*other))


class MigrationTests(SynchronousTestCase):
    """Files of before there were checksums."""

    def make(self) -> StoreFile:
        """Make a file of version 1 with documents."""
        folder = Path(self.mktemp()).absolute() / "node0"
        folder.mkdir(parents=True)
        path = folder / "b.sqlite"
        with closing(sqlite3.connect(path)) as database:
            database.executescript(VERSION_1)
            facts = {"schema": "1", "bucket": "b", "uuid": UUID, "clean": "1"}
            database.executemany("INSERT INTO node VALUES (?, ?)", facts.items())
            rows = [(n % 4, b"k%d" % n, b"v%d" % n, n, 0, 2**60, n + 1, 1) for n in range(3000)]
            database.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            log = json.dumps([[7, 0]])
            database.executemany(
                "INSERT INTO vbuckets VALUES (?, 5000, 1, 1, ?)", [(vb, log) for vb in range(4)]
            )
            database.commit()
        return StoreFile(path)

    def test_everything_is_there_and_checked_from_then_on(self) -> None:
        """Opened once, the file has all its documents, a new version, and checksums that are looked at."""
        file = self.make()
        opened = file.open("b", UUID, History(0, False), 1)
        self.assertEqual((opened.documents, len(opened.records), opened.clean), (3000, 4, True))
        self.assertEqual(sum(len(chunk) for chunk in file.chunks()), 3000)
        file.close(True)
        again = StoreFile(file.path)
        again.open("b", UUID, History(1, True), 2)
        self.assertEqual(sum(len(chunk) for chunk in again.chunks()), 3000)
        again.db.execute("UPDATE documents SET value = 'x' WHERE seqno = 7")
        self.assertRaises(StoreDamagedError, list, again.chunks())
        again.close(True)

    def test_cut_short(self) -> None:
        """A disk too full for the checksums leaves the old file as it was; with room it works."""
        file = self.make()
        real = sqlite3.connect

        def small(*args: Any, **kwargs: Any) -> Any:
            connection = real(*args, **kwargs)
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={pages}")
            return connection

        with mock.patch("couchnode.data.storefile.sqlite3.connect", small):
            self.assertRaises(
                StoreFullError, file.translated, lambda: file.open("b", UUID, History(0, False), 1)
            )
        file = StoreFile(file.path)
        self.assertEqual(file.open("b", UUID, History(0, False), 1).documents, 3000)
        file.close(True)

    def test_an_old_file_under_a_new_cluster(self) -> None:
        """Once a cluster counts its starts, a file without a count is an older copy."""
        file = self.make()
        self.assertRaises(StoreLostError, file.open, "b", UUID, History(1, True), 2)
