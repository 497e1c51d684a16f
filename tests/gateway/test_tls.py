"""HTTPS: a listener given as an ``ssl:`` endpoint, with real handshakes over loopback."""

import os
import socket
import ssl
from datetime import datetime, timedelta, timezone

import treq
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from zope.interface import implementer

from gateway.access.peers import peer_certificate
from gateway.listeners import CannotStartError, listen_on
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
    def test_without_tls(self):
        """A client that speaks HTTP without TLS gets an answer that says so, and it is logged."""
        lines = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        pool = HTTPConnectionPool(reactor, persistent=False)
        client = treq.client.HTTPClient(Agent(reactor, pool=pool))
        answer = yield client.get(self.url.replace("https:", "http:") + "/health")
        told = yield answer.json()
        self.assertEqual((answer.code, told["code"]), (400, "InvalidArgument"))
        self.assertIn("https://", told["message"])
        texts = [formatEvent(line) for line in lines]
        self.assertIn("TLS handshake with 127.0.0.1 failed: the client spoke HTTP without TLS", texts)

    @inlineCallbacks
    def test_strangers(self):
        """Bytes of anything else end the connection with an alert or without; the gateway serves on."""
        port = int(self.url.rsplit(":", 1)[1])
        hello = b"\x16\x03\x01\x02\x00\x01" + bytes(505)
        for first in (b"SSH-2.0-x\r\n", bytes(100), hello, b"\x80\x2e\x01"):
            handshake = Handshake()
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
            yield connectProtocol(endpoint, handshake)
            handshake.transport.write(first)
            handshake.transport.loseWriteConnection()
            yield self.assertFailure(handshake.done, Exception)
        yield self.test_documents()

    @inlineCallbacks
    def test_negotiation(self):
        """A client that offers HTTP/2 and HTTP/1.1, like curl, gets HTTP/2; one with HTTP/1.1 alone gets it;
        one with neither gets no alert."""
        port = int(self.url.rsplit(":", 1)[1])
        for offered, agreed in (
            ([b"http/1.1", b"h2"], b"h2"),
            ([b"http/1.1"], b"http/1.1"),
            ([b"spdy/3"], None),
        ):
            options = optionsForClientTLS(
                "127.0.0.1", trustRoot=self.certificate, acceptableProtocols=offered
            )
            handshake = Handshake()
            endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
            yield connectProtocol(endpoint, handshake)
            self.assertEqual((yield handshake.done), agreed)
            ended = handshake.done = Deferred()
            handshake.transport.loseConnection()
            yield self.assertFailure(ended, Exception)


class NameTests(TestCase):
    """``tls:`` endpoints of Twisted, which choose a certificate by the name that a client asks for."""

    def setUp(self):
        """Write a folder of certificates."""
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(Encoding.PEM)
        encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with open(os.path.join(self.folder, "localhost.pem"), "wb") as file:
            file.write(self.certificate + encoded)

    @inlineCallbacks
    def test_served(self):
        """The gateway serves there, and its URL is one with TLS."""
        options = Options()
        options.parseOptions(["--listen", f"tls:{self.folder}:0:interface=127.0.0.1", "--ephemeral"])
        service = GatewayService(options.settings, [])
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        yield service.started
        (url,) = service.urls
        self.assertTrue(url.startswith("https://127.0.0.1:"), url)
        handshake = Handshake()
        tls = optionsForClientTLS(
            "localhost", Certificate.loadPEM(self.certificate), acceptableProtocols=[b"http/1.1"]
        )
        port = int(url.rsplit(":", 1)[1])
        yield connectProtocol(wrapClientTLS(tls, TCP4ClientEndpoint(reactor, "127.0.0.1", port)), handshake)
        self.assertEqual((yield handshake.done), b"http/1.1")
        ended = handshake.done = Deferred()
        handshake.transport.loseConnection()
        yield self.assertFailure(ended, Exception)

    def test_certificates_of_clients(self):
        """They are refused with these endpoints, rather than ignored."""
        path = os.path.join(self.folder, "localhost.pem")
        description = f"tls:{self.folder}:0:interface=127.0.0.1"
        error = self.assertRaises(CannotStartError, listen_on, reactor, description, Factory(), path)
        self.assertIn("--client-ca", str(error))
        self.assertIn("use ssl:", str(error))


class ClientCertificateTests(TestCase):
    """``--client-ca``: clients may show a certificate."""

    @inlineCallbacks
    def test_asked(self):
        """The channel's transport shows the certificate of a client that has one of the authority; a client
        without one is served; one of another authority ends the handshake."""
        files = {name: self.mktemp() for name in ("server", "client", "other")}
        for name, path in files.items():
            with open(path, "wb") as file:
                file.write(self_signed(name=name))
        factory = Factory.forProtocol(Shown)
        factory.noisy = False
        description = f"ssl:0:interface=127.0.0.1:privateKey={files['server']}"
        port = yield listen_on(reactor, description, factory, files["client"])
        self.addCleanup(port.stopListening)
        for own, answer in (("client", b"CN=client"), (None, b"none"), ("other", None)):
            context = ssl.create_default_context(cafile=files["server"])
            if own is not None:
                context.load_cert_chain(files[own])
            asked = deferToThread(ask, context, port.getHost().port)
            if answer is None:
                yield self.assertFailure(asked, OSError)
            else:
                self.assertEqual((yield asked), answer)


def ask(context, port):
    """Return what a server on a port sends."""
    plain = socket.create_connection(("127.0.0.1", port), 60)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
        stream.sendall(b"?")
        return stream.recv(100)


class Shown(Protocol):
    """Answers with the name of the client."""

    def dataReceived(self, data: bytes) -> None:
        certificate = peer_certificate(self.transport)
        name = "none" if certificate is None else certificate.subject.rfc4514_string()
        self.transport.write(name.encode())


class StartTests(TestCase):
    """Certificates that cannot be used."""

    def test_refused(self):
        """The gateway does not start, and says which file of which endpoint is wrong, and what is
        expected."""
        path = self.mktemp()
        for data, words in (
            (None, "cannot be read: No such file or directory"),
            (b"nothing", "expected a private key without a passphrase, and its certificate, in PEM"),
        ):
            if data is not None:
                with open(path, "wb") as file:
                    file.write(data)
            listen = f"ssl:0:interface=127.0.0.1:privateKey={path}"
            error = self.assertRaises(UsageError, Options().parseOptions, ["--listen", listen, "--ephemeral"])
            for word in ("--listen: 'ssl:0:", f"privateKey={path}", words):
                self.assertIn(word, str(error))

    def test_lost_meanwhile(self):
        """A file that is gone when the gateway begins to listen is an error of its start."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(self_signed())
        options = Options()
        options.parseOptions(["--listen", f"ssl:0:interface=127.0.0.1:privateKey={path}", "--ephemeral"])
        os.unlink(path)
        service = GatewayService(options.settings, [])
        error = self.assertRaises(CannotStartError, service.privilegedStartService)
        self.assertIn(f"privateKey={path}", str(error))
        self.assertIn("cannot be read", str(error))
