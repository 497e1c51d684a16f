"""Receives a request's body: collects it, streams it, leaves it unread until it is wanted, or drops it.

Only for bodies that do not arrive together with their heads; :meth:`Exchange.whole_body` serves the others.
The phases are those of :class:`gateway.http.phases.BodyPhase`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gateway.http.chunks import ChunkReader
from gateway.http.outlet import SLICED_BYTES
from gateway.http.phases import BodyFlow, BodyPhase
from gateway.http.refusal import Refusal, no_memory
from gateway.http.request import BodyReader

if TYPE_CHECKING:
    from gateway.http.ports import BodyChannel, ExchangePort

__all__ = ["LEAST_BYTES_A_SECOND", "IncomingBody", "StreamedBody"]

LEAST_BYTES_A_SECOND = 2**16
"""Rate in bytes per second at which a body may take any length of time; slower bodies are limited by
``--body-seconds``."""

# A refused body up to this size is read to its end, and the connection stays open.
_DRAINED_BYTES = 2**18
# Limit for a refused body of unknown length, if the answer has announced that the connection stays open.
_DRAINED_UNKNOWN_BYTES = 2**21

# If a handler needs the body before it checks the caller, a body up to this size is read from any client, as
# headers are.
_SMALL_BODY = 2**14

# Bytes of a streamed body that are read before its handler wants it.
_READ_AHEAD = 2**16

BUFFERED, HELD, STREAMED, JOINING, DROPPED, COMPLETE = BodyPhase


class StreamedBody:
    """The body of a streamed request, for its handler.

    :param source: the source of the body; ``None`` if the body is complete.
    """

    def __init__(self, source: IncomingBody | None = None) -> None:
        self._source = source
        self._reader: BodyReader | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._is_paused = False
        self._finished = False
        self.lost = False
        """Whether the client left before the request was answered."""

    @property
    def is_wanted(self) -> bool:
        """Whether a handler reads the body."""
        return self._reader is not None

    # ---- what handlers ask for (BodyStream) ------------------------------------------------------

    def deliver_to(self, reader: BodyReader) -> None:
        """Begin to deliver the body to its reader."""
        self._reader = reader
        source = self._source
        if source is not None:
            source.stream_wanted()
        early, self._early = self._early, []
        for data in early:
            reader.body_received(data)
        if self.lost:
            reader.body_lost()
        elif self._finished:
            reader.body_finished()
        elif source is not None and self._is_paused:
            # The reader paused before the body was admitted.
            source.pause()
        elif source is not None and self._early_bytes > _READ_AHEAD:
            source.resume()

    def pause(self) -> None:
        """Stop reading."""
        self._is_paused = True
        if self._source is not None and not self._finished:
            self._source.pause()

    def resume(self) -> None:
        """Continue to read."""
        self._is_paused = False
        if self._source is not None and not self._finished and not self.lost:
            self._source.resume()

    # ---- what arrives ----------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Deliver a part of the body that has arrived."""
        if self._reader is not None:
            self._reader.body_received(data)
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._source is not None and self._early_bytes > _READ_AHEAD:
            self._source.pause()

    def finished(self) -> None:
        """Note that the body is complete."""
        self._finished = True
        if self._reader is not None:
            self._reader.body_finished()

    def lose(self) -> None:
        """The client is gone."""
        if not self.lost:
            self.lost = True
            if self._reader is not None:
                self._reader.body_lost()


class IncomingBody:
    """A body that arrives after its head.

    :param exchange: the body's request, which refers to this object until the body is complete.
    :param length: length in bytes; ``None`` for a chunked body.
    """

    phase = BUFFERED
    flow = BodyFlow.FLOWING

    is_begun = False
    """Whether the handler has run without the body, after the plugins' hooks."""

    def __init__(self, exchange: ExchangePort, channel: BodyChannel, length: int | None) -> None:
        self._exchange = exchange
        self._channel = channel
        self._application = channel.application
        self._length = length
        # Bytes that have not arrived yet.
        self._left = length
        self._chunks = ChunkReader(channel.application.limits.max_headers) if length is None else None
        self._parts: list[bytes] = []
        self._stream: StreamedBody | None = None

    # ---- before it arrives -----------------------------------------------------------------------

    def expect(self) -> None:
        """Find the handler, and start it if it does not need the body first. Called when the head is
        complete."""
        exchange, application, length = self._exchange, self._application, self._length
        limit = exchange.body_limit = application.limits.max_body
        found = application.dispatch(exchange)
        endpoint = exchange.endpoint
        if endpoint is not None and endpoint.streamed:
            self._begin_stream(early=endpoint.early)
        elif endpoint is not None and endpoint.early:
            self.phase = HELD
            exchange.body_is_awaited = True
            exchange.body_too_large = length is not None and length > limit
            self.flow = BodyFlow.HELD
            application.handle(exchange)
            self.is_begun = True
        elif length is not None and length > limit:
            self.drop(too_large=True)
        elif endpoint is None and (found or not application.klein_knows(exchange)):
            self.drop()
        elif length is None or self._reserve(length):
            exchange.invite_body()

    def _begin_stream(self, *, early: bool) -> None:
        exchange = self._exchange
        exchange.body_limit = 0
        self.phase = STREAMED
        stream = exchange.stream = self._stream = StreamedBody(self)
        exchange.run()
        if early and not stream.is_wanted and not exchange.is_answered:
            self.flow = BodyFlow.HELD

    def stream_wanted(self) -> None:
        """Begin to read, for the handler."""
        if self.phase is STREAMED:
            self._exchange.invite_body()
            self._release()

    def wanted(self) -> None:
        """Read the body, which the handler needs to continue, unless it is too early for that."""
        exchange, length = self._exchange, self._length
        exchange.under_way = None
        self.is_begun = True
        admission = self._application.admission_of(exchange)
        if admission is None:
            if length is not None and not self._reserve(length):
                return
        elif length is None or length > _SMALL_BODY or exchange.waits_to_be_asked:
            # The handler reads the body before it checks the caller.
            handler, exchange.handler = exchange.handler, admission
            self._application.resume(exchange)
            exchange.handler = handler
            return
        self.phase = BUFFERED
        exchange.invite_body()
        self._release()

    # ---- while it arrives ------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Take received bytes; return those after the body.

        :raises Malformed: the chunks are malformed.
        """
        left = self._left
        if left is None:
            chunks = self._chunks
            assert chunks is not None
            part, end = chunks.read(data)
            if part:
                self.part(part)
            if chunks.is_complete:
                chunks.close()
                self.end()
            return data[end:]
        size = len(data)
        if size < left:
            self._left = left - size
            self.part(data)
            return b""
        self.part(data[:left] if size > left else data)
        self.end()
        return data[left:]

    def part(self, data: bytes) -> None:
        """Take a part."""
        exchange = self._exchange
        exchange.received_bytes += len(data)
        if self.phase is STREAMED:
            assert self._stream is not None
            # A streamed body may take any time in total.
            self._channel.since = None
            self._stream.received(data)
        elif self.phase is DROPPED:
            if exchange.received_bytes > _DRAINED_UNKNOWN_BYTES and exchange.is_answered:
                self._channel.close()
        elif self._length is None and exchange.received_bytes > self._application.limits.max_body:
            self.drop(too_large=True)
        elif self._length is not None or self._reserve(len(data)):
            self._parts.append(data)

    def end(self) -> None:
        """Note that the body is complete."""
        if not self._channel.body_ended():
            return
        exchange, phase = self._exchange, self.phase
        if phase is DROPPED:
            self._is_complete()
            if exchange.is_answered:
                exchange.end()
            # Otherwise the answer is being written; its end also ends the exchange.
        elif phase is STREAMED:
            assert self._stream is not None
            self._is_complete()
            self._stream.finished()
        elif exchange.received_bytes >= SLICED_BYTES:
            self.phase = JOINING
            self._application.large_turns.add(self._join)
        else:
            self._hand_over(self._joined())

    def _join(self) -> None:
        if self.phase is not JOINING:
            # The client is gone, or there was no memory.
            return
        try:
            body = self._joined()
        except MemoryError:
            self.refuse_for_memory()
        else:
            self._hand_over(body)

    def _joined(self) -> bytes:
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hand_over(self, body: bytes) -> None:
        """Run the handler; this is its second run if it has asked for the body."""
        exchange = self._exchange
        self._parts = []
        exchange.raw_body = body
        exchange.body_is_awaited = False
        self._is_complete()
        if self.is_begun:
            self._application.resume(exchange)
        else:
            exchange.run()

    def _is_complete(self) -> None:
        self.phase = COMPLETE
        self._exchange.body_is_complete()

    # ---- whether it is read ----------------------------------------------------------------------

    def pause(self) -> None:
        """Stop reading the body from the client."""
        if self.flow is BodyFlow.FLOWING:
            self.flow = BodyFlow.PAUSED
            self._channel.settle_reading()

    def resume(self) -> None:
        """Continue to read."""
        if self.flow is BodyFlow.PAUSED:
            self.flow = BodyFlow.FLOWING
            self._channel.since = None
            self._channel.settle_reading()

    def _release(self) -> None:
        if self.flow is BodyFlow.HELD:
            self.flow = BodyFlow.FLOWING
            self._channel.body_released()

    @property
    def is_held(self) -> bool:
        """Whether the body has to be left unread."""
        return self.flow is BodyFlow.HELD

    def must_wait(self, unread: int) -> bool:
        """Return whether reading from the client has to stop.

        :param unread: number of received bytes that :meth:`feed` has not taken.
        """
        return self.flow is BodyFlow.PAUSED or (self.flow is BodyFlow.HELD and unread > 0)

    # ---- when it does not arrive, or is not wanted -----------------------------------------------

    def drop(self, *, too_large: bool = False, refusal: Refusal | None = None) -> None:
        """Answer now, and drop the body.

        :param too_large: whether the body exceeds the limit.
        :param refusal: the answer; if it is missing the handler decides, or if there is no handler, the
            answer is 413 or 404.
        """
        exchange, application = self._exchange, self._application
        was_there = self.phase is JOINING
        self.phase = DROPPED
        self._parts = []
        if was_there:
            self._is_complete()
        exchange.body_too_large = too_large
        if self.is_begun:
            if refusal is not None:
                application.failed(refusal, exchange)
            else:
                application.resume(exchange)
        elif refusal is not None:
            application.refuse(exchange, refusal)
        elif exchange.handler is not None:
            application.handle(exchange)
        elif application.klein_knows(exchange):
            application.refuse(exchange, Refusal("PayloadTooLarge", resource=""))
        else:
            application.refuse(exchange, application.no_route(exchange.path))

    def abandon(self) -> None:
        """Drop the rest of the body: the answer is sent, or the client is gone."""
        self.phase = DROPPED
        self.flow = BodyFlow.FLOWING
        self._parts = []

    def refuse(self, refusal: Refusal) -> None:
        """Refuse the request instead of running the handler, which waits for the body; the rest of the body
        will not be read."""
        self.phase = DROPPED
        self._parts = []
        self._exchange.keep_alive = False
        self._application.failed(refusal, self._exchange)

    def refuse_for_memory(self) -> None:
        """Release the body, and answer 503, because there is no memory for it."""
        self.drop(refusal=no_memory())

    def out_of_memory(self) -> bool:
        """Handle a lack of memory while the body was read: refuse the request, unless its handler runs
        without the body, or reads it; return whether it is refused. The connection is closed after that."""
        exchange = self._exchange
        if self.phase in (STREAMED, HELD):
            return False
        exchange.keep_alive = False
        if self.phase is not DROPPED:
            self.refuse_for_memory()
        elif exchange.is_answered:
            self._channel.close()
        return True

    def _reserve(self, size: int) -> bool:
        if self._exchange.reserve(size):
            return True
        self.drop(refusal=Refusal("Overloaded", resource=""))
        return False

    # ---- what the channel asks -------------------------------------------------------------------

    @property
    def announced(self) -> int:
        """Bytes that are still to come, as announced by the client."""
        return self._left or 0

    @property
    def waits(self) -> bool:
        """Whether the handler has run, and waits for the body."""
        return self.is_begun and self.phase in (HELD, BUFFERED)

    @property
    def is_outstanding(self) -> bool:
        """Whether the body must still be given to a handler."""
        return self.phase in (HELD, BUFFERED, JOINING)

    @property
    def is_held_in_memory(self) -> bool:
        """Whether the body is held in memory, and no handler has it yet."""
        return bool(self._parts) and self._exchange.has_reserved

    @property
    def allowance(self) -> float:
        """Extra seconds that the body may take, for the part that has arrived."""
        if self.flow is not BodyFlow.FLOWING:
            # The gateway, not the client, causes the delay.
            return inf
        return 0.0 if self._stream is not None else self._exchange.received_bytes / LEAST_BYTES_A_SECOND

    @property
    def leaves_much(self) -> bool:
        """Whether too much of the body is still to arrive to reuse the connection."""
        # A client that waits for 100 (Continue) may send the body anyway, or may not: its next request must
        # not be read as the body.
        received = self._exchange.received_bytes
        if not received and self._exchange.waits_to_be_asked:
            return True
        if self._length is None:
            return self._stream is None
        return self._length - received > _DRAINED_BYTES
