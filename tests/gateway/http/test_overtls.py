"""The tests of the channel, property tests among them, once more over TLS."""

from __future__ import annotations

from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from tests.gateway import support
from tests.gateway.http import test_channel, test_conversation, test_drain, test_early, test_phases
from tests.gateway.http.securetransport import SecureHalfClosing, SecureTransport


class OverTls(SynchronousTestCase):
    """Clients speak TLS."""

    module: ModuleType = support
    """Where the tests come from."""

    def setUp(self) -> None:
        """Have the other module's clients do so."""
        for module in (support, self.module):
            for name, secure in (("Transport", SecureTransport), ("HalfClosing", SecureHalfClosing)):
                if hasattr(module, name):
                    self.patch(module, name, secure)
        super().setUp()


class SecureConversationTests(OverTls, test_conversation.ConversationTests):
    """Requests and answers in order, over TLS."""

    module = test_conversation


class SecureArbitraryTests(OverTls, test_conversation.ArbitraryTests):
    """Arbitrary bytes within TLS."""

    module = test_conversation


class SecureLaterTests(OverTls, test_conversation.LaterTests):
    """Slow answers and fast ones, over TLS."""

    module = test_conversation


class SecurePhaseTests(OverTls, test_phases.PhaseTests):
    """What clients, handlers and time do, in any order, over TLS."""

    module = test_phases


class SecureConnectionTests(OverTls, test_channel.ConnectionTests):
    """Connections that stay open, over TLS."""


class SecureClosingTests(OverTls, test_channel.ClosingTests):
    """Connections that end, over TLS."""


class SecureMalformedTests(OverTls, test_channel.MalformedTests):
    """Malformed requests within TLS."""


class SecureBodyTests(OverTls, test_channel.BodyTests):
    """Bodies of requests, over TLS."""


class SecureStreamTests(OverTls, test_channel.StreamTests):
    """Streamed bodies and answers, over TLS."""


class SecureTimeoutTests(OverTls, test_channel.TimeoutTests):
    """Slow clients, over TLS."""


class SecureStopTests(OverTls, test_channel.StopTests):
    """The gateway stops, and clients speak TLS."""


class SecureDrainTests(OverTls, test_drain.DrainTests):
    """The gateway stops slowly, and clients speak TLS."""

    module = test_drain


class SecureRefusalTests(OverTls, test_early.RefusalTests):
    """Refusals before the body, over TLS."""


class SecureExpectTests(OverTls, test_early.ExpectTests):
    """``Expect``, over TLS."""


class SecureWaitingTests(OverTls, test_early.WaitingTests):
    """Bodies that have to wait, over TLS."""
