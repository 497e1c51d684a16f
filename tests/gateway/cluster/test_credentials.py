"""Credentials of callers that the cluster decides about."""

from __future__ import annotations

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from gateway.cluster.credentials import Passthrough
from gateway.http.request import Request


class RememberedTests(SynchronousTestCase):
    """Headers that were seen before."""

    def test_no_long_names(self) -> None:
        """Nobody has confirmed them yet: names as long as a head take no memory."""
        authorizer = Passthrough(b"secret")
        for user, kept in (("u" * 10_000, 0), ("ann", 1), ("u" * 10_000, 1), ("ann", 1)):
            header = b"Basic " + b64encode(f"{user}:password".encode())
            request = Request("GET", b"/", b"", {b"authorization": header})
            self.assertEqual(authorizer.identify(request).user, user)
            self.assertEqual(len(authorizer._known), kept)
