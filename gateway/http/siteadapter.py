"""Serves handlers with ``@endpoint`` that Klein dispatches: for routes that only Klein understands, and
inside another twisted.web site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import Request as TwistedRequest
from zope.interface import implementer

from gateway.http.request import BodyReader, HeaderTable, Request
from gateway.http.response import BodyProducer, Response
from gateway.http.routing import Endpoint, Handler

if TYPE_CHECKING:
    from gateway.http.ports import Application

__all__ = ["run_under_klein"]


class _Received:
    """A body that is already complete."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def deliver_to(self, reader: BodyReader) -> None:
        reader.body_received(self._body)
        reader.body_finished()

    def pause(self) -> None:
        """Do nothing: the whole body was read."""

    def resume(self) -> None:
        """Do nothing: the whole body was read."""


@implementer(IPushProducer)
class _Sink:
    """Puts a produced body into a twisted.web request."""

    def __init__(self, request: TwistedRequest, producer: BodyProducer, served: _Served, status: int) -> None:
        self._request = request
        self._producer = producer
        self._served = served
        self._status = status
        self.done: Deferred[bytes] = Deferred(lambda _: producer.cancel())

    def start(self) -> None:
        self._request.registerProducer(self, True)
        self._producer.start(self)

    def write(self, data: bytes) -> None:
        self._served.sent_bytes += len(data)
        self._request.write(data)

    def finish(self) -> None:
        self._request.unregisterProducer()
        self._served.over(self._status)
        self.done.callback(b"")

    def abort(self) -> None:
        self._request.unregisterProducer()
        self._served.cut = "gateway"
        self._served.over(self._status)
        self._request.channel.loseConnection()

    def pauseProducing(self) -> None:
        self._producer.pause()

    def resumeProducing(self) -> None:
        self._producer.resume()

    def stopProducing(self) -> None:
        self._producer.cancel()
        self._served.cut = "client"
        self._served.over(499)


class _Served(Request):
    """A request that Klein dispatched.

    ``done`` fires with an answer that Klein can render.
    """

    _is_over = False

    def __init__(self, twisted_request: TwistedRequest, headers: HeaderTable) -> None:
        path, _, query_string = twisted_request.uri.partition(b"?")
        super().__init__(twisted_request.method.decode("latin-1"), path, query_string, headers)
        self._twisted_request = twisted_request
        self.transport = getattr(twisted_request, "transport", None)
        self.done: Deferred[Any] = Deferred(lambda _: self.give_up())

    def respond(self, response: Response) -> None:
        """Pass the answer to Klein."""
        self.under_way = None
        if self.outer is not None:
            # For the log, which shows the outer request.
            self.outer.caller = self.caller
            self.outer.failure_code = self.failure_code
            self.outer.limit_headers = (*self.outer.limit_headers, *self.limit_headers)
        if isinstance(response.body, bytes):
            self.sent_bytes = len(response.body)
            self.over(response.status)
        if not self.done.called:
            self.done.callback(_render(response, self._twisted_request, self))

    def over(self, status: int) -> None:
        """Count the request, unless another one is counted in its place."""
        if self.outer is None and not self._is_over:
            self._is_over = True
            self.application.ended(self, status)

    def broken(self, error: BaseException) -> None:
        """Let Klein report the failure."""
        if not self.done.called:
            self.done.errback(Failure(error))


def run_under_klein(
    application: Application,
    twisted_request: TwistedRequest,
    endpoint: Endpoint,
    handler: Handler,
    parameters: dict[str, Any],
) -> Deferred[Any]:
    """Serve a request that Klein has dispatched; fires with an answer for Klein to render.

    Here twisted.web has read the whole body, with the limits of the surrounding site. Klein's parameters are
    used as they are, so only our own channel can distinguish a slash in a key.
    """
    content = twisted_request.content
    body = b"" if content is None else content.read()
    limit = application.limits.max_body
    headers = {
        name.lower(): values[0] if len(values) == 1 else list(values)
        for name, values in twisted_request.requestHeaders.getAllRawHeaders()
    }
    request = _Served(twisted_request, headers)
    request.body_limit = limit
    if not endpoint.streamed:
        request.raw_body = body
        request.body_too_large = len(body) > limit
    elif body:
        request.stream = _Received(body)
    request.received_bytes = len(body)
    outer = getattr(twisted_request, "exchange", None)
    if outer is None and application.guard is not None:
        request.visit = application.guard.look(headers)
    application.dispatch(request)
    if outer is not None:
        # The request came through our channel, which handles that.
        request.is_inner = True
        request.outer = outer
        request.number, request.given_id = outer.number, outer.given_id
        outer.endpoint, outer.operation = endpoint, endpoint.operation
    barred = application.barred(request) if request.visit is not None else None
    request.endpoint = endpoint
    request.handler = barred or handler
    request.operation = endpoint.operation
    request.parameters = {name: str(value).encode("utf-8") for name, value in parameters.items()}
    application.handle(request)
    return request.done


def _render(response: Response, twisted_request: TwistedRequest, request: _Served) -> Any:
    twisted_request.setResponseCode(response.status)
    # The handler named no type, so send none.
    twisted_request.defaultContentType = None
    for name, value in response.headers:
        twisted_request.responseHeaders.addRawHeader(name, value)
    twisted_request.setHeader(b"X-Request-Id", request.id_bytes)
    body = response.body
    if isinstance(body, bytes):
        twisted_request.setHeader(b"Content-Length", b"%d" % len(body))
        return body
    sink = _Sink(twisted_request, body, request, response.status)
    sink.start()
    return sink.done
