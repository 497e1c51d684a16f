"""Views and design documents of the blocking connection."""

import gc
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import TestCase

import couchbase
from couchbase import LOCKMODE_WAIT
from couchbase.connection import Connection, View
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseError,
    CouchbaseNetworkError,
    HTTPError,
    ObjectThreadError,
    PipelineError,
    TimeoutError,
    ViewEngineError,
)
from couchbase.result import HttpResult
from couchbase.views.iterator import AlreadyQueriedError, RowProcessor, ViewRow
from couchbase.views.params import Query
from tests.couchbase.scripted import ScriptedNode
from tests.couchbase.support import ConnectionTestCase

DESIGN = {
    "views": {
        "numbers": {"map": "function (doc, meta) { if (doc.n !== undefined) emit(doc.n, doc.n * 2); }"},
        "sums": {
            "map": "function (doc, meta) { if (doc.n !== undefined) emit(doc.n % 2, doc.n); }",
            "reduce": "_sum",
        },
    }
}
COUNT = 300
PASSED_BACK = {"stale": "false"}


class ViewTests(ConnectionTestCase):
    """Queries of a view over the documents of one bucket."""

    bucket = "secret"
    prepared = False

    def setUp(self):
        super().setUp()
        if not ViewTests.prepared:
            self.cb.set_multi({f"number-{n:03}": {"n": n} for n in range(COUNT)})
            self.cb.design_create("tests", DESIGN, use_devmode=False, syncwait=10)
            ViewTests.prepared = True

    def query(self, view="numbers", **keywords):
        """Return a view over the whole index."""
        return self.cb.query("tests", view, **{**PASSED_BACK, **keywords})

    def test_rows(self):
        """All rows, in order, and what the view then knows."""
        for streaming in (False, True):
            view = self.query(streaming=streaming)
            self.assertIs(type(view), View)
            self.assertIsNone(view.raw)
            rows = list(view)
            self.assertEqual([(row.key, row.value) for row in rows], [(n, n * 2) for n in range(COUNT)])
            self.assertIsInstance(rows[0], ViewRow)
            self.assertEqual((rows[7].docid, rows[7].doc), ("number-007", None))
            self.assertEqual((view.indexed_rows, view.rows_returned, view.errors), (COUNT, COUNT, []))
            self.assertIsInstance(view.raw, HttpResult)
            self.assertEqual((view.raw.http_status, view.raw.done), (200, True))
            self.assertEqual(len(view.raw.value["rows"]), 0 if streaming else COUNT)
            self.assertEqual(view.raw.value["total_rows"], COUNT)
            self.assertEqual(view.streaming, streaming)
            self.assertEqual(
                repr(view),
                f"View<Design=tests, View=numbers, Query={view.query!r}, Rows Fetched={COUNT}>",
            )

    def test_options(self):
        """By name, by Query, by text."""
        wanted = [(5, 10), (6, 12)]
        for keywords in (
            {"startkey": 5, "limit": 2},
            {"query": Query(startkey=5, limit=2, stale="false"), "stale": None},
            {"query": "startkey=5&limit=2&stale=false", "stale": None},
            {"mapkey_range": [5, 6]},
        ):
            options = {**PASSED_BACK, **keywords}
            options = {name: value for name, value in options.items() if value is not None}
            rows = self.cb.query("tests", "numbers", **options)
            self.assertEqual([(row.key, row.value) for row in rows], wanted)
        self.assertRaises(ArgumentError, self.query, query="limit=1", limit=2)
        self.assertRaises(ArgumentError, self.query, no_such_option=1)

    def test_reduced(self):
        """Rows without a document."""
        rows = list(self.query("sums", group=True))
        self.assertEqual([(row.key, row.docid) for row in rows], [(0, None), (1, None)])
        self.assertEqual(sum(row.value for row in rows), sum(range(COUNT)))
        self.assertRaises(ArgumentError, self.query, "sums", include_docs=True, reduce=True)

    def test_converters(self):
        """The program's JSON converter is also used for answers."""
        before = couchbase.set_json_converters(
            json.dumps, lambda text: json.loads(text, parse_int=lambda digits: f"<{digits}>")
        )
        try:
            for streaming in (False, True):
                (row,) = self.query(streaming=streaming, key=7)
                self.assertEqual((row.key, row.value), ("<7>", "<14>"))
        finally:
            couchbase.set_json_converters(*before)

    def test_documents(self):
        """With one get_multi a page."""
        for streaming in (False, True):
            rows = list(self.query(include_docs=True, limit=5, streaming=streaming))
            self.assertEqual([row.doc.value for row in rows], [{"n": n} for n in range(5)])
            self.assertTrue(rows[0].doc.success)

    def test_once(self):
        """A second iteration raises at its first row, also if the first was left early."""
        for streaming in (False, True):
            view = self.query(streaming=streaming)
            next(iter(view))
            again = iter(view)
            self.assertRaises(AlreadyQueriedError, next, again)

    def test_operations_between_rows(self):
        """The connection is free while rows are looked at."""
        for row in self.query(streaming=True, limit=20):
            self.assertEqual(self.cb.get(row.docid).value, {"n": row.key})

    def test_dropped(self):
        """A half-read iterator that is let go closes its connection."""
        rows = iter(self.query(streaming=True))
        next(rows)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del rows
            gc.collect()
        self.assertEqual(caught, [])
        self.assertEqual(len(list(self.query(limit=3))), 3)

    def test_long_queries(self):
        """Many keys go in the body."""
        keys = list(range(COUNT))
        view = self.query(keys=keys)
        self.assertEqual(view.request("secret").method, "POST")
        self.assertEqual([row.key for row in view], keys)

    def test_failures(self):
        """HTTPError on iteration, not before."""
        for streaming in (False, True):
            view = self.cb.query("tests", "no-such-view", streaming=streaming)
            with self.assertRaises(HTTPError) as caught:
                list(view)
            self.assertEqual(caught.exception.objextra.http_status, 404)
            self.assertIs(caught.exception.objextra, view.raw)

    def test_row_processors(self):
        """Any object with handle_rows; the class of rows; exceptions propagate."""

        class Mine:
            def handle_rows(self, rows, connection, include_docs):
                self.seen = connection, include_docs
                return [row["key"] for row in rows if row["key"] % 2]

        mine = Mine()
        self.assertEqual(list(self.query(row_processor=mine, limit=4)), [1, 3])
        self.assertEqual(mine.seen, (self.cb, False))
        self.assertEqual(list(self.query(row_processor=mine, limit=2)), [1])
        rows = self.query(row_processor=RowProcessor(rowclass=lambda key, value, docid, doc: key), limit=2)
        self.assertEqual(list(rows), [0, 1])

        class Broken:
            def handle_rows(self, rows, connection, include_docs):
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, list, self.query(row_processor=Broken()))
        self.assertEqual(list(self.query(row_processor=Broken(), startkey=COUNT + 1)), [])

    def test_other_classes(self):
        """``itercls`` makes the object."""

        class Mine(View):
            pass

        self.assertIs(type(self.query(itercls=Mine)), Mine)

    def test_pipeline(self):
        """PipelineError when the request would be sent."""
        with self.cb.pipeline():
            view = self.query()
            self.assertRaises(PipelineError, list, view)
            self.assertRaises(PipelineError, self.cb.design_get, "tests", use_devmode=False)

    def test_lock(self):
        """Requests also count as operations of the connection."""
        self.cb._thr_lockop(0)
        self.assertRaises(ObjectThreadError, list, self.query())
        self.assertRaises(ObjectThreadError, self.cb.design_get, "tests")
        self.cb._thr_lockop(1)
        cb = self.connect(lockmode=LOCKMODE_WAIT)
        for _ in cb.query("tests", "numbers", streaming=True, limit=3, include_docs=True):
            pass

    def test_view_request(self):
        """``_view``: one request, decoded."""
        found = self.cb._view("tests", "numbers", params={"limit": 1, "stale": "false"})
        self.assertEqual((len(found.value["rows"]), found.headers), (1, None))
        for params in ("limit=1", Query(limit=1), None):
            self.assertTrue(self.cb._view("tests", "numbers", params=params).success)
        self.assertRaises(HTTPError, self.cb._view, "tests", "numbers", use_devmode=True)


class DesignTests(ConnectionTestCase):
    """Section 14.3 of the reference."""

    bucket = "secret"

    def tearDown(self):
        for name in ("mine", "dev_mine"):
            try:
                self.cb.design_delete(name, use_devmode=False)
            except HTTPError:
                pass

    def test_life(self):
        """Create, read, publish, delete."""
        made = self.cb.design_create("mine", DESIGN, syncwait=10)
        self.assertTrue(made.success)
        self.assertNotIn("_id", DESIGN)
        found = self.cb.design_get("mine")
        self.assertEqual(found.value["views"], DESIGN["views"])
        self.assertIn("rev", json.loads(found.headers["X-Couchbase-Meta"]))
        self.assertEqual(found.url, "/secret/_design/dev_mine")
        self.assertEqual(self.cb.design_get("dev_mine").url, found.url)
        self.assertRaises(HTTPError, self.cb.design_get, "mine", use_devmode=False)
        self.assertTrue(self.cb.design_publish("mine", syncwait=10).success)
        self.assertEqual(self.cb.design_get("mine", use_devmode=False).value["views"], DESIGN["views"])
        self.assertTrue(self.cb.design_delete("mine", use_devmode=False, syncwait=10).success)
        self.assertTrue(self.cb.design_delete("mine").success)
        with self.assertRaises(HTTPError) as caught:
            self.cb.design_delete("mine")
        self.assertEqual(caught.exception.objextra.http_status, 404)
        self.assertRaises(HTTPError, self.cb.design_publish, "mine")

    def test_text(self):
        """JSON text is sent as it is, in either form."""
        text = json.dumps(DESIGN)
        self.assertTrue(self.cb.design_create("mine", text, use_devmode=False).success)
        self.assertTrue(self.cb.design_create("draft", text).success)
        self.assertEqual(self.cb.design_get("draft", use_devmode=True).value["views"], DESIGN["views"])
        self.assertRaises(HTTPError, self.cb.design_get, "draft", use_devmode=False)
        with self.assertRaises(HTTPError):
            self.cb.design_create("mine", "{", use_devmode=False)

    def test_arguments(self):
        """ArgumentError."""
        for args in (("mine", 5), ("mine", None), ("", DESIGN), (None, DESIGN), ("mine", {"a": object()})):
            self.assertRaises(ArgumentError, self.cb.design_create, *args)
        for wait in (-1, "x", None):
            self.assertRaises(ArgumentError, self.cb.design_create, "mine", DESIGN, syncwait=wait)
            self.assertRaises(ArgumentError, self.cb.design_delete, "mine", syncwait=wait)
            self.assertRaises(ArgumentError, self.cb.design_publish, "mine", syncwait=wait)


class ScriptedViewTests(TestCase):
    """Answers that no healthy view engine gives."""

    def setUp(self):
        test = self
        self.answer = b""
        self.length = None
        self.hold = threading.Event()

        class Engine(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                if test.length is not None:
                    self.send_header("Content-Length", str(test.length))
                self.end_headers()
                self.wfile.write(test.answer)
                if test.length is not None and test.length < 0:
                    test.hold.wait(5)

            def log_message(self, format, *args):
                pass

        engine = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
        threading.Thread(target=engine.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(engine.server_close)
        self.addCleanup(engine.shutdown)
        self.addCleanup(self.hold.set)
        node = ScriptedNode()
        self.addCleanup(node.stop)
        config = json.loads(node.config())
        config["nodesExt"][0]["services"]["capi"] = engine.server_address[1]
        node.config = lambda: json.dumps(config).encode()
        self.cb = Connection(bucket="b", connection_string=node.string, password="p")
        self.addCleanup(self.cb._close)

    def test_errors_inside(self):
        """Before any row without streaming, after the rows with it; a warning with on_error=continue."""
        errors = [{"from": "node", "reason": "broken"}]
        rows = [{"id": "a", "key": 1, "value": 2}]
        self.answer = json.dumps({"total_rows": 1, "rows": rows, "errors": errors}).encode()
        for streaming, seen in ((False, 0), (True, 1)):
            view = self.cb.query("d", "v", streaming=streaming)
            got = []
            with self.assertRaises(ViewEngineError) as caught:
                for row in view:
                    got.append(row)
            self.assertEqual(len(got), seen)
            self.assertEqual((caught.exception.objextra, view.errors), (errors, errors))
            view = self.cb.query("d", "v", streaming=streaming, on_error="continue")
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                self.assertEqual(len(list(view)), 1)
            self.assertEqual(len(warned), 1)
            self.assertEqual(view.errors, errors)

    def test_cut(self):
        """An answer that ends early is a network error, or no JSON."""
        whole = json.dumps({"rows": [{"id": "a", "key": 1, "value": 2}] * 10}).encode()
        self.answer, self.length = whole[:-20], len(whole)
        for streaming in (False, True):
            with self.assertRaises(CouchbaseNetworkError):
                list(self.cb.query("d", "v", streaming=streaming))
        self.length = None
        for streaming in (False, True):
            with self.assertRaises(CouchbaseError) as caught:
                list(self.cb.query("d", "v", streaming=streaming))
            self.assertIn(caught.exception.rc, (0x10, 0x16))

    def test_no_rows(self):
        """An answer without rows or errors, or nested too deeply to be read, is not one."""
        for text in ("{}", '{"rows":null}', '{"total_rows":1}', '{"rows":[' + "[" * 100_000, "[" * 100_000):
            self.answer = text.encode()
            for streaming in (False, True):
                with self.assertRaises(CouchbaseError) as caught:
                    list(self.cb.query("d", "v", streaming=streaming))
                self.assertIn(caught.exception.rc, (0x10, 0x16))

    def test_silence(self):
        """``views_timeout`` ends the wait."""
        self.cb.views_timeout = 0.1
        self.answer, self.length = b'{"rows":[', -1
        for streaming in (False, True):
            with self.assertRaises(TimeoutError):
                list(self.cb.query("d", "v", streaming=streaming))
