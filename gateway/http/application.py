"""Serves a Klein app: from a request to its response, without a transport."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import count
from secrets import token_hex
from typing import Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request as TwistedRequest

from gateway.http.encoding import any_json
from gateway.http.endpoints import Endpoint
from gateway.http.limits import Budget, Limits
from gateway.http.ports import Guard, Selective
from gateway.http.refusal import Explanation, FixedRefusal, Refusal, explain, members_of, no_route
from gateway.http.request import NOT_READ, BodyWanted, Handler, HeaderTable, NotYet, Request
from gateway.http.response import JSON_TYPE, RenderedResponse, Response, header_block
from gateway.http.routing import Dispatcher, MissingRoute
from gateway.http.siteadapter import run_under_klein
from gateway.http.tracecontext import TraceContext, continue_trace, trace_of
from gateway.http.unread import UnreadAnswers
from reactor.clock import stopwatch_of
from reactor.turns import OneByOne
from reactor.window import Window

__all__ = ["Application", "EndHook", "Guard"]


EndHook = Callable[[Request, int, float], None]
"""Called when a request is over, with the request, the status of its answer, and its duration in seconds."""

_RETRY_AFTER = (b"Retry-After", b"1")
_ONLY_JSON = header_block([JSON_TYPE])

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class Application:
    """Serves the requests of a Klein app, independent of the channel.

    Subclasses define how errors are explained, whose bodies may be read, and which headers are known.

    Every request gets an id, passes through the plugins' hooks, is counted, and has failures reported as
    JSON; see
    :class:`gateway.http.routing.Dispatcher` for which handlers are called directly and which through Klein.

    :param app: its routes may be declared later, up to :meth:`routes_are_complete`.
    :param now: gives the Unix time in seconds.
    :param end_hooks: called like the plugins' ``on_end``, after the plugins.
    :param guard: decides from the headers which requests are admitted.
    """

    log = Logger()

    missing_route: MissingRoute | None = None
    """Makes the 404 answer for a path without a route; an unknown method gets 405. ``None`` leaves both to
    the Klein app."""

    unconfirmed: frozenset[str] = frozenset()
    """Operations that run before the caller's credentials are confirmed; no memory is reserved for them."""

    def __init__(
        self,
        app: Klein,
        clock: IReactorTime,
        *,
        now: Callable[[], float] = time.time,
        limits: Limits | None = None,
        plugins: Iterable[object] = (),
        end_hooks: Iterable[EndHook] = (),
        guard: Guard | None = None,
    ) -> None:
        self.app = app
        self.guard = guard
        """Checks every request before anything else; ``None`` admits all."""
        self.clock = clock
        self.limits = limits or Limits()
        self.budget = Budget(self.limits.max_buffered)
        self.unix_time = now
        self.plugins = list(plugins)
        self.under_way = 0
        """Requests that have no answer yet."""
        self.count_clients: Callable[[], int] = int
        """Returns the number of client connections; set by the channel's factory."""
        self.count_refused: Callable[[], dict[str, int]] = dict
        """Returns the numbers of refused connections by cause; set by the listening service."""
        self.answers = Window(self.limits.max_buffered, clock, _too_many_answers)
        """Memory for large answers that clients have not received yet, if the size is known beforehand; see
        :meth:`gateway.http.request.Request.hold_answer`."""
        self.unread_answers = UnreadAnswers(self.limits.max_buffered, clock)
        """Memory for other answers that wait for slow clients."""
        self.large_turns = OneByOne(clock)
        """Queue of large bodies whose parts are joined in a later reactor turn."""
        self.begin_trace: Callable[[Request], TraceContext] = continue_trace
        """Returns the trace of a request; called once for each request whose trace is needed."""
        self.note_large: Callable[[Request, int], None] = lambda request, size: None
        """Called with the size in bytes of each large answer body."""
        self.id_prefix = token_hex(4).encode("ascii")
        self._ids = count(1)
        self.seconds = stopwatch_of(clock)
        self._request_hooks = _hooks(self.plugins, "on_request")
        self._response_hooks = _hooks(self.plugins, "on_response")
        self._operation_hooks = _hooks(self.plugins, "on_operation")
        self.end_hooks: list[EndHook] = [*_hooks(self.plugins, "on_end"), *end_hooks]
        self.dispatcher = Dispatcher(app)

    def routes_are_complete(self) -> None:
        """Read the app's routes; those declared later are found by Klein only."""
        self.dispatcher = Dispatcher(self.app, self.missing_route)

    # ---- the way in ------------------------------------------------------------------------------

    def serve(self, request: Request) -> None:
        """Dispatch and handle a request that has no body."""
        if self.dispatch(request):
            self.handle(request)
        else:
            request.run_klein()

    def dispatch(self, request: Request) -> bool:
        """Give a request its id and its handler.

        :returns: false if only Klein knows whether there is a handler. Otherwise ``request.handler`` is set,
            possibly to a handler that refuses the request.
        """
        request.application = self
        request.started = self.seconds()
        request.number = next(self._ids)
        if b"x-request-id" in request.headers:
            given = request.header_values(b"X-Request-Id")[0]
            if _REQUEST_ID.fullmatch(given):
                request.given_id = given
        if request.visit is not None:
            request.handler = self.barred(request)
            if request.handler is not None:
                return True
        try:
            handler = request.handler = self.dispatcher.dispatch(request)
        except Refusal as refusal:
            request.handler = refusal
            return True
        return handler is not None

    def barred(self, request: Request) -> Handler | None:
        """Return a handler that refuses the request, if the guard does not admit the request."""
        try:
            answer = request.visit.admit(request)
        except Refusal as refusal:
            return refusal
        return None if answer is None else lambda _: answer

    def handle(self, request: Request) -> None:
        """Run the handler that :meth:`dispatch` found; ``request.respond`` is called with the outcome."""
        try:
            if not request.is_inner:
                self.under_way += 1
                for hook in self._request_hooks:
                    answer = hook(request)
                    if answer is not None:
                        if request.visit is not None:
                            # Plugins must not answer a request that the guard refuses.
                            request.visit.admit(request)
                        self.answered(answer, request)
                        return
            selective = request.selective
            if selective is not None:
                if selective is NOT_READ:
                    selective = request.selective = self.select(request.headers)
                if selective is not None and selective.taken_by is not request.endpoint:
                    self._check_taken(selective, request)
            result = request.handler(request)  # type: ignore[misc]  # dispatch() has set it
        except Exception as error:  # noqa: BLE001  # the one place where every failure becomes an answer
            self.failed(error, request)
            return
        kind = type(result)
        if hasattr(kind, "abandon"):
            # The usual case: a running operation.
            request.under_way = result
        elif kind is Response or kind is RenderedResponse:
            self.succeeded(result, request)
        elif kind is Deferred:
            self.wait_for(result, request)
        else:
            self._resolve(result, request)

    def _check_taken(self, selective: Selective, request: Request) -> None:
        """Check that an endpoint takes the headers, for all requests with this head; raises Refusal."""
        if request.endpoint is not None and not request.endpoint.takes >= selective.names:
            self.check_headers(request)
        selective.taken_by = request.endpoint

    def wait_for(self, result: Deferred[Any], request: Request) -> None:
        """Answer with the result of a Deferred; it is cancelled if the client leaves."""
        request.under_way = result
        result.addCallbacks(self._fired, self._errback, callbackArgs=(request,), errbackArgs=(request,))

    def resume(self, request: Request) -> None:
        """Run a handler of a request that :meth:`handle` was called for: the same one again, or another
        one."""
        try:
            result = request.handler(request)  # type: ignore[misc]  # dispatch() has set it
        except Exception as error:  # noqa: BLE001  # as in handle()
            self.failed(error, request)
            return
        if type(result) is Deferred:
            self.wait_for(result, request)
        elif hasattr(type(result), "abandon"):
            request.under_way = result
        else:
            self._resolve(result, request)

    def refuse(self, request: Request, error: Exception) -> None:
        """Answer a request that failed before a handler was found."""
        self.under_way += 1
        self.failed(error, request)

    def admission_of(self, request: Request) -> Handler | None:
        """Return the handler to run before the request's body is read, if the request's own handler has not
        checked the caller yet; it refuses, or raises ``BodyWanted``. ``None`` if there is none."""
        return None

    def no_route(self, path: bytes) -> Refusal:
        """Return the refusal of a path without a route."""
        return (self.missing_route or no_route)(path)

    def methods_of(self, path: bytes) -> list[str] | None:
        """Return the methods of a path; ``None`` if only Klein knows them, or there is no such route."""
        return self.dispatcher.allow(path)

    def klein_knows(self, request: Request) -> bool:
        """Return whether Klein should answer a request for which the dispatcher found no route."""
        if self.missing_route is None:
            return True
        try:
            path = unquote_to_bytes(request.path).decode("utf-8")
            return bool(self.app.url_map.bind("").test(path, request.method))
        except (UnicodeDecodeError, ValueError):
            return False

    def count_operation(self, operation: str, outcome: str, count: int) -> None:
        """Pass counts of key-value operations to the plugins."""
        for hook in self._operation_hooks:
            try:
                hook(operation, outcome, count)
            except Exception:  # noqa: BLE001  # a plugin's fault must not cost the answer
                self.log.failure("a plugin's on_operation failed for {operation}", operation=operation)

    # ---- the way out -----------------------------------------------------------------------------

    def succeeded(self, response: Response, request: Request) -> None:
        """Answer with the handler's result."""
        if b"accept-encoding" in request.headers:
            try:
                response = self.encoded(response, request)
            except Refusal as refusal:
                self.failed(refusal, request)
                return
        self.answered(response, request, "ok" if request.stream is None else "")

    def encoded(self, response: Response, request: Request) -> Response:
        """Return the answer in a coding that ``Accept-Encoding`` prefers; raises Refusal.

        Called for successes only, if the header is there. See :mod:`gateway.http.compression`.
        """
        return response

    def failed(self, error: BaseException, request: Request) -> None:
        """Answer with a failure."""
        kind = type(error)
        if kind is FixedRefusal:
            self.refused(error, request)  # type: ignore[arg-type]  # as its type says
            return
        if kind is BodyWanted:
            request.body_wanted()
            return
        if isinstance(error, NotYet):
            self._wait(error.until, request)
            return
        explained = self.explain(error, request)
        problem = explained.problem
        request.failure_code = problem.code
        if explained.is_bug:
            self.log.failure(
                "request {id} failed: {method} {path} (trace {trace})",
                failure=Failure(error),
                id=request.id,
                trace=trace_of(request).trace_id,
                method=request.method,
                path=request.path,
            )
        headers = explained.headers
        if problem.status == 503:
            headers = (*headers, _RETRY_AFTER)
        block = _headers_of_failure(headers) if headers else _ONLY_JSON
        body = any_json({**explained.members, "requestId": request.id})
        outcome = problem.code if request.endpoint else ""
        self.answered(RenderedResponse(problem.status, block, body), request, outcome)

    def refused(self, refusal: FixedRefusal, request: Request) -> None:
        """Do the same as :meth:`failed`, in fewer steps."""
        status, code, block, begun, resource = refusal.prepared or self._prepare(refusal)
        request.failure_code = code
        name = b"" if resource is None else resource(request)
        if request.given_id is None:
            body = b'%b%b,"requestId":"%b-%x"}' % (begun, name, self.id_prefix, request.number)
        else:
            body = b'%b%b,"requestId":"%b"}' % (begun, name, request.given_id)
        self.answered(RenderedResponse(status, block, body), request, code if request.endpoint else "")

    def _prepare(self, refusal: FixedRefusal) -> tuple[int, str, bytes, bytes, Any]:
        problem, resource = refusal.problem, refusal.resource
        members = any_json({**self.members_of(refusal), "resource": resource or ""})
        begun = members[: -len(b'""}' if resource is None else b"}")]
        shown = self.resource_json(problem.code) if resource is None else None
        refusal.prepared = problem.status, problem.code, _headers_of_failure(refusal.headers), begun, shown
        return refusal.prepared

    def members_of(self, refusal: Refusal) -> dict[str, object]:
        """Return the members of the answer to a refusal, but ``resource`` and the request's id."""
        return members_of(refusal)

    def resource_json(self, code: str) -> Callable[[Request], bytes]:
        """Return a function for the JSON of the resource, if a refusal with this code names none."""
        return lambda request: b'""'

    def _wait(self, until: Deferred[Any], request: Request) -> None:
        """Call the handler again later; see :class:`gateway.http.request.NotYet`."""
        request.under_way = until

        def fired(_: object) -> None:
            request.under_way = None
            self.resume(request)

        until.addCallbacks(fired, self._errback, errbackArgs=(request,))

    def explain(self, error: BaseException, request: Request) -> Explanation:
        """Return the answer to a failure of a request."""
        return explain(error)

    def _fired(self, result: object, request: Request) -> None:
        if not hasattr(result, "abandon"):
            self._resolve(result, request)
        elif request.under_way is not None:
            # This operation could only begin now; it reports to the request itself.
            request.under_way = result

    def _resolve(self, result: object, request: Request) -> None:
        """Send the handler's response; anything else is a bug and becomes a 500, so that no client hangs."""
        if isinstance(result, Response):
            self.succeeded(result, request)
        elif isinstance(result, Refusal):
            self.failed(result, request)
        else:
            wrong = f"the handler of {request.method} returned {result!r:.80}, which is not a Response"
            self.failed(TypeError(wrong), request)

    def _errback(self, failure: Failure, request: Request) -> None:
        assert failure.value is not None
        self.failed(failure.value, request)

    def select(self, headers: HeaderTable, varying: Iterable[bytes] = ()) -> Selective | None:
        """Return the headers that must not be ignored; ``None`` if there are none of them.

        Called once for requests with the same head. Those with others than their endpoints take are passed to
        :meth:`check_headers`.

        :param varying: names (lower case) of the headers whose values differ among these requests.
        """
        return None

    def check_headers(self, request: Request) -> None:
        """Refuse the headers of :meth:`select` that the request's endpoint does not take; raises Refusal."""

    def answered(self, response: Response, request: Request, outcome: str = "") -> None:
        """Show an answer to the plugins, and pass it to the request, which calls :meth:`ended` later.

        :param outcome: with which the request's operation is counted, if it is one.
        """
        operation = request.operation
        if operation and outcome:  # as count_operation() does
            for hook in self._operation_hooks:
                try:
                    hook(operation, outcome, 1)
                except Exception:  # noqa: BLE001  # a plugin's fault must not cost the answer
                    self.log.failure("a plugin's on_operation failed for {operation}", operation=operation)
        if request.is_inner:
            request.respond(response)
            return
        self.under_way -= 1
        if request.visit is not None:
            request.visit.mark(response)
        if self._response_hooks:
            seconds = self.seconds() - request.started
            for hook in self._response_hooks:
                try:
                    hook(request, response, seconds)
                except Exception:  # noqa: BLE001  # a plugin's fault must not cost the answer
                    self.log.failure("a plugin's on_response failed for request {id}", id=request.id)
        try:
            request.respond(response)
        except Exception as error:  # noqa: BLE001  # nothing is left to answer with
            if not isinstance(response.body, bytes):
                response.body.cancel()
            request.broken(error)

    def ended(self, request: Request, status: int) -> None:
        """Count a request, once: its answer is complete, or was cut off.

        :param status: status of the answer; 499 if the client left before the end.
        """
        seconds = self.seconds() - request.started
        for hook in self.end_hooks:
            try:
                hook(request, status, seconds)
            except Exception:  # noqa: BLE001  # a plugin's fault must not cost the answer
                self.log.failure("a plugin's on_end failed for request {id}", id=request.id)

    def run_under_klein(
        self,
        twisted_request: TwistedRequest,
        endpoint: Endpoint,
        handler: Handler,
        parameters: dict[str, Any],
    ) -> Deferred[Any]:
        """Serve a request that Klein dispatched; the callback for :func:`gateway.http.routing.mount`."""
        return run_under_klein(self, twisted_request, endpoint, handler, parameters)


@lru_cache(maxsize=256)
def _headers_of_failure(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return header_block([JSON_TYPE, *headers])


def _too_many_answers() -> Refusal:
    return Refusal("Overloaded", "Too many large answers wait for their clients.", resource="")


def _hooks(plugins: list[object], name: str) -> list[Any]:
    """Return the hooks that a plugin implements: a hook left at ``None`` costs nothing."""
    return [hook for plugin in plugins if (hook := getattr(plugin, name, None)) is not None]
