"""The interfaces of the gateway's plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request as TwistedRequest
from zope.interface import Attribute, Interface

from gateway.http.endpoints import Endpoint
from gateway.http.limits import Budget
from gateway.http.request import Handler, Request
from gateway.http.response import Response
from gateway.http.unread import UnreadAnswers
from gateway.limits import Limits
from gateway.metricvalues import MetricValues

if TYPE_CHECKING:
    from klein import Klein

    from gateway.cluster.connection import GatewayConnection

__all__ = ["FrontPage", "Gateway", "IGatewayPlugin", "ISharedMetrics"]


class FrontPage(Protocol):
    """The page that ``/`` serves to browsers; see :class:`gateway.resources.index.Index`."""

    page: Callable[[Request], Response] | None


class Gateway(Protocol):
    """The part of the gateway that plugins may use; see :class:`gateway.app.Gateway`."""

    app: Klein
    clock: IReactorTime
    seconds: Callable[[], float]
    """Returns the time for durations; ``started`` of requests is such a time."""

    @property
    def limits(self) -> Limits:
        """The gateway's limits on size and time."""

    @property
    def security_schemes(self) -> Mapping[str, Mapping[str, object]]:
        """How callers authenticate, as OpenAPI security schemes by name."""

    def connection(self, request: Request, bucket: str) -> Deferred[GatewayConnection]:
        """Return a Deferred of a connection to a bucket as the caller of a request."""

    def run_under_klein(
        self,
        twisted_request: TwistedRequest,
        endpoint: Endpoint,
        handler: Handler,
        parameters: dict[str, Any],
    ) -> Deferred[Any]:
        """Serve a request that Klein dispatched; the callback for :func:`gateway.http.routing.mount`."""

    def count_operation(self, operation: str, outcome: str, count: int) -> None:
        """Report key-value operations to all plugins."""

    @property
    def index(self) -> FrontPage:
        """The resource at ``/``: set its ``page`` to serve a page to browsers."""

    # ---- for the gateway's own metrics; may change -----------------------------------------------

    under_way: int
    """Requests that have no answer yet."""
    count_clients: Callable[[], int]
    count_refused: Callable[[], dict[str, int]]
    budget: Budget
    unread_answers: UnreadAnswers

    @property
    def pool(self) -> Sized:
        """Connections to the cluster."""


class IGatewayPlugin(Interface):
    """A drop-in, found by ``twisted.plugin`` in the package ``gateway.plugins``.

    A module there defines an instance; each process uses one instance. Hooks run for every request, so they
    must be fast, and they must not fail: an exception from a hook turns the answer into a 500.
    """

    name: str = Attribute("Name by which an option can disable the plugin: lower-case letters.")

    def attach(gateway: Gateway) -> None:
        """Receive the gateway, before it listens.

        A plugin may use its ``connection(request, bucket)``, ``run_under_klein``, ``app``, ``clock``,
        ``limits`` and ``count_operation``; docs/howto/plugins.md explains them.
        """

    def routes(app: Klein) -> None:
        """Declare routes on ``app``, with ``gateway.http.routing.mount`` or with Klein's own decorators."""

    def on_request(request: Request) -> Response | None:
        """Inspect a request before its handler runs; a response returned here is the answer.

        Requests from web pages whose ``Host`` or ``Origin`` is not allowed are refused in any case.
        """

    def on_response(request: Request, response: Response, seconds: float) -> None:
        """Inspect an answer, and change it if necessary.

        :param seconds: time since the request's headers were complete. The body of a streamed answer has not
            begun.
        """

    def on_end(request: Request, status: int, seconds: float) -> None:
        """Inspect a finished request: the client's system has received the answer, or the answer was cut off.

        Called once for each request. ``request.cut`` names the side that cut the answer off, if any;
        ``request.received_bytes`` and ``request.sent_bytes`` are the sizes of both bodies.

        :param status: of the answer; 499 if the client left before the end of it.
        :param seconds: time since the request's headers were complete.
        """

    def on_operation(operation: str, outcome: str, count: int) -> None:
        """Count key-value operations.

        :param operation: its SDK name, for example ``get``.
        :param outcome: ``ok``, or the error code.
        :param count: number of operations.
        """


class ISharedMetrics(Interface):
    """A plugin that counts events, and shows the totals of all workers.

    Names of metrics are shared by all plugins.
    """

    gather: Callable[[], Deferred[MetricValues]] | None = Attribute(
        "Set by a worker, after ``attach``: returns a Deferred of the sums over all workers, including those "
        "that have ended; it fails with a Refusal if the sums are not available. ``None`` if there is only "
        "this process."
    )

    def metrics() -> MetricValues:
        """Return the counts of this process."""
