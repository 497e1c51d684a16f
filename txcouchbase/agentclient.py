"""The client for nodes on Twisted's Agent, for interpreters without httptools: slower, else the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from reactor.kinds import IReactor
from reactor.shutdown import has_ended
from txcouchbase.quiet import POOLED_CONNECTIONS, QuietPool
from txcouchbase.tls import WebEndpoints

__all__ = ["AgentClient"]

_NEVER_ANSWERED = (RequestNotSent, RequestTransmissionFailed, ResponseNeverReceived)


@implementer(IBodyProducer)
class _Body:
    """A request's body, written at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write the whole body."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: the whole body is written."""

    def resumeProducing(self) -> None:
        """Do nothing: the whole body is written."""

    def stopProducing(self) -> None:
        """Do nothing: the whole body is written."""


class AgentClient:
    """Sends requests; see :class:`txcouchbase.webclient.WebClient`, whose parameters it takes."""

    def __init__(self, reactor: IReactor, endpoints: WebEndpoints) -> None:
        self._reactor = reactor
        self._endpoints = endpoints
        self._pool = QuietPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = POOLED_CONNECTIONS

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, repeats: bool
    ) -> Deferred[Any]:
        """Send a request; fires with the answer when its head has arrived."""
        sent = Headers()
        for name, value in headers.items():
            sent.setRawHeaders(name, [value])

        def send(pool: HTTPConnectionPool) -> Deferred[Any]:
            producer = None if body is None else _Body(body)
            agent = Agent.usingEndpointFactory(self._reactor, self._endpoints, pool)
            return agent.request(method.encode(), url.encode(), sent, producer)

        def again(failure: Failure) -> Any:
            if has_ended(self._reactor):
                return Deferred()  # No listener is left to notify.
            reasons = getattr(failure.value, "reasons", ())
            if failure.check(*_NEVER_ANSWERED) and not any(one.check(CancelledError) for one in reasons):
                return send(QuietPool(self._reactor, persistent=False))
            return failure

        if repeats:
            asked = send(self._pool).addErrback(again)
        else:
            asked = send(QuietPool(self._reactor, persistent=False))
        return asked.addCallback(_with_pairs)

    def close(self) -> Deferred[Any]:
        """Close the idle connections; fires when they are closed."""
        return self._pool.closeCachedConnections()


def _with_pairs(response: Any) -> Any:
    headers = response.headers.getAllRawHeaders()
    response.headers = [(name, value) for name, values in headers for value in values]
    return response
