"""What a request costs in the gateway, counted in calls and bytecode: for the tests that limit it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gateway.app import Gateway
from gateway.clients.origins import Doors
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer, ServiceAccount
from gateway.cluster.pool import ConnectionPool
from gateway.http.application import EndHook, Guard
from gateway.http.factory import ChannelFactory
from gateway.limits import Limits
from gateway.plugins.metrics import Metrics
from tests import work
from tests.gateway.support import SECRET, Transport, read_reply
from tests.txcouchbase.memory import MemoryTestCase

__all__ = ["CLIENT", "CLIENTS", "Arrival", "HotPathCase"]

CLIENT = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}
"""Headers of every request."""

CLIENTS = 32
"""Connections that ask in the same turn, so that what is done once a turn is shared as it is under load."""


Arrival = tuple[Any, bytes]
"""(the protocol where something arrives, what arrives)."""


class HotPathCase(MemoryTestCase):
    """The whole way, with every feature on and nothing left out but sockets.

    :cvar limits: request -> calls, then bytecode instructions on CPython 3.11.
    """

    limits: dict[str, tuple[int, int]]

    def open(
        self,
        authorizer: Authorizer | None = None,
        *,
        guard: Guard | None = None,
        end_hooks: Iterable[EndHook] = (),
        limits: Limits | None = None,
    ) -> list[Transport]:
        """Return clients of a gateway whose connection to the cluster is up."""
        connection = self.connect(GatewayConnection)
        pool = ConnectionPool(lambda *_: connection, self.clock)
        gateway = Gateway(
            authorizer or ServiceAccount("service", "secret", SECRET),
            pool,
            self.clock,
            now=self.clock.seconds,
            limits=limits or Limits(),
            is_ready=lambda: None,  # type: ignore[arg-type, return-value]
            plugins=[Metrics()],
            end_hooks=end_hooks,
            guard=guard or Doors(is_open=authorizer is None),
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

        def deliver() -> None:
            for protocol, answers in arrived:
                protocol.dataReceived(answers)

        counted = unit(arrive) + unit(lambda: self.clock.advance(0))
        # The work of nodes is not counted.
        while arrived := self.arrivals():
            counted += unit(deliver)
            if any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                counted += unit(lambda: self.clock.advance(0))
        return counted

    def arrivals(self) -> list[Arrival]:
        """Let nodes answer what was sent to them; return (where it arrives, answers)."""
        return [(self.node.protocol, self.node.answers())] if self.node.transport.writes else []

    def check(
        self,
        name: str,
        request: bytes,
        authorizer: Authorizer | None = None,
        status: int = 200,
        clients: list[Transport] | None = None,
        *,
        method: str = "GET",
    ) -> None:
        """Compare what a request costs with its limits.

        :param clients: of :meth:`open`; by default those of a gateway with that authorizer.
        :param method: of the request, which decides whether its answer has a body.
        """
        if clients is None:
            clients = self.open(authorizer)
        for client in clients:
            # The first request of all opens the pool's connection, and fills what is remembered.
            client.protocol.dataReceived(request)
            for _ in range(3):
                self.carry_out()
                for protocol, answers in self.arrivals():
                    protocol.dataReceived(answers)
        gc.disable()
        try:
            for unit, most in zip((work.calls, work.instructions), self.limits[name], strict=True):
                if unit is work.instructions and sys.version_info[:2] != (3, 11):
                    continue
                for client in clients:
                    client.clear()
                each = self.cost(unit, clients, request) / CLIENTS
                for client in clients:
                    reply, rest = read_reply(client.value(), method)
                    self.assertEqual((reply.status, rest), (status, b""))
                self.assertLessEqual(each, most, f"{unit.__name__} for each {name}")
                # A limit far above what is counted would guard nothing.
                self.assertGreater(each, most * 0.8, f"{unit.__name__} for each {name}")
        finally:
            gc.enable()
