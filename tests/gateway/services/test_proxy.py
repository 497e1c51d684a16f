"""Requests that are passed on to services of the cluster, over sockets."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.web.server import Site

from tests.gateway.http2.peer import Client as Http2Client
from tests.gateway.services.support import PLAIN, Asked, Service, ServicesTestCase

QUERY = "/_p/query/query/service"
JSON = {"Content_Type": "application/json"}
SELECT = b'{"statement":"SELECT 1"}'


class Client(Protocol):
    """A client that sends bytes, and reads when the test wants it to."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: Deferred[None] = Deferred()
        self._waiting: list[tuple[bytes, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for pair in list(self._waiting):
            # A text may begin in the part before.
            if self.data.find(pair[0], 0 if not data else max(0, len(self.data) - len(data) - 64)) >= 0:
                self._waiting.remove(pair)
                pair[1].callback(None)

    def until(self, text: bytes) -> Deferred[None]:
        """Return a Deferred that fires when a text has arrived."""
        done: Deferred[None] = Deferred()
        self._waiting.append((text, done))
        self.dataReceived(b"")
        return done

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


def unchunked(data: bytes) -> bytes:
    """Return the body of an answer in chunks."""
    at = data.index(b"\r\n\r\n") + 4
    parts = []
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if not size:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size


class Proxied(ServicesTestCase):
    """A gateway that proxies the query service."""

    @inlineCallbacks
    def client_of(self, data: bytes) -> Any:
        """Connect a client, and send something."""
        host, port = self.url.removeprefix("http://").split(":")
        client = yield connectProtocol(HostnameEndpoint(reactor, host.encode(), int(port)), Client())
        client.transport.write(data)
        return client


def sent(path: str = QUERY, body: bytes = SELECT, method: str = "POST", *lines: str) -> bytes:
    """Return a request as it goes over the wire."""
    named = "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(body)}"))
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{named}\r\n".encode() + body


class ProxyTests(Proxied):
    """What passes, and what does not."""

    @inlineCallbacks
    def test_passed_on(self) -> Any:
        """Method, path, query, body and the caller's headers arrive; status, headers and body come back."""
        service = self.query
        service.script = lambda asked: asked.answer({"results": [1]}, 202, X_Of_Service="1")
        got = yield self.ask("POST", QUERY + "?a=b%20c&d", SELECT, **JSON, X_Mine="2")
        self.assertEqual((got.status, got.json()), (202, {"results": [1]}))
        self.assertEqual(got.header("X-Of-Service"), "1")
        (asked,) = service.asked
        self.assertEqual((asked.method, asked.target), ("POST", "/query/service?a=b%20c&d"))
        self.assertEqual(asked.body, SELECT)
        self.assertEqual((asked.header("Content-Type"), asked.header("X-Mine")), ("application/json", "2"))
        self.assertEqual(asked.header("Content-Length"), str(len(SELECT)))
        self.assertEqual(asked.header("Host"), f"127.0.0.1:{service.number}")
        self.assertEqual(asked.header("X-Request-Id"), got.header("X-Request-Id"))

    @inlineCallbacks
    def test_trace(self) -> Any:
        """The service gets the caller's trace if it is valid, else a new one; never what is invalid."""
        trace = "0af7651916cd43dd8448eb211c80319c"
        self.query.script = lambda asked: asked.answer({"results": [1]})
        for parent, state in ((f"00-{trace}-b7ad6b7169203331-01", "a=1"), (f"00-{trace}-b7ad-01", "a=1")):
            yield self.ask("POST", QUERY, SELECT, **JSON, traceparent=parent, tracestate=state)
            asked = self.query.asked[-1]
            given, is_valid = asked.header("traceparent"), len(parent) == 55
            self.assertRegex(given, r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]\Z")
            self.assertEqual((given == parent, trace in given), (is_valid, is_valid))
            self.assertEqual(asked.header("tracestate"), "a=1" if is_valid else None)

    @inlineCallbacks
    def test_headers_of_one_hop(self) -> Any:
        """Headers of one connection, those that Connection names, and those that give rights do not pass."""
        self.query.script = lambda asked: asked.write(
            PLAIN + b"Content-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n"
            b"Set-Cookie: ui-token=1\r\nAccess-Control-Allow-Origin: *\r\nServer: cb\r\nX-End: 2\r\n"
            b"X-Request-Id: other\r\nX-Accel-Redirect: /etc\r\n\r\n{}"
        )
        not_sent = (
            *("Connection: x-mine, keep-alive", "X-Mine: 1", "Keep-Alive: 3", "TE: trailers", "Upgrade: h2c"),
            *("cb-on-behalf-of: QWRtaW4=", "Cb_On_Behalf_Of: QWRtaW4=", "cb-on-behalf-extras: x"),
            *("X-API-Key: k",),
            *("ns-server-auth-token: x", "Cookie: a=b", "X-Forwarded-For: 1.1.1.1", "Forwarded: for=1.1.1.1"),
            *("Proxy-Authorization: Basic QQ==", "Expect: 100-continue", "Sec-Fetch-Site: none"),
        )
        client = yield self.client_of(sent(QUERY, SELECT, "POST", *not_sent, "X-Passes: 1"))
        yield client.until(b"\r\n0\r\n\r\n")
        (asked,) = self.query.asked
        for line in not_sent:
            name = line.partition(":")[0]
            if name not in ("Connection",):
                self.assertIsNone(asked.header(name), name)
        self.assertEqual(asked.header("X-Passes"), "1")
        head = client.data.partition(b"\r\n\r\n{}")[0].lower()
        for word in (b"keep-alive", b"set-cookie", b"access-control", b"server: cb", b"x-accel"):
            self.assertNotIn(word, head)
        self.assertEqual(head.count(b"x-request-id"), 1)
        for line in (b"x-end: 2", b"content-security-policy: sandbox", b"x-content-type-options: nosniff"):
            self.assertIn(line, head)
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_no_other_host(self) -> Any:
        """Neither Host nor an absolute URL leads anywhere else than to the service."""
        self.query.script = lambda asked: asked.answer(b"{}")
        for target in (QUERY, "http://127.0.0.1:1" + QUERY):
            line = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Length: 0\r\n\r\n"
            client = yield self.client_of(line.encode())
            yield client.until(b"\r\n0\r\n\r\n")
            client.transport.loseConnection()
            yield client.lost
        hosts = {asked.header("Host") for asked in self.query.asked}
        self.assertEqual(hosts, {f"127.0.0.1:{self.query.number}"})
        self.assertEqual({asked.target for asked in self.query.asked}, {"/query/service"})

    @inlineCallbacks
    def test_path_tricks(self) -> Any:
        """Paths that a service may read as others are refused, and the service is not asked."""
        for path in (
            *(
                "/query/../admin/settings",
                "/query/%2e%2e/admin/settings",
                "/query/%2E./admin",
                "/query/./service",
            ),
            *(
                "/query//service",
                "//query/service",
                "/query%2fservice",
                "/query%2Fservice",
                "/query%5cservice",
            ),
            *(
                "/query\\service",
                "/query/ser%00vice",
                "/query/ser%0d%0aX:1",
                "/query/%zz",
                "/query/service#a",
            ),
            *("/query/{x}", "/..", "/.", "/query/service?a=%zz", "/query/service?a#b", "/query/%ff"),
        ):
            client = yield self.client_of(sent("/_p/query" + path, b""))
            yield client.until(b"requestId")
            self.assertRegex(client.data, rb"^HTTP/1.1 40[04] ", path)
            self.assertRegex(client.data, rb'"code":"(InvalidArgument|RouteNotFound)"', path)
            client.transport.loseConnection()
            yield client.lost
        self.assertEqual(self.query.asked, [])

    @inlineCallbacks
    def test_smuggled_requests(self) -> Any:
        """A body whose length can be read in two ways is refused; what is behind a body is a request here."""
        self.query.script = lambda asked: asked.answer(b"{}")
        chunks = b"0\r\n\r\nGET /admin/settings HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for lines in (
            ["Content-Length: 5", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
            ["Transfer-Encoding: xchunked"],
            ["Transfer-Encoding : chunked"],
            ["Transfer-Encoding: chunked", "Content-Length: 5"],
            ["Content-Length: 5", "Content-Length: 6"],
            ["Content-Length: +5"],
            ["X: a\r\n Transfer-Encoding: chunked", "Content-Length: 5"],
            ["X: a\nTransfer-Encoding: chunked", "Content-Length: 5"],
        ):
            head = f"POST {QUERY} HTTP/1.1\r\nHost: localhost\r\n" + "".join(f"{line}\r\n" for line in lines)
            client = yield self.client_of(head.encode() + b"\r\n" + chunks)
            yield client.until(b"requestId")
            self.assertTrue(client.data.startswith(b"HTTP/1.1 400 "), (lines, client.data))
            client.transport.loseConnection()
            yield client.lost
        self.assertEqual(self.query.asked, [])
        # A chunked body comes again as one body; the next request is the gateway's, not the service's.
        chunked = f"POST {QUERY} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client = yield self.client_of(chunked.encode() + b"5\r\nGET /\r\n" + chunks)
        yield client.until(b'"RouteNotFound"')
        (asked,) = self.query.asked
        self.assertEqual((asked.body, asked.is_whole), (b"GET /", True))
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_methods(self) -> Any:
        """Other methods than those of REST are refused with those that there are."""
        for method in ("TRACE", "CONNECT", "PROPFIND", "get"):
            client = yield self.client_of(sent(QUERY, b"", method))
            yield client.until(b"\r\n\r\n")
            self.assertRegex(client.data, rb"^HTTP/1.1 (405|400) ", method)
            client.transport.loseConnection()
            yield client.lost
        answered = yield self.ask("OPTIONS", QUERY)
        self.assertEqual(answered.header("Allow"), "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
        self.assertEqual(self.query.asked, [])

    @inlineCallbacks
    def test_redirects(self) -> Any:
        """A redirection within the service stays below the proxy; any other place is left out."""
        base = f"http://127.0.0.1:{self.query.number}"
        for place, expected in (
            ("/query/other?a=1", "/_p/query/query/other?a=1"),
            (base + "/query/other#x", "/_p/query/query/other#x"),
            ("http://user:secret@127.0.0.1/query", None),
            ("https://example.org/", None),
            ("//example.org/", None),
            ("other", None),
        ):
            self.query.script = lambda asked, place=place: asked.answer(b"", 302, Location=place)
            client = yield self.client_of(sent())
            yield client.until(b"0\r\n\r\n")
            found = [line for line in client.data.decode().split("\r\n") if line.startswith("Location")]
            self.assertEqual(found, [] if expected is None else [f"Location: {expected}"], place)
            self.assertTrue(client.data.startswith(b"HTTP/1.1 302 "))
            client.transport.loseConnection()
            yield client.lost

    @inlineCallbacks
    def test_head(self) -> Any:
        """HEAD is HEAD at the service, and nothing is left open."""
        self.query.script = lambda asked: asked.write(PLAIN + b"Content-Length: 100\r\n\r\n")
        got = yield self.ask("HEAD", "/_p/query/admin/ping")
        self.assertEqual((got.status, got.body), (200, b""))
        self.assertEqual(self.query.asked[0].method, "HEAD")
        self.assertEqual(self.service.gateway.upstream.shares.used, 0)

    @inlineCallbacks
    def test_off_and_unknown(self) -> Any:
        """A service that is off, or does not exist, is a 404 that says what to do."""
        for path, word in (
            ("/_p/fts/api/index", "--proxy-service fts"),
            ("/_p/n1ql/x", "query, fts, cbas, mgmt"),
        ):
            got = yield self.ask("GET", path)
            self.assertEqual(got.code(), (404, "RouteNotFound"))
            self.assertIn(word, got.json()["message"])
        for path in ("/_p", "/_p/", "/_p/query", "/_p//query/x"):
            got = yield self.ask("GET", path)
            self.assertEqual(got.code(), (404, "RouteNotFound"), path)

    @inlineCallbacks
    def test_selective_headers(self) -> Any:
        """A header of the dialect that a service does not know is refused, not dropped."""
        got = yield self.ask("POST", QUERY, SELECT, X_CB_DurabilityLevel="Majority", **JSON)
        self.assertEqual(got.code(), (400, "InvalidArgument"))


class StreamTests(Proxied):
    """Bodies in both directions, at the pace of the slower side."""

    @inlineCallbacks
    def test_both_ways_at_once(self) -> Any:
        """A part is passed on before the next one exists, in each direction."""
        service = self.query
        head = f"POST {QUERY} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        client = yield self.client_of(head + b"3\r\none\r\n")
        yield service.until(lambda: bool(service.asked) and service.asked[0].body == b"one")
        client.transport.write(b"3\r\ntwo\r\n")
        yield service.until(lambda: service.asked[0].body == b"onetwo")
        client.transport.write(b"0\r\n\r\n")
        yield service.until(lambda: service.asked[0].is_whole)
        asked = service.asked[0]
        asked.write(PLAIN + b"Transfer-Encoding: chunked\r\n\r\n")
        for part in (b"first", b"second"):
            asked.chunk(part)
            yield client.until(part)
        asked.write(b"0\r\n\r\n")
        yield client.until(b"0\r\n\r\n")
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_slow_reader(self) -> Any:
        """A client that does not read stops the service; then everything arrives in order."""
        service = self.query
        block = bytes(range(256)) * 256
        written = []

        class Producer:
            """Writes blocks while there is room."""

            def __init__(self, asked: Asked) -> None:
                self.asked = asked
                self.left = 800
                self.stopped: Deferred[None] = Deferred()

            def resumeProducing(self) -> None:
                self.left -= 1
                written.append(1)
                self.asked.chunk(block)
                if not self.left:
                    self.asked.connection.transport.unregisterProducer()  # type: ignore[union-attr]
                    self.asked.write(b"0\r\n\r\n")

            def stopProducing(self) -> None:
                """Do nothing."""

        def begin(asked: Asked) -> None:
            asked.write(PLAIN + b"Transfer-Encoding: chunked\r\n\r\n")
            asked.connection.transport.registerProducer(Producer(asked), False)  # type: ignore[union-attr]

        service.script = begin
        client = yield self.client_of(sent())
        yield client.until(b"\r\n\r\n")
        client.transport.pauseProducing()
        before = -1
        while len(written) > before:
            before = len(written)
            yield self.pause(0.3)
        self.assertLess(len(written), 700, "the service was not stopped")
        client.transport.resumeProducing()
        yield client.until(b"\r\n0\r\n\r\n")
        self.assertEqual(len(written), 800)
        self.assertTrue(unchunked(bytes(client.data)) == block * 800)
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_slow_service(self) -> Any:
        """A service that does not read stops the client's upload, which is never held in memory."""
        service = self.query
        service.on_head = lambda asked: asked.connection.transport.pauseProducing()  # type: ignore[union-attr]
        size = 64 * 2**20
        client = yield self.client_of(
            f"PUT {QUERY} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        taken = []

        class Producer:
            """Uploads while there is room."""

            def resumeProducing(self) -> None:
                taken.append(1)
                client.transport.write(b"x" * 2**16)
                if len(taken) * 2**16 == size:
                    client.transport.unregisterProducer()

            def stopProducing(self) -> None:
                """Do nothing."""

        client.transport.registerProducer(Producer(), False)
        yield service.until(lambda: bool(service.asked))
        before = -1
        while len(taken) > before:
            before = len(taken)
            yield self.pause(0.3)
        self.assertLess(len(taken) * 2**16, size * 3 // 4, "the client was not stopped")
        self.assertEqual(self.service.gateway.budget.used, 0)
        asked = service.asked[0]
        service.script = lambda asked: asked.answer(b"[]")
        asked.connection.transport.resumeProducing()  # type: ignore[union-attr]
        yield client.until(b"[]")
        self.assertEqual(asked.body, b"x" * size)
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_hang_up(self) -> Any:
        """When the client leaves, the service's connection is closed: before the answer, and within it."""
        service = self.query
        for begins in (False, True):
            if begins:
                service.script = lambda asked: asked.write(
                    PLAIN + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
                )
            client = yield self.client_of(sent())
            yield service.until(lambda: bool(service.connections) and service.asked[-1].is_whole)
            if begins:
                yield client.until(b"\r\n\r\n1\r\nx")
            client.transport.abortConnection()
            yield client.lost
            yield service.until(lambda: not service.connections)
            self.assertEqual(self.service.gateway.upstream.shares.used, 0)

    @inlineCallbacks
    def test_hang_up_within_the_body(self) -> Any:
        """A client that leaves before it has sent its body ends the request at the service."""
        service = self.query
        client = yield self.client_of(
            f"POST {QUERY} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf".encode()
        )
        yield service.until(lambda: bool(service.asked) and service.asked[0].body == b"half")
        client.transport.abortConnection()
        yield client.lost
        yield service.until(lambda: not service.connections)
        self.assertFalse(service.asked[0].is_whole)

    @inlineCallbacks
    def test_cut_answers(self) -> Any:
        """An answer that the service cuts is cut for the client; it never looks complete."""
        for lines, body in (
            (b"Content-Length: 10\r\n", b"12345"),
            (b"Transfer-Encoding: chunked\r\n", b"5\r\n12345\r\n"),
        ):

            def cut(asked: Asked, lines: bytes = lines, body: bytes = body) -> None:
                asked.write(PLAIN + lines + b"\r\n" + body)
                asked.end()

            self.query.script = cut
            client = yield self.client_of(sent())
            yield client.lost
            self.assertIn(b"12345", client.data)
            self.assertNotIn(b"\r\n0\r\n", client.data)

    @inlineCallbacks
    def test_early_answer(self) -> Any:
        """A service may answer, and close, before it has read the body: the client gets the answer."""

        def refuse(asked: Asked) -> None:
            asked.answer({"errors": ["no"]}, 413, Connection="close")

        self.query.on_head = refuse
        client = yield self.client_of(
            f"POST {QUERY} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx".encode()
        )
        yield client.until(b'"no"')
        self.assertTrue(client.data.startswith(b"HTTP/1.1 413 "))
        yield self.query.until(lambda: not self.query.connections)
        client.transport.loseConnection()
        yield client.lost


class OtherWaysTests(Proxied):
    """The same by other ways than the gateway's own HTTP/1.1."""

    @inlineCallbacks
    def test_http2(self) -> Any:
        """Over HTTP/2 bodies pass as they arrive, in both directions; a reset ends the request there."""
        host, port = self.url.removeprefix("http://").split(":")
        endpoint = HostnameEndpoint(reactor, host.encode(), int(port))
        client = yield connectProtocol(endpoint, Http2Client())
        number = client.begin("POST", QUERY, [(b"content-type", b"application/json"), (b"cookie", b"a=b")])
        client.data(number, b"part")
        yield self.query.until(lambda: bool(self.query.asked) and self.query.asked[0].body == b"part")
        client.data(number, b"", ends=True)
        yield self.query.until(lambda: self.query.asked[0].is_whole)
        asked = self.query.asked[0]
        self.assertEqual((asked.target, asked.header("Cookie")), ("/query/service", None))
        self.assertEqual(asked.header("Content-Type"), "application/json")
        asked.write(PLAIN + b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n")
        asked.chunk(b"first")
        yield client.until(lambda: client.streams[number].body == b"first")
        self.assertEqual(client.streams[number].status, 200)
        asked.chunk(b"second")
        asked.write(b"0\r\n\r\n")
        yield client.until(lambda: client.streams[number].is_complete)
        self.assertEqual(client.streams[number].body, b"firstsecond")
        number = client.request("POST", QUERY, SELECT)
        yield self.query.until(lambda: len(self.query.asked) == 2 and self.query.asked[1].is_whole)
        client.h2.reset_stream(number)
        client.flush()
        yield self.query.until(lambda: not self.query.connections)
        self.assertEqual(self.service.gateway.upstream.shares.used, 0)
        client.transport.loseConnection()
        yield client.lost

    @inlineCallbacks
    def test_in_another_site(self) -> Any:
        """In a site of twisted.web the proxy works, too, and a path is not decoded on the way."""
        self.query.script = lambda asked: asked.answer(b'{"a":1}')
        site = Site(self.service.gateway.app.resource())
        port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
        base = f"http://127.0.0.1:{port.getHost().port}"
        answer = yield self.client.request("POST", base + QUERY + "?a=%20", data=SELECT)
        content = yield answer.content()
        self.assertEqual((answer.code, content), (200, b'{"a":1}'))
        self.assertEqual(self.query.asked[0].target, "/query/service?a=%20")
        self.assertEqual(self.query.asked[0].body, SELECT)
        for path in ("/_p/query/query/..%2fadmin", "/_p/query/query/%2e%2e/admin", "/_p/fts/api/index"):
            answer = yield self.client.request("POST", base + path, data=SELECT)
            yield answer.content()
            self.assertIn(answer.code, (400, 404), path)
        self.assertEqual(len(self.query.asked), 1)
        yield self.http.closeCachedConnections()
        yield port.stopListening()


class FailureTests(Proxied):
    """Services that do not work."""

    @inlineCallbacks
    def refused(self, body: bytes = SELECT, method: str = "POST", path: str = QUERY) -> Any:
        """Send a request that fails; returns status, code, retry and message."""
        got = yield self.ask(method, path, body, **JSON)
        told = got.json()
        self.assertEqual(self.service.gateway.upstream.shares.used, 0)
        return got.status, told["code"], told["retry"], told["message"]

    @inlineCallbacks
    def test_not_there(self) -> Any:
        """A service that nobody listens for is a 503 that names it and its node; nothing was sent."""
        yield self.query.port.stopListening()
        status, code, retry, message = yield self.refused()
        self.assertEqual((status, code, retry), (503, "UnderlyingServiceUnavailable", "safe"))
        self.assertIn("the query service: ", message)
        self.assertIn("127.0.0.1", message)

    @inlineCallbacks
    def test_broken_answers(self) -> Any:
        """A lost connection, and anything but HTTP, is a 503; what may have been done is ambiguous."""
        for what in (
            b"",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 what\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nbad\r\n\r\n",
        ):

            def script(asked: Asked, what: bytes = what) -> None:
                asked.write(what)
                asked.end()

            self.query.script = script
            answer = yield self.refused()
            self.assertEqual(answer[:3], (503, "UnderlyingServiceUnavailable", "ambiguous"), what)
            answer = yield self.refused(b"", "GET", QUERY + "?statement=1")
            self.assertEqual(answer[:3], (503, "UnderlyingServiceUnavailable", "safe"), what)

    @inlineCallbacks
    def test_bad_headers(self) -> Any:
        """Line ends and control characters in a service's headers never become headers of the gateway's."""
        self.query.script = lambda asked: asked.write(PLAIN + b"X: a\rB: c\r\nContent-Length: 0\r\n\r\n")
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual((got.status, got.header("X"), got.header("B")), (200, "a B: c", None))
        self.query.script = lambda asked: asked.write(PLAIN + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n")
        answer = yield self.refused()
        self.assertEqual(answer[:2], (503, "UnderlyingServiceUnavailable"))


class NodesTests(Proxied):
    """Two nodes that run the service."""

    listed = {"n1ql": 2}

    @inlineCallbacks
    def test_in_turn(self) -> Any:
        """Requests go to the nodes in turn."""
        for service in self.services["n1ql"]:
            service.script = lambda asked: asked.answer(b"{}")
        for _ in range(6):
            yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual([len(service.asked) for service in self.services["n1ql"]], [3, 3])

    @inlineCallbacks
    def test_failover(self) -> Any:
        """A node that cannot be reached costs nothing but a try; it is asked last for a while."""
        first, second = self.services["n1ql"]
        yield first.port.stopListening()
        second.script = lambda asked: asked.answer(b"{}")
        for _ in range(4):
            got = yield self.ask("POST", QUERY, SELECT, **JSON)
            self.assertEqual(got.status, 200)
        self.assertEqual({bytes(asked.body) for asked in second.asked}, {SELECT})

    @inlineCallbacks
    def test_repeated(self) -> Any:
        """A read that is lost is sent to the other node; a statement that may write is not."""
        for service in self.services["n1ql"]:
            service.script = Asked.cut
        got = yield self.ask("GET", QUERY + "?statement=SELECT")
        self.assertEqual(got.code(), (503, "UnderlyingServiceUnavailable"))
        self.assertEqual([len(service.asked) for service in self.services["n1ql"]], [1, 1])
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual(
            (got.code(), got.json()["retry"]), ((503, "UnderlyingServiceUnavailable"), "ambiguous")
        )
        self.assertEqual(sum(len(service.asked) for service in self.services["n1ql"]), 3)


class AbsentTests(Proxied):
    """A cluster without the services, as the embedded node is."""

    listed: dict[str, int] = {}
    proxied = ["query", "fts", "cbas", "mgmt=read-only"]

    @inlineCallbacks
    def test_absent(self) -> Any:
        """A service that no node runs is a 501 that names it; the manager is there."""
        for path, title in (
            (QUERY, "query service"),
            ("/_p/fts/api/index/i/query", "search service"),
            ("/_p/cbas/analytics/service", "analytics service"),
        ):
            got = yield self.ask("POST", path, b"{}", **JSON)
            self.assertEqual(got.code(), (501, "NotSupported"))
            self.assertIn(f"No node of the cluster runs the {title}", got.json()["message"])
        got = yield self.ask("GET", "/_p/mgmt/pools/default/buckets/default")
        self.assertEqual((got.status, got.json()["name"]), (200, "default"))
        got = yield self.ask("POST", "/_p/mgmt/pools/default/buckets", b"name=b", Content_Type="text/plain")
        self.assertEqual(got.code(), (403, "ServiceForbidden"))


class CallersTests(Proxied):
    """Callers with credentials of their own."""

    credentials = ("admin", "right password")

    @inlineCallbacks
    def setUp(self) -> Any:
        path = self.mktemp()
        FilePath(path).setContent(b"right password\n")
        self.options = {"ephemeral": True, "auth": "passthrough", "user": "admin", "password-file": path}
        yield super().setUp()

    @inlineCallbacks
    def test_credentials(self) -> Any:
        """The caller's own credentials go to the service, once the cluster has confirmed them."""
        self.query.script = lambda asked: asked.answer(b"", 401, WWW_Authenticate='Basic realm="x"')
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual((got.status, got.header("WWW-Authenticate")), (401, 'Basic realm="x"'))
        expected = "Basic " + b64encode(b"admin:right password").decode()
        self.assertEqual(self.query.asked[0].header("Authorization"), expected)
        got = yield self.ask("POST", QUERY, SELECT, ("admin", "wrong"), **JSON)
        self.assertEqual(got.code(), (403, "InvalidAuth"))
        client = yield self.client_of(sent())
        yield client.until(b"Unauthorized")
        client.transport.loseConnection()
        yield client.lost
        self.assertEqual(len(self.query.asked), 1)


class OpenTests(Proxied):
    """Without callers' credentials."""

    @inlineCallbacks
    def test_credentials(self) -> Any:
        """The service account's credentials go to the service, whatever the caller sends; a caller is never
        asked for any."""
        self.query.script = lambda asked: asked.answer(b"", 401, WWW_Authenticate='Basic realm="x"')
        got = yield self.ask("POST", QUERY, SELECT, ("other", "password"), **JSON)
        self.assertEqual((got.status, got.header("WWW-Authenticate")), (401, None))
        sent_on = self.query.asked[0].header("Authorization")
        self.assertNotEqual(sent_on, "Basic " + b64encode(b"other:password").decode())
        self.assertRegex(sent_on or "", "^Basic .+")


class ReadOnlyTests(Proxied):
    """Services of which only reads are passed on."""

    listed = {"n1ql": 1, "fts": 1}
    proxied = ["query=read-only", "fts=read-only"]

    @inlineCallbacks
    def test_statements(self) -> Any:
        """Statements get readonly=true; those that say otherwise do not pass."""
        self.query.script = lambda asked: asked.answer(b"{}")
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual(got.status, 200)
        self.assertEqual(json.loads(self.query.asked[-1].body), {"readonly": True, "statement": "SELECT 1"})
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        yield self.ask("POST", QUERY, b"statement=SELECT+1", **form)
        self.assertEqual(self.query.asked[-1].body, b"statement=SELECT+1&readonly=true")
        yield self.ask("GET", QUERY + "?statement=SELECT%201")
        self.assertEqual(self.query.asked[-1].target, "/query/service?statement=SELECT%201&readonly=true")
        asked = len(self.query.asked)
        for method, path, body, headers, expected in (
            ("POST", QUERY, b'{"statement":"x","readonly":false}', JSON, "ServiceForbidden"),
            ("POST", QUERY, b'{"statement":"x","READONLY ":0}', JSON, "ServiceForbidden"),
            ("POST", QUERY, b'{"read\\u006fnly":false}', JSON, "ServiceForbidden"),
            ("POST", QUERY, b'{"readonly":true,"ReadOnly":true}', JSON, "InvalidArgument"),
            ("POST", QUERY, b"[1]", JSON, "InvalidArgument"),
            ("POST", QUERY, b"{", JSON, "InvalidArgument"),
            ("POST", QUERY + "?readonly=false", SELECT, JSON, "InvalidArgument"),
            ("POST", QUERY, b"readonly=0", form, "ServiceForbidden"),
            ("POST", QUERY, b"DELETE FROM b", {"Content_Type": "text/plain"}, "InvalidArgument"),
            ("POST", QUERY, SELECT, {**JSON, "Content_Encoding": "gzip"}, "InvalidArgument"),
            ("GET", QUERY + "?readonly=false", b"", {}, "ServiceForbidden"),
            ("PUT", QUERY, SELECT, JSON, "ServiceForbidden"),
            ("POST", "/_p/query/query/other", SELECT, JSON, "ServiceForbidden"),
            ("DELETE", "/_p/query/admin/prepareds/p", b"", {}, "ServiceForbidden"),
            ("PUT", "/_p/fts/api/index/i", b"{}", JSON, "ServiceForbidden"),
            ("DELETE", "/_p/fts/api/index/i", b"", {}, "ServiceForbidden"),
            ("POST", "/_p/fts/api/index/i/ingestControl/pause", b"", {}, "ServiceForbidden"),
        ):
            got = yield self.ask(method, path, body, **headers)
            self.assertEqual(got.json()["code"], expected, (method, path, body))
        self.assertEqual(len(self.query.asked), asked)
        self.assertEqual(self.services["fts"][0].asked, [])

    @inlineCallbacks
    def test_large_statement(self) -> Any:
        """A statement that is too large to be checked is refused; the memory is given back."""
        for size, expected in ((2**20, 200), (2**20 + 1, 413)):
            self.query.script = lambda asked: asked.answer(b"{}")
            body = b'{"statement":"' + b"x" * (size - 16) + b'"}'
            got = yield self.ask("POST", QUERY, body, **JSON)
            self.assertEqual((len(body), got.status), (size, expected))
        self.assertEqual(self.service.gateway.budget.used, 0)

    @inlineCallbacks
    def test_searches(self) -> Any:
        """Searches pass, of indexes in scopes, too."""
        service = self.services["fts"][0]
        service.script = lambda asked: asked.answer(b"{}")
        for path in ("/api/index/i/query", "/api/bucket/b/scope/s/index/i/query"):
            got = yield self.ask("POST", "/_p/fts" + path, b'{"query":{}}', **JSON)
            self.assertEqual(got.status, 200)
            self.assertEqual(service.asked[-1].target, path)


class SharesTests(Proxied):
    """Many requests at once."""

    def settings(self, **changes: Any) -> Any:
        return super().settings(**{"max-service-requests": "4", **changes})

    @inlineCallbacks
    def test_limit(self) -> Any:
        """Beyond the limit requests are refused at once; a place that becomes free can be used."""
        service: Service = self.query
        clients = []
        for number in range(4):
            clients.append((yield self.client_of(sent())))
            yield service.until(lambda number=number: len(service.asked) == number + 1)
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual((got.code(), got.header("Retry-After")), ((503, "Overloaded"), "1"))
        service.asked[0].answer(b"{}")
        yield clients[0].until(b"0\r\n\r\n")
        service.script = lambda asked: asked.answer(b"{}")
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual(got.status, 200)
        for client in clients:
            client.transport.abortConnection()
            yield client.lost
