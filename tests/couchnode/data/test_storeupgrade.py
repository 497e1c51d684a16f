"""Files of older versions: all their documents are there afterwards, in the default collection."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchnode.data.storeerrors import StoreDamagedError
from couchnode.data.storefile import History, StoreFile
from couchnode.data.storerepair import set_damaged_aside
from couchnode.data.storeschema import checksum, record_checksum
from tests import tries
from tests.couchnode.data.test_attributes import FIRST_SCHEMA
from tests.couchnode.nodes import UUID

KEYS = st.one_of(
    st.binary(min_size=1, max_size=4), st.sampled_from([b"a", b"\0a", b"\0\0a", b"\0", b"\x08a", b"\xff"])
)
Rows = dict[tuple[int, bytes], bytes]


def places(row: list[Any]) -> str:
    """Return the parameters of a row."""
    return ", ".join("?" * len(row))


class UpgradeTests(SynchronousTestCase):
    """Files of version 2."""

    def setUp(self) -> None:
        """Make a folder."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def make(self, documents: Rows, damage: str = "") -> StoreFile:
        """Make a file with these documents, and change it by a statement."""
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "node0"
        folder.mkdir()
        path = folder / "b.sqlite"
        with closing(sqlite3.connect(path)) as database:
            database.executescript(FIRST_SCHEMA)
            facts = {"schema": "2", "bucket": "b", "uuid": UUID, "clean": "1", "starts": "1"}
            database.executemany("INSERT INTO node VALUES (?, ?)", facts.items())
            for number, ((vb, key), value) in enumerate(documents.items()):
                row: list[Any] = [vb, key, value, 7, 0, 2**60, number + 1, 1]
                database.execute(
                    "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [*row, checksum(*row)]
                )
            for vb in {vb for vb, _ in documents}:
                record = (vb, 5000, 1, 1, json.dumps([[7, 0]]))
                database.execute(
                    "INSERT INTO vbuckets VALUES (?, ?, ?, ?, ?, ?)", [*record, record_checksum(*record)]
                )
            if damage:
                database.execute(damage)
            database.commit()
        return StoreFile(path)

    @staticmethod
    def schema_of(file: StoreFile) -> closing[sqlite3.Connection]:
        """Open a file so that its schema can be changed like a table."""
        database = sqlite3.connect(file.path)
        database.execute("PRAGMA writable_schema=ON")
        return closing(database)

    def contents(self, file: StoreFile) -> Rows:
        """Return the documents of an open file, by their own keys in the default collection."""
        found = [(vb, item) for chunk in file.chunks() for vb, item in chunk]
        self.assertTrue(all(item.key[:1] == b"\0" and item.flags == 7 for _, item in found))
        return {(vb, item.key[1:]): item.value for vb, item in found}

    @settings(max_examples=tries(60), deadline=None)
    @given(st.dictionaries(st.tuples(st.integers(0, 3), KEYS), st.binary(max_size=3), max_size=30))
    @example({(0, b"\0a"): b"2", (0, b"a"): b"1", (0, b"\0\0a"): b"3"})
    def test_any_keys(self, documents: Rows) -> None:
        """Whatever the keys, also those that look as if they had an id: each document is there once, in the
        default collection, then and after another start."""
        file = self.make(documents)
        for start in (1, 2):
            opened = file.open("b", UUID, History(start, True), start + 1)
            self.assertEqual(opened.documents, len(documents))
            self.assertEqual(self.contents(file), documents)
            file.close(True)
            file = StoreFile(file.path)

    def test_damaged_documents(self) -> None:
        """What was not as it was written is still found: the conversion gives no damage a new checksum."""
        documents = {(0, b"k%d" % n): b"v" for n in range(9)}
        for damage in (
            "UPDATE documents SET value = 'x' WHERE seqno = 3",
            "UPDATE documents SET flags = 8 WHERE seqno = 3",
            "UPDATE documents SET crc = crc + 1 WHERE seqno = 3",
            "UPDATE documents SET key = 'text' WHERE seqno = 3",
            "UPDATE documents SET cas = 'x' WHERE seqno = 3",
        ):
            file = self.make(documents, damage)
            file.open("b", UUID, History(1, True), 2)
            fault = self.assertRaises(StoreDamagedError, list, file.chunks())
            self.assertIn("1 document(s) are damaged", str(fault), damage)
            self.assertEqual(len(set_damaged_aside(file)), 1)
            self.assertEqual(len(self.contents(file)), 8)
            file.close(True)

    def test_rows_that_are_missing(self) -> None:
        """A table with fewer rows than its index is refused and stays as it is: converted, nobody would
        notice."""
        file = self.make({(0, b"k%d" % n): b"v" for n in range(9)})
        named = "name = 'documents_by_key'"
        with self.schema_of(file) as database:
            index = database.execute(f"SELECT * FROM sqlite_master WHERE {named}").fetchone()
            database.execute(f"DELETE FROM sqlite_master WHERE {named}")
            database.commit()
        with self.schema_of(file) as database:
            database.execute("DELETE FROM documents WHERE seqno = 3")
            database.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)
            database.commit()
        fault = self.assertRaises(StoreDamagedError, file.open, "b", UUID, History(1, True), 2)
        self.assertIn("9 documents, but 8 can be read", str(fault))
        with closing(sqlite3.connect(file.path)) as database:
            found = database.execute("SELECT value FROM node WHERE name = 'schema'").fetchall()
        self.assertEqual(found, [("2",)])
