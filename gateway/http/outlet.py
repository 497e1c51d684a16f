"""Answer bodies that are produced while they are sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.http.response import BodyProducer, BodySink

if TYPE_CHECKING:
    from gateway.http.ports import ExchangePort

__all__ = ["SLICED_BYTES", "Outlet", "Slices"]

SLICED_BYTES = 2**18
"""From this size in bytes on, request bodies are joined in a reactor turn of their own, and answer bodies are
sent in pieces: copying 20 MiB takes milliseconds, and a body is copied more than once."""


class Outlet:
    """The sink of a producer's body: each part is framed and sent immediately.

    :param exchange: notified of the body's end.
    :param send: writes bytes to the connection.
    :param chunked: whether the parts are sent as chunks; else the end of the connection ends the body.
    """

    def __init__(
        self,
        exchange: ExchangePort,
        send: Callable[[bytes], object],
        producer: BodyProducer,
        *,
        chunked: bool,
    ) -> None:
        self._exchange = exchange
        self._send = send
        self._chunked = chunked
        self._producer: BodyProducer | None = producer
        """``None`` when the body is complete, or never will be."""

    # ---- what the exchange asks for --------------------------------------------------------------

    def start(self, *, stalled: bool) -> None:
        """Start the producer.

        :param stalled: whether the client must read some bytes before more may be written.
        """
        producer = self._producer
        assert producer is not None
        if stalled:
            producer.pause()
        producer.start(self)

    def stalled(self, stalled: bool) -> None:
        """Pause or resume the producer, as the client reads more slowly or has caught up."""
        if self._producer is None:
            return
        if stalled:
            self._producer.pause()
        else:
            self._producer.resume()

    def cancel(self) -> None:
        """The client is gone."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.cancel()

    # ---- what the producer asks for (BodySink) ---------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send a part of the body."""
        if self._producer is not None:
            self._exchange.sent_bytes += len(data)
            self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """Note that the body is complete."""
        if self._producer is None:
            return
        self._producer = None
        if self._chunked:
            self._send(b"0\r\n\r\n")
        self._exchange.finished()

    def abort(self) -> None:
        """Note that the body cannot be completed."""
        if self._producer is not None:
            self._producer = None
            self._exchange.aborted()


class Slices:
    """A large complete body, sent in pieces, so that no turn of the reactor copies all of it."""

    def __init__(self, body: bytes) -> None:
        self._left = memoryview(body)
        self._is_paused = False
        self._sink: BodySink | None = None

    def start(self, sink: BodySink) -> None:
        """Send as many pieces as the send buffer takes."""
        self._sink = sink
        self._go_on()

    def pause(self) -> None:
        """Stop sending for now."""
        self._is_paused = True

    def resume(self) -> None:
        """Continue to send."""
        self._is_paused = False
        self._go_on()

    def cancel(self) -> None:
        """Drop the rest of the body."""
        self._left = self._left[:0]
        self._sink = None

    def _go_on(self) -> None:
        while self._sink is not None and not self._is_paused:
            piece, self._left = self._left[:SLICED_BYTES], self._left[SLICED_BYTES:]
            sink = self._sink
            sink.write(bytes(piece))
            if not self._left:
                self._sink = None
                sink.finish()
