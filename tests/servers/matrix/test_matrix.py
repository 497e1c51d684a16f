"""Every row of both catalogues on scripted servers from 5.0 to 8, by each face."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from tests.gcouchbase.support import InGreenlets
from tests.servers.matrix import operations
from tests.servers.matrix.expected import differences
from tests.servers.matrix.faces import GatewayRuns, run_administration, run_operations, run_twisted
from tests.servers.matrix.peers import Cluster
from tests.servers.versions import FEATURES


def arguments(cluster: Cluster) -> dict[str, Any]:
    """Return the arguments of a connection."""
    return {"bucket": "b", "connection_string": cluster.string, "username": "u", "password": "p"}


class BlockingMatrixTests(TestCase):
    """The blocking client, and an administrator's session."""

    face = operations.BLOCKING
    maxDiff = None

    def test_operations(self) -> None:
        """Each operation does on each version what the table says."""
        for version in FEATURES:
            with self.subTest(server=version):
                cluster = Cluster(version)
                self.addCleanup(cluster.stop)
                found = run_operations(self.face, arguments(cluster), cluster.nodes)
                if self.face == operations.BLOCKING:
                    found |= run_administration(arguments(cluster), "u", "p")
                self.assertEqual(differences(version, found), [])
                self.assertEqual(cluster.violations, [])


class GreenletMatrixTests(InGreenlets, BlockingMatrixTests):
    """The gevent client."""

    face = operations.GREENLETS


class TwistedMatrixTests(unittest.TestCase):
    """The Twisted client."""

    maxDiff = None

    @inlineCallbacks
    def test_operations(self) -> Any:
        """Each operation does on each version what the table says."""
        for version in FEATURES:
            cluster = Cluster(version)
            self.addCleanup(cluster.stop)
            found = yield run_twisted(arguments(cluster), cluster.nodes)
            self.assertEqual(differences(version, found), [])
            self.assertEqual(cluster.violations, [])


class GatewayMatrixTests(GatewayRuns):
    """The gateway."""

    credentials = ("u", "p")
    maxDiff = None

    @inlineCallbacks
    def test_resources(self) -> Any:
        """Each resource does on each version what the table says."""
        for version in FEATURES:
            cluster = Cluster(version)
            self.addCleanup(cluster.stop)
            found = yield self.run_resources(cluster.string, "b", cluster.nodes)
            self.assertEqual(differences(version, found), [])
            self.assertEqual(cluster.violations, [])
