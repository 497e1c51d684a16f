"""Requests to the cluster's services: connections, limits per caller, credentials."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Protocol

from twisted.web.client import Agent

from gateway.cluster.credentials import BY_CERTIFICATE, CallerCredentials
from gateway.dialect.errors import Refusal
from gateway.fairness.shares import Shares
from gateway.services.calls import Asked, ServiceCall
from gateway.services.connections import ServicePool
from gateway.services.kinds import Kind
from gateway.services.nodes import NodeChoice
from gateway.services.outgoing import StreamBody, WholeBody
from txcouchbase.http import CONNECT_TIMEOUT_SECONDS
from txcouchbase.tls import TlsPolicy, WebEndpoints

__all__ = ["DEFAULT_TIMEOUT_SECONDS", "Session", "Upstream", "authorization_of"]

DEFAULT_TIMEOUT_SECONDS = 75.0

KEPT_SECONDS = 3
"""How long an idle connection to a service is kept, in seconds. Servers keep it longer: if a request is sent
while the server closes, it is unknown whether it was executed."""

KEPT_CONNECTIONS = 8
"""Largest number of idle connections that are kept to one node."""

_MOST_POLICIES = 64


class Session(Protocol):
    """The part of a caller's connection to the cluster that services need."""

    def service_addresses(self, service: str) -> list[str]:
        """Return the base URL of each node that runs a service; see
        :meth:`txcouchbase.http.HttpService.addresses`."""

    @property
    def tls_policy(self) -> TlsPolicy:
        """The TLS certificates for its nodes."""


def authorization_of(caller: CallerCredentials) -> bytes | None:
    """Return the value of ``Authorization`` for a service; ``None`` if a certificate names the user."""
    if caller.user == BY_CERTIFICATE:
        return None
    return b"Basic " + b64encode(f"{caller.user}:{caller.password}".encode())


class Upstream:
    """Sends requests to services.

    :param reactor: connects.
    :param timeout: how long a node may neither send nor read anything, in seconds.
    :param most: largest number of concurrent requests; one caller may have half of them.
    """

    def __init__(self, reactor: Any, timeout: float = DEFAULT_TIMEOUT_SECONDS, most: int = 256) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self.shares = Shares(most)
        self._choices: dict[str, NodeChoice] = {}
        # One agent per TLS policy, so that no caller uses a connection that was opened with another's
        # certificate.
        self._agents: dict[Any, tuple[Agent, ServicePool]] = {}

    def call(
        self,
        asked: Asked,
        session: Session,
        caller: CallerCredentials,
        body: StreamBody | WholeBody | None = None,
        timeout: float | None = None,
    ) -> ServiceCall:
        """Return a call that is ready to start.

        :param timeout: how long a node may neither send nor read anything, in seconds; ``None`` for the
            default.
        :raises Refusal: 501, no node of the cluster runs the service; 503, too many requests are under way.
        """
        bases = session.service_addresses(asked.kind.service)
        owner = None if caller.stands_for_anyone else (caller.name, caller.digest)
        if not bases:
            raise absent(asked.kind)
        if not self.shares.take(owner):
            raise Refusal(
                "Overloaded", "Too many requests to services of the cluster are under way.", resource=""
            )
        choice = self._choices.get(asked.kind.service)
        if choice is None:
            choice = self._choices[asked.kind.service] = NodeChoice(self._reactor.seconds)
        return ServiceCall(
            asked,
            body,
            self._agent(session.tls_policy),
            choice.order(bases),
            choice,
            self._reactor,
            self._timeout if timeout is None else timeout,
            lambda: self.shares.give(owner),
        )

    def close(self) -> None:
        """Close idle connections."""
        agents, self._agents = self._agents, {}
        for _, pool in agents.values():
            pool.closeCachedConnections()

    def _agent(self, policy: TlsPolicy) -> Agent:
        known = self._agents.get(policy)
        if known is None:
            if len(self._agents) >= _MOST_POLICIES:
                self.close()
            pool = ServicePool(self._reactor, KEPT_CONNECTIONS, KEPT_SECONDS)
            endpoints = WebEndpoints(self._reactor, policy, CONNECT_TIMEOUT_SECONDS)
            agent = Agent.usingEndpointFactory(self._reactor, endpoints, pool)
            known = self._agents[policy] = agent, pool
        return known[0]


def absent(kind: Kind) -> Refusal:
    """Return the refusal of a request for a service that no node runs."""
    return Refusal(
        "NotSupported",
        f"No node of the cluster runs the {kind.title} ({kind.service} in its map). Add it to a node of a "
        "Couchbase Server cluster; the embedded node has only documents and views.",
        resource="",
    )
