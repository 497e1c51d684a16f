"""A service's answer, passed on unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from gateway.http.response import BodySink, Response
from gateway.services.calls import ServiceCall

__all__ = ["Headers", "relayed"]

Headers = Callable[[IResponse], "list[tuple[bytes, bytes]]"]
"""Returns the headers of an answer for the client; raises ValueError if they cannot be sent."""


class _Relay:
    """The body of a service's answer, at the pace of the slower side."""

    def __init__(self, call: ServiceCall) -> None:
        self._call = call
        self._sink: BodySink | None = None
        # Bytes that arrived while the client did not read; at most the rest of one read from the socket.
        self._unsent: list[bytes] = []
        self._is_paused = False
        self._ended: CouchbaseError | bool = False

    # ---- from the channel ------------------------------------------------------------------------

    def start(self, sink: BodySink) -> None:
        """Begin to write."""
        self._sink = sink
        self._call.read(self)

    def pause(self) -> None:
        """Stop reading from the service."""
        self._is_paused = True
        self._call.pause()

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        while self._unsent and not self._is_paused and self._sink is not None:
            self._sink.write(self._unsent.pop(0))
        if self._is_paused or self._sink is None:
            return
        if self._ended:
            self._finish()
        else:
            self._call.resume()

    def cancel(self) -> None:
        """Stop the service's work: the client is gone."""
        self._sink = None
        self._unsent.clear()
        self._call.cancel()

    # ---- from the call ---------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Pass on a part of the body."""
        if self._sink is None or not data:
            return
        if self._is_paused:
            self._unsent.append(data)
        else:
            self._sink.write(data)

    def ended(self, error: CouchbaseError | None) -> None:
        """End the answer."""
        self._ended = True if error is None else error
        if not self._unsent:
            self._finish()

    def _finish(self) -> None:
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if self._ended is True:
            sink.finish()
        else:
            sink.abort()


def relayed(call: ServiceCall, headers: Headers) -> Deferred[Response]:
    """Start a call; fires with its answer for the client. Cancelling it ends the call."""

    def answer(response: IResponse) -> Response:
        try:
            returned = headers(response)
        except ValueError as error:
            call.cancel()
            raise error_of(exceptions.NETWORK_ERROR, f"{call.base}: {error}") from None
        return Response(response.code, returned, _Relay(call))

    started: Deferred[Any] = call.start()
    return started.addCallback(answer)
