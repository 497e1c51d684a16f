"""Views over scripted view engines that refuse, lie, fall silent, or vanish."""

import json
import time

from twisted.internet import reactor, task
from twisted.internet.defer import DeferredList, inlineCallbacks

from couchbase import exceptions
from couchbase.exceptions import (
    ArgumentError,
    ClientTemporaryFailError,
    CouchbaseError,
    HTTPError,
    NetworkError,
    NotSupportedError,
    ProtocolError,
    TimeoutError,
    ViewEngineError,
)
from couchbase.views.iterator import AlreadyQueriedError
from tests.txcouchbase.capi import (
    CLOSE,
    OPEN,
    CapiTestCase,
    Recorder,
    chunk,
    head,
    rows_text,
    turns,
    whole,
)
from txcouchbase.connection import Connection
from txcouchbase.http import MANAGEMENT


class FailureTests(CapiTestCase):
    """Answers that are none, or not whole."""

    @inlineCallbacks
    def fails(self, answer, error, **options):
        """Play an answer to a Recorder; return it when on_error got what was expected."""
        self.capi.answers.append(answer)
        view = self.connection.queryEx(Recorder, "d", "v", **options)
        ended = yield view.ended
        self.assertIsInstance(ended, error)
        self.assertEqual([call for call in view.calls if call == "done"], [])
        return view

    @inlineCallbacks
    def test_cut(self):
        """An answer that ends early fails with a network error, after the rows that came."""
        text, _ = rows_text(3)
        for answer in (
            [head() + chunk(OPEN + text), None],
            head() + chunk(OPEN + text) + chunk(b""),
            whole(OPEN + text),
            [head(length=5000) + OPEN + text, None],
        ):
            view = yield self.fails(answer, NetworkError)
            self.assertEqual(view.calls[:-1], [3])
            self.assertIn("3 rows", str(view.calls[-1]))

    @inlineCallbacks
    def test_cut_behind_the_end(self):
        """An answer whose text is complete is whole, however its connection ends."""
        text, rows = rows_text(2)
        body = OPEN + text + CLOSE
        for answer in (
            [head(length=5000) + body, None],
            [head() + chunk(body), None],
            [b"HTTP/1.1 200 OK\r\n\r\n" + body, None],
        ):
            self.capi.answers.append(answer)
            view = yield self.connection.queryAll("d", "v")
            self.assertEqual([row.key for row in view], [row["key"] for row in rows])

    @inlineCallbacks
    def test_garbage(self):
        """Input that is not the JSON of an answer fails with ProtocolError, after the rows before it."""
        text, _ = rows_text(2)
        for body, rows in (
            (b"<html>", []),
            (b"[1]", []),
            (OPEN + text + b",\r\n{oops}" + CLOSE, [2]),
            (OPEN + text + CLOSE + b"more", [2]),
        ):
            view = yield self.fails(whole(body), ProtocolError)
            self.assertEqual(view.calls[:-1], rows)
        view = yield self.fails(whole({"rows": [{"no": "key"}]}), ProtocolError)

    @inlineCallbacks
    def test_refusals(self):
        """A status outside 2xx is HTTPError, whose ``objextra`` has the status and the decoded body."""
        for status, value in (
            (404, {"error": "not_found", "reason": "missing"}),
            (500, {"error": "error", "reason": "reduce failed"}),
            (302, {}),
            (401, ""),
        ):
            view = yield self.fails(whole(value, status), HTTPError)
            error = view.calls[-1]
            self.assertIs(error.objextra, view.raw)
            self.assertEqual((view.raw.http_status, view.raw.value, view.raw.success), (status, value, False))
            self.assertEqual(error.key, "/b/_design/d/_view/v?")
        view = yield self.fails(whole(b"no such thing", 404), HTTPError)
        self.assertEqual(view.raw.value, "no such thing")
        self.assertIn("no such thing", str(view.calls[-1]))

    @inlineCallbacks
    def test_errors_inside_of_an_answer(self):
        """They come after the rows, wherever they stand in the answer; none is lost."""
        errors = [{"from": "http://n2:8092/", "reason": "timeout"}]
        text, _ = rows_text(2)
        members = b'"errors":' + json.dumps(errors).encode()
        for body in (OPEN + text + b"]," + members + b"}", b"{" + members + b',"rows":[' + text + b"]}"):
            view = yield self.fails(whole(body), ViewEngineError)
            self.assertEqual(view.calls[:-1], [2])
            self.assertEqual((view.errors, view.calls[-1].objextra), (errors, errors))
            self.assertEqual(view.raw.value["errors"], errors)
        for rows, calls in (({}, []), ({"rows": [{"key": 1, "value": 2}]}, [1])):
            view = yield self.fails(whole({**rows, "error": "x", "reason": "y"}), ViewEngineError)
            self.assertEqual((view.errors, view.calls[:-1]), ([{"error": "x", "reason": "y"}], calls))

    @inlineCallbacks
    def test_no_rows(self):
        """An answer that has neither rows nor errors is not the answer of a view engine."""
        for value in ({}, {"total_rows": 3}, {"rows": None}, {"errors": []}, {"reason": "x"}):
            view = yield self.fails(whole(value), ProtocolError)
            self.assertIn("rows", str(view.calls[-1]))
            self.assertEqual(view.calls[:-1], [])

    @inlineCallbacks
    def test_errors_that_were_asked_to_be_bearable(self):
        """With on_error='continue' they are a warning, and in ``errors``."""
        errors = [{"from": "local", "reason": "z"}]
        self.capi.answers.append(whole({"rows": [], "errors": errors}))
        view = yield self.connection.queryAll("d", "v", on_error="continue")
        self.assertEqual(view.errors, errors)
        self.assertEqual(len(self.flushWarnings()), 1)

    @inlineCallbacks
    def test_silence(self):
        """Without progress for views_timeout, before the head or between rows, it is TimeoutError."""
        yield self.connection.connect()
        self.connection.views_timeout = 0.05
        text, _ = rows_text(1)
        for answer, rows in ((b"", []), (head() + chunk(OPEN + text), [1])):
            lost = self.capi.connection_lost()
            view = yield self.fails(answer, TimeoutError)
            self.assertEqual(view.calls[:-1], rows)
            yield lost

    @inlineCallbacks
    def test_a_pause_is_not_silence(self):
        """The time limit does not run while a view is paused, nor while on_rows takes its time."""
        yield self.connection.connect()
        self.connection.views_timeout = 0.4
        text, _ = rows_text(1)
        for how in ("pause", "wait"):
            self.capi.answers.append(whole(OPEN + text + CLOSE))
            view = self.connection.queryEx(Recorder, "d", "v")
            if how == "pause":
                view.pause_after = 1
            else:
                view.answer = lambda: task.deferLater(reactor, 0.6)
            began = time.monotonic()
            # A busy machine may take too long: then it has ended, and the calls below show why.
            yield DeferredList([view.got_rows, view.ended], fireOnOneCallback=True)
            if how == "pause":
                yield task.deferLater(reactor, 0.6)
                self.assertEqual(view.calls, [1])
                view.resume()
            yield view.ended
            self.assertEqual(view.calls, [1, "done"])
            self.assertGreater(time.monotonic() - began, 0.59)

    @inlineCallbacks
    def test_wrong_arguments(self):
        """Options are checked at the call: queryEx raises, queryAll fails."""
        connection = self.connection
        for options in ({"nope": 1}, {"limit": "x"}, {"include_docs": True}, {"query": 5}):
            self.assertRaises(ArgumentError, connection.queryEx, Recorder, "d", "v", **options)
            yield self.assertFailure(connection.queryAll("d", "v", **options), ArgumentError)
        self.assertRaises(TypeError, connection.queryEx, object, "d", "v")
        self.assertRaises(TypeError, connection.queryEx, Recorder("x", "d", "v"), "d", "v")
        for wrong, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)):
            self.assertRaises(error, setattr, connection, "views_timeout", wrong)
        self.assertEqual(connection.views_timeout, 75.0)

    @inlineCallbacks
    def test_started_twice(self):
        """A view is for one query."""
        self.capi.answers.append(whole({"rows": []}))
        view = self.connection.queryEx(Recorder, "d", "v")
        self.assertRaises(AlreadyQueriedError, view.start)
        self.assertRaises(NotImplementedError, iter, view)
        yield view.ended

    @inlineCallbacks
    def test_closing_the_connection(self):
        """Queries in flight fail, and so do later ones."""
        self.capi.script = lambda *_: None
        view = self.connection.queryEx(Recorder, "d", "v")
        while not self.capi.requests:
            yield turns()
        self.connection._close()
        error = yield view.ended
        self.assertIsInstance(error, ClientTemporaryFailError)
        yield self.assertFailure(self.connection.queryAll("d", "v"), ClientTemporaryFailError)

    @inlineCallbacks
    def test_no_connection(self):
        """A query of a connection that does not come up fails with its error."""
        connection = Connection(bucket="b", connection_string="couchbase://127.0.0.1:1")
        self.addCleanup(connection._close)
        error = yield self.assertFailure(connection.queryAll("d", "v"), CouchbaseError)
        self.assertTrue(error.is_network)

    @inlineCallbacks
    def test_no_view_engine(self):
        """A cluster without one says so, and what brings the node's."""
        self.node.capis = ()
        error = yield self.assertFailure(self.open().queryAll("d", "v"), NotSupportedError)
        self.assertEqual(error.rc, exceptions.NOT_SUPPORTED)
        self.assertIn("offers the view engine; on couchnode, install it with: pip install", str(error))

    @inlineCallbacks
    def test_a_kept_connection_that_was_closed(self):
        """It counts as no answer, for GET and POST: the query goes out again on a new one."""
        keys = [f"key{n}" for n in range(500)]
        for options in ({}, {"keys": keys}):
            self.capi.answers += [whole({"rows": []}), None, whole({"total_rows": 1, "rows": []})]
            yield self.connection.queryAll("d", "v")
            view = yield self.connection.queryAll("d", "v", **options)
            self.assertEqual(view.indexed_rows, 1)


class NodesTests(CapiTestCase):
    """Two view engines."""

    engines = 2

    @inlineCallbacks
    def test_queries_are_spread(self):
        """Each node gets its share."""
        for capi in self.capis:
            capi.answers += [whole({"rows": []})] * 2
        for _ in range(4):
            yield self.connection.queryAll("d", "v")
        self.assertEqual([len(capi.requests) for capi in self.capis], [2, 2])

    @inlineCallbacks
    def test_another_node_is_asked(self):
        """One that closes without an answer, cuts it before a row, or is gone, is passed over."""
        good = whole({"total_rows": 3, "rows": []})
        for bad in ([None], [head(), None], [head() + chunk(OPEN), None]):
            first, second = self.capis
            first.script = lambda conversation, method, path, bad=bad: [
                conversation.transport.loseConnection() if one is None else conversation.transport.write(one)
                for one in bad
            ]
            second.script = lambda conversation, method, path: conversation.transport.write(good)
            for _ in range(2):
                view = yield self.connection.queryAll("d", "v")
                self.assertEqual(view.indexed_rows, 3)
        yield self.capis[0].stop()
        for _ in range(2):
            view = yield self.connection.queryAll("d", "v")
        yield self.capis[1].stop()
        yield self.assertFailure(self.connection.queryAll("d", "v"), NetworkError)

    @inlineCallbacks
    def test_unusable_name(self):
        """A node whose name or port cannot be a part of a URL is passed over, at once; if there is no other,
        the error has it."""
        yield self.connection.connect()
        service = self.connection._http
        good = service.addresses(MANAGEMENT)[1]
        for bad in ("http://a\r\nb: c:1", "http://\xe9:1", "http://[x]:1", "http://h:x"):
            service.addresses = lambda _, bad=bad: [bad, good]
            self.capis[1].answers += [whole({"rows": []})] * 2
            yield self.connection.queryAll("d", "v")
            yield self.connection.management_request("POST", "/x", b"")
            service.addresses = lambda _, bad=bad: [bad]
            for waiting in (
                self.connection.queryAll("d", "v"),
                self.connection.management_request("GET", "/x"),
                self.connection.management_request("POST", "/x", b""),
            ):
                error = yield self.assertFailure(waiting, NetworkError)
                self.assertIn(f"no answer from {bad}: ", error.message)

    @inlineCallbacks
    def test_rows_are_not_repeated(self):
        """After the first row no other node is asked: its rows would come twice."""
        text, _ = rows_text(1)
        for capi in self.capis:
            capi.answers.append([head() + chunk(OPEN + text), None])
        view = self.connection.queryEx(Recorder, "d", "v")
        error = yield view.ended
        self.assertIsInstance(error, NetworkError)
        self.assertEqual(view.calls[:-1], [1])
        self.assertEqual(sum(len(capi.requests) for capi in self.capis), 1)
