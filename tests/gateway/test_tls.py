"""HTTPS: a listener given as an ``ssl:`` endpoint, with real handshakes over loopback."""

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from zope.interface import implementer

from gateway.service import GatewayService, Options
from tests.certificates import self_signed


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """Fires ``done`` when TLS is up, or failed."""

    def __init__(self) -> None:
        self.done: Deferred = Deferred()

    def handshakeCompleted(self) -> None:
        self.done.callback(self.transport.negotiatedProtocol)

    def connectionLost(self, reason) -> None:
        if not self.done.called:
            self.done.errback(reason)


class TLSTests(TestCase):
    """One gateway on an ``ssl:`` endpoint."""

    @inlineCallbacks
    def setUp(self):
        path = self.mktemp()
        pem = self_signed()
        with open(path, "wb") as file:
            file.write(pem)
        self.certificate = Certificate.loadPEM(pem)
        options = Options()
        listen = f"ssl:0:interface=127.0.0.1:privateKey={path}:certKey={path}"
        options.parseOptions(["--listen", listen, "--ephemeral"])
        self.service = GatewayService(options.settings, [])
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.service.stopService)
        yield self.service.started
        (self.url,) = self.service.urls

    @inlineCallbacks
    def test_documents(self):
        """A client that trusts the certificate stores and reads."""
        self.assertTrue(self.url.startswith("https://127.0.0.1:"))
        pool = HTTPConnectionPool(reactor, persistent=False)
        agent = Agent(reactor, BrowserLikePolicyForHTTPS(self.certificate), pool=pool)
        client = treq.client.HTTPClient(agent)
        document = f"{self.url}/v1/buckets/default/documents/a"
        self.assertEqual((yield client.put(document, data=b"1")).code, 200)
        self.assertEqual((yield (yield client.get(document)).content()), b"1")
        yield pool.closeCachedConnections()
        yield deferLater(reactor, 0)

    @inlineCallbacks
    def test_negotiation(self):
        """A client that offers HTTP/2 and HTTP/1.1, like curl, gets HTTP/1.1, and no alert."""
        options = optionsForClientTLS(
            "127.0.0.1", trustRoot=self.certificate, acceptableProtocols=[b"h2", b"http/1.1"]
        )
        port = int(self.url.rsplit(":", 1)[1])
        handshake = Handshake()
        endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        yield connectProtocol(endpoint, handshake)
        self.assertEqual((yield handshake.done), b"http/1.1")
        ended = handshake.done = Deferred()
        handshake.transport.loseConnection()
        yield self.assertFailure(ended, Exception)
