"""Every operation and resource against clusters that others wrote: they do what docs/servers.md says."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from twisted.internet.defer import inlineCallbacks
from twisted.trial import unittest

from tests.gcouchbase.support import InGreenlets
from tests.judges import caves
from tests.judges.caves import Caves
from tests.judges.mock import Mock, missing
from tests.servers.matrix import operations
from tests.servers.matrix.expected import differences
from tests.servers.matrix.faces import GatewayRuns, run_administration, run_operations, run_twisted


class OneNode:
    """CouchbaseMock with one node."""

    name = "CouchbaseMock, 1 node"
    skip = missing()
    nodes, replicas = 1, 0
    administrator = ("Administrator", "password")
    credentials = ("protected", "secret")
    bucket = "protected"

    def setUp(self) -> None:
        """Start it."""
        if self.skip:
            self.skipTest(self.skip)  # type: ignore[attr-defined]
        self.server = self.start()
        self.addCleanup(self.server.stop)  # type: ignore[attr-defined]

    def start(self) -> Any:
        """Return the program, running."""
        return Mock(self.nodes, self.replicas, "protected:secret")

    def string(self) -> str:
        """Return the connection string."""
        return self.server.string_of(self.bucket)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a connection."""
        user, password = self.credentials
        named = {"bucket": self.bucket, "username": user, "password": password}
        return {**named, "connection_string": self.string()}


class FourNodes(OneNode):
    """CouchbaseMock with four nodes and two replicas."""

    name = "CouchbaseMock, 4 nodes"
    nodes, replicas = 4, 2


class InGo(OneNode):
    """gocaves, which has two nodes."""

    name = "gocaves"
    skip = caves.missing()
    credentials = (caves.USER, caves.PASSWORD)
    administrator = credentials
    bucket = "default"

    def start(self) -> Any:
        """Return the program, running."""
        return Caves()

    def string(self) -> str:
        """Return the connection string."""
        return self.server.string


class BlockingMixin:
    """Tests of the blocking client and the administrator's session."""

    maxDiff = None

    def test_operations(self) -> None:
        """Each operation does what the table says."""
        found = run_operations(operations.BLOCKING, self.arguments())
        found |= run_administration(self.arguments(), *self.administrator)
        self.assertEqual(differences(self.name, found), [])  # type: ignore[attr-defined]


class GreenletMixin(InGreenlets):
    """Tests of the gevent client."""

    maxDiff = None

    def test_operations(self) -> None:
        """Each operation does what the table says."""
        found = run_operations(operations.GREENLETS, self.arguments())  # type: ignore[attr-defined]
        self.assertEqual(differences(self.name, found), [])  # type: ignore[attr-defined]


class TwistedMixin:
    """Tests of the Twisted client."""

    maxDiff = None
    timeout = 240

    @inlineCallbacks
    def test_operations(self) -> Any:
        """Each operation does what the table says."""
        found = yield run_twisted(self.arguments())  # type: ignore[attr-defined]
        self.assertEqual(differences(self.name, found), [])  # type: ignore[attr-defined]


class GatewayMixin:
    """Tests of the gateway."""

    maxDiff = None
    timeout = 240

    @inlineCallbacks
    def test_resources(self) -> Any:
        """Each resource does what the table says."""
        found = yield self.run_resources(self.string(), self.bucket)  # type: ignore[attr-defined]
        self.assertEqual(differences(self.name, found), [])  # type: ignore[attr-defined]


for _server in (OneNode, FourNodes, InGo):
    for _mixin, _case in (
        (BlockingMixin, TestCase),
        (GreenletMixin, TestCase),
        (TwistedMixin, unittest.TestCase),
        (GatewayMixin, GatewayRuns),
    ):
        _name = f"{_mixin.__name__.removesuffix('Mixin')}{_server.__name__}Tests"
        globals()[_name] = type(
            _name, (_mixin, _server, _case), {"__module__": __name__, "__doc__": _mixin.__doc__}
        )
