"""Nodes, as the dispatcher sees them."""

from types import SimpleNamespace
from unittest import TestCase

from couchbase import exceptions
from couchbase.exceptions import error_of
from couchbase.protocol.peer import refusal_of, takes_all


def peer(error=None, conversation=None):
    """A node, connected or not."""
    return SimpleNamespace(last_error=error, conversation=conversation, open_conversation=conversation)


class PeerTests(TestCase):
    """What is said of nodes."""

    def test_refusal(self):
        """The first refusal, as an error of its own, if no node is connected."""
        gone, stranger = error_of(exceptions.BUCKET_ENOENT, "gone"), error_of(exceptions.AUTH_ERROR, "who")
        lost = peer(error_of(exceptions.NETWORK_ERROR, "lost"))
        for peers, expected in (
            ([], None),
            ([None, lost, peer()], None),
            ([None, lost, peer(gone), peer(stranger)], gone),
            ([peer(stranger)], stranger),
            ([peer(gone), peer(conversation="talk")], None),
        ):
            found = refusal_of(peers)
            self.assertIs(type(found), type(expected))
            if expected is not None:
                self.assertIs(found.inner_cause, expected)
                self.assertEqual((found.rc, found.message), (expected.rc, expected.message))

    def test_takes_all(self):
        """A conversation that takes every operation, if there is one."""
        talk = SimpleNamespace(takes_all=True)
        self.assertIs(takes_all(peer(conversation=talk)), talk)
        for other in (None, peer(), peer(conversation=SimpleNamespace(takes_all=False))):
            self.assertIsNone(takes_all(other))
