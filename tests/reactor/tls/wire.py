"""Two ends of TLS in memory: ours and Twisted's, with every byte and the time in the test's hands."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IProtocolNegotiationFactory, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, optionsForClientTLS
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from reactor.tls.contexts import client_context, server_context
from reactor.tls.factory import LIMITS, ClientSide, ServerSide, TlsFactory, TlsLimits
from reactor.tls.transport import TlsTransport
from tests.certificates import self_signed

NAME = "127.0.0.1"


class Files(NamedTuple):
    """A certificate with its key."""

    pem: bytes
    path: str

    @classmethod
    def make(cls, path: str, **options: Any) -> Files:
        """Write one."""
        pem = self_signed(**options)
        Path(path).write_bytes(pem)
        return cls(pem, path)


@implementer(IHandshakeListener)
class Log(Protocol):
    """Notes what happens, as the protocol above TLS; received bytes that follow each other as one event."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.on_data: Callable[[bytes], None] = lambda data: None

    def connectionMade(self) -> None:
        self.events.append("made")

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")

    def dataReceived(self, data: bytes) -> None:
        if self.events and isinstance(self.events[-1], bytes):
            self.events[-1] += data
        else:
            self.events.append(data)
        self.on_data(data)

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.events.append(reason.type)

    @property
    def data(self) -> bytes:
        """All received bytes."""
        return b"".join(event for event in self.events if isinstance(event, bytes))


@implementer(ITransport)
class End:
    """One end of the stream below TLS. Bytes stay until :meth:`Wire.move` takes them.

    :ivar most: so many bytes wait before the producer is paused, as in Twisted's transports.
    """

    most = 2**16

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.out = bytearray()
        self.producer: Any = None
        self.is_paused = False
        self.reads = True
        self.is_closing = False
        self.is_cut = False
        self.has_ended = False
        self.is_lost = False
        self.writes = 0

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.is_closing or self.is_lost or not data:
            return
        self.writes += 1
        self.out += data
        if self.producer is not None and len(self.out) > self.most and not self.is_paused:
            self.is_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None and streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reads = False

    def resumeProducing(self) -> None:
        self.reads = not self.is_closing

    def loseConnection(self) -> None:
        self.is_closing = True

    def loseWriteConnection(self) -> None:
        self.has_ended = True

    def abortConnection(self) -> None:
        self.is_cut = True
        self.out.clear()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", NAME, 1)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", NAME, 2)

    def lose(self, reason: BaseException) -> None:
        """The stream is gone."""
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connectionLost(Failure(reason))


class Wire:
    """A stream between two protocols.

    :param client, server: what TLS factories build.
    """

    def __init__(self, clock: Clock, client: Any, server: Any) -> None:
        self.clock = clock
        self.ends = [End(client), End(server)]
        for end in reversed(self.ends):
            end.protocol.makeConnection(end)

    def move(self, source: int, count: int | None = None) -> int:
        """Carry so many bytes (all) from an end to the other, and what follows from them; return how many."""
        here, there = self.ends[source], self.ends[1 - source]
        if here.is_cut:
            here.lose(ConnectionAborted())
            there.lose(ConnectionLost("reset"))
            return 0
        if not there.reads or here.is_lost:
            return 0
        data = bytes(here.out[:count])
        del here.out[:count]
        if data and not there.is_lost:
            there.protocol.dataReceived(data)
        if not here.out:
            if here.is_paused:
                here.is_paused = False
                if here.producer is not None:
                    here.producer.resumeProducing()
            if here.is_closing and here.producer is None and not here.out:
                here.lose(ConnectionDone())
                there.lose(ConnectionDone())
            elif here.has_ended and not here.out:
                there.lose(ConnectionDone())
        return len(data)

    def cut(self, who: int) -> None:
        """End the stream, as if the process of one end was killed: what waits there is lost."""
        self.ends[who].out.clear()
        for end in (self.ends[who], self.ends[1 - who]):
            end.lose(ConnectionAborted() if end.is_cut else ConnectionDone())

    def settle(self, size: int | None = None) -> None:
        """Carry everything both ways, in pieces of ``size``, until nothing happens any more."""
        quiet = 0
        while quiet < 3:
            self.clock.advance(0)
            moved = self.move(0, size) + self.move(1, size)
            quiet = 0 if moved else quiet + 1


class Side(NamedTuple):
    """A party: its TLS, and the protocol above."""

    below: Any
    above: Log


class _Negotiating(Factory):
    noisy = False

    def __init__(self, above: Log) -> None:
        self._above = above

    def buildProtocol(self, addr: Any) -> Log:
        return self._above


@implementer(IProtocolNegotiationFactory)
class _Offering(_Negotiating):
    def __init__(self, above: Log, protocols: list[bytes]) -> None:
        super().__init__(above)
        self._protocols = protocols

    def acceptableProtocols(self) -> list[bytes]:
        return self._protocols


def factory_of(above: Log, protocols: list[bytes] | None) -> Factory:
    """Return a factory for one protocol."""
    return _Negotiating(above) if protocols is None else _Offering(above, protocols)


def side(factory: Any, above: Log) -> Side:
    """Return the party that a TLS factory builds."""
    return Side(factory.buildProtocol(None), above)


def own_server(
    clock: Clock,
    files: Files,
    protocols: list[bytes] | None = None,
    limits: TlsLimits = LIMITS,
    above: Log | None = None,
    **options: Any,
) -> Side:
    """Return our server."""
    above = above or Log()

    def context(names: tuple[str, ...]) -> ssl.SSLContext:
        return server_context(files.path, files.path, protocols=names, **options)

    return side(TlsFactory(ServerSide(context), factory_of(above, protocols), clock, limits), above)


def own_client(
    clock: Clock,
    trust: bytes,
    protocols: list[bytes] | None = None,
    name: str = NAME,
    limits: TlsLimits = LIMITS,
    above: Log | None = None,
    own: Files | None = None,
) -> Side:
    """Return our client.

    :param own: the certificate that it shows.
    """
    above = above or Log()
    context = client_context(trust.decode())
    if own is not None:
        context.load_cert_chain(own.path)
    factory = TlsFactory(ClientSide(context, name, {}), factory_of(above, protocols), clock, limits)
    return side(factory, above)


def twisted_server(clock: Clock, files: Files, protocols: list[bytes] | None = None) -> Side:
    """Return Twisted's server."""
    above = Log()
    own = PrivateCertificate.loadPEM(files.pem)
    options = CertificateOptions(privateKey=own.privateKey.original, certificate=own.original)
    return side(TLSMemoryBIOFactory(options, False, factory_of(above, protocols), clock=clock), above)


def twisted_client(
    clock: Clock, trust: bytes, protocols: list[bytes] | None = None, name: str = NAME
) -> Side:
    """Return Twisted's client."""
    above = Log()
    options = optionsForClientTLS(name, Certificate.loadPEM(trust), acceptableProtocols=protocols or [])
    return side(TLSMemoryBIOFactory(options, True, factory_of(above, None), clock=clock), above)


def transport_of(party: Side) -> TlsTransport:
    """Return our TLS of a party."""
    assert isinstance(party.below, TlsTransport)
    return party.below
