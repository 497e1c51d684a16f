"""Settings of the cluster: its name, and what clients may know of certificates."""

from __future__ import annotations

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from couchnode.cluster.naming import MAX_NAME_CHARACTERS
from couchnode.embedded import EmbeddedNode
from tests.couchnode.rest.test_api import RestCase, Steps
from tests.couchnode.test_tls import TlsCase

POOL = "/pools/default"
SETTINGS = "/settings/clientCertAuth"


class NameTests(RestCase):
    """The name of the cluster."""

    nodes = 2

    @inlineCallbacks
    def name(self, node: int = 0) -> Steps:
        """Return what a node says."""
        return (yield self.ask(POOL, node=node)).json["clusterName"]

    @inlineCallbacks
    def test_change(self) -> Steps:
        """Every node shows it, in any language; it can be taken back."""
        self.assertEqual((yield self.name()), "")
        for name in ("beers of Bamberg", "Bräu & Söhne", "x" * MAX_NAME_CHARACTERS, ""):
            answer = yield self.ask(POOL, "POST", form={"clusterName": name})
            self.assertEqual((answer.status, answer.body), (200, b""))
            for node in (0, 1):
                self.assertEqual((yield self.name(node)), name)

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """Other fields, and names that are too long, are refused, and nothing is changed."""
        for form, field in (
            ({"clusterName": "x" * (MAX_NAME_CHARACTERS + 1)}, "clusterName"),
            ({"clusterName": "x", "memoryQuota": "300"}, "memoryQuota"),
            ({"clusterName": "x", "colour": "red"}, "colour"),
        ):
            answer = yield self.ask(POOL, "POST", form=form)
            self.assertEqual((answer.status, list(answer.json["errors"])), (400, [field]))
        self.assertEqual((yield self.name()), "")
        self.assertEqual((yield self.ask(POOL, "POST")).status, 200)

    @inlineCallbacks
    def test_without_certificates(self) -> Steps:
        """A node without TLS has no certificate, and clients may not present any."""
        self.assertEqual((yield self.ask(f"{POOL}/certificate")).status, 404)
        self.assertEqual((yield self.ask(SETTINGS)).json, {"state": "disable", "prefixes": []})
        answer = yield self.ask(SETTINGS, "POST", form={"state": "enable"})
        self.assertEqual(answer.status, 400)
        self.assertIn("--tls-client-ca", answer.json["errors"]["_"])


class RestartTests(TestCase):
    """A node with a data directory."""

    @inlineCallbacks
    def test_restart(self) -> Steps:
        """The name is there after a restart."""
        folder = self.mktemp()
        for before, after in (("", "first"), ("first", "second")):
            node = EmbeddedNode(folder)
            yield node.start()
            self.assertEqual(node.cluster.naming.name, before)
            yield node.cluster.naming.rename(after)
            yield node.stop()


class CertificateTests(TlsCase):
    """A node with TLS whose clients may have certificates."""

    @inlineCallbacks
    def test_certificate(self) -> Steps:
        """The certificate to trust is given without credentials, and without the key."""
        found = yield self.ask(f"{POOL}/certificate", auth=None)
        self.assertEqual(found.status, 200)
        written = self.read("node")
        begin = written.index(b"-----BEGIN CERTIFICATE-----")
        end = written.index(b"-----END CERTIFICATE-----")
        self.assertEqual(found.body.split(), written[begin:end].split() + [b"-----END", b"CERTIFICATE-----"])

    @inlineCallbacks
    def test_settings(self) -> Steps:
        """They say that certificates are accepted, and where the user's name is."""
        found = yield self.ask(SETTINGS)
        prefixes = [{"path": "subject.cn", "prefix": "", "delimiter": ""}]
        self.assertEqual(found.json, {"state": "enable", "prefixes": prefixes})
