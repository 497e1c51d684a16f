"""The cost of a GET and a PUT in the gateway, from the bytes of the request to those of the answer.

Counted in calls and bytecode, so a busy machine changes nothing; the limits are a little above what was
counted when they were written. A count over its limit means that a change has slowed down every request;
lower the limit with every improvement.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from gateway.access.jwks import KeySet, parse_key_set
from gateway.access.keysource import FileKeys
from gateway.access.rules import Rule, RuleTable, Wildcard
from gateway.access.tokens import TokenTerms
from gateway.access.ways import ByToken
from gateway.app import Gateway
from gateway.clients.origins import Doors
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer, ServiceAccount
from gateway.cluster.pool import ConnectionPool
from gateway.http.factory import ChannelFactory
from gateway.limits import Limits
from gateway.plugins.metrics import Metrics
from tests import work
from tests.gateway.access.ruled import ruled
from tests.gateway.access.signing import AUDIENCE, ISSUER, NOW, RSA, jwk, jwks, token
from tests.gateway.support import SECRET, Transport, basic, passthrough, raw_request, read_reply
from tests.txcouchbase import memory
from tests.txcouchbase.memory import STORED, MemoryTestCase

PATH = "/v1/buckets/b/documents/key-17"
COLLECTED = "/v1/buckets/b/scopes/s/collections/c/documents/key-17"
CLIENT = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}
JSON = {"Content-Type": "application/json"}

CLIENTS = 32
"""Connections that ask in the same turn, so that what is done once a turn is shared as it is under load."""

# Request -> calls, then bytecode instructions on CPython 3.11.
LIMITS = {
    "GET": (77, 1490),
    # At most three in a hundred above those of a document without one.
    "GET with an expiry": (77, 1490),
    "GET with credentials": (92, 1715),
    # At most a tenth above those of a password.
    "GET with a token": (97, 1750),
    "GET of a known version": (135, 2110),
    "PUT": (97, 1740),
    "PUT with an expiry": (136, 2450),
    "mutate": (112, 1920),
    # At most a tenth above those of the default collection.
    "GET in a collection": (84, 1585),
    "PUT in a collection": (106, 1840),
}


class Keys(FileKeys):
    """The key of the tests' tokens."""

    def __init__(self) -> None:
        self._keys = parse_key_set(jwks(jwk(RSA)), secrets=False)

    def current(self) -> KeySet:
        """Return it."""
        return self._keys


class HotPathTests(MemoryTestCase):
    """The whole way, with every feature on and nothing left out but sockets."""

    def open(self, authorizer: Authorizer | None = None) -> list[Transport]:
        """Return clients of a gateway whose connection to the cluster is up."""
        connection = self.connect(GatewayConnection)
        pool = ConnectionPool(lambda *_: connection, self.clock)
        gateway = Gateway(
            authorizer or ServiceAccount("service", "secret", SECRET),
            pool,
            self.clock,
            now=self.clock.seconds,
            limits=Limits(),
            is_ready=lambda: None,  # type: ignore[arg-type, return-value]
            plugins=[Metrics()],
            guard=Doors(is_open=authorizer is None),
        )
        self.factory = ChannelFactory(gateway, self.clock)
        clients = []
        for _ in range(CLIENTS):
            transport = Transport()
            transport.protocol = self.factory.buildProtocol(None)
            transport.protocol.makeConnection(transport)
            clients.append(transport)
        return clients

    def cost(
        self, unit: Callable[[Callable[[], object]], int], clients: list[Transport], request: bytes
    ) -> int:
        """Count what a request of each client costs: when it arrives, when the turn ends, when nodes
        answer."""

        def arrive() -> None:
            for client in clients:
                client.protocol.dataReceived(request)

        counted = unit(arrive) + unit(lambda: self.clock.advance(0))
        # The node's work is not counted.
        answers = self.node.answers()
        return counted + unit(lambda: self.node.protocol.dataReceived(answers))

    def check(
        self, name: str, request: bytes, authorizer: Authorizer | None = None, status: int = 200
    ) -> None:
        """Compare what a request costs with its limits."""
        clients = self.open(authorizer)
        for client in clients:
            # The first request of all opens the pool's connection, and fills what is remembered.
            client.protocol.dataReceived(request)
            for _ in range(3):
                self.carry_out()
        gc.disable()
        try:
            for unit, most in zip((work.calls, work.instructions), LIMITS[name], strict=True):
                if unit is work.instructions and sys.version_info[:2] != (3, 11):
                    continue
                for client in clients:
                    client.clear()
                each = self.cost(unit, clients, request) / CLIENTS
                for client in clients:
                    reply, rest = read_reply(client.value())
                    self.assertEqual((reply.status, rest), (status, b""))
                self.assertLessEqual(each, most, f"{unit.__name__} for each {name}")
                # A limit far above what is counted would guard nothing.
                self.assertGreater(each, most * 0.8, f"{unit.__name__} for each {name}")
        finally:
            gc.enable()

    def test_get(self) -> None:
        """A document read."""
        self.patch(memory, "LOOKUP", memory.LOOKUP.replace(b"\x0a1700000000", b"\x010"))
        self.check("GET", raw_request("GET", PATH, headers=CLIENT))

    def test_get_with_an_expiry(self) -> None:
        """A document with an expiry, as in all other tests, costs little more."""
        self.check("GET with an expiry", raw_request("GET", PATH, headers=CLIENT))

    def test_get_with_credentials(self) -> None:
        """A document read by a caller who proves himself."""
        headers = {**CLIENT, **basic("user", "password")}
        self.check("GET with credentials", raw_request("GET", PATH, headers=headers), passthrough())

    def test_get_with_a_token(self) -> None:
        """A document read by a caller with a token, which was verified before, as a rule allows."""
        way = ByToken(Keys(), TokenTerms(ISSUER, (AUDIENCE,)), lambda: NOW)
        reads = Rule("r", (("subject", Wildcard("ann")),), ("b",), ("*",), ("*",), frozenset({"read"}), None)
        authorizer = ruled(RuleTable((reads,), {}), [way], now=lambda: NOW)
        headers = {**CLIENT, "Authorization": "Bearer " + token()}
        self.check("GET with a token", raw_request("GET", PATH, headers=headers), authorizer)

    def test_put(self) -> None:
        """A document stored."""
        self.check("PUT", raw_request("PUT", PATH, STORED, {**CLIENT, **JSON}))

    def test_get_of_a_known_version(self) -> None:
        """A client that has this version already."""
        headers = {**CLIENT, "If-None-Match": "*"}
        self.check("GET of a known version", raw_request("GET", PATH, headers=headers), status=304)

    def test_put_with_an_expiry(self) -> None:
        """A document stored for a time."""
        headers = {**CLIENT, **JSON, "Expires": "1h"}
        self.check("PUT with an expiry", raw_request("PUT", PATH, STORED, headers))

    def test_mutate(self) -> None:
        """One path of a document changed: little more than storing all of it."""
        body = b'{"operations":[{"operation":"DictSet","path":"a.b","value":42}]}'
        self.check("mutate", raw_request("POST", PATH + "/mutate", body, {**CLIENT, **JSON}))

    def test_collections(self) -> None:
        """The same in a named collection."""
        self.check("GET in a collection", raw_request("GET", COLLECTED, headers=CLIENT))
        self.check("PUT in a collection", raw_request("PUT", COLLECTED, STORED, {**CLIENT, **JSON}))
