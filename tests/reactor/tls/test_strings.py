"""Endpoint strings with TLS: every parameter does what Twisted says, or is refused."""

from __future__ import annotations

import socket
import ssl
from base64 import encodebytes
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reactor.tls.layer import peer_certificate
from reactor.tls.strings import EndpointError, check_authorities, tls_endpoint
from tests.certificates import self_signed
from tests.reactor.tls.wire import Files, Side, Wire, own_client, own_server

reactor: Any = installed

KEY_MARK = b"-----BEGIN PRIVATE KEY"

FFDHE2048 = int(
    "FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1D8B9C583CE2D3695A9E13641146433FBCC939DCE249B3EF9"
    "7D2FE363630C75D8F681B202AEC4617AD3DF1ED5D5FD65612433F51F5F066ED0856365553DED1AF3B557135E7F57C935"
    "984F0C70E0E68B77E2A689DAF3EFE8721DF158A136ADE73530ACCA4F483A797ABC0AB182B324FB61D108A94BB2C8E3FB"
    "B96ADAB760D7F4681D4F42A3DE394DF4AE56EDE76372BB190B07A7C8EE0A6D709E02FCE1CDF7E2ECC03404CD28342F61"
    "9172FE9CE98583FF8E4F1232EEF28183C3FE3B1B4C6FAD733BB5FCBC2EC22005C58EF1837D1683B2C6F34A26C1B2EFFA"
    "886B423861285C97FFFFFFFFFFFFFFFF",
    16,
)
"""The prime of RFC 7919, appendix A.1."""


def rsa_certificate() -> bytes:
    """Return a certificate for 127.0.0.1 with an RSA key, and that key, as PEM."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + encoded


class Folder:
    """Files of a test."""

    def __init__(self, case: Any) -> None:
        self.path = Path(case.mktemp()).absolute()
        self.path.mkdir()
        both = self_signed()
        at = both.index(KEY_MARK)
        self.both = both
        for name, data in {
            "both": both,
            "cert": both[:at],
            "key": both[at:],
            "other": self_signed(name="other"),
            "encrypted": self_signed(passphrase=b"secret"),
            "text": b"nothing",
        }.items():
            (self.path / name).write_bytes(data)

    def __getitem__(self, name: str) -> str:
        return str(self.path / name)


class RefusalTests(SynchronousTestCase):
    """Strings that cannot be used."""

    def test_other_kinds(self) -> None:
        """Strings without TLS are left to Twisted."""
        for description in ("tcp:80", "unix:/x", "haproxy:tcp:80", "tcp6:80", "systemd:domain=INET:index=0"):
            self.assertIsNone(tls_endpoint(reactor, description))

    def test_refused(self) -> None:
        """Each message names the parameter, its value, and what was expected."""
        files = Folder(self)
        for tail, words in (
            ("privateKey={none}", ("privateKey=", "none", "cannot be read: No such file")),
            ("privateKey={key}:certKey={none}", ("certKey=", "cannot be read")),
            ("privateKey={text}", ("privateKey=", "expected a private key")),
            ("privateKey={key}", ("privateKey=", "and its certificate, in PEM")),
            ("privateKey={other}:certKey={cert}", ("key values mismatch", "expected a private key")),
            ("privateKey={encrypted}", ("the private key is encrypted",)),
            ("privateKey={both}:extraCertChain={none}", ("extraCertChain=", "cannot be read")),
            ("privateKey={both}:extraCertChain={text}", ("extraCertChain=", "has no certificate")),
            ("privateKey={both}:dhParameters={none}", ("dhParameters=", "cannot be read")),
            ("privateKey={both}:dhParameters={text}", ("dhParameters=", "not in PEM")),
            ("privateKey={both}:sslmethod=SSLv3_METHOD", ("sslmethod=SSLv3_METHOD", "TLSv1_2_METHOD")),
            ("privateKey={both}:sslmethod=TLSv1_METHOD", ("sslmethod=TLSv1_METHOD", "expected one of")),
            ("privateKey={both}:sslmethod=nonsense", ("sslmethod=nonsense", "expected one of")),
        ):
            names = {
                name: files[name] for name in ("none", "both", "cert", "key", "other", "encrypted", "text")
            }
            error = self.assertRaises(EndpointError, tls_endpoint, reactor, f"ssl:0:{tail.format(**names)}")
            for word in words:
                self.assertIn(word, str(error))
        self.assertRaises(TypeError, tls_endpoint, reactor, f"ssl:0:privateKey={files['both']}:colour=red")
        self.assertRaises(TypeError, tls_endpoint, reactor, f"ssl:privateKey={files['both']}")
        self.assertRaises(ValueError, tls_endpoint, reactor, f"ssl:x:privateKey={files['both']}")

    def test_positions(self) -> None:
        """Arguments may come by position, in Twisted's order, and the last of two names counts."""
        files = Folder(self)
        given = Mock()
        for description in (
            f"ssl:7:{files['key']}:{files['cert']}:TLS_METHOD:127.0.0.1:9",
            f"SSL:port=7:certKey={files['cert']}:interface=127.0.0.1:privateKey={files['key']}"
            ":backlog=8:backlog=9",
        ):
            endpoint = tls_endpoint(given, description)
            assert endpoint is not None
            endpoint.listen(Factory.forProtocol(Protocol))
            self.assertEqual(given.listenTCP.call_args.args[:1], (7,))
            self.assertEqual(given.listenTCP.call_args.kwargs, {"backlog": 9, "interface": "127.0.0.1"})


class Echo(Protocol):
    """Sends back what comes."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Collector(Protocol):
    """Collects what comes until the end."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(self.data)


class ListeningTests(TestCase):
    """Real sockets, and the standard library's client in a thread."""

    timeout = 120

    def setUp(self) -> None:
        """Make files."""
        self.files = Folder(self)

    @inlineCallbacks
    def listen(self, tail: str, prefix: str = "", **options: Any) -> Any:
        """Listen; fires with the port."""
        description = f"{prefix}ssl:0:interface=127.0.0.1:{tail}"
        endpoint = tls_endpoint(reactor, description, **options)
        assert endpoint is not None
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        port = yield endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def talk(self, port: int, data: bytes = b"x", **limits: Any) -> Deferred[Any]:
        """Fire with what a client sees: (version, cipher, answer)."""

        def client() -> Any:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=self.files.both.decode())
            for name, value in limits.items():
                if name == "ciphers":
                    context.set_ciphers(value)
                else:
                    setattr(context, name, value)
            plain = socket.create_connection(("127.0.0.1", port), 60)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
                stream.sendall(data)
                answer = stream.recv(100)
                seen = stream.version(), stream.cipher(), answer
                stream.unwrap()
                return seen

        return deferToThread(client)

    @inlineCallbacks
    def test_versions(self) -> Any:
        """By default 1.2 and 1.3; sslmethod=TLSv1_2_METHOD leaves 1.2."""
        port = yield self.listen(f"privateKey={self.files['both']}")
        self.assertEqual((yield self.talk(port))[0], "TLSv1.3")
        old = yield self.talk(port, maximum_version=ssl.TLSVersion.TLSv1_2)
        self.assertEqual(old[0], "TLSv1.2")
        failed = self.talk(port, maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1)
        yield self.assertFailure(failed, OSError)
        port = yield self.listen(f"privateKey={self.files['both']}:sslmethod=TLSv1_2_METHOD")
        self.assertEqual((yield self.talk(port))[::2], ("TLSv1.2", b"x"))

    @inlineCallbacks
    def test_separate_files(self) -> Any:
        """Key and certificate in two files."""
        port = yield self.listen(f"privateKey={self.files['key']}:certKey={self.files['cert']}")
        self.assertEqual((yield self.talk(port, b"hello"))[2], b"hello")

    @inlineCallbacks
    def test_chain(self) -> Any:
        """The certificates of extraCertChain are sent behind the own one."""
        port = yield self.listen(f"privateKey={self.files['both']}:extraCertChain={self.files['other']}")
        self.assertEqual((yield self.chain(port)), 2)
        port = yield self.listen(f"privateKey={self.files['both']}")
        self.assertEqual((yield self.chain(port)), 1)

    @inlineCallbacks
    def chain(self, port: int) -> Any:
        """Return how many certificates a server sends."""

        # The standard library shows a chain from Python 3.13 on only.
        def client() -> int:
            with socket.create_connection(("127.0.0.1", port), 60) as plain:
                connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), plain)
                plain.setblocking(True)
                connection.set_connect_state()
                connection.do_handshake()
                return len(connection.get_peer_cert_chain() or [])

        return (yield deferToThread(client))

    @inlineCallbacks
    def test_dh_parameters(self) -> Any:
        """With dhParameters the server takes ciphers that need them; without, it does not."""
        # ASN.1: a sequence of the prime and the generator, 2.
        der = b"\x30\x82\x01\x08\x02\x82\x01\x01\0" + FFDHE2048.to_bytes(256, "big") + b"\x02\x01\x02"
        lines = (b"-----BEGIN DH PARAMETERS-----\n", encodebytes(der), b"-----END DH PARAMETERS-----\n")
        (self.files.path / "dh").write_bytes(b"".join(lines))
        key = rsa_certificate()
        (self.files.path / "rsa").write_bytes(key)
        self.files.both = key
        wanted = {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "DHE-RSA-AES256-GCM-SHA384"}
        port = yield self.listen(f"privateKey={self.files['rsa']}:dhParameters={self.files['dh']}")
        answer = yield self.talk(port, **wanted)
        self.assertEqual(answer[1][0], "DHE-RSA-AES256-GCM-SHA384")
        port = yield self.listen(f"privateKey={self.files['rsa']}")
        yield self.assertFailure(self.talk(port, **wanted), OSError)

    @inlineCallbacks
    def test_proxy_header(self) -> Any:
        """Behind haproxy: the PROXY protocol's header comes within TLS, as with Twisted's own endpoint."""
        port = yield self.listen(f"privateKey={self.files['both']}", "haproxy:")
        answer = yield self.talk(port, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nhello")
        self.assertEqual(answer[2], b"hello")

    @inlineCallbacks
    def test_plain_client(self) -> Any:
        """A failed handshake is reported, and what the report returns is sent without TLS."""
        told = []

        def failed(transport: Any, error: BaseException) -> bytes:
            told.append((transport.getPeer().host, error))
            return b"this port speaks TLS"

        port = yield self.listen(f"privateKey={self.files['both']}", on_failure=failed)
        client = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Collector())
        client.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual((yield client.lost), b"this port speaks TLS")
        ((host, error),) = told
        self.assertEqual((host, getattr(error, "reason", None)), ("127.0.0.1", "HTTP_REQUEST"))


class ClientCertificateTests(SynchronousTestCase):
    """Servers that ask for the client's certificate."""

    def setUp(self) -> None:
        """Make certificates."""
        self.server, self.client, self.other = (Files.make(self.mktemp(), name=name) for name in "sco")

    def shake(self, own: Files | None, **options: Any) -> tuple[Side, Side]:
        """Shake hands with a client that has this certificate."""
        clock = Clock()
        server = own_server(clock, self.server, client_ca=self.client.path, **options)
        client = own_client(clock, self.server.pem, own=own)
        client.below.write(b"hello")
        Wire(clock, client.below, server.below).settle()
        return client, server

    def test_shown(self) -> None:
        """The server sees a certificate of its authority, and none if the client shows none, in both
        versions."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for own, name in ((self.client, "CN=c"), (None, None)):
                _, server = self.shake(own, versions=(version, version))
                self.assertEqual(server.above.events, ["made", "handshake", b"hello"])
                found = peer_certificate(server.below)
                self.assertEqual(found and found.subject.rfc4514_string(), name)

    def test_of_another_authority(self) -> None:
        """It ends the handshake; the client gets an alert that says why."""
        client, server = self.shake(self.other)
        self.assertIs(server.above.events[-1], ssl.SSLCertVerificationError)
        self.assertIs(client.above.events[-1], ssl.SSLError)
        self.assertIn("unknown ca", str(client.above.reason.value))

    def test_authorities(self) -> None:
        """A file without certificates is refused by name."""
        for data in (b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            path = self.mktemp()
            Path(path).write_bytes(data)
            error = self.assertRaises(EndpointError, check_authorities, path)
            self.assertIn(path, str(error))
            self.assertIn("expected certificates in PEM", str(error))
        self.assertIn("cannot be read", str(self.assertRaises(EndpointError, check_authorities, "/none")))
