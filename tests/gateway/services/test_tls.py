"""Services over TLS, where the connection to the cluster uses it."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.ssl import PrivateCertificate
from twisted.python.filepath import FilePath

from couchnode.cluster import config
from couchnode.embedded import EmbeddedNode
from couchnode.tls import NodeTls
from tests.certificates import self_signed
from tests.gateway.services.support import Service
from tests.gateway.services.test_proxy import JSON, QUERY, SELECT
from tests.gateway.test_behaviour import GatewayTestCase


class TlsTests(GatewayTestCase):
    """A cluster that is reached by ``couchbases://``."""

    credentials = ("admin", "password")

    @inlineCallbacks
    def setUp(self) -> Any:
        trusted, other = self_signed(), self_signed()
        self.paths = [self.mktemp(), self.mktemp()]
        for path, pem in zip(self.paths, (trusted, other), strict=True):
            FilePath(path).setContent(pem)
        self.plain, self.good, self.bad = (Service() for _ in range(3))
        self.ports = [
            reactor.listenSSL(  # type: ignore[attr-defined]
                0, service, PrivateCertificate.loadPEM(pem).options(), interface="127.0.0.1"
            )
            for service, pem in ((self.good, trusted), (self.bad, other))
        ]
        for service in (self.plain, self.good, self.bad):
            service.script = lambda asked: asked.answer({"over": "it"})
        self.listed_port = self.ports[0].getHost().port
        made = config._cluster_part

        def with_services(nodes: Any, this_node: int) -> Any:
            part = made(nodes, this_node)
            part["nodesExt"][0]["services"] |= {"n1ql": self.plain.number, "n1qlSSL": self.listed_port}
            return part

        self.patch(config, "_cluster_part", with_services)
        self.node = EmbeddedNode(None, users=[self.credentials], tls=NodeTls(self.paths[0], self.paths[0]))
        yield self.node.start()
        self.options = {"cluster": self.node.tls_connection_string, "cluster-ca": self.paths[0]}
        self.options["proxy-service"] = ["query"]
        yield super().setUp()

    @inlineCallbacks
    def tearDown(self) -> Any:
        yield super().tearDown()
        yield self.node.stop()
        for port in self.ports:
            yield port.stopListening()
        for service in (self.plain, self.good, self.bad):
            yield service.close()

    @inlineCallbacks
    def test_over_tls(self) -> Any:
        """The service's port for TLS is used, and its certificate must be one of those to trust."""
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual((got.status, got.json()), (200, {"over": "it"}))
        self.assertEqual((len(self.good.asked), self.plain.asked), (1, []))

    @inlineCallbacks
    def test_stranger(self) -> Any:
        """A service with another certificate is not asked; nothing was sent."""
        yield self.service.stopService()
        self.listed_port = self.ports[1].getHost().port
        self.service = yield self.begin(self.settings())
        got = yield self.ask("POST", QUERY, SELECT, **JSON)
        self.assertEqual(got.code(), (503, "UnderlyingServiceUnavailable"))
        self.assertEqual((got.json()["retry"], self.bad.asked), ("safe", []))
        self.assertIn("certificate", got.json()["message"])
