"""Services over TLS, with the certificates that the connection to the cluster trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers

from couchbase.exceptions import NetworkError
from couchbase.tlsfiles import TlsFiles
from gateway.cluster.credentials import CallerCredentials
from gateway.services.calls import Asked, ServiceCall
from gateway.services.kinds import QUERY
from gateway.services.outgoing import WholeBody
from gateway.services.upstream import Upstream
from tests.certificates import self_signed
from tests.gateway.services.support import Service
from txcouchbase.tls import TlsPolicy


class Session:
    """A connection to a cluster whose query service speaks TLS only."""

    def __init__(self, bases: list[str], policy: TlsPolicy) -> None:
        self._bases = bases
        self.tls_policy = policy

    def service_addresses(self, service: str) -> list[str]:
        """Return the service's nodes."""
        return self._bases


class TlsTests(TestCase):
    """The gateway as a client of a service."""

    @inlineCallbacks
    def setUp(self) -> Any:
        """Start the service."""
        self.file = Path(self.mktemp()).absolute()
        self.file.write_bytes(self_signed())
        self.service = Service(lambda asked: asked.answer(b'{"results":[]}'))
        self.addCleanup(self.service.close)
        endpoint = serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={self.file}")
        port = yield endpoint.listen(self.service)
        self.addCleanup(port.stopListening)
        self.base = f"https://127.0.0.1:{port.getHost().port}"
        self.upstream = Upstream(reactor)
        self.addCleanup(self.upstream.close)

    def call(self, policy: TlsPolicy) -> ServiceCall:
        """Make a call with a statement."""
        asked = Asked(QUERY, "POST", b"/query/service", Headers(), is_read=False)
        caller = CallerCredentials("u", "p", b"secret")
        return self.upstream.call(asked, Session([self.base], policy), caller, WholeBody(b"{}"))

    @inlineCallbacks
    def test_trusted(self) -> Any:
        """A node whose certificate is trusted gets the request."""
        call = self.call(TlsPolicy(TlsFiles(trust=str(self.file))))
        answer = yield call.start()
        self.assertEqual((answer.code, len(self.service.asked)), (200, 1))
        call.cancel()
        yield self.service.until(lambda: not self.service.connections)

    @inlineCallbacks
    def test_not_trusted(self) -> Any:
        """A node whose certificate is not trusted gets nothing, and nothing is in doubt."""
        failure = yield self.assertFailure(self.call(TlsPolicy()).start(), NetworkError)
        self.assertIn("certificate", failure.message)
        self.assertFalse(failure.ambiguous)
        self.assertEqual(self.service.asked, [])
        yield self.service.until(lambda: not self.service.connections)
