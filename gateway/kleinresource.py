"""Serve the gateway's handlers where Klein's own resource dispatches: for routes that only Klein
understands, and inside another twisted.web site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from gateway.request import BodyReader, Request
from gateway.response import BodyProducer, Response
from gateway.routing import Endpoint, Handler

if TYPE_CHECKING:
    from gateway.app import Gateway

__all__ = ["run_under_klein"]


class _Received:
    """A body that is all there."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def deliver_to(self, reader: BodyReader) -> None:
        reader.body_received(self._body)
        reader.body_finished()

    def pause(self) -> None:
        """Nothing can be held back any more."""

    def resume(self) -> None:
        """Nothing was held back."""


@implementer(IPushProducer)
class _Sink:
    """Puts a produced body into a twisted.web request."""

    def __init__(self, request: Any, producer: BodyProducer) -> None:
        self._request = request
        self._producer = producer
        self.done: Deferred[bytes] = Deferred(lambda _: producer.cancel())

    def start(self) -> None:
        self._request.registerProducer(self, True)
        self._producer.start(self)

    def write(self, data: bytes) -> None:
        self._request.write(data)

    def finish(self) -> None:
        self._request.unregisterProducer()
        self.done.callback(b"")

    def abort(self) -> None:
        self._request.unregisterProducer()
        self._request.channel.loseConnection()

    def pauseProducing(self) -> None:
        self._producer.pause()

    def resumeProducing(self) -> None:
        self._producer.resume()

    def stopProducing(self) -> None:
        self._producer.cancel()


def run_under_klein(
    gateway: Gateway, twisted_request: Any, endpoint: Endpoint, handler: Handler, parameters: dict[str, Any]
) -> Deferred[bytes] | bytes:
    """Serve a request that Klein has dispatched, and return what Klein shall render.

    Here the body was read by twisted.web, whole; limits are those of the site around. Klein's
    parameters are used as they are, so a slash in a key can only be told by the gateway's own
    channel.
    """
    body = twisted_request.content.read()
    path, _, query_string = twisted_request.uri.partition(b"?")
    limit = gateway.limits.max_body
    request = Request(
        twisted_request.method.decode("latin-1"),
        path,
        query_string,
        twisted_request.requestHeaders.getRawHeaders,
        b"" if endpoint.streamed else body,
        body_limit=limit,
        body_too_large=not endpoint.streamed and len(body) > limit,
        stream=_Received(body) if endpoint.streamed and body else None,
    )
    gateway.dispatch(request)
    request.endpoint = endpoint
    request.handler = handler
    request.operation = endpoint.operation
    request.parameters = {name: str(value).encode("utf-8") for name, value in parameters.items()}
    answer = gateway.handle(request)
    if isinstance(answer, Deferred):
        return answer.addCallback(_render, twisted_request, request)
    return _render(answer, twisted_request, request)


def _render(response: Response, twisted_request: Any, request: Request) -> Any:
    twisted_request.setResponseCode(response.status)
    for name, value in response.headers:
        twisted_request.responseHeaders.addRawHeader(name, value)
    twisted_request.setHeader(b"X-Request-Id", request.id.encode("ascii"))
    body = response.body
    if isinstance(body, bytes):
        twisted_request.setHeader(b"Content-Length", b"%d" % len(body))
        return body
    sink = _Sink(twisted_request, body)
    sink.start()
    return sink.done
