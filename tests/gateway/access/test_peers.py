"""Client certificates: who they are for, and a gateway that asks for them."""

from __future__ import annotations

import datetime
import ssl
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from gateway.access.peers import certificate_identity, peer_certificate
from tests.certificates import self_signed
from tests.gateway.access.signing import fingerprint
from tests.gateway.test_behaviour import D, GatewayTestCase

NAMES = x509.NameOID


class Authority:
    """Signs certificates of clients."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NAMES.COMMON_NAME, name)])
        self.certificate = self._make(self._name, self._key, [], is_authority=True, days=1)

    def _make(
        self, subject: x509.Name, key: Any, others: list[x509.GeneralName], *, is_authority: bool, days: float
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), True)
        )
        if others:
            builder = builder.add_extension(x509.SubjectAlternativeName(others), False)
        return builder.sign(self._key, hashes.SHA256())

    def client(
        self, *names: tuple[Any, str], others: list[x509.GeneralName] | None = None, days: float = 1
    ) -> tuple[x509.Certificate, bytes]:
        """Return a certificate, and it with its key as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
        made = self._make(subject, key, others or [], is_authority=False, days=days)
        return made, made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class IdentityTests(SynchronousTestCase):
    """What a certificate says."""

    def test_names(self) -> None:
        """Subject and alternative names, each with its kind, so that none can pass for another."""
        others = [
            x509.DNSName("app.example"),
            x509.RFC822Name("ann@example.org"),
            x509.UniformResourceIdentifier("spiffe://example/app"),
        ]
        names = ((NAMES.ORGANIZATION_NAME, "CN=root"), (NAMES.COMMON_NAME, "app"))
        made, _ = Authority().client(*names, others=others)
        identity = certificate_identity(made)
        self.assertEqual((identity.kind, identity.name), ("certificate", "app"))
        self.assertEqual(
            identity.facts,
            {
                ("certificate", value)
                for value in (
                    "CN=app", "O=CN=root", "CN=app,O=CN=root", "DNS:app.example", "email:ann@example.org",
                    "URI:spiffe://example/app",
                )
            },
        )  # fmt: skip

    def test_parts_are_not_subjects(self) -> None:
        """A common name with a comma is not the subject that it spells."""
        made, _ = Authority().client((NAMES.COMMON_NAME, "app,O=Example"))
        facts = certificate_identity(made).facts
        self.assertEqual(facts, {("certificate", "CN=app\\,O=Example")})
        whole, _ = Authority().client((NAMES.ORGANIZATION_NAME, "Example"), (NAMES.COMMON_NAME, "app"))
        self.assertIn(("certificate", "CN=app,O=Example"), certificate_identity(whole).facts)

    def test_odd_subjects(self) -> None:
        """Without a common name, or with several, the whole subject is the name."""
        made, _ = Authority().client((NAMES.COMMON_NAME, "a"), (NAMES.COMMON_NAME, "b"))
        self.assertEqual(certificate_identity(made).name, "CN=b,CN=a")
        empty, _ = Authority().client(others=[x509.DNSName("x")])
        self.assertTrue(certificate_identity(empty).name.startswith("serial "))

    def test_transports(self) -> None:
        """Transports show certificates in several forms, or have none."""
        made, _ = Authority().client((NAMES.COMMON_NAME, "a"))

        class Transport:
            shown: Any = None

            def getPeerCertificate(self) -> Any:
                return self.shown

        for shown in (made, made.public_bytes(serialization.Encoding.DER), X509.from_cryptography(made)):
            transport = Transport()
            transport.shown = shown
            self.assertEqual(peer_certificate(transport), made)
        self.assertIsNone(peer_certificate(Transport()))
        self.assertIsNone(peer_certificate(object()))
        self.assertIsNone(peer_certificate(None))


class ListenerTests(GatewayTestCase):
    """A gateway with TLS that asks for certificates."""

    @inlineCallbacks
    def setUp(self) -> Any:
        self.folder = folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        self.authority = Authority()
        rules = """
[[rules]]
name = "app"
who = "certificate:CN=app"
buckets = "*"
allow = ["read", "write"]

[[rules]]
name = "key"
who = "key:k"
buckets = "*"
allow = "read"
"""
        for name, content in {
            "server.pem": self_signed(),
            "ca.pem": self.authority.pem,
            "rules.toml": rules.encode(),
            "keys": f"k sha256:{fingerprint('cgk_k')}\n".encode(),
        }.items():
            (folder / name).write_bytes(content)
        self.options = {
            "ephemeral": True,
            "listen": [f"ssl:0:interface=127.0.0.1:privateKey={folder / 'server.pem'}"],
            "auth": "certificate,keys",
            "client-ca": str(folder / "ca.pem"),
            "access": str(folder / "rules.toml"),
            "api-keys": str(folder / "keys"),
        }
        yield super().setUp()

    def asked(self, method: str, pem: bytes | None, headers: dict[str, str], times: int = 1) -> list[Any]:
        """Send requests on one connection from a thread; return statuses and bodies."""
        context = ssl.create_default_context(cafile=str(self.folder / "server.pem"))
        if pem is not None:
            path = self.folder / "client.pem"
            path.write_bytes(pem)
            context.load_cert_chain(path)
        port = int(self.url.rpartition(":")[2])
        connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
        try:
            found = []
            for _ in range(times):
                connection.request(method, D + "k", b"1" if method == "PUT" else None, headers)
                answer = connection.getresponse()
                found.append((answer.status, answer.read()))
            return found
        finally:
            connection.close()

    @inlineCallbacks
    def test_callers(self) -> Any:
        """A certificate is enough; without one, other ways are; a header counts before the certificate."""
        _, app = self.authority.client((NAMES.COMMON_NAME, "app"))
        _, other = self.authority.client((NAMES.COMMON_NAME, "other"))
        key = {"X-API-Key": "cgk_k"}
        for method, pem, headers, status in (
            ("PUT", app, {}, 200),
            ("GET", app, {}, 200),
            ("GET", other, {}, 403),
            ("GET", None, {}, 401),
            ("GET", None, key, 200),
            ("PUT", app, key, 403),
            ("GET", app, {"X-API-Key": "cgk_wrong"}, 401),
            ("GET", app, {"Authorization": "Basic eDp5"}, 401),
        ):
            answers = yield deferToThread(self.asked, method, pem, headers, 2)
            self.assertEqual([one for one, _ in answers], [status] * 2, (method, headers, answers))

    @inlineCallbacks
    def test_others(self) -> Any:
        """Certificates of another authority of the same name, and expired ones, are refused."""
        stranger = Authority()
        for _, pem in (
            stranger.client((NAMES.COMMON_NAME, "app")),
            self.authority.client((NAMES.COMMON_NAME, "app"), days=-1),
        ):
            yield self.assertFailure(deferToThread(self.asked, "GET", pem, {}), ssl.SSLError, ConnectionError)
