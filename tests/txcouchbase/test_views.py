"""Views over scripted view engines: rows as they come, back-pressure, and every way to go wrong."""

import gc
import json
import weakref

from twisted.internet import reactor, task
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase

from couchbase.asynchronous.view import AsyncViewBase
from couchbase.protocol.handshake import Credentials
from couchbase.views.iterator import RowProcessor, ViewRow
from tests.certificates import self_signed
from tests.txcouchbase.capi import (
    CLOSE,
    OPEN,
    BlocksRecorder,
    Capi,
    CapiTestCase,
    LinesRecorder,
    Recorder,
    ViewNode,
    chunk,
    head,
    rows_text,
    turns,
    whole,
)
from txcouchbase.connection import Connection, TxAsyncConnection


class QueryTests(CapiTestCase):
    """Good answers."""

    @inlineCallbacks
    def test_query_all(self):
        """All rows, and what stood beside them; the view can be iterated again and again."""
        text, rows = rows_text(3)
        self.capi.answers.append(head() + chunk(OPEN) + chunk(text + CLOSE) + chunk(b""))
        view = yield self.connection.queryAll("beer", "by_name", limit=3, startkey=["a", 1])
        self.assertEqual(list(view), [ViewRow(row["key"], row["value"], row["id"], None) for row in rows])
        self.assertEqual(list(view), list(view))
        self.assertEqual((len(view), view.indexed_rows, view.rows_returned, view.errors), (3, 9, 3, []))
        self.assertEqual((view.raw.http_status, view.raw.success, view.raw.done), (200, True, True))
        self.assertEqual(view.raw.value, {"total_rows": 9, "rows": []})
        method, path, headers, body = self.capi.requests[0]
        self.assertEqual((method, body), ("GET", b""))
        self.assertEqual(path, "/b/_design/beer/_view/by_name?limit=3&startkey=%5B%22a%22%2C%201%5D")
        self.assertEqual(path, view.raw.url)
        self.assertEqual(headers["accept"], "application/json")
        self.assertIn("Rows Fetched=3", repr(view))

    @inlineCallbacks
    def test_no_rows(self):
        """An empty answer is an empty view, and on_rows is not called."""
        self.capi.answers += [whole({"total_rows": 5, "rows": []})] * 2
        view = yield self.connection.queryAll("d", "v")
        self.assertEqual((list(view), view.indexed_rows), ([], 5))
        recorder = self.connection.queryEx(Recorder, "d", "v")
        yield recorder.ended
        self.assertEqual(recorder.calls, ["done"])

    @inlineCallbacks
    def test_rows_arrive_before_the_answer_ends(self):
        """Each piece's rows are handed on at once; nothing is called inside of queryEx."""
        first, _ = rows_text(2)
        second, _ = rows_text(1, 2)
        self.capi.answers.append([head() + chunk(OPEN + first)])
        view = self.connection.queryEx(Recorder, "d", "v")
        self.assertEqual(view.calls, [])
        yield view.got_rows
        self.assertEqual((view.calls, view.indexed_rows, view.raw.done), ([2], 9, False))
        self.capi.connections[0].transport.write(chunk(b",\r\n" + second + CLOSE) + chunk(b""))
        yield view.ended
        self.assertEqual(view.calls, [2, 1, "done"])

    @inlineCallbacks
    def test_rows_per_call(self):
        """At least so many rows a call; -1: all at the end."""
        text, _ = rows_text(1)
        pieces = [head() + chunk(OPEN + text), *([chunk(b",\r\n" + text)] * 4), chunk(CLOSE) + chunk(b"")]
        for least, expected in ((3, [3, 2, "done"]), (-1, [5, "done"])):
            self.capi.answers.append([b"".join(pieces)])
            view = self.connection.queryEx(Recorder, "d", "v")
            view.raw.rows_per_call = least
            yield view.ended
            self.assertEqual(view.calls, expected)

    @inlineCallbacks
    def test_text_of_rows(self):
        """``row_form`` gives the bytes of rows exactly as the node sent them."""
        body = OPEN + b'{"id":"\\u00e4", "key":1.0,"value":null},\r\n{"key":2,"id":"b","value":[ ]}' + CLOSE
        self.capi.answers += [whole(body)] * 2
        lines = self.connection.queryEx(LinesRecorder, "d", "v")
        yield lines.ended
        self.assertEqual(
            lines.rows, [b'{"id":"\\u00e4", "key":1.0,"value":null}', b'{"key":2,"id":"b","value":[ ]}']
        )
        blocks = self.connection.queryEx(BlocksRecorder, "d", "v")
        yield blocks.ended
        self.assertEqual(b",\r\n".join(blocks.rows), body[len(OPEN) : -len(CLOSE)])
        self.assertEqual((blocks.rows_returned, blocks.meta), (2, {"total_rows": 9}))

    @inlineCallbacks
    def test_row_processor(self):
        """It makes the rows; its exception ends the query and closes the connection."""
        text, _ = rows_text(2)
        self.capi.answers.append(whole(OPEN + text + CLOSE))
        processor = RowProcessor(rowclass=lambda *fields: fields[2])
        view = yield self.connection.queryAll("d", "v", row_processor=processor)
        self.assertEqual(list(view), ["d0", "d1"])

        class Broken:
            def handle_rows(self, rows, connection, include_docs):
                raise ZeroDivisionError

        self.capi.answers.append([head() + chunk(OPEN + text)])
        lost = self.capi.connection_lost()
        yield self.assertFailure(
            self.connection.queryAll("d", "v", row_processor=Broken()), ZeroDivisionError
        )
        yield lost

    @inlineCallbacks
    def test_long_queries_are_posted(self):
        """Keys that make the URI too long go as the body of a POST."""
        self.capi.answers.append(whole({"rows": []}))
        keys = [f"key{n}" for n in range(500)]
        yield self.connection.queryAll("d", "v", mapkey_multi=keys, limit=2)
        method, path, headers, body = self.capi.requests[0]
        self.assertEqual((method, path), ("POST", "/b/_design/d/_view/v?limit=2"))
        self.assertEqual((json.loads(body), headers["content-type"]), ({"keys": keys}, "application/json"))

    @inlineCallbacks
    def test_names_and_devmode(self):
        """Names are one segment each; ``use_devmode`` puts dev_ before the design's, once."""
        self.capi.answers += [whole({"rows": []})] * 3
        yield self.connection.queryAll("a/b", "c d?", use_devmode=True)
        yield self.connection.queryAll("dev_x", "v", use_devmode=True)
        yield self.connection.queryAll(design="x", view="v", use_devmode=True)
        self.assertEqual(
            [path for _, path, _, _ in self.capi.requests],
            ["/b/_design/dev_a%2Fb/_view/c%20d%3F", *["/b/_design/dev_x/_view/v"] * 2],
        )

    @inlineCallbacks
    def test_credentials(self):
        """They go as HTTP basic."""
        self.capi.answers.append(whole({"rows": []}))
        yield self.connection.connect()
        self.connection._client.credentials = Credentials("ada", "x:y")
        yield self.connection.queryAll("d", "v")
        self.assertEqual(self.capi.requests[0][2]["authorization"], "Basic YWRhOng6eQ==")

    @inlineCallbacks
    def test_connections_are_kept(self):
        """Queries one after the other use one connection, which is closed with the connection object."""
        self.capi.answers += [whole({"rows": []})] * 3
        for _ in range(3):
            yield self.connection.queryAll("d", "v")
        self.assertEqual(self.capi.accepted, 1)
        lost = self.capi.connection_lost()
        self.connection._close()
        yield lost

    @inlineCallbacks
    def test_async_connections_query_too(self):
        """TxAsyncConnection has the same methods."""
        self.capi.answers.append(whole({"rows": []}))
        view = yield self.open(TxAsyncConnection).queryAll("d", "v")
        self.assertEqual(list(view), [])

    @inlineCallbacks
    def test_the_connection_goes_when_its_views_are_done(self):
        """A view that is kept does not keep the connection; a query in flight does."""
        self.capi.answers.append(whole({"rows": []}))
        gone = Deferred()
        connection = self.connection
        connection.registerDeferred("_dtor", gone)
        seen = weakref.ref(connection)
        query = connection.queryAll("d", "v")
        self.connection = connection = None
        self._cleanups = [one for one in self._cleanups if one[0] != self.close]
        view = yield query
        query = None
        lost = self.capi.connection_lost()
        yield turns()
        gc.collect()
        yield gone
        yield lost
        self.assertIsNone(seen())
        self.assertEqual(list(view), [])


class FlowTests(CapiTestCase):
    """A client that stops reading stops the node."""

    def flood(self):
        """Answer with rows without end, as fast as they are taken; return what was written."""
        text, _ = rows_text(100, width=1000)
        written = []

        class Producer:
            def __init__(self, conversation):
                self.conversation = conversation
                conversation.transport.write(head() + chunk(OPEN + text))
                conversation.transport.registerProducer(self, False)

            def resumeProducing(self):
                piece = b",\r\n" + text
                written.append(len(piece))
                self.conversation.transport.write(chunk(piece))

            def stopProducing(self):
                pass

        self.capi.script = lambda conversation, method, path: Producer(conversation)
        return written

    @inlineCallbacks
    def settled(self, written):
        """Wait until the node cannot write any more."""
        quiet = 0
        while quiet < 5:
            before = len(written)
            yield task.deferLater(reactor, 0.01)
            quiet = quiet + 1 if len(written) == before else 0

    @inlineCallbacks
    def test_pause_and_resume(self):
        """A paused view gets nothing, and the node has to wait; when it resumes, everything continues."""
        written = self.flood()
        view = self.connection.queryEx(Recorder, "d", "v")
        view.pause_after = 100
        yield view.got_rows
        yield self.settled(written)
        calls, size = list(view.calls), len(written)
        self.assertEqual(view.paused, True)
        for _ in range(20):
            yield task.deferLater(reactor, 0)
        self.assertEqual((view.calls, len(written)), (calls, size))
        view.pause_after = None
        view.resume()
        self.assertEqual(view.calls, calls)
        while len(written) < size + 100:
            yield task.deferLater(reactor, 0)
        self.assertGreater(len(view.calls), len(calls))
        lost = self.capi.connection_lost()
        view.stop()
        yield lost

    @inlineCallbacks
    def test_pause_before_the_answer(self):
        """Pausing at once lets nothing through before resume."""
        written = self.flood()
        view = self.connection.queryEx(Recorder, "d", "v")
        view.pause()
        while not written:
            yield task.deferLater(reactor, 0)
        yield self.settled(written)
        self.assertEqual(view.calls, [])
        view.resume()
        yield view.got_rows
        view.stop()

    @inlineCallbacks
    def test_stop(self):
        """Stopping closes the connection at once, paused or not; no callback follows."""
        for pause in (False, True):
            self.flood()
            view = self.connection.queryEx(Recorder, "d", "v")
            if pause:
                view.pause_after = 100
            yield view.got_rows
            lost = self.capi.connection_lost()
            view.stop()
            calls = list(view.calls)
            yield lost
            yield turns()
            self.assertEqual(view.calls, calls)
            self.assertFalse(view.ended.called)
            view.stop()
            view.pause()
            view.resume()
        self.assertEqual(self.connection._http.running, set())

    @inlineCallbacks
    def test_stop_before_the_answer(self):
        """Also where the connection, or the answer, is still to come."""
        view = self.connection.queryEx(Recorder, "d", "v")
        view.stop()
        yield self.connection.connect()
        yield turns()
        self.assertEqual((self.capi.requests, view.calls), ([], []))
        self.capi.script = lambda *_: None
        view = self.connection.queryEx(Recorder, "d", "v")
        while not self.capi.requests:
            yield turns()
        lost = self.capi.connection_lost()
        view.stop()
        yield lost
        self.assertEqual(view.calls, [])

    @inlineCallbacks
    def test_stop_in_on_rows(self):
        """The call that stops is the last."""
        text, _ = rows_text(2)

        class Once(Recorder):
            def on_rows(self, rowiter):
                super().on_rows(rowiter)
                self.stop()

        self.capi.answers.append([head() + b"".join([chunk(OPEN + text), chunk(b",\r\n" + text)])])
        lost = self.capi.connection_lost()
        view = self.connection.queryEx(Once, "d", "v")
        yield lost
        self.assertEqual(view.calls, [2])

    @inlineCallbacks
    def test_on_rows_may_take_its_time(self):
        """Reading waits for the Deferred, or the coroutine, that on_rows returns; so does on_done."""
        text, _ = rows_text(2)
        answer = head() + chunk(OPEN + text) + chunk(b",\r\n" + text + CLOSE) + chunk(b"")
        waiting = []

        def slowly():
            waiting.append(Deferred())
            return waiting[-1]

        async def coroutine():
            await slowly()

        for taking in (slowly, coroutine):
            self.capi.answers.append(answer)
            view = self.connection.queryEx(Recorder, "d", "v")
            view.answer = taking
            yield view.got_rows
            for expected in ([2], [2, 2]):
                yield turns()
                self.assertEqual(view.calls, expected)
                waiting.pop().callback(None)
            yield view.ended
            self.assertEqual(view.calls, [2, 2, "done"])

    @inlineCallbacks
    def test_on_rows_fails(self):
        """Its exception, at once or later, ends the query, and goes to on_error."""
        text, _ = rows_text(1)

        def at_once():
            raise ZeroDivisionError

        async def later():
            await task.deferLater(reactor, 0)
            raise ZeroDivisionError

        for failing in (at_once, later):
            self.capi.answers.append([head() + chunk(OPEN + text)])
            lost = self.capi.connection_lost()
            view = self.connection.queryEx(Recorder, "d", "v")
            view.answer = failing
            error = yield view.ended
            self.assertIsInstance(error, ZeroDivisionError)
            yield lost

    @inlineCallbacks
    def test_callbacks_left_out(self):
        """Methods that were not overridden say so in the log, and the connection lives."""
        self.capi.answers += [whole({"rows": []})] * 2
        self.connection.queryEx(AsyncViewBase, "d", "v")
        while self.connection._http.running:
            yield turns()
        yield self.connection.queryAll("d", "v")
        self.assertEqual(len(self.flushLoggedErrors(NotImplementedError)), 1)

    @inlineCallbacks
    def test_cancelling(self):
        """Cancelling queryAll closes the node's connection."""
        self.flood()
        query = self.connection.queryAll("d", "v")
        while not self.capi.requests:
            yield turns()
        lost = self.capi.connection_lost()
        query.cancel()
        yield self.assertFailure(query, CancelledError)
        yield lost

    @inlineCallbacks
    def test_memory_of_many_rows(self):
        """Rows that were handed on are not kept."""
        written = self.flood()

        class Counting(Recorder):
            def on_rows(self, rowiter):
                self.most = max(getattr(self, "most", 0), len(self._reader._buffer))

        view = self.connection.queryEx(Counting, "d", "v")
        while sum(written) < 20_000_000:
            yield task.deferLater(reactor, 0)
        view.stop()
        self.assertLess(view.most, 2**18)


class TlsTests(TestCase):
    """Views over TLS."""

    @inlineCallbacks
    def test_tls(self):
        """A TLS connection asks the view engine's TLS port, and trusts the same certificates."""
        certificate = PrivateCertificate.loadPEM(self_signed())
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(certificate.dumpPEM())
        context = certificate.options()
        capi = Capi()
        yield capi.listen(context)
        self.addCleanup(capi.stop)
        node = ViewNode(capi)
        node.tls = True
        node.listening = yield SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1").listen(node)
        node.port = node.listening.getHost().port
        self.addCleanup(node.stop)
        connection = Connection(
            bucket="b", connection_string=f"couchbases://127.0.0.1:{node.port}", certpath=path
        )
        self.addCleanup(connection._http.close)
        self.addCleanup(connection._close)
        text, _ = rows_text(2)
        capi.answers += [whole(OPEN + text + CLOSE), [head() + chunk(OPEN + text)]]
        view = yield connection.queryAll("d", "v")
        self.assertEqual(len(view), 2)
        # Paused and stopped, a TLS connection is closed without waiting for the other side.
        view = connection.queryEx(Recorder, "d", "v")
        view.pause_after = 1
        yield view.got_rows
        lost = capi.connection_lost()
        view.stop()
        yield lost
