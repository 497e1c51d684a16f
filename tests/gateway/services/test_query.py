"""``POST .../query``, over sockets to a query service that the tests play."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock

from gateway.services.connections import PIECE_BYTES
from gateway.services.statementanswer import StatementAnswer
from tests.gateway.services.support import PLAIN, Asked, ServicesTestCase
from tests.gateway.services.test_proxy import JSON, Proxied, unchunked

Q = "/v1/buckets/default/query"
SELECT = b'{"statement":"SELECT 1"}'
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"

BEFORE = b'{"requestID":"r-1","signature":{"*":"*"},"results":['
AFTER = b'],"status":"success","metrics":{"resultCount":2}}'


def said(body: bytes, status: int = 200) -> Any:
    """Return a script that gives an answer."""
    return lambda asked: asked.answer(body, status)


def sent(path: str = Q, *lines: str) -> bytes:
    """Return a statement as it goes over the wire."""
    named = "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(SELECT)}"))
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{named}\r\n".encode() + SELECT


class Statements(Proxied):
    """A gateway that runs any statement."""

    proxied: list[str] = []

    def settings(self, **changes: Any) -> Any:
        return super().settings(**{"query": "on", **changes})


class QueryTests(Statements):
    """Statements that work."""

    @inlineCallbacks
    def test_asked(self) -> Any:
        """The service is asked as the caller, with the statement, its parameters, and the request's id."""
        self.query.script = said(BEFORE + AFTER)
        body = (
            b'{"statement":"SELECT $1, $a","args":[18446744073709551615],"$a":"x",'
            b'"read_only":true,"timeout":"10s"}'
        )
        got = yield self.ask("POST", Q, body, X_Request_Id="mine-1", **JSON)
        self.assertEqual(got.status, 200)
        (asked,) = self.query.asked
        self.assertEqual((asked.method, asked.target), ("POST", "/query/service"))
        self.assertIn(b'"args":[18446744073709551615]', asked.body)
        expected = {
            "statement": "SELECT $1, $a",
            "args": [2**64 - 1],
            "$a": "x",
            "readonly": True,
            "timeout": "10000ms",
            "client_context_id": "mine-1",
            "pretty": False,
            "metrics": True,
        }
        self.assertEqual(json.loads(asked.body), expected)
        self.assertEqual(asked.header("Content-Type"), "application/json")
        self.assertRegex(asked.header("Authorization") or "", "^Basic ")
        self.assertIsNone(asked.header("Accept-Encoding"))

    @inlineCallbacks
    def test_forms(self) -> Any:
        """Rows come in the three forms of views, byte for byte, with the service's other members."""
        rows = b'\n{"a": 1.50,\r\n"b":18446744073709551616},\n"\\u00e9\\n"\n'
        self.query.script = said(BEFORE + rows + AFTER)
        got = yield self.ask("POST", Q, SELECT, **JSON)
        self.assertEqual(got.header("Content-Type"), "application/json")
        self.assertIn(b'{"a": 1.50,\n"b":18446744073709551616},\n"\\u00e9\\n"', got.body)
        self.assertEqual(
            got.json(),
            {
                "requestID": "r-1",
                "signature": {"*": "*"},
                "status": "success",
                "rows": [{"a": 1.5, "b": 2**64}, "\u00e9\n"],
                "metrics": {"resultCount": 2},
            },
        )
        got = yield self.ask("POST", Q, SELECT, Accept=LINES, **JSON)
        self.assertEqual(got.header("Content-Type"), LINES)
        lines = got.body.split(b"\n")
        self.assertEqual(lines[:2], [b'{"a": 1.50,  "b":18446744073709551616}', b'"\\u00e9\\n"'])
        meta = {
            "requestID": "r-1",
            "signature": {"*": "*"},
            "status": "success",
            "metrics": {"resultCount": 2},
        }
        self.assertEqual((json.loads(lines[2]), lines[3:]), ({"meta": meta}, [b""]))
        got = yield self.ask("POST", Q, SELECT, Accept=EVENTS, **JSON)
        events = got.body.decode().split("\n\n")
        self.assertEqual(events[1], 'event: row\ndata: "\\u00e9\\n"')
        name, _, data = events[2].partition("\ndata: ")
        self.assertEqual((name, json.loads(data)), ("event: done", {"rows": 2, **meta}))

    @inlineCallbacks
    def test_no_rows(self) -> Any:
        """A statement without rows is a success without rows, in each form."""
        self.query.script = said(BEFORE + AFTER)
        for accept in ("application/json", LINES, EVENTS):
            got = yield self.ask("POST", Q, SELECT, Accept=accept, **JSON)
            self.assertEqual(got.status, 200)
            self.assertIn(b"r-1", got.body)

    @inlineCallbacks
    def test_scope(self) -> Any:
        """The path of a scope makes it the query context."""
        self.query.script = said(BEFORE + AFTER)
        for path in ("/v1/buckets/default/scopes/my-s/query", "/v1.alpha/buckets/default/scopes/my-s/query"):
            got = yield self.ask("POST", path, SELECT, **JSON)
            self.assertEqual(got.status, 200)
            self.assertEqual(
                json.loads(self.query.asked[-1].body)["query_context"], "default:`default`.`my-s`"
            )
        for scope in ("a`b", "a%2Fb", "-" * 300):
            got = yield self.ask("POST", f"/v1/buckets/default/scopes/{scope}/query", SELECT, **JSON)
            self.assertEqual(got.code(), (404, "ScopeNotFound"))

    @inlineCallbacks
    def test_as_it_comes(self) -> Any:
        """A row is passed on before the next one exists; a row that is cut anywhere comes out whole."""
        client = yield self.client_of(sent(Q, f"Accept: {LINES}"))
        yield self.query.until(lambda: bool(self.query.asked) and self.query.asked[0].is_whole)
        asked = self.query.asked[0]
        asked.write(PLAIN + b"Transfer-Encoding: chunked\r\n\r\n")
        asked.chunk(BEFORE + b'{"a":1},')
        yield client.until(b'{"a":1}\n')
        for part in (b'{"b":"', b"x,]", b'"}', b"  ,3"):
            asked.chunk(part)
        yield client.until(b'{"b":"x,]"}')
        self.assertNotIn(b"\n3\n", client.data)
        asked.chunk(AFTER)
        asked.write(b"0\r\n\r\n")
        yield client.until(b"0\r\n\r\n")
        lines = unchunked(bytes(client.data)).split(b"\n")
        self.assertEqual([line.strip() for line in lines[:3]], [b'{"a":1}', b'{"b":"x,]"}', b"3"])
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_slow_reader(self) -> Any:
        """A client that does not read stops the service; then it gets all rows, in order."""
        row = b'{"k":"' + b"v" * 30_000 + b'"}'
        written = []

        class Producer:
            """Writes rows while there is room."""

            def __init__(self, asked: Asked) -> None:
                self.asked = asked

            def resumeProducing(self) -> None:
                written.append(1)
                self.asked.chunk((b"," if len(written) > 1 else b"") + row)
                if len(written) == 1000:
                    self.asked.connection.transport.unregisterProducer()  # type: ignore[union-attr]
                    self.asked.chunk(AFTER)
                    self.asked.write(b"0\r\n\r\n")

            def stopProducing(self) -> None:
                """Do nothing."""

        def begin(asked: Asked) -> None:
            asked.write(PLAIN + b"Transfer-Encoding: chunked\r\n\r\n")
            asked.chunk(BEFORE)
            asked.connection.transport.registerProducer(Producer(asked), False)  # type: ignore[union-attr]

        self.query.script = begin
        client = yield self.client_of(sent(Q, f"Accept: {LINES}"))
        yield client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        before = -1
        while len(written) > before:
            before = len(written)
            yield self.pause(0.3)
        self.assertLess(len(written), 900, "the service was not stopped")
        client.transport.resumeProducing()
        yield client.until(b'{"meta"')
        yield client.until(b"0\r\n\r\n")
        lines = unchunked(bytes(client.data)).split(b"\n")
        self.assertTrue(lines[:1000] == [row] * 1000)
        self.assertEqual(self.service.gateway.budget.used, 0)
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_hang_up(self) -> Any:
        """When the client leaves, the connection to the service is closed, which cancels the statement."""
        for begins in (False, True):
            if begins:
                self.query.script = lambda asked: asked.write(
                    PLAIN + b"Content-Length: 1000\r\n\r\n" + BEFORE + b'"row",'
                )
            client = yield self.client_of(sent())
            yield self.query.until(lambda: bool(self.query.connections) and self.query.asked[-1].is_whole)
            if begins:
                yield client.until(b'"row"')
            client.transport.abortConnection()
            yield client.lost
            yield self.query.until(lambda: not self.query.connections)
            self.assertEqual(self.service.gateway.upstream.shares.used, 0)

    @inlineCallbacks
    def test_huge_rows(self) -> Any:
        """A row of many megabytes passes in each form, and the memory for it is given back."""
        row = b'{"k":"' + b"v" * 12_000_000 + b'"}'
        self.query.script = said(BEFORE + row + AFTER)
        for accept in ("application/json", LINES, EVENTS):
            got = yield self.ask("POST", Q, SELECT, Accept=accept, **JSON)
            self.assertTrue(row in got.body)
            self.assertEqual(self.service.gateway.budget.used, 0)

    @inlineCallbacks
    def test_small_pieces(self) -> Any:
        """However fast the service is, its answer is taken in small pieces: others are served in between."""
        sizes = []
        received = StatementAnswer.received

        def note(answer: StatementAnswer, data: bytes) -> None:
            sizes.append(len(data))
            received(answer, data)

        self.patch(StatementAnswer, "received", note)
        self.query.script = said(BEFORE + b"[[[[1]]]]," * 40_000 + b"1" + AFTER)
        got = yield self.ask("POST", Q, SELECT, **JSON)
        self.assertEqual(len(got.json()["rows"]), 40_001)
        self.assertLessEqual(max(sizes), PIECE_BYTES)

    @inlineCallbacks
    def test_compressed(self) -> Any:
        """Rows are compressed for clients that can decode it."""
        self.query.script = said(BEFORE + b'"' + b"x" * 10_000 + b'"' + AFTER)
        client = yield self.client_of(sent(Q, "Accept-Encoding: gzip"))
        yield client.until(b"0\r\n\r\n")
        self.assertIn(b"Content-Encoding: gzip", client.data)
        self.assertLess(len(client.data), 2000)
        client.transport.loseConnection()
        yield client.lost


class FailureTests(Statements):
    """Statements and services that fail."""

    @inlineCallbacks
    def test_errors_before_rows(self) -> Any:
        """An error before the first row is an error of the dialect, with the service's own errors."""
        error = {"code": 3000, "msg": "syntax error - line 1", "column": 7}
        body = json.dumps({"requestID": "r", "errors": [error], "status": "fatal", "metrics": {}}).encode()
        for status, answer in (
            (400, body),
            (200, body),
            (200, BEFORE + b'],"errors":' + json.dumps([error]).encode() + b',"status":"fatal"}'),
        ):
            self.query.script = said(answer, status)
            for accept in ("application/json", LINES, EVENTS):
                got = yield self.ask("POST", Q, SELECT, Accept=accept, **JSON)
                self.assertEqual(got.code(), (400, "InvalidStatement"))
                told = got.json()
                self.assertEqual(told["errors"], [error])
                self.assertEqual(told["message"], "syntax error - line 1 (error 3000 of the query service)")
                self.assertEqual(told["retry"], "never")

    @inlineCallbacks
    def test_errors_after_rows(self) -> Any:
        """An error after rows is in the answer, which ends well-formed."""
        error = b'[{"code":1080,"msg":"Timeout 10s exceeded"}]'
        self.query.script = said(BEFORE + b'{"a":1}],"errors":' + error + b',"status":"timeout"}')
        got = yield self.ask("POST", Q, SELECT, **JSON)
        told = got.json()
        self.assertEqual((got.status, told["rows"], told["status"]), (200, [{"a": 1}], "timeout"))
        self.assertEqual(told["errors"], json.loads(error))
        got = yield self.ask("POST", Q, SELECT, Accept=LINES, **JSON)
        lines = [json.loads(line) for line in got.body.splitlines()]
        self.assertEqual(lines[1], {"error": json.loads(error)[0]})
        self.assertEqual(lines[2]["meta"]["status"], "timeout")
        got = yield self.ask("POST", Q, SELECT, Accept=EVENTS, **JSON)
        self.assertIn(b'event: error\ndata: {"code":1080', got.body)

    @inlineCallbacks
    def test_cut_after_rows(self) -> Any:
        """An answer that the service cuts has the rows that came, an error, and is cut."""

        def cut(asked: Asked) -> None:
            asked.write(PLAIN + b"Content-Length: 1000\r\n\r\n" + BEFORE + b'{"a":1},{"b":')
            asked.end()

        self.query.script = cut
        for accept in ("application/json", LINES, EVENTS):
            client = yield self.client_of(sent(Q, f"Accept: {accept}"))
            yield client.lost
            self.assertIn(b'{"a":1}', client.data)
            self.assertNotIn(b'{"b":', client.data)
            self.assertIn(b"UnderlyingServiceUnavailable", client.data)
            self.assertFalse(client.data.endswith(b"\r\n0\r\n\r\n"))

    @inlineCallbacks
    def test_garbage(self) -> Any:
        """Anything but an answer of the query service is a 503 if nothing was sent, else an error in it."""
        for answer in (b"<html>", b"", b"[1]", b'{"results":[1', b'{"status":"success"', b'{"a":nul}'):
            self.query.script = said(answer)
            got = yield self.ask("POST", Q, SELECT, **JSON)
            self.assertEqual(got.code(), (503, "UnderlyingServiceUnavailable"), answer)
            self.assertEqual(got.json()["retry"], "ambiguous")
            got = yield self.ask("POST", Q, b'{"statement":"x","read_only":true}', **JSON)
            self.assertEqual(got.json()["retry"], "safe")
        self.query.script = said(b"<html>no</html>", 503)
        got = yield self.ask("POST", Q, SELECT, **JSON)
        self.assertEqual(got.code(), (503, "TemporarilyUnavailable"))
        self.assertEqual(self.service.gateway.upstream.shares.used, 0)

    @inlineCallbacks
    def test_refused(self) -> Any:
        """What is wrong with a request is said before the service is asked."""
        for path, body, headers, code in (
            (Q, b"{}", JSON, "InvalidArgument"),
            (Q + "?pretty=true", SELECT, JSON, "InvalidArgument"),
            (Q, SELECT, {**JSON, "X_CB_Timeout": "never"}, "InvalidArgument"),
            (Q, SELECT, {**JSON, "If_Match": "*"}, "InvalidArgument"),
            (Q, SELECT, {**JSON, "Accept": "application/x-ndjson;q=2"}, "InvalidArgument"),
            ("/v1/buckets/nobody/query", SELECT, JSON, "BucketNotFound"),
            (Q, b'{"statement":"' + b"x" * 21 * 2**20 + b'"}', JSON, "InvalidArgument"),
        ):
            got = yield self.ask("POST", path, body, **headers)
            self.assertEqual(got.json()["code"], code, (path, body[:40]))
        got = yield self.ask("GET", Q)
        self.assertEqual(got.code(), (405, "MethodNotAllowed"))
        self.assertEqual(self.query.asked, [])

    @inlineCallbacks
    def test_time_limit(self) -> Any:
        """A statement's own limit goes to the service; if that says nothing, the gateway ends it later."""
        service = self.service
        clock = Clock()
        self.patch(service.gateway.upstream, "_reactor", _Timed(service.gateway.upstream._reactor, clock))
        self.query.script = None
        asking = self.ask("POST", Q, SELECT, X_CB_Timeout="2s", **JSON)
        yield self.query.until(lambda: bool(self.query.asked) and self.query.asked[0].is_whole)
        self.assertEqual(json.loads(self.query.asked[0].body)["timeout"], "2000ms")
        clock.advance(6.9)
        self.assertNoResult(asking)
        clock.advance(0.2)
        got = yield asking
        self.assertEqual(got.code(), (504, "DeadlineExceeded"))
        self.assertEqual(got.json()["retry"], "ambiguous")
        self.assertIn("the query service at http://127.0.0.1", got.json()["message"])
        yield self.query.until(lambda: not self.query.connections)


class _Timed:
    """A reactor whose timers for calls are those of a clock; it connects as before."""

    def __init__(self, reactor: Any, clock: Clock) -> None:
        self._reactor = reactor
        self.callLater = clock.callLater
        self.seconds = clock.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class AccessTests(ServicesTestCase):
    """``--query``."""

    proxied: list[str] = []

    @inlineCallbacks
    def test_read_only(self) -> Any:
        """Without callers' credentials statements may change nothing, unless an option says otherwise."""
        self.query.script = said(BEFORE + AFTER)
        got = yield self.ask("POST", Q, SELECT, **JSON)
        self.assertEqual(got.status, 200)
        self.assertTrue(json.loads(self.query.asked[0].body)["readonly"])
        got = yield self.ask("POST", Q, b'{"statement":"DELETE FROM b","read_only":false}', **JSON)
        self.assertEqual(got.code(), (403, "ServiceForbidden"))
        self.assertEqual(len(self.query.asked), 1)

    @inlineCallbacks
    def test_off(self) -> Any:
        """Statements can be off."""
        yield self.service.stopService()
        self.service = yield self.begin(self.settings(query="off"))
        got = yield self.ask("POST", Q, SELECT, **JSON)
        self.assertEqual(got.code(), (404, "RouteNotFound"))


class AbsentTests(ServicesTestCase):
    """The embedded node."""

    listed: dict[str, int] = {}

    @inlineCallbacks
    def test_absent(self) -> Any:
        """Without a query service the answer is one 501 that names it."""
        got = yield self.ask("POST", Q, SELECT, **JSON)
        self.assertEqual(got.code(), (501, "NotSupported"))
        self.assertIn("No node of the cluster runs the query service", got.json()["message"])
