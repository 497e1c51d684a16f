"""Bodies of answers that are made while they are sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.http.response import BodyProducer, BodySink

if TYPE_CHECKING:
    from gateway.http.ports import ExchangePort

__all__ = ["SLICED_BYTES", "Outlet", "Slices"]

SLICED_BYTES = 2**18
"""From this size on, bodies of requests are put together in a turn of the reactor of their own, and those of
answers are sent in pieces: copying 20 MiB takes milliseconds, and it is copied more than once on its way."""


class Outlet:
    """Where a producer's body goes: each part is framed and sent at once.

    :param exchange: hears of the body's end.
    :param send: puts bytes on the connection.
    :param chunked: whether the parts are sent as chunks; else the end of the connection is the body's.
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
        """``None`` when the body is complete, or will never be."""

    # ---- what the exchange asks for --------------------------------------------------------------

    def start(self, *, stalled: bool) -> None:
        """Have the body made.

        :param stalled: whether the client has to read before more may be written.
        """
        producer = self._producer
        assert producer is not None
        if stalled:
            producer.pause()
        producer.start(self)

    def stalled(self, stalled: bool) -> None:
        """Tell the producer whether the client reads more slowly than the body is made."""
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
        """Send a part."""
        if self._producer is not None:
            self._exchange.sent_bytes += len(data)
            self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """The body is complete."""
        if self._producer is None:
            return
        self._producer = None
        if self._chunked:
            self._send(b"0\r\n\r\n")
        self._exchange.finished()

    def abort(self) -> None:
        """The body cannot be completed."""
        if self._producer is not None:
            self._producer = None
            self._exchange.aborted()


class Slices:
    """A large body that is there already: sent in pieces, so that no turn of the reactor copies all of it."""

    def __init__(self, body: bytes) -> None:
        self._left = memoryview(body)
        self._is_paused = False
        self._sink: BodySink | None = None

    def start(self, sink: BodySink) -> None:
        """Send as much as there is room for."""
        self._sink = sink
        self._go_on()

    def pause(self) -> None:
        """Send no more for now."""
        self._is_paused = True

    def resume(self) -> None:
        """Send on."""
        self._is_paused = False
        self._go_on()

    def cancel(self) -> None:
        """Let go of the rest."""
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
