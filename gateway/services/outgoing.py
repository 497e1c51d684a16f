"""The body of a client's request on its way to a service."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from gateway.http.request import BodyStream

__all__ = ["KEPT_BYTES", "BodyLost", "StreamBody", "WholeBody", "stop_sending"]

KEPT_BYTES = 2**16
"""Bodies up to this size in bytes are kept until the service has answered, so that they can be sent to
another node."""


class BodyLost(Exception):
    """The client left before it had sent the whole body."""


def stop_sending(consumer: object) -> None:
    """Close the connection to a service that a body is written to.

    Twisted would wait for the end of the body, even if the service has already answered.
    """
    transport = getattr(consumer, "transport", None) or getattr(consumer, "_consumer", None)
    abort = getattr(transport, "abortConnection", None)
    if abort is not None:
        abort()


@implementer(IBodyProducer)
class WholeBody:
    """A complete body: written at once, as often as necessary."""

    can_repeat = True

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write the whole body."""
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Do nothing: the whole body is written."""

    def resumeProducing(self) -> None:
        """Do nothing: the whole body is written."""

    def stopProducing(self) -> None:
        """Do nothing: the whole body is written."""

    def discard(self) -> None:
        """Do nothing: nothing more will arrive."""


@implementer(IBodyProducer)
class StreamBody:
    """A body that is sent on while it arrives, at the pace of the slower side.

    No part of it is read before a node is connected.

    :param length: in bytes; ``None`` if the client sends it in chunks.
    """

    def __init__(self, stream: BodyStream, length: int | None) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self._stream = stream
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        # The parts that have arrived, kept to be sent again; None once there are too many.
        self._kept: list[bytes] | None = []
        self._kept_bytes = 0
        self._is_asked = self._is_paused = False
        self._end: Failure | bool = False
        """Whether the whole body has arrived; a failure if it never will."""
        self.on_part: Any = None
        """Called for each part that is sent to the service."""

    @property
    def can_repeat(self) -> bool:
        """Whether the body can be sent again from its beginning."""
        return self._kept is not None

    @property
    def waits_for_client(self) -> bool:
        """Whether the service waits for the next part, which the client has not sent yet."""
        return self._consumer is not None and not self._end and not self._is_paused

    # ---- for Twisted's client --------------------------------------------------------------------

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin to write into a connection."""
        self._consumer = consumer
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._done = done
        if not self._is_asked:
            self._is_asked = True
            self._stream.deliver_to(self)
            return done
        for part in self._kept or ():
            consumer.write(part)
        if self._end:
            self._finish()
        else:
            self._stream.resume()
        return done

    def pauseProducing(self) -> None:
        """Stop reading from the client: the service reads slowly."""
        self._is_paused = True
        self._stream.pause()

    def resumeProducing(self) -> None:
        """Read on."""
        self._is_paused = False
        if self._consumer is not None:
            self._stream.resume()

    def stopProducing(self) -> None:
        """Stop writing to this connection, which is gone; another one may follow."""
        self._consumer = self._done = None
        if self._is_asked and not self._end:
            self._stream.pause()

    # ---- for the exchange ------------------------------------------------------------------------

    def body_received(self, data: bytes) -> None:
        """Send a part to the service."""
        if self._kept is not None:
            self._kept_bytes += len(data)
            if self._kept_bytes > KEPT_BYTES:
                self._kept = None
            else:
                self._kept.append(data)
        if self._consumer is not None:
            self._consumer.write(data)
            if self.on_part is not None:
                self.on_part()

    def body_finished(self) -> None:
        """End the body."""
        self._end = True
        self._finish()

    def body_lost(self) -> None:
        """Give up: the client is gone."""
        self._end = Failure(BodyLost())
        self._finish()

    def discard(self) -> None:
        """Drop the rest: the service has answered without reading all of it."""
        consumer, self._consumer, self._done = self._consumer, None, None
        self._kept = None
        if consumer is not None and not self._end:
            stop_sending(consumer)

    def _finish(self) -> None:
        done, self._done = self._done, None
        self._consumer = None
        if done is None:
            return
        if isinstance(self._end, Failure):
            done.errback(self._end)
        else:
            done.callback(None)
