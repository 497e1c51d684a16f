"""The gateway without a transport: routes, hooks, and the way from a request to its response."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import count
from secrets import token_hex
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.batch import Batches
from gateway.buckets import Buckets
from gateway.counters import Counters
from gateway.credentials import Authorizer
from gateway.designs import Designs
from gateway.documents import Documents
from gateway.durability import DurabilityChecks
from gateway.errors import Fault, Refusal, describe
from gateway.health import CheckReady, Health
from gateway.interfaces import IGatewayPlugin
from gateway.kleinresource import run_under_klein
from gateway.limits import Budget, Limits
from gateway.locks import Locks
from gateway.pool import ConnectionPool
from gateway.request import Request
from gateway.response import Response, json_response
from gateway.routing import Dispatcher, mount
from gateway.views import Views

__all__ = ["Gateway"]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")

# How much of /buckets/b/scopes/s/collections/c/documents/k an error names as its resource.
_RESOURCE_SEGMENTS = {
    "BucketNotFound": 1,
    "DurabilityImpossible": 1,
    "ScopeNotFound": 2,
    "CollectionNotFound": 3,
    "NoReadAccess": 3,
    "NoWriteAccess": 3,
    "DocumentNotFound": 4,
    "DocumentExists": 4,
    "CasMismatch": 4,
    "DocumentLocked": 4,
    "DocumentNotLocked": 4,
    "DocumentNotNumeric": 4,
    "DocumentNotJson": 4,
    "DocumentTooDeep": 4,
    "PathMismatch": 4,
    "ValueTooLarge": 4,
    "DurableWriteInProgress": 4,
}

# The same of /buckets/b/designs/d/views/v.
_VIEW_SEGMENTS = {"DesignDocumentNotFound": 2, "InvalidDesignDocument": 2, "ViewNotFound": 3, "ViewFailed": 3}


def resource_of(request: Request, code: str) -> str:
    """Return what an error is about, in the Data API's notation; ``""`` if nothing in particular."""
    parameters = request.parameters
    if code in _VIEW_SEGMENTS:
        segments = _VIEW_SEGMENTS[code]
        named = [(f"{kind}s", parameters.get(kind)) for kind in ("bucket", "design", "view")]
        return _joined(named[:segments])
    segments = _RESOURCE_SEGMENTS.get(code, 0)
    if not segments or "bucket" not in parameters:
        return ""
    named = [
        ("buckets", parameters["bucket"]),
        ("scopes", parameters.get("scope", b"_default")),
        ("collections", parameters.get("collection", b"_default")),
        ("documents", parameters.get("key")),
    ]
    return _joined(named[:segments])


def _joined(named: list[tuple[str, bytes | None]]) -> str:
    return "".join(f"/{kind}/{name.decode('utf-8')}" for kind, name in named if name is not None)


class Gateway:
    """Serves requests, whatever channel they came by.

    :param now: gives the Unix time in seconds.
    :param is_ready: tells whether documents can be served, or why not; see :class:`Health`.
    """

    log = Logger()

    def __init__(
        self,
        authorizer: Authorizer,
        pool: ConnectionPool,
        clock: IReactorTime,
        *,
        now: Callable[[], float],
        limits: Limits,
        is_ready: CheckReady,
        plugins: Iterable[IGatewayPlugin] = (),
        access_log: bool = False,
    ) -> None:
        self.pool = pool
        self.limits = limits
        self.budget = Budget(limits.max_buffered)
        self.clock = clock
        self.app = Klein()
        self._seconds = clock.seconds
        self.unix_time = now
        self._access_log = access_log
        plugins = list(plugins)
        self._request_hooks = _hooks(plugins, "on_request")
        self._response_hooks = _hooks(plugins, "on_response")
        self._operation_hooks = _hooks(plugins, "on_operation")
        self.plugins = plugins
        resources = [
            Documents(authorizer, pool, now),
            Counters(authorizer, pool, now),
            Locks(authorizer, pool, now),
            DurabilityChecks(authorizer, pool),
            Buckets(authorizer, pool),
            Batches(authorizer, pool, clock, now, limits, self.budget, self.count_operation, self._log_bug),
            Views(authorizer, pool, self.budget, self.count_operation, self._log_bug),
            Designs(authorizer, pool),
            Health(is_ready),
        ]
        for resource in resources:
            mount(self.app, resource, self.run_under_klein)
        for plugin in plugins:
            plugin.attach(self)
            plugin.routes(self.app)
        self.dispatcher = Dispatcher(self.app)
        self._id_prefix = token_hex(4)
        self._ids = count(1)
        self.count_clients: Callable[[], int] = int
        """Tells how many client connections there are; set by the channel's factory."""
        self.under_way = 0
        """Requests that have no answer yet."""

    def dispatch(self, request: Request) -> bool:
        """Give a request its id and its handler.

        :returns: false if only Klein can tell whether there is a handler. Else ``request.handler``
            is set, if need be to one that refuses.
        """
        request.started = self._seconds()
        given = request.header_values(b"X-Request-Id")
        if given and _REQUEST_ID.fullmatch(given[0]):
            request.id = given[0].decode("ascii")
        else:
            request.id = f"{self._id_prefix}-{next(self._ids):x}"
        try:
            if request.method == "OPTIONS":
                request.handler = self._options
                return True
            request.handler = self.dispatcher.dispatch(request)
        except Refusal as refusal:
            request.handler = _Refuse(refusal)
        return request.handler is not None

    def handle(self, request: Request) -> Response | Deferred[Response]:
        """Run the handler that :meth:`dispatch` found.

        :returns: a response, or a Deferred of one that never fails. Cancelling it cancels what
            is under way at the cluster.
        """
        self.under_way += 1
        try:
            for hook in self._request_hooks:
                answer = hook(request)
                if answer is not None:
                    return self._answered(answer, request)
            assert request.handler is not None
            result = request.handler(request)
        except Exception:  # noqa: BLE001  # the one place where every failure becomes an answer
            return self._failed(Failure(), request)
        if isinstance(result, Deferred):
            return result.addCallbacks(
                self._succeeded, self._failed, callbackArgs=(request,), errbackArgs=(request,)
            )
        return self._succeeded(result, request)

    def klein_knows(self, request: Request) -> bool:
        """Tell whether Klein has a route for a request that the dispatcher cannot place."""
        try:
            path = request.path.decode("utf-8")
            return bool(self.app.url_map.bind("").test(path, request.method))
        except (UnicodeDecodeError, ValueError):
            return False

    def refuse(self, request: Request, error: Exception) -> Response:
        """Return the answer to a request that never got as far as a handler of the gateway's kind."""
        self.under_way += 1
        return self._failed(Failure(error), request)

    def count_operation(self, operation: str, outcome: str, count: int) -> None:
        """Tell the plugins about key-value operations."""
        for hook in self._operation_hooks:
            hook(operation, outcome, count)

    # -- answers

    def _succeeded(self, response: Response, request: Request) -> Response:
        if request.endpoint is not None and request.operation and request.stream is None:
            for hook in self._operation_hooks:
                hook(request.operation, "ok", 1)
        return self._answered(response, request)

    def _failed(self, failure: Failure, request: Request) -> Response:
        error = failure.value
        assert error is not None
        fault = describe(error, request.operation, cas_given=request.cas_given, durable=request.durable)
        if fault.is_bug:
            self.log.failure(
                "request {id} failed: {method} {path}",
                failure=failure,
                id=request.id,
                method=request.method,
                path=request.path,
            )
        if request.endpoint is not None and request.operation:
            for hook in self._operation_hooks:
                hook(request.operation, fault.problem.code, 1)
        return self._answered(self._explained(fault, error, request), request)

    def _explained(self, fault: Fault, error: BaseException, request: Request) -> Response:
        resource = None
        headers: tuple[tuple[bytes, bytes], ...] = ()
        told = fault.fields()
        if isinstance(error, Refusal):
            resource = error.resource
            headers = error.headers
        if resource is None:
            resource = resource_of(request, fault.problem.code)
        if isinstance(error, Refusal) and error.path is not None:
            resource += "/content/{" + error.path + "}"
        told["resource"] = resource
        told["requestId"] = request.id
        if fault.problem.status == 503:
            headers = (*headers, (b"Retry-After", b"1"))
        return json_response(told, fault.problem.status, headers)

    def _answered(self, response: Response, request: Request) -> Response:
        self.under_way -= 1
        seconds = self._seconds() - request.started
        for hook in self._response_hooks:
            try:
                hook(request, response, seconds)
            except Exception:  # noqa: BLE001  # a plugin's fault must not cost the answer
                self.log.failure("a plugin's on_response failed for request {id}", id=request.id)
        if self._access_log:
            self.log.info(
                "{method} {path} {status} {milliseconds:.1f} ms {id}",
                method=request.method,
                path=request.path.decode("latin-1"),
                status=response.status,
                milliseconds=seconds * 1000,
                id=request.id,
                user=request.caller.user if request.caller is not None else None,
            )
        return response

    def _options(self, request: Request) -> Response:
        if request.path == b"*":
            return Response(204)
        methods = self.dispatcher.allow(request.path)
        if methods is None:
            raise Refusal("RouteNotFound", resource="")
        return Response(204, [(b"Allow", ", ".join(methods).encode("ascii"))])

    def _log_bug(self, failure: Failure) -> None:
        self.log.failure("an operation failed after its answer had begun", failure=failure)

    def run_under_klein(self, twisted_request: Any, *served: Any) -> Any:
        """Serve a request that Klein dispatched; what ``gateway.routing.mount`` wants."""
        return run_under_klein(self, twisted_request, *served)


class _Refuse:
    """A handler that refuses."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def __call__(self, request: Request) -> Response:
        raise self._refusal


def _hooks(plugins: list[IGatewayPlugin], name: str) -> list[Any]:
    """Return the hooks that a plugin really has: one that leaves a hook at ``None`` costs nothing."""
    return [hook for plugin in plugins if (hook := getattr(plugin, name, None)) is not None]
