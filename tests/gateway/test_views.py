"""View queries: what the node is asked, three forms of answers, pace, hang-ups, cut answers."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions as sdk
from couchbase.exceptions import NetworkError
from couchbase.result import MultiResult, ValueResult
from tests.gateway.support import Transport, basic, error, passthrough, read_reply
from tests.gateway.viewsupport import (
    TIMED_OUT,
    VIEWS,
    Stream,
    ViewSite,
    chunks,
    http_error,
    reply_of,
    row,
)

LINES = "application/x-ndjson"
EVENTS = "text/event-stream"


def hang_up(client: Transport) -> None:
    """The client closes its connection."""
    client.protocol.connectionLost(Failure(ConnectionDone()))


class JsonTests(SynchronousTestCase):
    """The default form."""

    def test_whole_answer(self) -> None:
        """Total, rows, debug_info; labelled, and with the total in a header."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer(row("a", 1), row("b", [2], {"x": 1}), debug_info={"local": {}})
        reply = reply_of(client)
        self.assertEqual(
            reply.json(),
            {
                "total_rows": 7,
                "rows": [row("a", 1), row("b", [2], {"x": 1})],
                "debug_info": {"local": {}},
            },
        )
        self.assertEqual((reply.status, reply.header("Content-Type")), (200, "application/json"))
        self.assertEqual(reply.header("X-CB-TotalRows"), "7")
        self.assertEqual((site.designs, site.streams[0].told), ([("d", "v")], []))

    def test_no_rows(self) -> None:
        """An empty list is an answer."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer(total=3)
        self.assertEqual(reply_of(client).json(), {"total_rows": 3, "rows": []})

    def test_reduced(self) -> None:
        """Reduced rows have no total."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer({"key": None, "value": 1411}, total=None)
        reply = reply_of(client)
        self.assertEqual(reply.json(), {"rows": [{"key": None, "value": 1411}]})
        self.assertIsNone(reply.header("X-CB-TotalRows"))

    def test_total_after_the_rows(self) -> None:
        """A node that tells the total last is understood."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].answer(row("a"), total=None, total_rows=9)
        self.assertEqual(reply_of(client).json(), {"rows": [row("a")], "total_rows": 9})

    def test_bytes_pass_unread(self) -> None:
        """Digits, blanks and escapes of a row are those of the node."""
        site = ViewSite()
        client = site.ask()
        raw = b'{"id":"a", "key":1.000e1,"value":"\\u00e9 123456789012345678901234567890"}'
        site.streams[0].send(b'{"total_rows":2,"rows":[\r\n' + raw + b",\r\n" + raw + b"\r\n]\r\n}\n")
        site.streams[0].finish()
        body = reply_of(client).body
        self.assertEqual(body.count(raw), 2)
        self.assertEqual(len(json.loads(body)["rows"]), 2)

    def test_first_row_leaves_before_the_last_is_there(self) -> None:
        """And what is sent is whole rows only."""
        site = ViewSite()
        client = site.ask()
        self.assertEqual(client.value(), b"")
        site.streams[0].send(b'{"total_rows":2,"rows":[\r\n{"id":"a","key":1,"value":null},\r\n{"id":"b","k')
        body, complete = chunks(client)
        self.assertEqual(body, b'{"total_rows":2,"rows":[\n{"id":"a","key":1,"value":null}')
        self.assertFalse(complete)
        site.streams[0].send(b'ey":2,"value":null}\r\n]\r\n}\r\n')
        site.streams[0].finish()
        self.assertEqual(len(reply_of(client).json()["rows"]), 2)

    def test_errors_of_nodes(self) -> None:
        """Errors inside of a node's complete answer are members of a complete answer here."""
        errors = [{"from": "http://n2:8092/_view_merge/", "reason": "timeout"}]
        for query in ("", "?on_error=continue", "?on_error=stop"):
            for rows in ((row("a"),), ()):
                site = ViewSite()
                client = site.ask(query)
                site.streams[0].answer(*rows, errors=errors)
                reply = reply_of(client)
                self.assertEqual(reply.status, 200)
                self.assertEqual(reply.json(), {"total_rows": 7, "rows": list(rows), "errors": errors})
                self.assertIsNotNone(client.protocol)

    def test_head(self) -> None:
        """HEAD has the headers, and the query is stopped."""
        site = ViewSite()
        client = site.ask(method="HEAD")
        site.streams[0].send(b'{"total_rows":2,"rows":[\r\n{"id":"a"},\r\n')
        self.assertTrue(client.value().endswith(b"\r\n\r\n"))
        self.assertIn(b"X-CB-TotalRows: 2\r\n", client.value())
        self.assertEqual(site.streams[0].told, ["stop"])


class LineTests(SynchronousTestCase):
    """application/x-ndjson."""

    def test_rows(self) -> None:
        """A row a line and nothing else; the total is in the header."""
        site = ViewSite()
        client = site.ask(Accept=LINES)
        site.streams[0].answer(row("a", "\n"), row("b"))
        reply = reply_of(client)
        self.assertEqual([json.loads(line) for line in reply.body.splitlines()], [row("a", "\n"), row("b")])
        self.assertEqual((reply.header("Content-Type"), reply.header("X-CB-TotalRows")), (LINES, "7"))

    def test_row_broken_into_lines(self) -> None:
        """Line ends inside of a row become blanks: JSON allows them there, lines do not."""
        for form in (LINES, EVENTS):
            site = ViewSite()
            client = site.ask(Accept=form)
            site.streams[0].send(b'{"rows":[{\n"id":\r\n"a"\n},{"id":"b"}\n]}')
            site.streams[0].finish()
            body = reply_of(client).body
            lines = [line.removeprefix(b"data: ") for line in body.splitlines() if b'"id"' in line]
            self.assertEqual([json.loads(line) for line in lines], [{"id": "a"}, {"id": "b"}], form)

    def test_no_rows(self) -> None:
        """No rows, no lines."""
        site = ViewSite()
        client = site.ask(Accept=LINES)
        site.streams[0].answer()
        self.assertEqual(reply_of(client).body, b"")

    def test_errors_and_debug(self) -> None:
        """What is not a row says what it is."""
        site = ViewSite()
        client = site.ask(Accept=LINES)
        site.streams[0].answer(row("a"), errors=[{"from": "local", "reason": "r"}], debug_info={"x": 1})
        lines = [json.loads(line) for line in reply_of(client).body.splitlines()]
        self.assertEqual(
            lines, [row("a"), {"error": {"from": "local", "reason": "r"}}, {"debug_info": {"x": 1}}]
        )


class EventTests(SynchronousTestCase):
    """text/event-stream."""

    def test_events(self) -> None:
        """Rows, errors, and the end with its figures, in the framing of server-sent events."""
        site = ViewSite()
        client = site.ask(Accept=EVENTS)
        site.streams[0].answer(row("a"), row("b"), errors=[{"from": "local", "reason": "r"}])
        reply = reply_of(client)
        events = [event.split(b"\n") for event in reply.body.split(b"\n\n")[:-1]]
        self.assertTrue(reply.body.endswith(b"\n\n"))
        self.assertEqual(
            [(name, json.loads(data.removeprefix(b"data: "))) for name, data in events],
            [
                (b"event: row", row("a")),
                (b"event: row", row("b")),
                (b"event: error", {"from": "local", "reason": "r"}),
                (b"event: done", {"rows": 2, "total_rows": 7}),
            ],
        )
        self.assertEqual(reply.header("Content-Type"), EVENTS)
        self.assertIn("no-cache", reply.header("Cache-Control") or "")


class AcceptTests(SynchronousTestCase):
    """Which form is chosen."""

    def test_choice(self) -> None:
        """The form that weighs most; JSON if none is named."""
        for accept, form in (
            ("*/*", "application/json"),
            ("text/html", "application/json"),
            (f"{LINES}, application/json", LINES),
            (f"{LINES};q=0.5, application/json;q=0.6", "application/json"),
            (f"application/json;q=0, {EVENTS}", EVENTS),
            (f"{LINES};q=0", "application/json"),
            (f"Application/X-NDJSON; charset=utf-8 ; q=0.001, {EVENTS};q=0", LINES),
            ("", "application/json"),
        ):
            site = ViewSite()
            client = site.ask(Accept=accept)
            site.streams[0].answer()
            self.assertEqual(reply_of(client).header("Content-Type"), form, accept)

    def test_broken(self) -> None:
        """A weight that is none is refused."""
        for quality in ("2", "x", "-1", "1.01", ""):
            site = ViewSite()
            reply = reply_of(site.ask(Accept=f"{LINES};q={quality}"))
            self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"))
            self.assertIn("Accept", reply.json()["message"])


class PaceTests(SynchronousTestCase):
    """The client decides how fast the node is read, and whether at all."""

    def test_slow_client_pauses_the_view(self) -> None:
        """Nothing is written while it does not read; nothing is lost when it does again."""
        for form in ("application/json", LINES, EVENTS):
            site = ViewSite()
            client = site.ask(Accept=form)
            stream = site.streams[0]
            stream.send(b'{"total_rows":3,"rows":[{"id":"a"}')
            client.protocol.pauseProducing()
            self.assertEqual(stream.told, ["pause"])
            written = client.value()
            stream.send(b',{"id":"b"}')
            self.assertEqual(client.value(), written)
            client.protocol.resumeProducing()
            self.assertEqual(stream.told, ["pause", "resume"])
            self.assertIn(b'{"id":"b"}', client.value())
            stream.send(b',{"id":"c"}]}')
            client.protocol.pauseProducing()
            stream.finish()
            self.assertFalse(chunks(client)[1])
            client.protocol.resumeProducing()
            body = reply_of(client).body
            self.assertEqual([body.count(b'{"id":"%c"}' % name) for name in b"abc"], [1, 1, 1])

    def test_client_that_is_slow_from_the_start(self) -> None:
        """A pipelined answer that fills the buffer stalls the next one's beginning."""
        site = ViewSite()
        client = site.client()
        client.protocol.pauseProducing()
        site.send(client, b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % VIEWS.encode())
        # The channel does not read while it is stalled; what is delivered all the same is answered.
        stream = site.streams[0]
        stream.send(b'{"rows":[{"id":"a"}')
        self.assertNotIn(b'"a"', client.value())
        self.assertEqual(stream.told, ["pause"])
        client.protocol.resumeProducing()
        stream.send(b"]}")
        stream.finish()
        self.assertEqual(reply_of(client).json(), {"rows": [{"id": "a"}]})

    def test_hang_up_before_the_first_row(self) -> None:
        """The query is stopped; the connection to the cluster is given back."""
        site = ViewSite()
        client = site.ask()
        hang_up(client)
        self.assertEqual(site.streams[0].told, ["stop"])
        self.assertEqual(site.pool._leases, {})

    def test_hang_up_in_the_middle(self) -> None:
        """The same between two rows, and while paused."""
        for paused in (False, True):
            site = ViewSite()
            client = site.ask()
            site.streams[0].send(b'{"rows":[{"id":"a"}')
            if paused:
                client.protocol.pauseProducing()
            hang_up(client)
            self.assertEqual(site.streams[0].told[-1], "stop")
            self.assertEqual(site.pool._leases, {})

    def test_connection_is_kept_for_as_long_as_rows_flow(self) -> None:
        """Leased from the first moment to the last."""
        site = ViewSite()
        client = site.ask()
        self.assertEqual(list(site.pool._leases.values()), [1])
        site.streams[0].send(b'{"rows":[{"id":"a"}')
        self.assertEqual(list(site.pool._leases.values()), [1])
        site.streams[0].send(b"]}")
        site.streams[0].finish()
        self.assertEqual(site.pool._leases, {})
        site.send(client, b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % VIEWS.encode())
        self.assertEqual(len(site.streams), 2)  # the client's connection goes on, too


class FailureTests(SynchronousTestCase):
    """Before the first byte a failure is an answer, after it a part of one."""

    def test_before_the_first_row(self) -> None:
        """Status and code of their own; what is meant is named."""
        missing = "Design document `_design/d` missing in database `b/master`."
        undefined = "View `v` not defined in local design document `_design/d`."
        bucket, design, view = "/buckets/b", "/buckets/b/designs/d", "/buckets/b/designs/d/views/v"
        for failure, expected in (
            (http_error(404, missing, "not_found"), (404, "DesignDocumentNotFound", design)),
            (http_error(404, "missing", "not_found"), (404, "DesignDocumentNotFound", design)),
            (http_error(404, "deleted", "not_found"), (404, "DesignDocumentNotFound", design)),
            (http_error(404, undefined, "not_found"), (404, "ViewNotFound", view)),
            (http_error(404, "no_db_file", "not_found"), (404, "BucketNotFound", bucket)),
            (http_error(400, "group is not for map views"), (400, "InvalidArgument", "")),
            (http_error(401), (403, "InvalidAuth", "")),
            (http_error(403), (403, "NoReadAccess", "/buckets/b/scopes/_default/collections/_default")),
            (http_error(500, "Reducer: not a number"), (500, "ViewFailed", view)),
            (http_error(503), (503, "TemporarilyUnavailable", "")),
            (http_error(599), (500, "ServerError", "")),
            (TIMED_OUT, (504, "DeadlineExceeded", "")),
            (error(sdk.NETWORK_ERROR), (503, "UnderlyingServiceUnavailable", "")),
            (error(sdk.NOT_SUPPORTED), (501, "NotSupported", "")),
        ):
            for form in ("application/json", LINES, EVENTS):
                site = ViewSite()
                client = site.ask(Accept=form)
                site.streams[0].fail(failure)
                told = reply_of(client).json()
                got = (reply_of(client).status, told["code"], told["resource"])
                self.assertEqual(got, expected, failure)
                self.assertEqual(site.pool._leases, {})

    def test_words_of_the_view_engine(self) -> None:
        """Its reasons reach the caller; nothing else that it says does."""
        for failure, words in (
            (http_error(400, "No rows can match your key range"), "No rows can match your key range"),
            (http_error(500, "Reducer: Value is not a number"), "Reducer: Value is not a number"),
            (http_error(400), "text"),
            (http_error(404, "x" * 50), "There is no such design document."),
        ):
            site = ViewSite()
            client = site.ask()
            site.streams[0].fail(failure)
            self.assertEqual(reply_of(client).json()["message"], words)

    def test_dev_is_named(self) -> None:
        """The resource of the error is the development document that was asked for."""
        site = ViewSite()
        client = site.ask("?dev=true")
        site.streams[0].fail(http_error(404, "missing", "not_found"))
        self.assertEqual(reply_of(client).json()["resource"], "/buckets/b/designs/dev_d")

    def cut(self, form: str) -> tuple[bytes, Transport]:
        """Cut an answer after its first row; returns the body and the client."""
        site = ViewSite()
        client = site.ask(Accept=form)
        site.streams[0].send(b'{"total_rows":2,"rows":[{"id":"a"}')
        site.streams[0].fail(error(sdk.NETWORK_ERROR, message="gone"))
        body, complete = chunks(client)
        self.assertFalse(complete)
        self.assertIsNone(client.protocol)  # closed
        self.assertFalse(client.aborted)  # but not before everything was sent
        self.assertEqual(site.pool._leases, {})
        return body, client

    def check_told(self, told: dict[str, Any]) -> None:
        """What is told of the failure."""
        self.assertEqual(
            {name: told[name] for name in ("from", "code", "exception", "retry")},
            {
                "from": "gateway",
                "code": "UnderlyingServiceUnavailable",
                "exception": told["exception"],
                "retry": "safe",
            },
        )
        self.assertTrue(issubclass(getattr(sdk, told["exception"]), sdk.CouchbaseError))
        self.assertIn("reason", told)

    def test_cut_json(self) -> None:
        """The JSON ends properly with the error; the chunks do not."""
        body, _ = self.cut("application/json")
        answer = json.loads(body)
        self.assertEqual((answer["total_rows"], answer["rows"]), (2, [{"id": "a"}]))
        self.check_told(answer["errors"][0])

    def test_cut_lines(self) -> None:
        """The last line is the error."""
        body, _ = self.cut(LINES)
        lines = [json.loads(line) for line in body.splitlines()]
        self.assertEqual(lines[0], {"id": "a"})
        self.check_told(lines[1]["error"])

    def test_cut_events(self) -> None:
        """The last event is the error; there is no ``done``."""
        body, _ = self.cut(EVENTS)
        self.assertEqual(body.count(b"event: "), 2)
        self.check_told(json.loads(body.split(b"event: error\ndata: ")[1]))

    def test_cut_while_the_client_is_slow(self) -> None:
        """It gets everything when it reads on, and then the end of the connection."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].send(b'{"rows":[{"id":"a"}')
        client.protocol.pauseProducing()
        site.streams[0].fail(TIMED_OUT)
        self.assertIsNotNone(client.protocol)
        client.protocol.resumeProducing()
        self.assertIsNone(client.protocol)
        body, complete = chunks(client)
        self.assertEqual((json.loads(body)["errors"][0]["code"], complete), ("DeadlineExceeded", False))

    def test_client_that_never_reads_a_cut_answer(self) -> None:
        """It does not hold its connection for ever."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].send(b'{"rows":[{"id":"a"}')
        channel = client.protocol
        client.loseConnection = lambda: setattr(client, "disconnecting", True)  # type: ignore[method-assign]
        site.streams[0].fail(TIMED_OUT)
        self.assertIs(client.protocol, channel)
        site.clock.pump([site.gateway.limits.stall_seconds, 2])
        self.assertTrue(client.aborted)

    def test_bug_in_the_middle(self) -> None:
        """What nobody foresaw is logged, and told as Internal."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].send(b'{"rows":[{"id":"a"}')
        site.streams[0].fail(ZeroDivisionError("no"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(json.loads(chunks(client)[0])["errors"][0]["code"], "Internal")

    def test_node_that_sends_no_json(self) -> None:
        """Before the rows that is a network error, among them a cut."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].send(b"<html>")
        self.assertEqual(reply_of(client).json()["code"], "UnderlyingServiceUnavailable")
        site = ViewSite()
        client = site.ask()
        site.streams[0].send(b'{"rows":[{"id":"a"},<')
        site.streams[0].finish()
        self.assertEqual(json.loads(chunks(client)[0])["errors"][0]["code"], "UnderlyingServiceUnavailable")
        self.assertIsNone(client.protocol)

    def test_errors_of_nodes_before_the_cut(self) -> None:
        """What the node said before it broke is told beside the break."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].send(b'{"rows":[{"id":"a"}],"errors":[{"from":"n2","reason":"r"}]')
        site.streams[0].fail(NetworkError({"rc": sdk.NETWORK_ERROR}))
        errors = json.loads(chunks(client)[0])["errors"]
        self.assertEqual([one["from"] for one in errors], ["n2", "gateway"])


class CountTests(SynchronousTestCase):
    """What metrics hear, and who may ask."""

    def outcomes(self, act: Any, method: str = "GET") -> list[tuple[str, str, int]]:
        """Return what was counted for one query."""
        counted: list[tuple[str, str, int]] = []

        class Counting:
            on_request = on_response = None

            def attach(self, gateway: Any) -> None:
                pass

            def routes(self, app: Any) -> None:
                pass

            def on_operation(self, operation: str, outcome: str, count: int) -> None:
                counted.append((operation, outcome, count))

        site = ViewSite(plugins=[Counting()])
        client = site.ask(method=method)
        act(site.streams[0], client)
        self.assertEqual(site.gateway.under_way, 0)
        return counted

    def test_once_each(self) -> None:
        """Each query counts once, by how it ended."""

        def cut(stream: Stream, client: Transport) -> None:
            stream.send(b'{"rows":[{"id":"a"}')
            stream.fail(TIMED_OUT)

        def leave(stream: Stream, client: Transport) -> None:
            stream.send(b'{"rows":[{"id":"a"}')
            hang_up(client)

        for act, outcome in (
            (lambda stream, client: stream.answer(row("a")), "ok"),
            (lambda stream, client: stream.fail(TIMED_OUT), "DeadlineExceeded"),
            (lambda stream, client: hang_up(client), "RequestCanceled"),
            (cut, "DeadlineExceeded"),
            (leave, "RequestCanceled"),
        ):
            self.assertEqual(self.outcomes(act), [("query", outcome, 1)])
        self.assertEqual(self.outcomes(lambda stream, client: stream.answer(), "HEAD"), [("query", "ok", 1)])

    def test_credentials(self) -> None:
        """The same as for documents: required, and put to the cluster."""
        site = ViewSite(authorizer=passthrough())
        self.assertEqual(reply_of(site.ask()).json()["code"], "Unauthorized")
        site.ask(**basic("ann", "secret"))
        self.assertEqual(site.connections[0].opened_with, ("b", "ann", "secret"))
        self.assertEqual(len(site.streams), 1)
        site = ViewSite({"connect": error(sdk.AUTH_ERROR)}, authorizer=passthrough())
        self.assertEqual(reply_of(site.ask(**basic("ann", "wrong"))).json()["code"], "InvalidAuth")

    def test_bad_names(self) -> None:
        """A bucket that cannot be, and methods that are not."""
        site = ViewSite()
        reply = site.request("GET", "/v1/buckets/a%20b/views/d/v")
        self.assertEqual(reply.json()["code"], "BucketNotFound")
        reply = site.request("PUT", VIEWS)
        self.assertEqual((reply.status, reply.header("Allow")), (405, "GET, HEAD, OPTIONS, POST"))

    def test_names_are_decoded_once(self) -> None:
        """A slash in a name stays one."""
        site = ViewSite()
        site.send(site.client(), b"GET /v1/buckets/b/views/a%2Fb/c%2525 HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(site.designs, [("a/b", "c%25")])


def found(**documents: tuple[bytes, int] | int) -> MultiResult:
    """Return what get_multi gives: content and flags, or a result code."""
    results = MultiResult()
    for name, what in documents.items():
        result = ValueResult()
        if isinstance(what, int):
            result._rc = what
            results.all_ok = 0
        else:
            result._value, result._flags = what
            result._cas = 0x1234
        results[name.encode()] = result
    return results


class DocumentTests(SynchronousTestCase):
    """include_docs."""

    def docs(self, answers: Any, *rows: Any, form: str = "application/json", **kwargs: Any) -> Transport:
        """Run a query with documents."""
        site = ViewSite({"get_multi": answers})
        client = site.ask("?include_docs=true", Accept=form)
        self.site = site
        site.streams[0].answer(*rows, **kwargs)
        return client

    def test_forms_of_documents(self) -> None:
        """JSON as it is stored, other content in base64, gone ones marked with the reason."""
        answers = found(
            j=(b'{"n": 1.00}', 0x02000000),
            s=(b'{\n"a":\r\n1}', 0),
            b=(b"\xff\0", 0x03000000),
            x=(b"no json{", 0x02000000),
            t=(b"text", 0x04000000),
            g=sdk.KEY_ENOENT,
        )
        rows = [row(name) for name in "jsbxtg"]
        for form in ("application/json", LINES, EVENTS):
            body = chunks(self.docs(answers, *rows, form=form))[0]
            if form == "application/json":
                got = json.loads(body)["rows"]
            else:
                got = [
                    json.loads(line.removeprefix(b"data: ")) for line in body.splitlines() if b'"id"' in line
                ]
            self.assertIn(b'"json":{"n": 1.00}', body)
            self.assertEqual([one["id"] for one in got], list("jsbxtg"))
            self.assertEqual(
                [one["doc"] for one in got[:3]],
                [
                    {"meta": {"id": "j", "cas": "00001234", "flags": 0x02000000}, "json": {"n": 1.0}},
                    {"meta": {"id": "s", "cas": "00001234", "flags": 0}, "json": {"a": 1}},
                    {"meta": {"id": "b", "cas": "00001234", "flags": 0x03000000}, "base64": "/wA="},
                ],
            )
            self.assertEqual([one["doc"]["base64"] for one in got[3:5]], ["bm8ganNvbns=", "dGV4dA=="])
            self.assertIsNone(got[5]["doc"])
            self.assertEqual(got[5]["doc_error"]["code"], "DocumentNotFound")

    def test_some_fail(self) -> None:
        """A document that does not come for another reason says so; the others are there."""
        failure = error(sdk.ETIMEDOUT)
        failure.all_results = found(a=(b"1", 0), b=sdk.ETIMEDOUT, c=sdk.KEY_ENOENT)
        got = reply_of(self.docs(failure, row("a"), row("b"), row("c"), row("d"))).json()["rows"]
        self.assertEqual(got[0]["doc"]["json"], 1)
        self.assertEqual(
            [one.get("doc_error", {}).get("code") for one in got],
            [None, "DeadlineExceeded", "DocumentNotFound", "DeadlineExceeded"],
        )

    def test_batches(self) -> None:
        """In order; small at first, never above a hundred; an id once a batch."""
        asked: list[list[bytes]] = []

        def get_multi(ids: list[bytes], quiet: bool) -> Any:
            self.assertTrue(quiet)
            asked.append(ids)
            return succeed(found(**{docid.decode(): (b'"%b"' % docid, 0) for docid in ids}))

        rows = [row(f"k{number // 2}") for number in range(600)]
        got = reply_of(self.docs(get_multi, *rows)).json()["rows"]
        self.assertEqual([one["doc"]["json"] for one in got], [one["id"] for one in rows])
        self.assertEqual([len(ids) for ids in asked], [4, 8, 16, 32, 50, 50, 50, 50, 40])

    def test_large_documents_are_fetched_few_at_a_time(self) -> None:
        """Batches shrink to what fits; and with the gateway's memory used up, to one."""
        sizes: list[int] = []

        def get_multi(ids: list[bytes], quiet: bool) -> Any:
            sizes.append(len(ids))
            return succeed(found(**{docid.decode(): (b'"%b"' % (b"x" * 2**21), 0) for docid in ids}))

        self.docs(get_multi, *(row(f"k{number}") for number in range(16)))
        self.assertEqual(sizes, [8, 3, 3, 2])
        self.assertEqual(self.site.gateway.budget.used, 0)
        sizes.clear()
        site = ViewSite({"get_multi": get_multi})
        site.gateway.budget.adjust(site.gateway.budget.limit)
        site.ask("?include_docs=true")
        site.streams[0].answer(row("a"), row("b"))
        self.assertEqual(sizes, [1, 1])

    def test_slow_client_stops_the_fetching(self) -> None:
        """No further batch is fetched while the client does not read."""
        sizes: list[int] = []

        def get_multi(ids: list[bytes], quiet: bool) -> Any:
            sizes.append(len(ids))
            if len(sizes) == 1:
                client.protocol.pauseProducing()
            return succeed(found(**{docid.decode(): (b"1", 0) for docid in ids}))

        site = ViewSite({"get_multi": get_multi})
        client = site.ask("?include_docs=true")
        body = json.dumps({"rows": [row(f"k{number}") for number in range(20)]}).encode()
        waiting = site.streams[0].send(body)
        self.assertEqual((sizes, waiting.called), ([8], False))
        client.protocol.resumeProducing()
        self.assertEqual((sizes, waiting.called), ([8, 12], True))
        site.streams[0].finish()
        self.assertEqual(len(reply_of(client).json()["rows"]), 20)

    def test_hang_up_while_fetching(self) -> None:
        """What is under way is cancelled, and nothing is reckoned any more."""
        cancelled: list[bool] = []
        for pause_first in (False, True):
            pending: Deferred[Any] = Deferred(lambda _: cancelled.append(True))
            answers = iter([succeed(found(k0=(b"1", 0))), pending] if pause_first else [pending])
            site = ViewSite({"get_multi": lambda ids, quiet, answers=answers: next(answers)})
            client = site.ask("?include_docs=true")
            body = json.dumps({"rows": [row(f"k{number}") for number in range(20)]}).encode()
            site.streams[0].send(body)
            hang_up(client)
            self.assertEqual(site.streams[0].told[-1], "stop")
            self.assertEqual((site.gateway.budget.used, site.pool._leases), (0, {}))
        self.assertEqual(cancelled, [True, True])

    def test_reduced_rows(self) -> None:
        """A view that reduces without being asked to is refused with the remedy."""
        told = reply_of(self.docs(MultiResult(), {"key": None, "value": 3}, total=None)).json()
        self.assertEqual(told["code"], "InvalidArgument")
        self.assertIn("reduce=false", told["message"])

    def test_keys_beyond_the_fast_parser(self) -> None:
        """Half a surrogate pair in a key does not hide the id."""
        site = ViewSite({"get_multi": found(a=(b"1", 0))})
        client = site.ask("?include_docs=true")
        site.streams[0].send(b'{"rows":[{"id":"a","key":"\\ud800","value":null}]}')
        site.streams[0].finish()
        self.assertIn(b'"json":1', chunks(client)[0])

    def test_bug_while_fetching(self) -> None:
        """A fault of the gateway before the first row is a 500, logged."""
        client = self.docs(ZeroDivisionError("no"), row("a"))
        self.assertEqual(reply_of(client).json()["code"], "Internal")
        self.flushLoggedErrors(ZeroDivisionError)

    def test_cancelled_error_is_no_bug(self) -> None:
        """An operation given up by the driver has a code of its own."""
        client = self.docs(lambda ids, quiet: _failed(CancelledError()), row("a"))
        self.assertEqual(read_reply(client.value())[0].json()["code"], "RequestCanceled")


def _failed(failure: Exception) -> Deferred[Any]:
    result: Deferred[Any] = Deferred()
    result.errback(failure)
    return result
