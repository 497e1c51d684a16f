"""The file of one view: no row without its document, whatever happens, and rows that match the marks."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from couchnode.views import files
from couchnode.views.index import IndexReader, ViewIndex, remove_index
from tests import tries
from tests.couchnode.views.indexes import apply, change, stored


class _Case(TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "v.sqlite")
        os.makedirs(os.path.dirname(self.path))

    def open(self, reduce: str | None = None, map_source: str = "m") -> ViewIndex:
        index = ViewIndex(self.path, "v", map_source, reduce)
        self.addCleanup(index.close)
        return index


class RowsTests(_Case):
    """Rows follow their documents."""

    def test_rows_are_stored_ready_to_print(self) -> None:
        """A row is its line of the answer, with the texts of key and value as they were emitted."""
        index = self.open()
        index.apply([change('a"é')], [(0, '["x",1e+21]', '{"n": 1}')], {})
        index.commit()
        reader = IndexReader(self.path)
        self.addCleanup(reader.close)
        ((row, key_at, value_at),) = reader.fetch("SELECT row, key_at, value_at FROM rows", ())
        self.assertEqual('{"id":"a\\"é","key":["x",1e+21],"value":{"n": 1}}'.encode(), row)
        self.assertEqual(b'["x",1e+21]', row[key_at : value_at - 9])
        self.assertEqual(b'{"n": 1}', row[value_at:-1])

    def test_an_overwritten_document_leaves_no_row_of_before(self) -> None:
        """The new rows replace the old ones, also if there are fewer, or with other keys."""
        index = self.open()
        apply(index, [("a", 1, None), ("a", 2, None), ("b", 1, None)])
        apply(index, [("a", 7, None)])
        self.assertEqual([("b", 1, None), ("a", 7, None)], stored(self.path))
        self.assertEqual(2, index.rows)

    def test_a_document_that_emits_nothing_any_more_is_gone(self) -> None:
        """Deleted, or of no interest now: the same."""
        index = self.open()
        apply(index, [("a", 1, None), ("b", 1, None)])
        index.apply([change("a", value=None)], [], {})
        index.commit()
        self.assertEqual([("b", 1, None)], stored(self.path))
        self.assertEqual(1, index.rows)

    def test_reconcile_takes_out_what_is_not_there(self) -> None:
        """In one vbucket, documents that are not named are removed; other vbuckets are unaffected."""
        index = self.open()
        apply(index, [("a", 1, None), ("b", 1, None), ("b", 2, None)], vb=3)
        apply(index, [("c", 1, None)], vb=4)
        index.reconcile(3, [b"a", b"z"])
        index.commit()
        self.assertEqual([("a", 1, None), ("c", 1, None)], stored(self.path))
        self.assertEqual(2, index.rows)

    def test_drop_takes_rows_and_marks(self) -> None:
        """A dropped vbucket is as if never seen."""
        index = self.open()
        apply(index, [("a", 1, None)], {3: (7, 5)}, vb=3)
        apply(index, [("c", 1, None)], {4: (2**63, 6)}, vb=4)
        index.drop([3, 9])
        index.commit()
        self.assertEqual([("c", 1, None)], stored(self.path))
        self.assertEqual({4: (2**63, 6)}, self.open().marks)

    def test_one_id_in_two_vbuckets_is_two_documents(self) -> None:
        """A client that puts a key where it does not belong breaks nothing."""
        index = self.open()
        apply(index, [("a", 1, "x")], vb=1)
        apply(index, [("a", 1, "y")], vb=2)
        index.drop([1])
        index.commit()
        self.assertEqual([("a", 1, "y")], stored(self.path))

    @settings(deadline=None, max_examples=tries(30))
    @examples(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"),
                st.integers(0, 2),
                st.lists(st.integers(0, 3), max_size=3),
                st.sampled_from(["apply", "apply", "apply", "drop", "reconcile", "reopen", "rollback"]),
            ),
            max_size=12,
        )
    )
    def test_rows_are_those_of_the_last_versions(self, steps: list[tuple[str, int, list[int], str]]) -> None:
        """After any history the index holds what mapping the documents gives, and its count is right."""
        self.path = os.path.join(self.mktemp(), "v.sqlite")
        os.makedirs(os.path.dirname(self.path))
        index = ViewIndex(self.path, "v", "m", None)
        model: dict[tuple[int, str], list[int]] = {}
        for doc, vb, keys, step in steps:
            if step in ("apply", "rollback"):
                index.apply([change(doc, vb)], [(0, str(key), "null") for key in keys], {vb: (1, 1)})
                if step == "rollback":
                    index.rollback()
                else:
                    model[vb, doc] = keys
            elif step == "drop":
                index.drop([vb])
                model = {at: found for at, found in model.items() if at[0] != vb}
            elif step == "reconcile":
                index.reconcile(vb, [doc.encode()])
                model = {at: found for at, found in model.items() if at[0] != vb or at[1] == doc}
            index.commit()
            if step == "reopen":
                index.close()
                index = ViewIndex(self.path, "v", "m", None)
        expected = sorted((key, doc) for (_, doc), keys in model.items() for key in keys)
        self.assertEqual(expected, [(key, doc) for doc, key, _ in stored(self.path)])
        self.assertEqual(len(expected), index.rows)
        index.close()


class FilesTests(_Case):
    """Files that are used, and files that are rebuilt."""

    def test_what_was_committed_is_there_again(self) -> None:
        """Rows, count and marks are read again; an open transaction is not."""
        index = self.open()
        apply(index, [("a", 1, None)], {1: (5, 9)})
        index.apply([change("b")], [(0, "2", "null")], {1: (5, 10)})
        index.close()
        again = self.open()
        self.assertEqual(({1: (5, 9)}, 1), (again.marks, again.rows))
        self.assertEqual([("a", 1, None)], stored(self.path))

    def test_other_functions_make_another_index(self) -> None:
        """A changed map or reduce starts from nothing; readers take the old file for an empty one."""
        apply(self.open(), [("a", 1, None)], {1: (5, 9)})
        for map_source, reduce in (("m2", None), ("m2", "_sum")):
            index = self.open(reduce, map_source)
            self.assertEqual(({}, 0), (index.marks, index.rows))
            apply(index, [("a", 1, 3)], {1: (5, 9)})

    def test_damaged_files_are_made_anew(self) -> None:
        """A file of noise, an empty one, and another program's database."""
        for content in (b"x" * 10_000, b"", None):
            remove_index(self.path)
            if content is None:
                other = sqlite3.connect(self.path)
                other.execute("CREATE TABLE facts (x)")
                other.commit()
                other.close()
            else:
                Path(self.path).write_bytes(content)
            index = self.open()
            self.assertEqual(({}, 0), (index.marks, index.rows))
            apply(index, [("a", 1, None)])
            self.assertEqual([("a", 1, None)], stored(self.path))
            index.close()

    def test_a_reader_of_a_deleted_file_leaves_the_new_one_alone(self) -> None:
        """SQLite must not mistake the new file's log for the old one's when the old reader closes."""
        index = self.open()
        apply(index, [("a", 1, None)])
        reader = IndexReader(self.path)
        reader.fetch("SELECT count(*) FROM rows", ())
        index.close()
        remove_index(self.path)
        fresh = self.open()
        apply(fresh, [("b", 2, None)])
        self.assertEqual([(1,)], reader.fetch("SELECT count(*) FROM rows", ()))
        reader.close()
        apply(fresh, [("c", 3, None)])
        self.assertEqual([("b", 2, None), ("c", 3, None)], stored(self.path))

    def test_a_snapshot_is_held_until_it_is_released(self) -> None:
        """A reader sees one state; after release, the next."""
        index = self.open()
        apply(index, [("a", 1, None)])
        reader = IndexReader(self.path)
        self.addCleanup(reader.close)
        count = "SELECT count(*) FROM rows"
        self.assertEqual([(1,)], reader.fetch(count, ()))
        apply(index, [("b", 2, None)])
        self.assertEqual([(1,)], reader.fetch(count, ()))
        reader.release()
        self.assertEqual([(2,)], reader.fetch(count, ()))

    def test_a_file_that_is_deleted_while_it_is_opened(self) -> None:
        """There is no reader then; SQLite may call it an I/O error. Other errors are raised."""
        apply(self.open(), [("a", 1, None)])

        def fail(path: str) -> None:
            if deletes:
                remove_index(path)
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(files, "IndexReader", fail)
        deletes = False
        with self.assertRaises(sqlite3.OperationalError), files.Readers().lent([self.path]):
            pass
        deletes = True
        with files.Readers().lent([self.path]) as readers:
            self.assertEqual(readers, [None])

    def test_readers_cannot_write(self) -> None:
        """A mistake in a query's SQL cannot change an index."""
        apply(self.open(), [("a", 1, None)])
        reader = IndexReader(self.path)
        self.addCleanup(reader.close)
        self.assertRaises(sqlite3.OperationalError, reader.fetch, "DELETE FROM rows", ())


class BuildErrorTests(_Case):
    """A value that the reduce function does not take fails the build, until the data changes."""

    def test_a_value_that_is_no_number_fails_the_build(self) -> None:
        """Under ``_sum`` and ``_stats``; the text names view and key, nothing is written, no mark moves."""
        for reduce in ("_sum", "_stats"):
            for value in ("3", None, [1], {}, True):
                remove_index(self.path)
                index = self.open(reduce)
                apply(index, [("ok", 1, 1.5)], {2: (1, 1)})
                reason = apply(index, [("a", "k", value), ("b", 2, 2)], {1: (1, 5)}, vb=1)
                self.assertEqual(
                    'Reducer: Error building index for view `v`, reason: Value is not a number (key "k")',
                    reason,
                )
                index.close()
                again = self.open(reduce)
                self.assertEqual((reason, {2: (1, 1)}, 1), (again.error, again.marks, again.rows))
                again.close()

    def test_count_takes_anything(self) -> None:
        """Like functions in JavaScript, and views without a function."""
        for reduce in ("_count", "function", None):
            index = self.open(reduce)
            self.assertIsNone(apply(index, [("a", 1, "x"), ("b", 1, None)]))
            index.close()

    def test_the_error_stays_until_the_vbucket_is_known(self) -> None:
        """Other changes do not hide it; a mark of its vbucket, or the end of the vbucket, clears it."""
        index = self.open("_sum")
        apply(index, [("a", 1, "x")], vb=1)
        apply(index, [("b", 1, 1)], {2: (1, 1)}, vb=2)
        self.assertIsNotNone(index.error)
        apply(index, [("a", 1, 1)], {1: (1, 9)}, vb=1)
        self.assertIsNone(index.error)
        apply(index, [("a", 1, "x")], vb=1)
        index.drop([1])
        index.commit()
        self.assertIsNone(self.open("_sum").error)
