"""``/_p/{service}/...``: the cluster's other services, proxied as the Data API does."""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer, CallerCredentials
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.conditions import CONDITIONS, ENCODING, PARTS
from gateway.dialect.errors import Refusal, bad_request, too_large
from gateway.http.limits import Budget
from gateway.http.request import NotYet, Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.openapi.description import Answer, Body, Example, Parameter, described
from gateway.openapi.schemas import ANY, TEXT, choice
from gateway.services.calls import Asked
from gateway.services.headers import answer_headers, request_headers
from gateway.services.kinds import KINDS, Kind, Policy, checked_target
from gateway.services.outgoing import StreamBody, WholeBody
from gateway.services.readonly import FORM, read_only_body, read_only_query
from gateway.services.relay import relayed
from gateway.services.upstream import Upstream, authorization_of

__all__ = ["Services"]

PROXIED = ("/_p/<service>/<path:rest>",)
TAKES = (*CONDITIONS, *ENCODING, *PARTS)

_TAG = "Other services"
_TEXT = """\
The service's answer is passed on: status, headers and body. `--proxy-service` and `--proxy-admin` set the
available services and the allowed requests; by default there are none."""
_PATH = (
    Parameter("service", "The service: `query`, `fts`, `cbas` or `mgmt`.", choice(*KINDS), "query"),
    Parameter("rest", "The path at the service, from its root.", TEXT, "query/service"),
)
_ANYTHING = {"*/*": ANY}
_BODY = Body(_ANYTHING, "A body for the service.", required=False)
_ANSWERS = {200: Answer("The answer of the service, whatever its status.", _ANYTHING)}
_ERRORS = "RouteNotFound ServiceForbidden"
_EXAMPLES = (Example("A disabled service", 404),)

MAX_STATEMENT_BYTES = 2**20
"""Largest statement, with its parameters, that the gateway checks, in bytes."""


class _Plan(NamedTuple):
    """A request that may be proxied."""

    kind: Kind
    method: str
    path: bytes
    query: bytes
    is_read: bool
    caller: CallerCredentials
    must_be_read: bool
    """Whether the body must be a read-only statement."""


class Services:
    """Passes requests on to services of the cluster."""

    checks_first = True

    def __init__(
        self, authorizer: Authorizer, pool: ConnectionPool, upstream: Upstream, policy: Policy
    ) -> None:
        self._authorizer = authorizer
        self._pool = pool
        self._upstream = upstream
        self._policy = policy

    @endpoint("proxy_get", "GET", *PROXIED, operation="proxy", streamed=True, takes=TAKES)
    @described(_TAG, _ANSWERS, path=_PATH, errors=_ERRORS, examples=_EXAMPLES, text=_TEXT)
    def proxy_get(self, request: Request) -> Any:
        """Pass a request on."""
        return self._proxy(request)

    @endpoint("proxy_post", "POST", *PROXIED, operation="proxy", streamed=True, takes=TAKES)
    @described(_TAG, _ANSWERS, path=_PATH, body=_BODY, errors=_ERRORS, examples=_EXAMPLES, text=_TEXT)
    def proxy_post(self, request: Request) -> Any:
        """Pass a request on, with its body."""
        return self._proxy(request)

    @endpoint("proxy_put", "PUT", *PROXIED, operation="proxy", streamed=True, takes=TAKES)
    @described(_TAG, _ANSWERS, path=_PATH, body=_BODY, errors=_ERRORS, examples=_EXAMPLES, text=_TEXT)
    def proxy_put(self, request: Request) -> Any:
        """Pass a request on, with its body."""
        return self._proxy(request)

    @endpoint("proxy_patch", "PATCH", *PROXIED, operation="proxy", streamed=True, takes=TAKES)
    @described(_TAG, _ANSWERS, path=_PATH, body=_BODY, errors=_ERRORS, examples=_EXAMPLES, text=_TEXT)
    def proxy_patch(self, request: Request) -> Any:
        """Pass a request on, with its body."""
        return self._proxy(request)

    @endpoint("proxy_delete", "DELETE", *PROXIED, operation="proxy", streamed=True, takes=TAKES)
    @described(_TAG, _ANSWERS, path=_PATH, errors=_ERRORS, examples=_EXAMPLES, text=_TEXT)
    def proxy_delete(self, request: Request) -> Any:
        """Pass a request on."""
        return self._proxy(request)

    def _proxy(self, request: Request) -> Any:
        kind, access = self._policy.kind(request.parameters["service"])
        segments = request.path.split(b"/", 3)
        below = b"/" + segments[3] if len(segments) > 3 else b""
        target, plain = checked_target(below, request.query_string)
        must_be_read = self._policy.check(kind, access, request.method, plain)
        query = request.query_string
        if must_be_read and request.method == "GET":
            if request.stream is not None:
                raise bad_request(
                    "GET of a statement takes parameters in the query string only; expected no body"
                )
            query, must_be_read = read_only_query(query), False
        is_read = request.method in ("GET", "HEAD") or kind.is_read(request.method, plain)
        operation, request.operation = request.operation, "open"
        try:
            request.caller = caller = self._authorizer.identify(request)
        except NotYet:
            # The handler will be called again, from its beginning.
            request.operation = operation
            raise
        path = target.partition(b"?")[0]
        plan = _Plan(kind, request.method, path, query, is_read, caller, must_be_read)
        session = self._pool.connection(None, caller)
        if isinstance(session, Deferred):
            return session.addCallback(self._opened, request, plan, operation)
        return self._opened(session, request, plan, operation)

    def _opened(
        self, session: GatewayConnection, request: Request, plan: _Plan, operation: str
    ) -> Deferred[Response]:
        request.operation = operation
        if not plan.must_be_read:
            return self._pass_on(session, request, plan, _body_of(request))
        if b"content-encoding" in request.headers:
            raise bad_request(
                "Content-Encoding: the gateway must read the statement; send it without encoding"
            )
        collector = _Collector(request.application.budget)
        if request.stream is None:
            collector.body_finished()
        else:
            request.stream.deliver_to(collector)
        return collector.done.addCallback(self._checked, session, request, plan).addBoth(collector.release)

    def _checked(
        self, body: bytes, session: GatewayConnection, request: Request, plan: _Plan
    ) -> Deferred[Response]:
        checked = read_only_body(body, request.header(b"Content-Type") or FORM, plan.query)
        return self._pass_on(session, request, plan._replace(is_read=True), WholeBody(checked))

    def _pass_on(
        self,
        session: GatewayConnection,
        request: Request,
        plan: _Plan,
        body: StreamBody | WholeBody | None,
    ) -> Deferred[Response]:
        caller, kind = plan.caller, plan.kind
        headers = request_headers(request, authorization_of(caller))
        target = plan.path + b"?" + plan.query if plan.query else plan.path
        asked = Asked(kind, plan.method, target, headers, plan.is_read)
        call = self._upstream.call(asked, session, caller, body)
        is_anyone = caller.stands_for_anyone
        prefix = b"/_p/" + kind.name.encode("ascii")

        def returned(response: IResponse) -> list[tuple[bytes, bytes]]:
            return answer_headers(response.headers, call.base, prefix, is_anyone=is_anyone)

        return relayed(call, returned)


def _body_of(request: Request) -> StreamBody | None:
    stream = request.stream
    if stream is None:
        return None
    length = request.headers.get(b"content-length")
    if not isinstance(length, bytes) or b"transfer-encoding" in request.headers:
        return StreamBody(stream, None)
    return StreamBody(stream, int(length))


class _Collector:
    """Collects a small body.

    :param budget: memory for requests of all clients.
    """

    def __init__(self, budget: Budget) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._budget = budget
        self._parts: list[bytes] = []
        self._size = 0

    def body_received(self, data: bytes) -> None:
        """Keep a part of the body."""
        if self.done.called:
            return
        if self._size + len(data) > MAX_STATEMENT_BYTES:
            self.done.errback(
                too_large(
                    f"the statement has more than {MAX_STATEMENT_BYTES} bytes, too many to "
                    "check that it is read-only"
                )
            )
        elif not self._budget.take(len(data)):
            self.done.errback(Refusal("Overloaded", resource=""))
        else:
            self._size += len(data)
            self._parts.append(data)

    def body_finished(self) -> None:
        """Deliver the whole body."""
        if not self.done.called:
            self.done.callback(b"".join(self._parts))

    def body_lost(self) -> None:
        """Do nothing: the client is gone, and its request is cancelled."""

    def release(self, outcome: Any) -> Any:
        """Release the memory."""
        self._parts.clear()
        self._budget.adjust(-self._size)
        self._size = 0
        return outcome
