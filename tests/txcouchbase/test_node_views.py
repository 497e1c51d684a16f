"""Views from end to end: the driver against the embedded node's own view engine."""

import json

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import SkipTest

from couchbase.exceptions import HTTPError
from couchbase.views.params import UNSPEC, Query
from couchnode.views.service import is_available
from tests.txcouchbase.capi import BlocksRecorder, Recorder
from tests.txcouchbase.test_connection import NodeTestCase

DESIGN = {
    "views": {
        "by_name": {"map": "function (doc, meta) { if (doc.name) emit(doc.name, doc.n); }"},
        "by_kind": {"map": "function (doc, meta) { emit([doc.kind, doc.n], 1); }", "reduce": "_count"},
    }
}
COUNT = 60


class NodeViewTests(NodeTestCase):
    """One node."""

    @inlineCallbacks
    def setUp(self):
        if not is_available():
            raise SkipTest("mini-racer or pyicu-wheels is not installed")
        yield super().setUp()
        self.connection = self.open()
        self.addCleanup(lambda: self.connection._http.close())
        documents = {
            f"k{n:03}": {"name": f"name {n:03} [{{", "n": n, "kind": ["ale", "stout"][n % 2]}
            for n in range(COUNT)
        }
        yield self.connection.set_multi(documents)
        yield self.connection.design_create("d", DESIGN, use_devmode=False, syncwait=30)

    @inlineCallbacks
    def test_rows(self):
        """Ranges, limits and order, as the options say."""
        query = self.connection.queryAll
        view = yield query(
            "d", "by_name", stale=False, mapkey_range=["name 01", "name 01" + Query.STRING_RANGE_END]
        )
        self.assertEqual([row.docid for row in view], [f"k{n:03}" for n in range(10, 20)])
        self.assertEqual((view.indexed_rows, view.rows_returned), (COUNT, 10))
        view = yield query("d", "by_name", descending=True, skip=1, limit=2, mapkey_range=[UNSPEC, "name 02"])
        self.assertEqual([row.value for row in view], [58, 57])
        view = yield query(
            "d", "by_name", mapkey_multi=[f"name {n:03} [{{" for n in reversed(range(COUNT))] * 40
        )
        self.assertEqual(view.rows_returned, 40 * COUNT)
        self.assertEqual(next(iter(view)).value, 59)

    @inlineCallbacks
    def test_reduce(self):
        """Reduced rows have no id, and there is no number of indexed rows."""
        view = yield self.connection.queryAll("d", "by_kind", stale=False, group_level=1)
        self.assertEqual(
            [(row.key, row.value, row.docid) for row in view], [(["ale"], 30, None), (["stout"], 30, None)]
        )
        self.assertEqual(view.indexed_rows, 0)

    @inlineCallbacks
    def test_callbacks_and_text(self):
        """The same rows, as they come, decoded and as text."""
        rows = self.connection.queryEx(Recorder, "d", "by_name", stale=False)
        yield rows.ended
        blocks = self.connection.queryEx(BlocksRecorder, "d", "by_name", stale=False)
        yield blocks.ended
        text = json.loads(b"[" + b",".join(blocks.rows) + b"]")
        self.assertEqual([(row["key"], row["value"], row["id"], None) for row in text], rows.rows)
        self.assertEqual(len(text), COUNT)

    @inlineCallbacks
    def test_errors(self):
        """Unknown names and parameters that do not fit carry the node's words."""
        for arguments, options, status in (
            (("d", "nope"), {}, 404),
            (("nope", "v"), {}, 404),
            (("d", "by_name"), {"group": True}, 400),
            (("d", "by_name"), {"startkey": 2, "endkey": 1}, 400),
        ):
            query = self.connection.queryAll(*arguments, **options)
            error = yield self.assertFailure(query, HTTPError)
            self.assertEqual(error.objextra.http_status, status)
            self.assertIn("reason", error.objextra.value)

    @inlineCallbacks
    def test_a_map_function_that_cannot_be(self):
        """The node refuses the document, and says why."""
        design = {"views": {"v": {"map": "function ("}}}
        error = yield self.assertFailure(self.connection.design_create("bad", design), HTTPError)
        self.assertEqual(error.objextra.value["error"], "invalid_design_document")

    @inlineCallbacks
    def test_design_documents(self):
        """Publish, list, delete: each shows at once with syncwait."""
        connection = self.connection
        yield connection.design_create("e", DESIGN, syncwait=30)
        yield connection.design_publish("e", syncwait=30)
        listed = yield connection.design_list()
        self.assertEqual(sorted(listed.value), ["d", "dev_e", "e"])
        yield connection.design_delete("e", use_devmode=False, syncwait=30)
        yield self.assertFailure(connection.queryAll("e", "by_name"), HTTPError)
        view = yield connection.queryAll("e", "by_name", use_devmode=True, full_set=True, stale=False)
        self.assertEqual(len(view), COUNT)

    @inlineCallbacks
    def test_many_queries_at_once(self):
        """Each gets its own rows."""
        views = yield gatherResults(
            [self.connection.queryAll("d", "by_name", stale=False, limit=n) for n in range(1, 20)]
        )
        self.assertEqual([len(view) for view in views], list(range(1, 20)))


class NodesViewTests(NodeTestCase):
    """Two nodes, each with half of the documents."""

    nodes = 2

    @inlineCallbacks
    def test_rows_of_both(self):
        """Whichever is asked, it answers for both."""
        if not is_available():
            raise SkipTest("mini-racer or pyicu-wheels is not installed")
        connection = self.open()
        self.addCleanup(lambda: connection._http.close())
        yield connection.set_multi(
            {f"k{n}": {"name": f"{n:03}", "n": n, "kind": "ale"} for n in range(COUNT)}
        )
        yield connection.design_create("d", DESIGN, use_devmode=False, syncwait=30)
        for _ in range(2):
            view = yield connection.queryAll("d", "by_name", stale=False)
            self.assertEqual([row.value for row in view], list(range(COUNT)))
            self.assertEqual(view.indexed_rows, COUNT)
            view = yield connection.queryAll("d", "by_kind", stale=False)
            self.assertEqual([row.value for row in view], [COUNT])
