"""What a plugin of the gateway offers."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request as TwistedRequest
from zope.interface import Attribute, Interface

from gateway.figures import Figures
from gateway.http.endpoints import Endpoint
from gateway.http.limits import Budget
from gateway.http.request import Handler, Request
from gateway.http.response import Response
from gateway.limits import Limits

if TYPE_CHECKING:
    from klein import Klein

__all__ = ["Gateway", "IGatewayPlugin", "ISharedFigures"]


class Gateway(Protocol):
    """What a plugin may use of the gateway; see :class:`gateway.app.Gateway`."""

    app: Klein
    clock: IReactorTime

    @property
    def limits(self) -> Limits:
        """Its settings of size and time."""

    def connection(self, request: Request, bucket: str) -> Deferred[Any]:
        """Return a Deferred of a connection to a bucket as the caller of a request."""

    def run_under_klein(
        self,
        twisted_request: TwistedRequest,
        endpoint: Endpoint,
        handler: Handler,
        parameters: dict[str, Any],
    ) -> Deferred[Any]:
        """Serve a request that Klein dispatched; what :func:`gateway.http.routing.mount` wants."""

    def count_operation(self, operation: str, outcome: str, count: int) -> None:
        """Tell all plugins about key-value operations."""

    # ---- what the gateway's own metrics count; it may change -------------------------------------

    under_way: int
    """Requests that have no answer yet."""
    count_clients: Callable[[], int]
    count_refused: Callable[[], dict[str, int]]
    budget: Budget

    @property
    def pool(self) -> Sized:
        """Connections to the cluster."""


class IGatewayPlugin(Interface):
    """A drop-in, found by ``twisted.plugin`` in the package ``gateway.plugins``.

    A module there holds an instance; one instance serves one process. Hooks run for every
    request, so they have to be quick, and they must not fail: a hook that raises makes a 500.
    """

    name: str = Attribute("Name by which an option can leave the plugin out: lower-case letters.")

    def attach(gateway: Gateway) -> None:
        """Get to know the gateway, before it listens.

        A plugin may use its ``connection(request, bucket)``, ``run_under_klein``, ``app``, ``clock``,
        ``limits`` and ``count_operation``; docs/howto/plugins.md tells what for.
        """

    def routes(app: Klein) -> None:
        """Declare routes on ``app``, with ``gateway.http.routing.mount`` or as Klein does."""

    def on_request(request: Request) -> Response | None:
        """Look at a request before its handler does; a response returned here is the answer.

        It is not sent to pages that are barred by their ``Host`` or ``Origin``: those are refused.
        """

    def on_response(request: Request, response: Response, seconds: float) -> None:
        """Look at an answer, and change it if need be.

        :param seconds: since the request's headers were complete. The body of a streamed answer
            has not begun.
        """

    def on_end(request: Request, status: int, seconds: float) -> None:
        """Look at a request that is over: its answer was taken by the client's system, or is cut.

        Called once for each request; ``request.cut`` names who cut the answer, if it was cut,
        ``request.received_bytes`` and ``request.sent_bytes`` the sizes of both bodies.

        :param status: of the answer; 499 if the client left before the end of it.
        :param seconds: since the request's headers were complete.
        """

    def on_operation(operation: str, outcome: str, count: int) -> None:
        """Count key-value operations.

        :param operation: SDK name, for instance ``get``.
        :param outcome: ``ok``, or the error code.
        :param count: how many of them.
        """


class ISharedFigures(Interface):
    """A plugin that counts, and wants to show what all workers have counted.

    Names of figures are shared by all plugins.
    """

    gather: Callable[[], Deferred[Figures]] | None = Attribute(
        "Set by a worker, after ``attach``: gives the sums over all workers, those that have ended too; "
        "fails with a Refusal if they cannot be had. ``None`` if there is this process only."
    )

    def figures() -> Figures:
        """Return what this process has counted."""
