"""Sessions that are resumed, certificates that are renewed, and the reasons for which handshakes fail."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reactor.tls.contexts import client_context, reason_of, server_context
from reactor.tls.factory import ClientSide, ServerSide, TlsFactory
from reactor.tls.layer import peer_certificate
from tests.reactor.tls.wire import NAME, Files, Log, Side, Wire, factory_of, side

BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class SessionTestCase(SynchronousTestCase):
    """One server and one client program, with connections one after the other."""

    def setUp(self) -> None:
        """Make certificates and contexts."""
        self.clock = Clock()
        self.files, self.own = Files.make(self.mktemp()), Files.make(self.mktemp(), name="client")
        self.sessions: dict[tuple[str, int], ssl.SSLSession] = {}
        self.begin(ssl.TLSVersion.TLSv1_3)

    def begin(self, version: ssl.TLSVersion) -> None:
        """Have the server speak one version, and the client remember nothing."""
        self.version = version
        self.sessions.clear()
        self.trusted = client_context(self.files.pem.decode())
        self.trusted.load_cert_chain(self.own.path)
        self.renew()

    def renew(self) -> None:
        """Give the server a new context."""
        versions = self.version, self.version
        self.context = server_context(
            self.files.path, self.files.path, versions=versions, client_ca=self.own.path
        )

    def connect(self, port: int = 1, name: str = NAME, *, closed: bool = True) -> tuple[Side, Side]:
        """Open a connection, exchange a few bytes, and close it."""
        server_log, client_log = Log(), Log()
        server = TlsFactory(ServerSide(lambda names: self.context), factory_of(server_log, None), self.clock)
        of_client = ClientSide(self.trusted, name, self.sessions, port)
        client = TlsFactory(of_client, factory_of(client_log, None), self.clock)
        parties = side(client, client_log), side(server, server_log)
        wire = Wire(self.clock, *(party.below for party in parties))
        for party in parties:
            party.below.write(b"hello")
        wire.settle()
        self.found = peer_certificate(parties[1].below)
        if closed:
            parties[0].below.loseConnection()
            wire.settle()
        else:
            wire.cut(0)
        return parties

    def is_resumed(self, **options: Any) -> bool:
        """Connect; return whether the session was resumed."""
        client, server = self.connect(**options)
        self.assertEqual((client.above.data, server.above.data), (b"hello", b"hello"))
        both = {bool(party.below.session.session_reused) for party in (client, server)}
        self.assertEqual(len(both), 1)
        return both.pop()


class ResumptionTests(SessionTestCase):
    """Tickets."""

    def test_resumed(self) -> None:
        """The second connection to a server resumes the first one's session, and the third the second's; the
        client's certificate counts on."""
        for version in BOTH:
            self.begin(version)
            self.assertFalse(self.is_resumed())
            for _ in range(2):
                self.assertTrue(self.is_resumed(), version)
                assert self.found is not None
                self.assertEqual(self.found.subject.rfc4514_string(), "CN=client")

    def test_other_server(self) -> None:
        """Another port of the host is another server."""
        self.is_resumed(port=1)
        self.assertFalse(self.is_resumed(port=2))
        self.assertTrue(self.is_resumed(port=1))

    def test_renewed(self) -> None:
        """A server with a new context, as after new certificates, shakes hands in full."""
        for version in BOTH:
            self.begin(version)
            self.is_resumed()
            self.renew()
            self.assertFalse(self.is_resumed())
            self.assertTrue(self.is_resumed())

    def test_revoked(self) -> None:
        """A client whose authority is not trusted any more is refused, whatever ticket it has."""
        self.is_resumed()
        self.own = Files.make(self.mktemp(), name="other")
        self.renew()
        _, server = self.connect()
        self.assertIs(server.above.events[-1], ssl.SSLCertVerificationError)

    def test_wrong_name(self) -> None:
        """A session is of one name: it cannot be used to reach a server by another."""
        self.is_resumed()
        client, _ = self.connect(name="other.example")
        self.assertIs(client.above.events[-1], ssl.SSLCertVerificationError)


class ReasonTests(SessionTestCase):
    """What the other protocols and people get to read."""

    def reason(self, party: Side) -> str:
        """Return why a party's handshake failed."""
        return reason_of(party.above.reason.value)  # type: ignore[arg-type]

    def test_untrusted(self) -> None:
        """An unknown authority, at the client, and at the server by the client's alert."""
        self.trusted = client_context(self.own.pem.decode())
        client, server = self.connect(closed=False)
        self.assertEqual(self.reason(client), "certificate verify failed: self-signed certificate")
        self.assertEqual(self.reason(server), "tlsv1 alert unknown ca")

    def test_name(self) -> None:
        """A certificate for another host, or for another address."""
        client, _ = self.connect(name="localhost", closed=False)
        self.assertIn("Hostname mismatch", self.reason(client))
        client, _ = self.connect(name="127.0.0.2", closed=False)
        self.assertIn("IP address mismatch", self.reason(client))

    def test_expired(self) -> None:
        """A certificate that is not valid any more."""
        self.files = Files.make(self.mktemp(), begins=-2, ends=-1)
        self.begin(ssl.TLSVersion.TLSv1_3)
        client, _ = self.connect(closed=False)
        self.assertEqual(self.reason(client), "certificate verify failed: certificate has expired")

    def test_version(self) -> None:
        """No common version."""
        self.trusted.maximum_version = ssl.TLSVersion.TLSv1_2
        client, server = self.connect(closed=False)
        self.assertEqual(self.reason(server), "unsupported protocol")
        self.assertIn("alert protocol version", self.reason(client))

    def test_others(self) -> None:
        """Errors of the system and others."""
        self.assertEqual(reason_of(FileNotFoundError(2, "No such file")), "No such file")
        self.assertEqual(reason_of(ValueError("text")), "text")
        self.assertEqual(reason_of(ssl.SSLError(1, "text")), "text")
