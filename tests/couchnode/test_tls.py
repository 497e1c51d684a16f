"""TLS on the ports of a node: both protocols, certificates in place of passwords, files that are renewed."""

from __future__ import annotations

import datetime
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase.connection import Connection
from couchbase.protocol.constants import Feature, Opcode, Status
from couchnode.embedded import EmbeddedNode
from couchnode.service import Options
from couchnode.tls import NodeTls, TlsError, UserRule
from tests.certificates import self_signed
from tests.couchnode import test_service
from tests.couchnode.nodes import Client
from tests.couchnode.rest.test_api import ADMIN, Answer, Exchange, head

Steps = Generator[Deferred[Any], Any, Any]
KEY_MARK = b"-----BEGIN PRIVATE KEY"


def certificate_with(name: str, *names: x509.GeneralName) -> x509.Certificate:
    """Return a certificate with this common name, and these other names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return builder.sign(key, hashes.SHA256())


class RuleTests(SynchronousTestCase):
    """Who a certificate stands for."""

    def test_parts(self) -> None:
        """Each part of a certificate, without its prefix and up to the first delimiter."""
        certificate = certificate_with(
            "ada",
            x509.DNSName("a.example.org"),
            x509.DNSName("db.ada.example.org"),
            x509.UniformResourceIdentifier("urn:user:ada;role"),
            x509.RFC822Name("ada@example.org"),
        )
        for text, name in (
            ("subject.cn", "ada"),
            ("subject.cn,x", None),
            ("subject.cn,ada", None),
            ("san.dnsname,,.", "a"),
            ("san.dnsname,db.,.", "ada"),
            ("san.uri,urn:user:,;:", "ada"),
            ("san.email,,@", "ada"),
            ("san.email", "ada@example.org"),
        ):
            self.assertEqual(UserRule.parse(text).name_in(certificate), name, text)
        plain = certificate_with("")
        for path in ("subject.cn", "san.dnsname", "san.uri", "san.email"):
            self.assertIsNone(UserRule.parse(path).name_in(plain))

    def test_malformed(self) -> None:
        """Another part of a certificate than these is refused."""
        for text in ("", "cn", "san.ip", "subject.CN"):
            self.assertRaises(ValueError, UserRule.parse, text)


class FileTests(SynchronousTestCase):
    """Files that a start refuses, with the option, the file and the reason."""

    def setUp(self) -> None:
        """Write files of every kind."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        both = self_signed()
        at = both.index(KEY_MARK)
        for name, data in {
            "both": both,
            "cert": both[:at],
            "key": both[at:],
            "other": KEY_MARK + self_signed().partition(KEY_MARK)[2],
            "encrypted": self_signed(passphrase=b"secret"),
            "text": b"no certificate",
            "broken": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "long": bytes(2**20 + 1),
            "password": b"s3cret\n",
        }.items():
            (self.folder / name).write_bytes(data)

    def options(self, *arguments: str, **files: str) -> Options:
        """Parse a command line; files by the names of their options."""
        options = Options()
        named = [part for name, file in files.items() for part in (f"--tls-{name}", str(self.folder / file))]
        options.parseOptions(["--ephemeral", *named, *arguments])
        return options

    def test_accepted(self) -> None:
        """One file with both, two files, further ports, authorities and rules."""
        user = ("--user", "root", "--password-file", str(self.folder / "password"))
        self.assertIsNone(self.options()["tls"])
        tls = self.options(cert="both")["tls"]
        self.assertEqual((tls.first_ports, tls.accepts_certificates), ((18091, 11207), False))
        self.assertIsNotNone(self.options(cert="cert", key="key")["tls"])
        rule = ("--tls-client-user", "san.email,,@", "--tls-client-user", "subject.cn")
        ports = ("--tls-rest-port", "0", "--tls-kv-port", "7000")
        tls = self.options(*user, *rule, *ports, **{"cert": "both", "client-ca": "cert"})["tls"]
        self.assertEqual(tls.first_ports, (0, 7000))
        self.assertEqual(tls.rules, (UserRule("san.email", "", "@"), UserRule("subject.cn")))

    def test_refused(self) -> None:
        """Each message begins with the option, and says which file and why."""
        user = ("--user", "root", "--password-file", str(self.folder / "password"))
        for arguments, files, text in (
            ((), {"key": "key"}, "--tls-key: --tls-cert is missing"),
            ((), {"client-ca": "cert"}, "--tls-client-ca: --tls-cert is missing"),
            (("--tls-client-user", "subject.cn"), {}, "--tls-client-user: --tls-cert is missing"),
            (("--tls-client-user", "subject.cn"), {"cert": "both"}, "--tls-client-user: --tls-client-ca is"),
            (("--tls-client-user", "cn"), {"cert": "both"}, "--tls-client-user cn: the part of a"),
            ((), {"cert": "both", "client-ca": "cert"}, "--tls-client-ca: a node without --user does not"),
            ((), {"cert": "none"}, f"--tls-cert {self.folder / 'none'}: cannot be read: No such file"),
            ((), {"cert": "text"}, f"--tls-cert {self.folder / 'text'}: it has no certificate"),
            ((), {"cert": "broken"}, f"--tls-cert {self.folder / 'broken'}: it has a certificate that"),
            ((), {"cert": "long"}, f"--tls-cert {self.folder / 'long'}: is longer than 1048576 bytes"),
            ((), {"cert": "cert"}, f"--tls-key {self.folder / 'cert'}: it has no private key"),
            ((), {"cert": "cert", "key": "other"}, f"--tls-key {self.folder / 'other'}: it is not the key"),
            ((), {"cert": "encrypted"}, f"--tls-key {self.folder / 'encrypted'}: the key is encrypted"),
            (user, {"cert": "both", "client-ca": "key"}, f"--tls-client-ca {self.folder / 'key'}: it has no"),
            (("--tls-kv-port", "8091"), {"cert": "both"}, "--tls-kv-port 8091: port 8091 is also used for"),
            (("--tls-rest-port", "x"), {"cert": "both"}, "--tls-rest-port x: a whole number is expected"),
        ):  # fmt: skip
            error = self.assertRaises(UsageError, self.options, *arguments, **files)
            self.assertTrue(str(error).startswith(text), f"{error}\nexpected {text}")

    def test_reload(self) -> None:
        """Renewed files are used from then on; files that cannot be used leave everything as it is."""
        tls = NodeTls(self.folder / "both", self.folder / "both")
        first = tls.context()
        (self.folder / "both").write_bytes(b"")
        self.assertRaises(TlsError, tls.reload)
        self.assertIs(tls.context(), first)
        (self.folder / "both").write_bytes(self_signed())
        tls.reload()
        self.assertIsNot(tls.context(), first)


class TlsCase(TestCase):
    """A closed cluster of two nodes with TLS, whose clients may have certificates."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Steps:
        """Start it."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        for name in ("node", "Administrator", "ada", "stranger"):
            (self.folder / name).write_bytes(self_signed(name=name))
        authorities = self.folder / "authorities"
        authorities.write_bytes(self.read("Administrator") + self.read("ada") + self.read("stranger"))
        self.tls = NodeTls(self.folder / "node", self.folder / "node", authorities)
        self.clients: list[Any] = []
        self.node = EmbeddedNode(None, nodes=2, replicas=1, users=[ADMIN], quota_bytes=2**27, tls=self.tls)
        yield self.node.start()

    @inlineCallbacks
    def tearDown(self) -> Steps:
        """Stop it."""
        for client in self.clients:
            if not client.is_lost:
                client.transport.abortConnection()
        yield self.node.stop()

    def read(self, name: str) -> bytes:
        """Return the certificate, and the key, of that name."""
        return (self.folder / name).read_bytes()

    def options(self, own: str | None = None, trust: str = "node") -> Any:
        """Return options of a client that trusts the node, with a certificate of its own or without."""
        authority = ssl.Certificate.loadPEM(self.read(trust))
        certificate = None if own is None else ssl.PrivateCertificate.loadPEM(self.read(own))
        return ssl.optionsForClientTLS("127.0.0.1", authority, certificate)

    @inlineCallbacks
    def kv(self, own: str | None = None) -> Steps:
        """Connect to the key-value port."""
        port = self.node.cluster.nodes[0].address.kv_tls_port
        endpoint = wrapClientTLS(self.options(own), TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        client = yield connectProtocol(endpoint, Client())
        self.clients.append(client)
        return client

    @inlineCallbacks
    def ask(
        self,
        path: str,
        own: str | None = None,
        auth: tuple[str, str] | None = ADMIN,
        method: str = "GET",
        body: bytes = b"",
    ) -> Steps:
        """Send one request to the REST port."""
        port = self.node.cluster.nodes[0].address.rest_tls_port
        endpoint = wrapClientTLS(self.options(own), TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        exchange = yield connectProtocol(endpoint, Exchange())
        exchange.transport.write(head(method, path, auth, length=len(body)) + body)
        yield exchange.closed
        return Answer(exchange.data)


class ServedTests(TlsCase):
    """What clients get."""

    @inlineCallbacks
    def test_ports_in_configurations(self) -> Steps:
        """Every kind of configuration has the ports with TLS of each node, and they are open."""
        addresses = [node.address for node in self.node.cluster.nodes]
        services = (yield self.ask("/pools/default/nodeServices")).json["nodesExt"]
        terse = (yield self.ask("/pools/default/b/default")).json
        bucket = (yield self.ask("/pools/default/buckets/default")).json
        for document in (services, terse["nodesExt"], bucket["nodesExt"]):
            for entry, address in zip(document, addresses, strict=True):
                ports = entry["services"]
                self.assertEqual(
                    (ports["kvSSL"], ports["mgmtSSL"]), (address.kv_tls_port, address.rest_tls_port)
                )
                self.assertEqual(ports["kv"], address.kv_port)
                if address.views_port is not None:
                    self.assertEqual(ports["capiSSL"], address.rest_tls_port)
        for document in (terse["nodes"], bucket["nodes"], (yield self.ask("/pools/default")).json["nodes"]):
            self.assertEqual(
                [node["ports"]["httpsMgmt"] for node in document], [one.rest_tls_port for one in addresses]
            )

    @inlineCallbacks
    def test_password(self) -> Steps:
        """With TLS and without a certificate, a client logs in as usual, and gets nothing before."""
        client = yield self.kv()
        yield client.hello(Feature.XERROR)
        self.assertEqual((yield client.ask(Opcode.NOOP)).specific, Status.EACCESS)
        self.assertEqual((yield client.scram(user=ADMIN[0], password=ADMIN[1])).specific, Status.SUCCESS)
        self.assertEqual((yield client.ask(Opcode.SELECT_BUCKET, key=b"default")).specific, Status.SUCCESS)
        stored = yield client.ask(Opcode.SET, key=b"k", value=bytes(2**20), extras=bytes(8))
        self.assertEqual(stored.specific, Status.SUCCESS)
        self.assertEqual((yield client.ask(Opcode.GET, key=b"k")).value, bytes(2**20))
        self.assertEqual((yield self.ask("/pools", auth=None)).status, 401)

    @inlineCallbacks
    def test_certificate_of_a_user(self) -> Steps:
        """The certificate logs in, over both protocols and whatever else is said; SASL is refused."""
        client = yield self.kv("Administrator")
        yield client.hello(Feature.XERROR)
        self.assertEqual((yield client.ask(Opcode.SELECT_BUCKET, key=b"default")).specific, Status.SUCCESS)
        for opcode, parts in (
            (Opcode.SASL_LIST_MECHS, {}),
            (Opcode.SASL_AUTH, {"key": b"PLAIN", "value": b"\0a\0b"}),
            (Opcode.SASL_STEP, {"key": b"PLAIN", "value": b"x"}),
        ):
            self.assertEqual((yield client.ask(opcode, **parts)).specific, Status.NOT_SUPPORTED)
        self.assertEqual((yield client.ask(Opcode.GET, key=b"k")).specific, Status.KEY_ENOENT)
        for auth in (None, ADMIN, (ADMIN[0], "wrong")):
            answer = yield self.ask("/pools", "Administrator", auth)
            self.assertEqual((answer.status, answer.json["isAdminCreds"]), (200, True))

    @inlineCallbacks
    def test_rights_of_a_user(self) -> Steps:
        """A user who logs in by certificate may do what its roles allow, and no more, over both protocols."""
        body = b"password=secret-1&roles=data_reader[default]"
        made = yield self.ask("/settings/rbac/users/local/ada", "Administrator", None, "PUT", body)
        self.assertEqual(made.status, 200, made.body)
        client = yield self.kv("ada")
        yield client.hello(Feature.XERROR)
        self.assertEqual((yield client.ask(Opcode.SELECT_BUCKET, key=b"default")).specific, Status.SUCCESS)
        self.assertEqual((yield client.ask(Opcode.GET, key=b"k")).specific, Status.KEY_ENOENT)
        stored = yield client.ask(Opcode.SET, key=b"k", extras=bytes(8))
        self.assertEqual(stored.specific, Status.EACCESS)
        self.assertEqual((yield self.ask("/pools/default/b/default", "ada", None)).status, 200)
        self.assertEqual((yield self.ask("/settings/rbac/users", "ada", None)).status, 403)

    @inlineCallbacks
    def test_certificate_of_nobody(self) -> Steps:
        """A certificate that stands for no user ends a key-value connection, and gets 401 over HTTP."""
        client = yield self.kv("stranger")
        yield client.lost
        self.assertEqual((yield self.ask("/pools", "stranger")).status, 401)

    @inlineCallbacks
    def test_unknown_authority(self) -> Steps:
        """A certificate of an authority that is not trusted ends the handshake."""
        (self.folder / "forged").write_bytes(self_signed(name="Administrator"))
        client = yield self.kv("forged")
        yield client.lost

    @inlineCallbacks
    def test_renewed_certificate(self) -> Steps:
        """After a reload new connections get the new certificate; open ones stay."""
        before = yield self.kv()
        (self.folder / "node").write_bytes(self_signed(name="new"))
        self.tls.reload()
        after = yield self.kv()
        for client in (before, after):
            yield client.hello(Feature.XERROR)
        names = [one.transport.getPeerCertificate().get_subject().CN for one in (before, after)]
        self.assertEqual(names, ["node", "new"])

    @inlineCallbacks
    def test_our_sdk(self) -> Steps:
        """The SDK connects with couchbases://, by password and by certificate, and reaches both nodes."""
        address = self.node.tls_connection_string

        def work(**credentials: Any) -> list[Any]:
            connection = Connection(
                bucket="default",
                connection_string=address,
                certpath=str(self.folder / "node"),
                **credentials,
            )
            for number in range(20):
                connection.set(f"k{number}", number)
            return [connection.get(f"k{number}").value for number in range(20)]

        found = yield deferToThread(work, username=ADMIN[0], password=ADMIN[1])
        self.assertEqual(found, list(range(20)))
        found = yield deferToThread(work, client_cert=str(self.folder / "Administrator"))
        self.assertEqual(found, list(range(20)))


class ProcessTests(TestCase):
    """The real command."""

    timeout = 120
    run_twistd = test_service.ProcessTests.run_twistd

    @inlineCallbacks
    def test_hangup_reads_the_files_again(self) -> Steps:
        """On SIGHUP a renewed certificate is served; files that cannot be used are named, and it runs on."""
        file = Path(self.mktemp()).absolute()
        file.write_bytes(self_signed(name="old"))
        ports = ("--rest-port", "0", "--kv-port", "0", "--tls-rest-port", "0", "--tls-kv-port", "0")
        node = self.run_twistd("--ephemeral", *ports, "--tls-cert", str(file))
        match = yield node.said(r"couchbases://127\.0\.0\.1:(\d+)")

        @inlineCallbacks
        def served() -> Steps:
            options = ssl.CertificateOptions()
            endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", int(match[1])))
            client = yield connectProtocol(endpoint, Client())
            yield client.hello(Feature.XERROR)
            name = client.transport.getPeerCertificate().get_subject().CN
            client.transport.abortConnection()
            yield client.lost
            return name

        self.assertEqual((yield served()), "old")
        file.write_bytes(b"")
        node.transport.signalProcess("HUP")
        yield node.said("the certificates stay as they are: --tls-cert")
        self.assertEqual((yield served()), "old")
        file.write_bytes(self_signed(name="new"))
        node.transport.signalProcess("HUP")
        yield node.said("the certificates were read again")
        self.assertEqual((yield served()), "new")
        node.transport.signalProcess("TERM")
        self.assertEqual((yield node.ended), -signal.SIGTERM)
