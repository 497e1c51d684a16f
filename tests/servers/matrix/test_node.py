"""Every row of both catalogues on the node that comes along: everything works there."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from tests.couchbase.support import shared_node
from tests.gcouchbase.support import InGreenlets
from tests.servers.matrix import operations
from tests.servers.matrix.expected import COUCHNODE, differences
from tests.servers.matrix.faces import GatewayRuns, run_administration, run_operations, run_twisted

USER, PASSWORD = "Administrator", "password"


def arguments() -> dict[str, Any]:
    """Return the arguments of a connection."""
    string = shared_node(disk=True, nodes=2, replicas=1).string
    return {"bucket": "default", "connection_string": string, "username": USER, "password": PASSWORD}


class BlockingNodeTests(TestCase):
    """The blocking client, and an administrator's session."""

    face = operations.BLOCKING
    maxDiff = None

    def test_operations(self) -> None:
        """Each operation works."""
        found = run_operations(self.face, arguments())
        if self.face == operations.BLOCKING:
            found |= run_administration(arguments(), USER, PASSWORD)
        self.assertEqual(differences(COUCHNODE, found), [])


class GreenletNodeTests(InGreenlets, BlockingNodeTests):
    """The gevent client."""

    face = operations.GREENLETS


class TwistedNodeTests(unittest.TestCase):
    """The Twisted client."""

    maxDiff = None

    @inlineCallbacks
    def test_operations(self) -> Any:
        """Each operation works."""
        found = yield run_twisted(arguments())
        self.assertEqual(differences(COUCHNODE, found), [])


class GatewayNodeTests(GatewayRuns):
    """The gateway."""

    credentials = (USER, PASSWORD)
    maxDiff = None

    @inlineCallbacks
    def test_resources(self) -> Any:
        """Each resource works."""
        found = yield self.run_resources(arguments()["connection_string"], "default")
        self.assertEqual(differences(COUCHNODE, found), [])
