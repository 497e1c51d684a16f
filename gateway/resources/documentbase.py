"""The common part of a document's resources: from a request to a plan, and from the plan to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.operations.kind import Kind, Plan
from gateway.operations.renderer import Renderer
from gateway.resources.base import BucketResource, document_key, in_collection
from gateway.resources.headers import MutationHeaders, RequestSource

__all__ = ["DocumentResource", "Wanted"]


class Wanted(NamedTuple):
    """The parameters of a request that can be read before the caller is known."""

    kind: Kind
    said: object
    """Parsed members of its body."""
    source: RequestSource


class DocumentResource(BucketResource):
    """Base of the resources that carry out an operation on a document.

    :param now: gives the Unix time in seconds.
    """

    def __init__(
        self, authorizer: Authorizer, pool: ConnectionPool, renderer: Renderer, now: Callable[[], float]
    ) -> None:
        super().__init__(authorizer, pool)
        self._renderer = renderer
        self._now = now

    def enter_large(
        self, connection: Any, request: Request, size: int, begin: Callable[[Any], Any]
    ) -> Deferred[Any]:
        """Read of a document that is known to be large, when there is room for it here and in the window.

        :param size: the document's size in bytes.
        :param begin: called with the connection for large operations; works and returns like a handler.
        """
        lane = connection.bulk

        def ask(_: None) -> Any:
            request.hold_answer(size)
            return lane.carry_out(size, begin)

        room: Deferred[Any] = request.application.answers.enter(size, lane.seconds_for(size))
        return room.addCallback(ask)

    def ask(
        self, request: Request, kind: Kind, headers: MutationHeaders, members: Mapping[str, object] = {}
    ) -> Any:
        """Carry out an operation: read the parameters that need no permission, get a connection, and do the
        rest.

        :param members: of the request's JSON body, or of its query.
        :raises Refusal: 400.
        """
        source = RequestSource(request, headers, members)
        said = kind.read(members, source.words)
        return self.connected(request, self.act, Wanted(kind, said, source))

    def act(self, connection: GatewayConnection, request: Request, wanted: Wanted) -> Any:
        """Plan the operation, and carry it out on a connection."""
        document_key(request)
        plan = wanted.kind.plan(wanted.said, wanted.source, self._now())
        return self.carry_out(connection, request, plan)

    def carry_out(self, connection: GatewayConnection, request: Request, plan: Plan) -> Any:
        """Carry out a plan; returns the result for a handler."""
        key = document_key(request)
        connection = in_collection(connection, request)
        source = RequestSource(request)
        show = partial(self._show, plan)
        # Both have the SDK's methods, with different results.
        driver: Any = connection.operations if plan.is_single else connection
        if plan.is_single:
            call = plan.start(driver, key, source)
            request.render = show
            call.receiver = request
            return call
        started: Deferred[Any] = plan.start(driver, key, source)
        return started.addCallback(show, request)

    def _show(self, plan: Plan, result: Any, request: Request) -> Response | Deferred[Response]:
        return plan.response(self._renderer, result, request)
