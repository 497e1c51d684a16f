"""The common part of the document resources: from a request to a plan, and from the plan to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import RELATIVE_EXPIRY_MAX
from couchbase.protocol.refused import REFUSALS
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.http.known import Known
from gateway.http.request import Request
from gateway.operations.kind import Kind, Plan
from gateway.operations.renderer import Renderer
from gateway.resources.base import BucketResource, document_key, in_collection
from gateway.resources.headers import MUTATION_HEADERS, MutationHeaders, RequestSource, read_mutation

__all__ = ["DocumentResource", "ReadMembers", "ReadPlan", "Wanted"]

ReadMembers = Callable[[Request, Kind, MutationHeaders], Mapping[str, object]]
"""Reads members of a request's body, or of its query; raises Refusal (400)."""

ReadPlan = Callable[[Request], "Plan | None"]
"""Returns the plan of a request with a usual body; ``None`` for any other body."""


class Wanted(NamedTuple):
    """The parameters of a request that can be read before the caller is known."""

    kind: Kind
    said: object
    """The parsed members of the body."""
    source: RequestSource
    form: _Form | None = None
    """Cache key of the plan."""


class DocumentResource(BucketResource):
    """Base of the resources that execute an operation on a document.

    :param now: gives the Unix time in seconds.
    """

    def __init__(
        self, authorizer: Authorizer, pool: ConnectionPool, renderer: Renderer, now: Callable[[], float]
    ) -> None:
        super().__init__(authorizer, pool)
        self._renderer = renderer
        self._now = now
        self._plans: Known[_Form, Plan] = Known(_KNOWN_PLANS)

    def enter_large(
        self, connection: Any, request: Request, size: int, begin: Callable[[Any], Any]
    ) -> Deferred[Any]:
        """Read a document that is known to be large, when there is room for it in the gateway's memory and in
        the window.

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
        self,
        request: Request,
        kind: Kind,
        read: ReadMembers | None = None,
        *,
        early: bool = False,
        usual: ReadPlan | None = None,
    ) -> Any:
        """Execute an operation without a value: read the parameters that need no permission, get a
        connection, and do the rest.

        Plans are cached by the bytes of the requests, so the same operation on other documents is not planned
        again.

        :param read: reads the members of the body, or of the query.
        :param early: whether all parameters are read before the caller is known.
        :param usual: the fast path for a body that is not cached.
        :raises Refusal: 400.
        """
        form = None if read is None and kind.has_value else _form_of(request, kind, read is not None)
        if form is not None:
            plan = self._plans.get(form)
            if plan is None and usual is not None:
                plan = usual(request)
                if plan is not None:
                    self._plans.learn(form, plan)
            if plan is not None:
                return self.connected(request, self.carry_out, plan)
        headers = read_mutation(request)
        members = {} if read is None else read(request, kind, headers)
        return self.ask_with(request, kind, headers, members, form, early=early)

    def ask_with(
        self,
        request: Request,
        kind: Kind,
        headers: MutationHeaders,
        members: Mapping[str, object],
        form: _Form | None = None,
        *,
        early: bool = False,
    ) -> Any:
        """Execute an operation whose headers and members were looked up.

        :param form: cache key of its plan.
        """
        source = RequestSource(request, headers, members)
        wanted = Wanted(kind, kind.read(members, source.words), source, form)
        if early:
            return self.connected(request, self.carry_out, self._plan(wanted))
        return self.connected(request, self.act, wanted)

    def _plan(self, wanted: Wanted) -> Any:
        kind, said, source, form = wanted
        plan: Any = kind.plan(said, source, self._now())
        # A time relative to now differs for the next request; a content type may be as long as a head.
        if (
            form is not None
            and getattr(plan, "expiry", 0) <= RELATIVE_EXPIRY_MAX
            and len(form[1] or b"") <= _LONGEST_FORM
        ):
            self._plans.learn(form, plan)
        return plan

    def act(self, connection: GatewayConnection, request: Request, wanted: Wanted) -> Any:
        """Plan the operation, and execute it on a connection."""
        document_key(request)
        return self.carry_out(connection, request, self._plan(wanted))

    def carry_out(self, connection: Any, request: Request, plan: Plan) -> Any:
        """Execute a plan; returns the result for a handler."""
        key = document_key(request)
        if len(request.parameters) != 2:
            # The path names scope and collection.
            connection = in_collection(connection, request)
        show = plan.shown_by(self._renderer)
        if plan.is_single:
            # The connection itself also has the SDK's methods, but they return other results.
            call = plan.start(connection.operations, key, RequestSource(request))
            # A node's refusal is reported as a result, which costs less than an exception.
            call.quiet = REFUSALS
            request.render = show
            call.receiver = request
            return call
        started: Deferred[Any] = plan.start(connection, key, RequestSource(request))
        return started.addCallback(show, request)


_Form = tuple[str, Any, bytes]
"""The cache key of requests with the same plan: the operation, the content type and the body."""

_LONGEST_FORM = 512
_KNOWN_PLANS = 512


def _form_of(request: Request, kind: Kind, has_body: bool) -> _Form | None:
    """Return the form of a request; ``None`` if its plan is not cached."""
    if request.query_string or request.body_is_awaited or request.body_too_large:
        return None
    headers = request.headers
    if request.selective is not None and not MUTATION_HEADERS.isdisjoint(request.selective.names):
        return None
    declared = headers.get(b"content-type")
    body = request.raw_body if has_body else b""
    if type(declared) is list or len(body) > _LONGEST_FORM:
        return None
    return kind.name, declared, body
