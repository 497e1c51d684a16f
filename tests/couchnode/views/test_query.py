"""Answers of queries: which rows, in which order and spelling, at what cost; against a model."""

from __future__ import annotations

import json
import os
import sqlite3
from functools import cached_property
from typing import Any

from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from couchnode.views.collation import KeyEncoder
from couchnode.views.errors import QueryError
from couchnode.views.index import IndexReader, ViewIndex
from couchnode.views.query import IndexQuery
from couchnode.views.reducers import ReductionError, number_text
from tests import tries
from tests.couchnode.views.indexes import Answer, Row, apply, given, python_reduce, text

CRLF = "\r\n"


class _Case(TestCase):
    @cached_property
    def folder(self) -> str:
        folder = self.mktemp()
        os.makedirs(folder)
        return folder

    def index(self, rows: list[Row], reduce: str | None = None, marks: Any = None, vb: int = 0) -> ViewIndex:
        """Return a new index with these rows."""
        self._indexes = getattr(self, "_indexes", 0) + 1
        index = ViewIndex(os.path.join(self.folder, f"{self._indexes}.sqlite"), "v", "m", reduce)
        self.addCleanup(index.close)
        self.error = apply(index, rows, marks, vb)
        return index

    def ask(self, rows: list[Row], function: str | None = None, **plan: Any) -> Answer:
        """Query a new index with these rows and this reduce function."""
        return Answer([given(self.index(rows, function), function)], **plan)


class SpellingTests(_Case):
    """The bytes of the body (reference, section 9)."""

    def test_map_rows(self) -> None:
        """One row a line, CR LF, member order id, key, value."""
        rows = [("beer_b", ["x", 1], {"n": 1}), ("beer_a", "Abbey", None), ("c", "é", "ü")]
        self.assertEqual(
            '{"total_rows":3,"rows":[\r\n'
            '{"id":"beer_a","key":"Abbey","value":null},\r\n'
            '{"id":"c","key":"é","value":"ü"},\r\n'
            '{"id":"beer_b","key":["x",1],"value":{"n":1}}\r\n'
            "]\r\n}",
            self.ask(rows).body.decode(),
        )

    def test_no_rows(self) -> None:
        """The head and the tail meet; total_rows is the index's."""
        self.assertEqual(b'{"total_rows":1,"rows":[\r\n]\r\n}', self.ask([("a", 1, 2)], startkey=5).body)

    def test_reduced(self) -> None:
        """No total_rows, no id; nothing matched gives no row, not zero."""
        index = given(self.index([("a", 1, 2), ("b", 3, 4)], "_count"), "_count")
        self.assertEqual(b'{"rows":[\r\n{"key":null,"value":2}\r\n]\r\n}', Answer([index], reduce=True).body)
        self.assertEqual(b'{"rows":[\r\n]\r\n}', Answer([index], reduce=True, startkey=9).body)

    def test_debug(self) -> None:
        """debug_info comes before total_rows; rows have partition and node between key and value."""
        sources = [
            given(self.index([("a", [1, "}"], 2)], marks={9: (1, 7)}, vb=9)),
            given(self.index([("b", "x", "'")], vb=4), name="http://it's/"),
        ]
        for answer, rows in (
            (
                Answer(sources[:1], debug=True),
                ['{"id":"a","key":[1,"}"],"partition":9,"node":"local","value":2}'],
            ),
            (
                Answer(sources, debug=True),
                [
                    '{"id":"b","key":"x","partition":4,"node":"http://it\\u0027s/","value":"\'"}',
                    '{"id":"a","key":[1,"}"],"partition":9,"node":"local","value":2}',
                ],
            ),
        ):
            self.assertEqual(
                [*rows[:-1], rows[-1]], [line.rstrip(",") for line in answer.body.decode().split(CRLF)[2:-2]]
            )
            self.assertEqual(["debug_info", "total_rows", "rows"], list(answer.parsed))
            told = answer.parsed["debug_info"]["local"]["main_group"]
            self.assertEqual(([9], {"9": 7}), (told["active_partitions"], told["indexable_seqs"]))

    def test_debug_of_a_reduction(self) -> None:
        """Groups have no partition; debug_info is included."""
        answer = self.ask([("a", 1, 2)], "_count", reduce=True, debug=True)
        self.assertEqual(["debug_info", "rows"], list(answer.parsed))
        self.assertEqual([{"key": None, "value": 1}], answer.parsed["rows"])

    def test_numbers_print_as_javascript_prints_them(self) -> None:
        """Whole numbers without a fraction, exponents where JavaScript turns to them."""
        for number, printed in (
            (6.0, "6"),
            (-0.0, "0"),
            (0.5, "0.5"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (123456789012345680000.0, "123456789012345680000"),
            (2.0**53, "9007199254740992"),
            (-(2.0**60), "-1152921504606847000"),
            (1e-5, "0.00001"),
            (-1.25e-6, "-0.00000125"),
            (1e-7, "1e-7"),
            (5e-324, "5e-324"),
            (7, "7"),
        ):
            self.assertEqual(printed, number_text(number).decode(), number)
        for number in (float("inf"), float("-inf"), float("nan")):
            self.assertRaises(ReductionError, number_text, number)


DOCS = [("d1", "a", 1), ("d2", "a", 2), ("d3", "a", 3), ("d1", "b", 4), ("d2", "b", 5), ("d1", "c", 6)]


class RangeTests(_Case):
    """The four bounds of the reference, 8.1 to 8.3, row by row."""

    def values(self, **plan: Any) -> list[int]:
        """Return the values of the rows of DOCS that a query gives."""
        if not hasattr(self, "_docs"):
            self._docs = given(self.index(DOCS))
        return [value for _, _, value in Answer([self._docs], **plan).rows]

    def test_the_table_of_bounds(self) -> None:
        """Both directions, with and without document ids, inclusive and exclusive."""
        for plan, expected in (
            ({}, [1, 2, 3, 4, 5, 6]),
            ({"startkey": "b"}, [4, 5, 6]),
            ({"endkey": "b"}, [1, 2, 3, 4, 5]),
            ({"endkey": "b", "inclusive_end": False}, [1, 2, 3]),
            ({"startkey": "a", "startkey_docid": "d2"}, [2, 3, 4, 5, 6]),
            ({"endkey": "b", "endkey_docid": "d1"}, [1, 2, 3, 4]),
            ({"endkey": "b", "endkey_docid": "d2", "inclusive_end": False}, [1, 2, 3, 4]),
            ({"startkey": "a", "endkey": "a", "startkey_docid": "d2", "endkey_docid": "d2"}, [2]),
            ({"startkey": "a", "endkey": "a", "startkey_docid": "d3", "endkey_docid": "d1"}, []),
            ({"startkey": "a", "endkey": "a", "inclusive_end": False}, []),
            ({"startkey_docid": "d3", "endkey_docid": "d1"}, [1, 2, 3, 4, 5, 6]),
            ({"inclusive_end": False}, [1, 2, 3, 4, 5, 6]),
            ({"startkey": "aa", "endkey": "bb"}, [4, 5]),
            ({"descending": True}, [6, 5, 4, 3, 2, 1]),
            ({"descending": True, "startkey": "b"}, [5, 4, 3, 2, 1]),
            ({"descending": True, "endkey": "b"}, [6, 5, 4]),
            ({"descending": True, "endkey": "b", "inclusive_end": False}, [6]),
            ({"descending": True, "startkey": "b", "startkey_docid": "d1"}, [4, 3, 2, 1]),
            ({"descending": True, "endkey": "a", "endkey_docid": "d2"}, [6, 5, 4, 3, 2]),
            ({"descending": True, "endkey": "a", "endkey_docid": "d2", "inclusive_end": False}, [6, 5, 4, 3]),
            ({"descending": True, "startkey": "a", "endkey": "a"}, [3, 2, 1]),
            ({"limit": 2}, [1, 2]),
            ({"limit": 0}, []),
            ({"skip": 4}, [5, 6]),
            ({"skip": 4, "limit": 1}, [5]),
            ({"skip": 6}, []),
            ({"skip": 100, "limit": 1}, []),
            ({"skip": 1, "limit": 2, "descending": True}, [5, 4]),
            ({"startkey": "a", "startkey_docid": "d2", "skip": 1, "limit": 2}, [3, 4]),
        ):
            self.assertEqual(expected, self.values(**plan), plan)
            self.assertEqual(
                expected,
                [value for _, _, value in Answer([self._docs, given(self.index([]))], **plan).rows],
                plan,
            )

    def test_keys(self) -> None:
        """In the order given, repeated if repeated; limit and skip are of the whole."""
        for plan, expected in (
            ({"keys": ["c", "a"]}, [6, 1, 2, 3]),
            ({"keys": ["b", "b"]}, [4, 5, 4, 5]),
            ({"keys": ["x", "c", None]}, [6]),
            ({"keys": []}, []),
            ({"keys": ["c", "a", "b"], "skip": 2, "limit": 3}, [2, 3, 4]),
            ({"keys": ["c", "a"], "skip": 9}, []),
            ({"keys": ["b", "a"], "descending": True}, [5, 4, 3, 2, 1]),
        ):
            self.assertEqual(expected, self.values(**plan), plan)

    def test_keys_match_by_collation(self) -> None:
        """1 and 1.0 are one key, and so are two spellings of an accent."""
        answer = self.ask([("a", 1, None), ("b", "e\u0301", None)], keys=[1.0, "\u00e9"])
        self.assertEqual(["a", "b"], [row[0] for row in answer.rows])

    def test_impossible_ranges_are_refused(self) -> None:
        """With the text that names the other direction; equal bounds never are."""
        for descending, start, end in ((False, "b", "a"), (True, "a", "b")):
            refused = self.assertRaises(
                QueryError,
                self.ask,
                DOCS,
                startkey=start,
                endkey=end,
                descending=descending,
                inclusive_end=False,
            )
            self.assertEqual((400, "query_parse_error"), (refused.status, refused.error))
            self.assertEqual(
                "No rows can match your key range, reverse your start_key and end_key or set"
                f" descending={'false' if descending else 'true'}",
                refused.reason,
            )
            self.ask(DOCS, startkey=start, endkey=start, descending=descending)

    def test_ids_are_ordered_by_bytes(self) -> None:
        """Not by collation, as keys are."""
        rows = [(doc, 1, None) for doc in ("a", "B", "é", "Z", "z")]
        self.assertEqual(["B", "Z", "a", "z", "é"], [row[0] for row in self.ask(rows).rows])


KEYS = st.sampled_from(
    [None, 1, 2, "a", "A", "b", ["x"], ["x", 1], ["x", 1, "q"], ["x", 2], ["y", 1], [], [["x"], 1], {"a": 1}]
)
ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), KEYS, st.integers(-5, 5)), max_size=25)


@st.composite
def plans(draw: Any) -> dict[str, Any]:
    """Any query that the node lets through, reduced or not."""
    plan: dict[str, Any] = {"descending": draw(st.booleans()), "inclusive_end": draw(st.booleans())}
    if draw(st.booleans()):
        plan["reduce"] = True
        plan["group"] = draw(st.integers(-1, 3))
    if draw(st.integers(0, 3)) == 0 and plan.get("group", -1) == -1:
        plan["keys"] = draw(st.lists(KEYS, max_size=4))
        plan["inclusive_end"] = True
    else:
        for name in ("startkey", "endkey"):
            if draw(st.booleans()):
                plan[name] = draw(KEYS)
    for name in ("startkey_docid", "endkey_docid"):
        if draw(st.integers(0, 3)) == 0:
            plan[name] = draw(st.sampled_from("acf"))
    if draw(st.booleans()):
        plan["limit"] = draw(st.integers(0, 6))
    if draw(st.booleans()):
        plan["skip"] = draw(st.integers(0, 4))
    return plan


class Model:
    """The expected result of a query, computed from all rows."""

    def __init__(self, rows: list[Row], plan: dict[str, Any], reduce: str) -> None:
        self._encode = KeyEncoder().sort_key
        self._plan = plan
        back = plan.get("descending", False)
        ordered = sorted(
            ((self._encode(key), doc.encode(), n, key, value) for n, (doc, key, value) in enumerate(rows)),
            key=lambda row: row[:3],
            reverse=back,
        )
        if "keys" in plan:
            spans = [
                [row for row in ordered if self._inside(row, key, key, True, True)] for key in plan["keys"]
            ]
        else:
            ends = (plan.get("startkey"), plan.get("endkey"), "startkey" in plan, "endkey" in plan)
            spans = [[row for row in ordered if self._inside(row, *ends)]]
        self.result: list[Any] = []
        for found in spans:
            if plan.get("reduce"):
                self.result += self._groups(found, reduce)
            else:
                self.result += [(row[1].decode(), row[3], row[4]) for row in found]
        skip = plan.get("skip", 0)
        self.result = self.result[skip : skip + plan.get("limit", 10**6)]

    def _inside(self, row: Any, start: Any, end: Any, has_start: bool, has_end: bool) -> bool:
        back = self._plan.get("descending", False)
        key, doc = row[:2]
        if has_start:
            bound = (self._encode(start), self._plan.get("startkey_docid", "").encode())
            if "startkey_docid" not in self._plan:
                key_only = key <= bound[0] if back else key >= bound[0]
                if not key_only:
                    return False
            elif ((key, doc) > bound) if back else ((key, doc) < bound):
                return False
        if has_end:
            edge, inclusive = self._encode(end), self._plan.get("inclusive_end", True)
            if "endkey_docid" in self._plan:
                here, there = (key, doc), (edge, self._plan["endkey_docid"].encode())
            else:
                here, there = (key,), (edge,)
            if here == there:
                return inclusive
            return here > there if back else here < there
        return True

    def _groups(self, found: list[Any], reduce: str) -> list[Any]:
        groups: list[tuple[Any, Any, list[Any]]] = []
        level = self._plan.get("group", 0)
        for row in found:
            key = row[3]
            if level == 0:
                key = None
            elif level > 0 and isinstance(key, list):
                key = key[:level]
            name = self._encode(key)
            if not groups or groups[-1][0] != name:
                groups.append((name, key, []))
            groups[-1][2].append(row[4])
        return [(key, self._reduced(values, reduce)) for _, key, values in groups]

    def _reduced(self, values: list[int], reduce: str) -> Any:
        if reduce == "_count":
            return len(values)
        if reduce == "_stats":
            return {
                "sum": sum(values),
                "count": len(values),
                "min": min(values),
                "max": max(values),
                "sumsqr": sum(value * value for value in values),
            }
        return sum(values)


class ModelTests(_Case):
    """Any query of any rows gives what looking at every row gives: from one index, and from three."""

    @settings(deadline=None, max_examples=tries(150))
    @examples(ROWS, plans(), st.sampled_from(["_count", "_sum", "_stats", "sum"]))
    def test_queries(self, rows: list[Row], plan: dict[str, Any], reduce: str) -> None:
        """One index against the model; three that share its rows against the one, byte by byte."""
        # Rows of one document with equal keys keep the order in which they were emitted.
        rows = sorted(rows, key=lambda row: row[0])
        whole = given(self.index(rows, reduce), reduce)
        shares = [
            given(self.index([row for row in rows if ord(row[0]) % 3 == part], reduce), reduce, f"node{part}")
            for part in range(3)
        ]
        try:
            expected = Model(rows, plan, reduce).result
            try:
                answer = Answer([whole], **plan)
            except QueryError:
                encode = KeyEncoder().sort_key
                start, end = encode(plan["startkey"]), encode(plan["endkey"])
                self.assertTrue(start < end if plan["descending"] else start > end)
                self.assertEqual([], expected)
                self.assertRaises(QueryError, Answer, shares, **plan)
                return
            self.assertEqual(expected, answer.rows)
            self.assertEqual(None if plan.get("reduce") else len(rows), answer.parsed.get("total_rows"))
            self.assertEqual(answer.body, Answer(shares, **plan).body)
        finally:
            self.flush()

    def flush(self) -> None:
        """Close the indexes of an example."""
        self._cleanups, cleanups = [], self._cleanups
        for cleanup, args, kwargs in cleanups:
            cleanup(*args, **kwargs)

    def test_large_groups(self) -> None:
        """Groups beyond a page, at its ends, and between small ones, either way."""
        rows: list[Row] = []
        for group, size in enumerate((1, 31, 32, 33, 1500, 1, 1, 64, 2200, 512)):
            rows += [(f"d{group}-{n:05}", [group, n % 7], n % 11) for n in range(size)]
        for reduce in ("_count", "_stats", "sum"):
            source = given(self.index(rows, reduce), reduce)
            for plan in (
                {"group": 1},
                {"group": 2},
                {"group": 0},
                {"group": -1},
                {"group": 1, "startkey": [3, 5], "endkey": [8, 2]},
                {"group": 1, "startkey": [4, 2], "endkey": [4, 2], "startkey_docid": "d4-00500"},
            ):
                for descending in (False, True):
                    asked = {"reduce": True, "descending": descending, **plan}
                    if descending and "startkey" in plan:
                        asked["startkey"], asked["endkey"] = plan["endkey"], plan["startkey"]
                    self.assertEqual(Model(rows, asked, reduce).result, Answer([source], **asked).rows, asked)


class CostTests(_Case):
    """The cost of a query depends on the rows that it reads, not on the size of the index."""

    def test_every_statement_is_a_search_of_the_primary_key(self) -> None:
        """Ranges, both directions, with ids, resumed pages, skips and groups: no scan, no sorting."""
        rows: list[Row] = [(f"d{n:04}", [n % 5, n], n) for n in range(3000)]
        index = self.index(rows, "_stats")
        source = given(index, "_stats")
        connection = sqlite3.connect(index.path)
        self.addCleanup(connection.close)
        for plan in (
            {},
            {"reduce": True, "group": 1},
            {"reduce": True, "group": 0},
            {"reduce": True, "group": -1, "limit": 9},
            {"skip": 5},
            {"startkey_docid": "d0100", "endkey_docid": "d2000"},
            {"startkey_docid": "d0100", "endkey_docid": "d2000", "inclusive_end": False, "skip": 1},
        ):
            for descending in (False, True):
                bounds = ([4, 0], [1]) if descending else ([1], [4, 0])
                answer = Answer([source], startkey=bounds[0], endkey=bounds[1], descending=descending, **plan)
                statements = [one for one in answer.statements if "FROM rows" in one]
                self.assertGreater(len(statements), 0)
                for statement in statements:
                    steps = [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
                    reads = [step for step in steps if "rows" in step]
                    self.assertEqual(1, len(reads), steps)
                    self.assertIn("SEARCH rows USING PRIMARY KEY (", reads[0])
                    self.assertIn(">", reads[0])
                    self.assertIn("<", reads[0])
                    self.assertNotIn("B-TREE", "".join(steps))

    def test_limit_costs_the_same_in_any_index(self) -> None:
        """The steps of SQLite's machine for ten rows do not grow with the index or with where they are."""
        indexes = {
            size: self.index([(f"d{n:05}", f"k{n:05}", n) for n in range(size)], "_sum")
            for size in (60, 6000)
        }

        def steps(size: int, **plan: Any) -> int:
            source = given(indexes[size], "_sum")
            reader = IndexReader(source["path"])
            taken = [0]

            def count() -> int:
                taken[0] += 1
                return 0

            reader.connection.set_progress_handler(count, 1)
            query = IndexQuery([(source, reader)], {"limit": 10, **plan}, python_reduce, KeyEncoder())
            self.assertEqual(10, b"".join(query.blocks()).count(b'"key"'))
            reader.close()
            return taken[0]

        for plan in (
            {},
            {"descending": True},
            {"reduce": True, "group": -1},
            {"reduce": True, "group": -1, "descending": True},
        ):
            small = steps(60, startkey="k00030", **plan)
            large = steps(6000, startkey="k03000", **plan)
            self.assertLess(large, small * 1.5 + 100, plan)

    def test_rows_are_fetched_as_far_as_they_are_wanted(self) -> None:
        """limit and skip bound what is read, from one index and from several."""
        rows: list[Row] = [(f"d{n:05}", n, n) for n in range(5000)]
        sources = [given(self.index(rows)), given(self.index(rows[::2]))]
        self.assertLessEqual(Answer(sources[:1], limit=10).fetched, 10)
        self.assertLessEqual(Answer(sources[:1], limit=10, skip=100).fetched, 110)
        self.assertLessEqual(Answer(sources, limit=10).fetched, 20)

    def test_blocks_are_of_a_bounded_size(self) -> None:
        """Rows of 200 KB come a few at a time, and small ones in blocks of 32 KiB and more."""
        large = self.ask([(f"d{n}", n, "x" * 200_000) for n in range(30)])
        self.assertEqual(30, len(large.rows))
        self.assertLess(max(map(len, large.blocks)), 1_300_000)
        mixed = self.ask([(f"d{n:04}", n, "x" * (500_000 if n > 4000 else 1)) for n in range(4010)])
        self.assertEqual(4010, len(mixed.rows))
        self.assertLess(max(map(len, mixed.blocks)), 1_300_000)
        small = self.ask([(f"d{n:05}", n, "x" * 50) for n in range(6000)])
        self.assertEqual(6000, len(small.rows))
        self.assertGreater(min(map(len, small.blocks[1:-1])), 32 * 1024 - 1)

    def test_the_first_block_comes_before_the_last_row_is_read(self) -> None:
        """Streaming: when the first block arrives, only a small part has been read."""
        index = self.index([(f"d{n:05}", n, "x" * 50) for n in range(8000)])
        reader = IndexReader(index.path)
        self.addCleanup(reader.close)
        query = IndexQuery([(given(index), reader)], {}, python_reduce, KeyEncoder())
        next(query.blocks())
        self.assertLess(query.fetched, 2000)

    def test_a_query_goes_on_after_its_snapshot_was_given_up(self) -> None:
        """No row twice, none lost; what changed ahead of it is seen."""
        index = self.index([(f"d{n:05}", n, "x" * 50) for n in range(5000)])
        source = given(index)
        for sources in ([source], [source, given(self.index([]))]):
            readers = [IndexReader(one["path"]) for one in sources]
            query = IndexQuery(list(zip(sources, readers, strict=True)), {}, python_reduce, KeyEncoder())
            parts = []
            for block in query.blocks():
                parts.append(block)
                query.release()
                apply(index, [("new", 4999.5, None), ("behind", -1, None)])
            ids = [row["id"] for row in json.loads(b"".join(parts))["rows"]]
            self.assertEqual([f"d{n:05}" for n in range(5000)], [doc for doc in ids if doc[0] == "d"])
            self.assertIn("new", ids)
            for reader in readers:
                reader.close()
            index.apply([(0, b"new"), (0, b"behind")], [], {})
            index.commit()


class ErrorTests(_Case):
    """Failures of one index, alone and among others."""

    def test_a_failed_build_refuses_the_query(self) -> None:
        """With 500 and the reason, also without the reduce function that the data is wrong for."""
        source = given(self.index([("a", "k", "x")], "_sum"), "_sum")
        for plan in ({"reduce": True}, {}):
            refused = self.assertRaises(QueryError, Answer, [source], **plan)
            self.assertEqual((500, "error", self.error), (refused.status, refused.error, refused.reason))

    def test_a_failed_build_among_others_is_told_after_the_rows(self) -> None:
        """The other rows are returned; with on_error=stop no rows are, and total_rows is 0."""
        bad = given(self.index([("a", "k", "x")], "_sum"), "_sum", "http://n2/")
        reason = self.error
        good = given(self.index([("b", 1, 5)], "_sum"), "_sum")
        told = [{"from": "http://n2/", "reason": reason}]
        answer = Answer([good, bad])
        self.assertEqual([("b", 1, 5)], answer.rows)
        self.assertEqual(told, answer.parsed["errors"])
        self.assertEqual(
            f'{{"total_rows":0,"rows":[\r\n],\r\n"errors":[\r\n{text(told[0])}\r\n]\r\n}}',
            Answer([good, bad], on_error="stop").body.decode(),
        )
        self.assertEqual([(None, 5)], Answer([bad, good], reduce=True).rows)

    def test_errors_that_the_node_knows_come_along(self) -> None:
        """A node that did not answer is reported, even if there is nothing else."""
        told = [{"from": "http://n2/", "reason": "timeout"}]
        answer = self.ask([("a", 1, 2)], errors=told)
        self.assertEqual((told, [("a", 1, 2)]), (answer.parsed["errors"], answer.rows))
        for plan in ({}, {"reduce": True, "group": -1}, {"on_error": "stop"}):
            self.assertEqual(
                ([], told), (Answer([], errors=told, **plan).rows, Answer([], errors=told).parsed["errors"])
            )

    def test_a_reduce_that_throws_refuses_the_query(self) -> None:
        """From one index, while nothing was sent."""
        refused = self.assertRaises(QueryError, self.ask, [("a", 1, 2)], "throw", reduce=True)
        self.assertEqual((500, "error", "Error: thrown"), (refused.status, refused.error, refused.reason))
        self.assertEqual([("a", 1, 2)], self.ask([("a", 1, 2)], "throw").rows)

    def test_a_reduce_that_throws_later_ends_the_rows(self) -> None:
        """Rows that were sent remain, the error follows."""
        rows: list[Row] = [(f"d{n:05}", f"{n:05}" + "x" * 200, n) for n in range(4000)]
        answer = self.ask(rows, "throw on 3999", reduce=True, group=-1)
        self.assertEqual([{"from": "local", "reason": "Error: thrown"}], answer.parsed["errors"])
        self.assertGreater(len(answer.rows), 500)
        self.assertEqual([(key, n) for _, key, n in rows[: len(answer.rows)]], answer.rows)

    def test_a_reduce_that_throws_for_one_of_several(self) -> None:
        """The other groups continue, or stop, as on_error says."""
        sources = [
            given(self.index([(f"{name}{n}", n, n)], "throw on 5"), "throw on 5", name)
            for n, name in ((1, "local"), (5, "http://n2/"), (9, "http://n3/"))
        ]
        told = [{"from": "http://n2/", "reason": "Error: thrown"}]
        answer = Answer(sources, reduce=True, group=-1)
        self.assertEqual(([(1, 1), (9, 9)], told), (answer.rows, answer.parsed["errors"]))
        answer = Answer(sources, reduce=True, group=-1, on_error="stop")
        self.assertEqual(([], told), (answer.rows, answer.parsed["errors"]))

    def test_limit_keeps_later_groups_from_failing(self) -> None:
        """Groups beyond the limit are not computed."""
        rows = [("a", 1, 1), ("b", 2, 5)]
        self.assertEqual([(1, 1)], self.ask(rows, "throw on 5", reduce=True, group=-1, limit=1).rows)

    def test_an_index_that_is_not_there_is_empty(self) -> None:
        """Like an index of other functions: it has not been built yet."""
        index = self.index([("a", 1, 2)])
        source = given(index)
        reader = IndexReader(index.path)
        self.addCleanup(reader.close)
        for other, open_reader in (({**source, "map": "m2"}, reader), (source, None)):
            for plan, body in (
                ({}, b'{"total_rows":0,"rows":[\r\n]\r\n}'),
                ({"reduce": True}, b'{"rows":[\r\n]\r\n}'),
            ):
                query = IndexQuery(
                    [({**other, "reduce": None}, open_reader)], {}, python_reduce, KeyEncoder()
                )
                self.assertEqual(
                    b'{"total_rows":0,"rows":[\r\n]\r\n}', b"".join(query.blocks()), (plan, body)
                )
