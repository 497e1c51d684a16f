"""The end of a connection: refusals reach clients that are still sending, clients may close their half, and
no client is reset when the service stops."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gateway.http.linger import LINGER_BYTES, LINGER_IDLE_SECONDS, LINGER_SECONDS
from gateway.limits import Limits
from tests.gateway.http.listeners import Listeners
from tests.gateway.support import Answer, HalfClosing, Site, raw_request, read_reply

reactor: Any = installed_reactor

DOCUMENT = "/v1/buckets/default/documents/k"
LARGE = 21 * 2**20


def head(method: str, path: str, *lines: str, length: int | None = None) -> bytes:
    """Return the head of a request with a body; chunked without a length."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", framing, *lines, "", ""]).encode()


class LingerTests(SynchronousTestCase):
    """How long, and how much, is read after a refusal."""

    def setUp(self) -> None:
        self.site = Site({"set": Answer()}, limits=Limits(max_body=10, max_clients=8))

    def refused(self, length: int | None = 10**6) -> HalfClosing:
        """Return a client that got a refusal, and has not sent all yet."""
        client = HalfClosing()
        self.site.client(client)
        self.site.send(client, head("POST", "/no", length=length))
        self.assertEqual(read_reply(client.value())[0].status, 404)
        self.assertEqual((client.connected, client.half_closed), (True, True))
        return client

    def test_until_the_client_closes(self) -> None:
        """Our half is closed at once; the rest when the client has closed its own."""
        client = self.refused()
        self.site.send(client, b"x" * 1000)
        client.end()
        self.assertFalse(client.connected)
        self.assertFalse(client.aborted)

    def test_silence(self) -> None:
        """The wait for the end of a client that sends nothing more is short."""
        client = self.refused()
        self.site.clock.pump([1] * int(LINGER_IDLE_SECONDS - 1))
        self.assertTrue(client.connected)
        self.site.clock.pump([1] * 3)
        self.assertFalse(client.connected)

    def test_steady_sender(self) -> None:
        """A client that sends steadily is read for longer, but not forever."""
        client = self.refused()
        for _ in range(int(LINGER_SECONDS - 2)):
            self.site.send(client, b"x")
            self.site.clock.advance(1)
        self.assertTrue(client.connected)
        for _ in range(5):
            self.site.send(client, b"x")
            self.site.clock.advance(1)
        self.assertFalse(client.connected)

    def test_bytes(self) -> None:
        """A fast one is read for as much as it has announced, or a good deal if it has announced nothing."""
        part = b"x" * 2**20
        for length, limit in (
            (None, LINGER_BYTES),
            (2 * LINGER_BYTES, 2 * LINGER_BYTES),
            (10**6, LINGER_BYTES),
        ):
            client = self.refused(length)
            for _ in range(limit // len(part)):
                self.site.send(client, part)
            self.assertTrue(client.connected, length)
            self.site.send(client, part)
            self.assertFalse(client.connected, length)

    def test_many(self) -> None:
        """Refused clients cannot take all connections: beyond a quarter of them, the oldest is cut."""
        first, second, third = self.refused(), self.refused(), self.refused()
        self.assertEqual((first.aborted, second.connected, third.connected), (True, True, True))

    def test_nothing_is_held(self) -> None:
        """Dropped bytes take neither memory nor room in the budget."""
        client = self.refused()
        self.site.send(client, b"x" * 10**6)
        self.assertEqual(self.site.gateway.budget.used, 0)
        self.assertEqual(self.site.gateway.under_way, 0)
        self.assertNotIn(b"x", b"".join(v for v in vars(client.protocol).values() if isinstance(v, bytes)))

    def test_every_refusal(self) -> None:
        """Whatever the reason: after a refusal that ends the connection, our half alone is closed."""
        chunked = head("PUT", DOCUMENT)
        for data, status in (
            (head("PUT", DOCUMENT, length=10**6), 413),
            (chunked + b"14\r\n" + b"x" * 20 + b"\r\n", 413),
            (head("PATCH", DOCUMENT, length=10**6), 405),
            (head("POST", "/no"), 404),
            (chunked + b"zz\r\n", 400),
            (head("PUT", DOCUMENT, length=5) + b"123", 408),
            (chunked + b"1;" + b"x" * 20000, 431),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 20000, 431),
            (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n" + b"x" * 10**5, 400),
            (b"\x16\x03\x01 TLS\r\n\r\n", 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ):
            client = HalfClosing()
            self.site.client(client)
            self.site.send(client, data)
            while status == 408 and not client.value():
                self.site.clock.advance(1)
            reply, rest = read_reply(client.value())
            self.assertEqual(
                (reply.status, reply.header("Connection"), rest), (status, "close", b""), data[:60]
            )
            self.assertEqual((client.connected, client.half_closed), (True, True), data[:60])
            self.site.send(client, raw_request("PUT", DOCUMENT, b"x"))
            self.assertEqual(self.site.calls, [], "nothing behind a refusal is served")
            client.end()
            self.assertFalse(client.connected)

    def test_last_request(self) -> None:
        """After the answer to a request that says it is the last one there is nothing to wait for."""
        client = HalfClosing()
        self.site.client(client)
        self.site.send(client, raw_request("GET", "/health", headers={"Connection": "close"}))
        self.assertEqual((client.connected, client.half_closed), (False, False))


class HalfCloseTests(SynchronousTestCase):
    """A client that sends nothing more may still read."""

    def setUp(self) -> None:
        self.answer: Deferred[Any] = Deferred()
        self.cancelled: list[Any] = []
        self.site = Site({"get_with_expiry": lambda key: self.answer, "set": Answer()})
        self.client = HalfClosing()
        self.site.client(self.client)

    def statuses(self) -> list[int]:
        rest, found = self.client.value(), []
        while rest:
            reply, rest = read_reply(rest)
            found.append(reply.status)
        return found

    def test_answer_comes_later(self) -> None:
        """The answer is sent when it is available; then the connection ends."""
        self.site.send(self.client, raw_request("GET", DOCUMENT))
        self.client.end()
        self.assertTrue(self.client.connected)
        self.answer.callback(Answer(b"{}"))
        self.assertEqual(self.statuses(), [200])
        self.assertFalse(self.client.connected)

    def test_pipelined(self) -> None:
        """All requests before the end are answered, in order."""
        requests = [
            raw_request("GET", DOCUMENT),
            raw_request("PUT", DOCUMENT, b"1"),
            raw_request("GET", "/no"),
        ]
        self.site.send(self.client, b"".join(requests))
        self.client.end()
        self.answer.callback(Answer(b"{}"))
        self.assertEqual(self.statuses(), [200, 200, 404])
        self.assertFalse(self.client.connected)

    def test_nothing_to_answer(self) -> None:
        """Without a request, or with half a one, the connection ends at once."""
        for data in (
            b"",
            b"GET /hea",
            head("PUT", DOCUMENT, length=5) + b"123",
            raw_request("GET", "/health"),
        ):
            client = HalfClosing()
            self.site.client(client)
            self.site.send(client, data)
            client.end()
            self.assertFalse(client.connected, data)
        self.assertEqual(self.site.calls, [])
        self.assertEqual(self.site.gateway.budget.used, 0)

    def test_a_sign_of_life(self) -> None:
        """A client that has gone looks the same, so it is sent a 100 (Continue), once, to find out."""
        self.site.send(self.client, raw_request("GET", DOCUMENT))
        self.client.end()
        self.site.clock.pump([1] * 5)
        self.assertEqual(self.client.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.client.clear()
        self.answer.callback(Answer(b"{}"))
        self.assertEqual(self.statuses(), [200])


class QuietTests(SynchronousTestCase):
    """The service stops while clients are busy."""

    def test_the_next_request_is_answered(self) -> None:
        """A connection that was used a moment ago gets its next request answered, as the last one."""
        site = Site({})
        client = HalfClosing()
        site.client(client)
        site.send(client, raw_request("GET", "/health"))
        stopped = site.factory.stop()
        client.clear()
        site.send(client, raw_request("GET", "/health"))
        reply = read_reply(client.value())[0]
        self.assertEqual((reply.status, reply.header("Connection")), (200, "close"))
        self.assertNoResult(stopped)
        client.end()
        self.successResultOf(stopped)

    def test_unused(self) -> None:
        """One that has been idle for longer is closed at once."""
        site = Site({})
        client = site.client()
        site.send(client, raw_request("GET", "/health"))
        site.clock.pump([1] * 3)
        self.successResultOf(site.factory.stop())
        self.assertFalse(client.connected)


Connect = Callable[[], socket.socket]


class RealTests(TestCase):
    """Clients of the operating system's sockets, in threads, on each kind of listener."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        listeners = Listeners(self)
        self.service = yield listeners.start()
        ports, unix, pem = listeners.ports, listeners.unix, listeners.certificate
        context = ssl.create_default_context(cadata=pem.decode()[pem.decode().index("-----BEGIN CERT") :])
        context.check_hostname = False

        def plain() -> socket.socket:
            return socket.create_connection(("127.0.0.1", ports[0]), 60)

        def secure() -> socket.socket:
            return context.wrap_socket(socket.create_connection(("127.0.0.1", ports[1]), 60))

        def local() -> socket.socket:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(60)
            client.connect(unix)
            return client

        self.connects: dict[str, Connect] = {"tcp": plain, "tls": secure, "unix": local}
        self.threads = ThreadPool(0, 16)
        self.threads.start()
        self.addCleanup(self.threads.stop)

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(reactor, self.threads, call, *arguments)

    @inlineCallbacks
    def test_refusals_reach_who_sends_first(self) -> Any:
        """A client that sends all of a large body before it reads gets its answer, and then the end, for
        every refusal and framing, also over TLS."""

        def upload(connect: Connect, first: bytes, size: int, chunked: bool) -> bytes:
            part = b"x" * 2**16
            with connect() as client:
                client.sendall(first)
                for _ in range(size // len(part)):
                    client.sendall(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                got = []
                while data := client.recv(65536):
                    got.append(data)
                return b"".join(got)

        for name, connect in self.connects.items():
            for method, path, length, status in (
                ("PUT", DOCUMENT, LARGE, 413),
                ("PUT", DOCUMENT, None, 413),
                ("POST", "/nothing", LARGE // 4, 404),
                ("POST", "/nothing", None, 404),
                ("PATCH", DOCUMENT, LARGE // 4, 405),
            ):
                first = head(method, path, length=length)
                got = yield self.in_thread(upload, connect, first, length or LARGE, length is None)
                self.assertEqual(got[:13], b"HTTP/1.1 %d " % status, (name, method, path, length))

    @inlineCallbacks
    def test_half_close(self) -> Any:
        """A client that closes its half after its requests gets all its answers, as with ``nc -N``."""
        batch = b'{"op":"set","key":"a","value":1}\n{"op":"get","key":"a"}\n'
        kind = {"Content-Type": "application/x-ndjson"}

        def talk(connect: Connect, data: bytes) -> bytes:
            with connect() as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                got = []
                while part := client.recv(65536):
                    got.append(part)
                return b"".join(got)

        for name in ("tcp", "unix"):
            for data, expected in (
                (raw_request("PUT", DOCUMENT, b"1"), [b" 200 "]),
                (raw_request("GET", DOCUMENT), [b" 200 "]),
                (raw_request("PUT", DOCUMENT, b"x" * 10**6), [b" 200 "]),
                (raw_request("GET", "/health"), [b" 200 "]),
                (raw_request("GET", DOCUMENT) + raw_request("GET", "/no"), [b" 200 ", b" 404 "]),
                (raw_request("POST", "/v1/buckets/default/batch", batch, kind), [b'"index":0', b'"index":1']),
                (raw_request("GET", "/v1/buckets/default/documents/none"), [b" 404 "]),
            ):
                got = yield self.in_thread(talk, self.connects[name], data)
                for part in expected:
                    self.assertIn(part, got, (name, data[:60]))

    @inlineCallbacks
    def test_stop_resets_nobody(self) -> Any:
        """Clients that send one request after another while the service stops: each request is answered, or
        the client was notified earlier that the connection ends."""
        faults: list[str] = []
        counts = [0] * 12

        def busy(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while True:
                try:
                    connection.connect()
                except OSError:
                    # Refused: there is no listener any more.
                    break
                try:
                    is_kept = True
                    while is_kept:
                        connection.request("PUT", DOCUMENT, b"1")
                        response = connection.getresponse()
                        is_kept = response.getheader("Connection") != "close"
                        response.read()
                        counts[number] += 1
                except OSError as error:
                    faults.append(f"{error!r} after {counts[number]}")
                    break
                finally:
                    connection.close()

        port = int(self.service.urls[0].rpartition(":")[2])
        clients = [self.in_thread(busy, number) for number in range(len(counts))]
        # Threads start when the machine has time for them: stop when each client was answered.
        while self.service.gateway.under_way < 2 or not (faults or all(counts)):
            yield self.in_thread(lambda: None)
        yield self.service.stopService()
        yield gatherResults(clients)
        self.assertEqual(faults, [])
