"""View objects, row processors, and views made for callbacks, without any network."""

from twisted.trial.unittest import SynchronousTestCase

from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import ArgumentError, ProtocolError
from couchbase.result import HttpResult, MultiResult, ValueResult
from couchbase.views.iterator import MAX_URI_LENGTH, RowProcessor, View, ViewRow
from couchbase.views.params import Query


class ViewTests(SynchronousTestCase):
    """The request of a view."""

    def test_attributes(self):
        """The attributes have the names of SDK 1.2."""
        view = View(None, "d", "v", limit=5)
        self.assertEqual(
            (view.design, view.view, view.streaming, view.include_docs), ("d", "v", False, False)
        )
        self.assertEqual((view.errors, view.raw, view.indexed_rows, view.rows_returned), ([], None, 0, 0))
        self.assertIsInstance(view.row_processor, RowProcessor)
        self.assertEqual(repr(view), "View<Design=d, View=v, Query=Query:'limit=5', Rows Fetched=0>")

    def test_query(self):
        """It is copied; a dict and text do as well."""
        query = Query(limit=5)
        view = View(None, "d", "v", query=query)
        query.limit = 6
        self.assertEqual(view.query.limit, 5)
        self.assertEqual(View(None, "d", "v", query="a=b").query.encoded, "a=b")
        self.assertEqual(View(None, "d", "v", query={"limit": 1}).query.encoded, "limit=1")

    def test_refusals(self):
        """Wrong options are refused by the constructor."""
        for options in (
            {"query": Query(), "limit": 5},
            {"nope": 1},
            {"limit": "x"},
            {"query": 7},
            {"include_docs": True, "reduce": True},
            {"include_docs": True, "group": True},
            {"include_docs": True, "group_level": 1},
            {"include_docs": True, "query": {"reduce": "true"}},
        ):
            self.assertRaises(ArgumentError, View, None, "d", "v", **options)
        for names in (("", "v"), ("d", ""), (None, "v"), ("d", 5)):
            self.assertRaises(ArgumentError, View, None, *names)
        View(None, "d", "v", include_docs=True, reduce=False, group_level=0)

    def test_requests(self):
        """GET up to the longest URI, then POST."""
        request = View(None, "d", "v", limit=1).request("b c")
        self.assertEqual(request, ("GET", "/b%20c/_design/d/_view/v?limit=1", None))
        path = "/b/_design/d/_view/v?key="
        for extra, method in ((0, "GET"), (1, "POST")):
            key = "x" * (MAX_URI_LENGTH - len(path) - len("%22%22") + extra)
            self.assertEqual(View(None, "d", "v", key=key).request("b").method, method)


class RowProcessorTests(SynchronousTestCase):
    """Results of row processors."""

    ROWS = ({"id": "a", "key": 1, "value": 2}, {"key": None, "value": 3})

    def test_rows(self):
        """ViewRows, or whatever the class makes."""
        rows = RowProcessor().handle_rows(self.ROWS, None, False)
        self.assertEqual(list(rows), [ViewRow(1, 2, "a", None), ViewRow(None, 3, None, None)])
        self.assertEqual((rows[0].key, rows[0].docid, type(rows[0])), (1, "a", ViewRow))
        made = RowProcessor(lambda *fields: fields).handle_rows(self.ROWS, None, False)
        self.assertEqual(list(made), [(1, 2, "a", None), (None, 3, None, None)])

    def test_documents(self):
        """Fetched once for all rows; a missing one is a failed result, one that did not come a warning."""
        asked = []
        good, missing = ValueResult(0, 1, "doc"), ValueResult(13)

        class Stub:
            def get_multi(self, keys, quiet):
                asked.append((list(keys), quiet))
                return MultiResult(a=good, b=missing)

        rows = [{"id": name, "key": 0, "value": 0} for name in "abac"]
        made = list(RowProcessor().handle_rows(rows, Stub(), True))
        self.assertEqual([row.doc for row in made], [good, missing, good, None])
        self.assertEqual(asked, [(["a", "b", "c"], True)])
        self.assertEqual(len(self.flushWarnings()), 1)

    def test_what_is_no_row(self):
        """Says so."""
        for rows in ([{"id": "a"}], [5], [None], [{"key": 1}]):
            self.assertRaises(ProtocolError, RowProcessor().handle_rows, rows, None, False)


class AsyncViewTests(SynchronousTestCase):
    """Views made for callbacks."""

    def test_include_docs(self):
        """Refused, unless a subclass can do it."""

        class Able(AsyncViewBase):
            def raise_include_docs(self):
                pass

        self.assertRaises(ArgumentError, AsyncViewBase, None, "d", "v", include_docs=True)
        self.assertTrue(Able(None, "d", "v", include_docs=True).include_docs)

    def test_to_be_overridden(self):
        """The three callbacks are the program's; there is no iteration; streaming is always on."""
        view = AsyncViewBase(None, "d", "v")
        for call in (lambda: view.on_rows([]), lambda: view.on_error(None), view.on_done, lambda: iter(view)):
            self.assertRaises(NotImplementedError, call)
        self.assertTrue(view.streaming)

    def test_wrong_form(self):
        """``row_form`` is one of three."""

        class Wrong(AsyncViewBase):
            row_form = "objects"

        self.assertRaises(ArgumentError, Wrong, None, "d", "v")


class HttpResultTests(SynchronousTestCase):
    """Answers over HTTP."""

    def test_fields(self):
        """The fields are those of SDK 1.2."""
        result = HttpResult(0, 200, {"a": 1}, "/x?y", {"A": "b"})
        self.assertEqual(repr(result), "HttpResult<RC=0x0, Value={'a': 1}, HTTP=200, URL=/x?y>")
        self.assertEqual((result.url, result.key, result.headers), ("/x?y", "/x?y", {"A": "b"}))
        self.assertTrue(result.success and result.done)
        self.assertIsNone(result._maybe_raise())
        self.assertEqual((HttpResult().http_status, HttpResult().success), (0, False))
        self.assertRaises(AttributeError, setattr, result, "value", 5)
