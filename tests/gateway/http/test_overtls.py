"""The property tests of the channel's conversations, once more over TLS."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.gateway.http import test_conversation
from tests.gateway.http.securetransport import SecureTransport


class OverTls(SynchronousTestCase):
    """Clients speak TLS."""

    def setUp(self) -> None:
        """Have the other module's clients do so."""
        self.patch(test_conversation, "Transport", SecureTransport)
        super().setUp()


class SecureConversationTests(OverTls, test_conversation.ConversationTests):
    """Requests and answers in order, over TLS."""


class SecureArbitraryTests(OverTls, test_conversation.ArbitraryTests):
    """Arbitrary bytes within TLS."""
