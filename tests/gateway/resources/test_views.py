"""View queries: pace, hang-ups, failures before and after the first byte, what is counted."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.exceptions import NetworkError
from gateway.http import clientconnection
from tests.gateway.support import Transport, basic, error, passthrough
from tests.gateway.views.support import (
    EVENTS,
    LINES,
    TIMED_OUT,
    VIEWS,
    Stream,
    ViewSite,
    chunks,
    hang_up,
    http_error,
    reply_of,
    row,
)


class PaceTests(SynchronousTestCase):
    """The client determines how fast the node is read, and whether at all."""

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
        # The channel does not read while it is stalled; bytes that are delivered nevertheless are answered.
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
        self.assertEqual(len(site.streams), 2)  # the client's connection remains usable, too


class FailureTests(SynchronousTestCase):
    """Before the first byte a failure is an answer, after it a part of one."""

    def test_before_the_first_row(self) -> None:
        """They have their own status and code, and the resource is named."""
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
            (error(exceptions.NETWORK_ERROR), (503, "UnderlyingServiceUnavailable", "")),
            (error(exceptions.NOT_SUPPORTED), (501, "NotSupported", "")),
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
        site.streams[0].fail(error(exceptions.NETWORK_ERROR, message="gone"))
        body, complete = chunks(client)
        self.assertFalse(complete)
        self.assertIsNone(client.protocol)  # closed
        self.assertFalse(client.aborted)  # but not before everything was sent
        self.assertEqual(site.pool._leases, {})
        return body, client

    def check_told(self, told: dict[str, Any]) -> None:
        """Check the report of the failure."""
        self.assertEqual(
            {name: told[name] for name in ("from", "code", "exception", "retry")},
            {
                "from": "gateway",
                "code": "UnderlyingServiceUnavailable",
                "exception": told["exception"],
                "retry": "safe",
            },
        )
        self.assertTrue(issubclass(getattr(exceptions, told["exception"]), exceptions.CouchbaseError))
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
        """It does not hold its connection forever."""
        site = ViewSite()
        client = site.ask()
        # The kernel has it, and the client does not take it.
        self.patch(clientconnection, "unsent_bytes", lambda transport: 100)
        site.streams[0].send(b'{"rows":[{"id":"a"}')
        channel = client.protocol
        client.loseConnection = lambda: setattr(client, "disconnecting", True)  # type: ignore[method-assign]
        site.streams[0].fail(TIMED_OUT)
        self.assertIs(client.protocol, channel)
        site.clock.pump([site.gateway.limits.stall_seconds, 2])
        self.assertTrue(client.aborted)

    def test_bug_in_the_middle(self) -> None:
        """An unexpected exception is logged, and reported as Internal."""
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
        """Errors that the node sent before the break are reported together with the break."""
        site = ViewSite()
        client = site.ask()
        site.streams[0].send(b'{"rows":[{"id":"a"}],"errors":[{"from":"n2","reason":"r"}]')
        site.streams[0].fail(NetworkError({"rc": exceptions.NETWORK_ERROR}))
        errors = json.loads(chunks(client)[0])["errors"]
        self.assertEqual([one["from"] for one in errors], ["n2", "gateway"])


class CountTests(SynchronousTestCase):
    """Metrics of views, and access to views."""

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
        site = ViewSite({"connect": error(exceptions.AUTH_ERROR)}, authorizer=passthrough())
        self.assertEqual(reply_of(site.ask(**basic("ann", "wrong"))).json()["code"], "InvalidAuth")

    def test_bad_names(self) -> None:
        """A bucket that cannot be, and methods that are not."""
        site = ViewSite()
        reply = site.request("GET", "/v1/buckets/a%20b/views/d/v")
        self.assertEqual(reply.json()["code"], "BucketNotFound")
        reply = site.request("PUT", VIEWS)
        self.assertEqual((reply.status, reply.header("Allow")), (405, "GET, HEAD, OPTIONS, POST"))

    def test_names_are_decoded_once(self) -> None:
        """A slash in a name remains one."""
        site = ViewSite()
        site.send(site.client(), b"GET /v1/buckets/b/views/a%2Fb/c%2525 HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(site.designs, [("a/b", "c%25")])
