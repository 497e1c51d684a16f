"""The channel behind each kind of listener of the real service: TCP, TLS and a Unix socket."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.gateway.http.listeners import Listeners
from tests.gateway.support import Reply, raw_request, read_reply

reactor: Any = installed_reactor

DOCUMENT = "/v1/buckets/default/documents/k"
LARGE = bytes(range(256)) * 2**12


class Client(Protocol):
    """Collects answers; ``answers(n)`` fires with the next so many."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()
        self._wanted: tuple[int, Deferred[list[Reply]]] | None = None

    def answers(self, count: int) -> Deferred[list[Reply]]:
        found: Deferred[list[Reply]] = Deferred()
        self._wanted = (count, found)
        self._look()
        return found

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def _look(self) -> None:
        if self._wanted is None:
            return
        count, found = self._wanted
        rest, got = self.received, []
        try:
            while len(got) < count:
                reply, rest = read_reply(rest)
                if len(reply.body) < int(reply.header("Content-Length") or 0):
                    return
                got.append(reply)
        except (ValueError, IndexError):
            # The next one is not complete.
            return
        self._wanted, self.received = None, rest
        found.callback(got)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class ListenerTests(TestCase):
    """One service that listens on all of them."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        listeners = Listeners(self)
        self.service = yield listeners.start()
        self.unix = listeners.unix
        plain, secure = listeners.ports
        tls = optionsForClientTLS("127.0.0.1", trustRoot=Certificate.loadPEM(listeners.certificate))
        self.endpoints = [
            TCP4ClientEndpoint(reactor, "127.0.0.1", plain),
            wrapClientTLS(tls, TCP4ClientEndpoint(reactor, "127.0.0.1", secure)),
            UNIXClientEndpoint(reactor, self.unix),
        ]

    @inlineCallbacks
    def on_each(self, check: Any) -> Any:
        for endpoint in self.endpoints:
            client = yield connectProtocol(endpoint, Client())
            yield check(client)
            client.transport.loseConnection()
            yield client.lost
        while self.service.factory.channels:
            yield deferLater(reactor, 0)

    def test_keep_alive_and_pipelining(self) -> Any:
        """One connection serves request after request, and many that come at once, in order."""

        @inlineCallbacks
        def check(client: Client) -> Any:
            for number in range(3):
                client.transport.write(raw_request("PUT", DOCUMENT, b"%d" % number))
                (stored,) = yield client.answers(1)
                self.assertEqual(stored.status, 200)
            pipelined = [raw_request("PUT", f"{DOCUMENT}{n}", b"%d" % n) for n in range(50)]
            pipelined += [raw_request("GET", f"{DOCUMENT}{n}") for n in range(50)]
            client.transport.write(b"".join(pipelined))
            replies = yield client.answers(100)
            self.assertEqual({reply.status for reply in replies}, {200})
            self.assertEqual([reply.body for reply in replies[50:]], [b"%d" % n for n in range(50)])

        return self.on_each(check)

    def test_large_documents(self) -> Any:
        """A megabyte goes in, by length and in chunks, and comes out."""

        @inlineCallbacks
        def check(client: Client) -> Any:
            client.transport.write(raw_request("PUT", DOCUMENT, LARGE))
            client.transport.write(
                raw_request("PUT", f"{DOCUMENT}2", headers={"Transfer-Encoding": "chunked"})
            )
            for start in range(0, len(LARGE), 50000):
                part = LARGE[start : start + 50000]
                client.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
            client.transport.write(b"0\r\n\r\n")
            client.transport.write(raw_request("GET", DOCUMENT) + raw_request("GET", f"{DOCUMENT}2"))
            replies = yield client.answers(4)
            self.assertEqual([reply.status for reply in replies], [200] * 4)
            self.assertTrue(replies[2].body == replies[3].body == LARGE)

        return self.on_each(check)

    def test_streams(self) -> Any:
        """A batch is read and answered as it arrives, and the connection can be used after it."""

        @inlineCallbacks
        def check(client: Client) -> Any:
            client.transport.write(
                raw_request("POST", "/v1/buckets/default/batch", headers={"Transfer-Encoding": "chunked"})
            )
            for number in range(20):
                lines = b"".join(
                    b'{"op":"set","key":"s%d","value":%d}\n' % (key, key)
                    for key in range(number * 50, number * 50 + 50)
                )
                client.transport.write(b"%x\r\n%b\r\n" % (len(lines), lines))
                if number == 0:
                    while b'"index"' not in client.received:
                        yield deferLater(reactor, 0)
            client.transport.write(b"0\r\n\r\n" + raw_request("GET", "/v1/buckets/default/documents/s999"))
            batch, document = yield client.answers(2)
            self.assertEqual(batch.body.count(b'"status":200'), 1000)
            self.assertEqual((document.status, document.body), (200, b"999"))

        return self.on_each(check)

    def test_malformed(self) -> Any:
        """The refusal reaches the client before the connection ends, and bytes after the request are not
        served."""

        @inlineCallbacks
        def check(client: Client) -> Any:
            client.transport.write(b"nonsense\r\n\r\n" + raw_request("PUT", f"{DOCUMENT}/smuggled", b"x"))
            (refused,) = yield client.answers(1)
            self.assertEqual(refused.status, 400)
            yield client.lost
            self.assertEqual(client.received, b"")

        return self.on_each(check)
