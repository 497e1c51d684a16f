"""HTTP/2 behind each kind of listener of the real service: TCP, TLS and a Unix socket."""

from __future__ import annotations

import gc
import platform
from typing import Any
from weakref import ref

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from gateway.http.opening import PREFACE
from tests.gateway.http.listeners import Listeners
from tests.gateway.http2.peer import Client, Silent
from tests.gateway.support import raw_request

reactor: Any = installed_reactor

DOCUMENT = "/v1/buckets/default/documents/k"
JSON = [(b"content-type", b"application/json")]
LARGE = b'"' + bytes(range(32, 34)) * 2**19 + b'"'


class Raw(Protocol):
    """Collects what it receives."""

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class ListenerTestCase(TestCase):
    """One service that listens on all of them."""

    timeout = 120
    options: tuple[str, ...] = ()

    @inlineCallbacks
    def setUp(self) -> Any:
        listeners = Listeners(self)
        self.service = yield listeners.start(*self.options)
        plain, secure = listeners.ports
        self.certificate = Certificate.loadPEM(listeners.certificate)
        self.plain = TCP4ClientEndpoint(reactor, "127.0.0.1", plain)
        self.secure = TCP4ClientEndpoint(reactor, "127.0.0.1", secure)
        self.unix = listeners.unix
        self.endpoints = [self.plain, self.tls(b"h2"), UNIXClientEndpoint(reactor, self.unix)]

    def tls(self, *protocols: bytes) -> Any:
        """Return an endpoint that offers protocols."""
        options = optionsForClientTLS(
            "127.0.0.1", trustRoot=self.certificate, acceptableProtocols=list(protocols) or None
        )
        return wrapClientTLS(options, self.secure)

    @inlineCallbacks
    def on_each(self, check: Any) -> Any:
        for endpoint in self.endpoints:
            client = yield connectProtocol(endpoint, Client())
            yield check(client)
            client.transport.loseConnection()
            yield client.lost
        while self.service.factory.channels:
            yield deferLater(reactor, 0)


class GarbageTests(ListenerTestCase):
    """What is left of a connection that is lost."""

    @inlineCallbacks
    def test_no_cycles(self) -> Any:
        """The connection and its transport, which with TLS has some 100 KB of OpenSSL's, are freed when it is
        lost, whoever closes: they do not wait until Python looks for cycles."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("there is no reference counting")
        gc.disable()
        self.addCleanup(gc.enable)
        channels = self.service.factory.channels
        ask = raw_request("GET", "/")
        last = raw_request("GET", "/", headers={"Connection": "close"})
        endpoints = [self.plain, self.tls(b"http/1.1"), UNIXClientEndpoint(reactor, self.unix)]
        for number, endpoint in enumerate(endpoints + self.endpoints):
            for sent, closes in ((ask, True), (last, False), (b"", True), (b"?", True)):
                if number < len(endpoints):
                    client: Any = Silent(sent)
                    yield connectProtocol(endpoint, client)
                    while sent and not client.received:
                        yield deferLater(reactor, 0)
                else:
                    client = yield connectProtocol(endpoint, Client())
                    if sent:
                        yield client.answered(client.request("GET", "/"))
                while not channels and not client.is_lost:
                    yield deferLater(reactor, 0)
                left = [one for channel in channels for one in (ref(channel), ref(channel.transport))]
                if closes or number >= len(endpoints):
                    client.transport.loseConnection()
                if not client.is_lost:
                    yield client.lost
                while channels:
                    yield deferLater(reactor, 0)
                for _ in range(5):
                    yield deferLater(reactor, 0)
                self.assertEqual([one() for one in left if one() is not None], [], (number, sent))

    @inlineCallbacks
    def test_failed_handshakes(self) -> Any:
        """The same is true if the handshake fails, or never begins."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("there is no reference counting")
        gc.disable()
        self.addCleanup(gc.enable)
        channels = self.service.factory.channels
        junk = b"\x16\x03\x01\x00\x05junk!"
        for sent in (b"", junk[:4], junk, b"junk", raw_request("GET", "/")):
            client = Silent(sent)
            yield connectProtocol(self.secure, client)
            while not channels:
                yield deferLater(reactor, 0)
            left = [one for channel in channels for one in (ref(channel), ref(channel.transport))]
            if not client.is_lost:
                client.transport.loseConnection()
                yield client.lost
            while channels:
                yield deferLater(reactor, 0)
            for _ in range(5):
                yield deferLater(reactor, 0)
            self.assertEqual([one() for one in left if one() is not None], [], sent)


class ListenerTests(ListenerTestCase):
    """Documents and streams."""

    def test_documents(self) -> Any:
        """A document goes in and comes out, and many requests are served at once."""

        @inlineCallbacks
        def check(client: Client) -> Any:
            stored = client.request("PUT", DOCUMENT, b'{"a":1}', JSON)
            yield client.answered(stored)
            self.assertEqual(client.streams[stored].status, 200)
            many = [client.request("PUT", f"{DOCUMENT}{n}", b"%d" % n, JSON) for n in range(50)]
            yield client.answered(*many)
            read = [client.request("GET", f"{DOCUMENT}{n}") for n in range(50)]
            yield client.answered(*read)
            self.assertEqual({client.streams[number].status for number in many + read}, {200})
            self.assertEqual([client.streams[number].body for number in read], [b"%d" % n for n in range(50)])

        return self.on_each(check)

    def test_large_documents(self) -> Any:
        """A megabyte goes in through the windows as they open, and comes out."""

        @inlineCallbacks
        def check(client: Client) -> Any:
            number = client.begin("PUT", DOCUMENT, [*JSON, (b"content-length", b"%d" % len(LARGE))])
            left = LARGE
            while left:
                yield client.until(lambda: client.h2.local_flow_control_window(number) > 0)
                size = min(client.h2.local_flow_control_window(number), 16384)
                client.data(number, left[:size], ends=len(left) <= size)
                left = left[size:]
            yield client.answered(number)
            self.assertEqual(client.streams[number].status, 200)
            number = client.request("GET", DOCUMENT)
            yield client.answered(number)
            self.assertTrue(client.streams[number].body == LARGE)

        return self.on_each(check)

    def test_streams(self) -> Any:
        """A batch is answered as it arrives, beside other requests."""

        @inlineCallbacks
        def check(client: Client) -> Any:
            batch = client.begin("POST", "/v1/buckets/default/batch")
            client.data(batch, b'{"op":"set","key":"s1","value":1}\n')
            yield client.until(lambda: b'"index"' in client.streams[batch].body)
            other = client.request("GET", "/v1/buckets/default/documents/s1")
            yield client.answered(other)
            self.assertEqual(client.streams[other].body, b"1")
            client.data(batch, b'{"op":"get","key":"s1"}\n', ends=True)
            yield client.answered(batch)
            self.assertEqual(client.streams[batch].body.count(b'"status":200'), 2)

        return self.on_each(check)

    @inlineCallbacks
    def test_negotiation(self) -> Any:
        """TLS clients get the protocol that they offer, HTTP/2 first; without any they get HTTP/1.1, and the
        preface of HTTP/2 is then no request."""
        for offered, expected in (((b"http/1.1", b"h2"), b"h2"), ((b"http/1.1",), b"http/1.1"), ((), None)):
            client = yield connectProtocol(self.tls(*offered), Raw())
            if expected == b"h2":
                client.transport.write(PREFACE + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
                while len(client.received) < 9:
                    yield deferLater(reactor, 0)
                self.assertEqual(client.received[3], 4)
            else:
                client.transport.write(PREFACE)
                while b"\r\n\r\n" not in client.received:
                    yield deferLater(reactor, 0)
                self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "))
            self.assertEqual(client.transport.negotiatedProtocol, expected)
            client.transport.loseConnection()

    @inlineCallbacks
    def test_the_other_protocol(self) -> Any:
        """A client that has negotiated HTTP/2 and sends HTTP/1.1 is refused in HTTP/2."""
        client = yield connectProtocol(self.tls(b"h2"), Client())
        client.h2.data_to_send()
        other = yield connectProtocol(self.tls(b"h2"), Raw())
        other.transport.write(raw_request("GET", DOCUMENT))
        while b"preface" not in other.received:
            yield deferLater(reactor, 0)
        for one in (client, other):
            one.transport.loseConnection()
        yield client.lost


class OptionTests(ListenerTestCase):
    """``--no-http2``."""

    options = ("--no-http2",)

    @inlineCallbacks
    def test_neither_offered_nor_spoken(self) -> Any:
        """TLS negotiates HTTP/1.1, and the preface of HTTP/2 is no request, on each listener."""
        for endpoint in self.endpoints:
            client = yield connectProtocol(endpoint, Raw())
            client.transport.write(PREFACE)
            while b"\r\n\r\n" not in client.received:
                yield deferLater(reactor, 0)
            self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "))
            self.assertIsNone(getattr(client.transport, "negotiatedProtocol", None))
            client.transport.loseConnection()


class StreamLimitTests(ListenerTestCase):
    """``--max-streams``."""

    options = ("--max-streams=3",)

    @inlineCallbacks
    def test_announced(self) -> Any:
        """The limit is announced to clients."""
        client = yield connectProtocol(self.plain, Client())
        yield client.until(lambda: bool(client.events))
        self.assertEqual(client.h2.remote_settings.max_concurrent_streams, 3)
        self.assertEqual(client.h2.remote_settings.max_header_list_size, 16384)
        client.transport.loseConnection()
        yield client.lost
