"""Compression of answers while they are sent.

Work is done in pieces of 64 KiB, one per reactor turn, so that a large answer does not delay others; what a
producer has written is sent as soon as all of it is compressed. The levels are the fast ones: an answer is
compressed once, for one client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gateway.http.outlet import Slices
from gateway.http.response import BodyProducer, BodySink, Response

_compressors: dict[bytes, Callable[[], Any]] = {}
_compress_block: Callable[[bytes], Any] | None = None
try:
    import cramjam
except ImportError:  # a platform without a wheel
    pass
else:
    _compressors = {
        b"zstd": lambda: cramjam.zstd.Compressor(1),
        b"br": lambda: cramjam.brotli.Compressor(3),
        b"gzip": lambda: cramjam.gzip.Compressor(2),
    }
    _compress_block = cramjam.snappy.compress_raw

__all__ = ["ENCODINGS", "LEAST_BYTES", "SNAPPY", "Compressing", "compressed"]

ENCODINGS = tuple(_compressors)
"""The content codings that answers can have, the preferred one first; none without the library."""
SNAPPY = b"snappy"
"""The coding of Couchbase's documents: one raw Snappy block. Not registered for HTTP."""
LEAST_BYTES = 1400
"""Smallest body to compress, in bytes: smaller ones fit into a packet, so compression gains nothing."""
PIECE_BYTES = 64 * 1024
"""Bytes that are compressed in one reactor turn, which takes some milliseconds at worst."""


class Encoder(Protocol):
    """Compresses one body."""

    def compress(self, piece: bytes | memoryview) -> bytes:
        """Take the next part; returns the bytes that can be sent, possibly none."""

    def flush(self) -> bytes:
        """Return the rest of what was taken, so that the client can decode all of it."""

    def finish(self) -> bytes:
        """Return the end of the body."""


class _Stream:
    """A coding that is registered for HTTP."""

    def __init__(self, encoding: bytes) -> None:
        self._compressor = _compressors[encoding]()

    def compress(self, piece: bytes | memoryview) -> bytes:
        self._compressor.compress(bytes(piece))
        return b""

    def flush(self) -> bytes:
        return bytes(self._compressor.flush())

    def finish(self) -> bytes:
        return bytes(self._compressor.finish())


class _Block:
    """A raw Snappy block: the total length, then elements, which refer back by at most 64 KiB.

    Each part can be compressed by itself, since its references stay within the part.
    """

    def __init__(self, size: int) -> None:
        self._head = _varint(size)

    def compress(self, piece: bytes | memoryview) -> bytes:
        assert _compress_block is not None
        block = bytes(_compress_block(bytes(piece)))
        at = 0
        while block[at] & 0x80:
            at += 1
        head, self._head = self._head, b""
        return head + block[at + 1 :]

    def flush(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        head, self._head = self._head, b""
        return head


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


class _End(Enum):
    """How a source has ended."""

    OPEN = "open"
    COMPLETE = "complete"
    CUT = "cut"


class Compressing:
    """A produced body that is compressed: the connection's producer, and the sink of its source.

    :param source: produces the body.
    :param clock: calls the next turn.
    """

    def __init__(self, source: BodyProducer, encoder: Encoder, clock: IReactorTime) -> None:
        self._source = source
        self._encoder = encoder
        self._clock = clock
        self._sink: BodySink | None = None
        self._waiting: deque[memoryview] = deque()
        self._held = 0
        self._end = _End.OPEN
        self._turn: IDelayedCall | None = None
        self._is_paused = False
        """Whether the client reads slowly."""
        self._is_holding = False
        """Whether the source is paused: because of the client, or because enough waits here."""

    # ---- what the connection asks for (BodyProducer) ---------------------------------------------

    def start(self, sink: BodySink) -> None:
        """Start the source."""
        self._sink = sink
        self._source.start(self)

    def pause(self) -> None:
        """Write nothing more: the client reads slowly."""
        self._is_paused = True
        self._hold()

    def resume(self) -> None:
        """Continue: the client has caught up."""
        self._is_paused = False
        if self._waiting or self._end is not _End.OPEN:
            self._soon()
        else:
            self._let_go()

    def cancel(self) -> None:
        """Drop everything: the client is gone, or needs no body."""
        self._sink = None
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._source.cancel()

    # ---- what the source asks for (BodySink) -----------------------------------------------------

    def write(self, data: bytes) -> None:
        """Take a part of the body."""
        self._waiting.append(memoryview(data))
        self._held += len(data)
        if self._held >= PIECE_BYTES:
            self._hold()
        self._soon()

    def finish(self) -> None:
        """Note that the body is complete."""
        self._end = _End.COMPLETE
        self._soon()

    def abort(self) -> None:
        """Note that the body cannot be completed."""
        self._end = _End.CUT
        self._soon()

    # ---- turns -----------------------------------------------------------------------------------

    def _hold(self) -> None:
        if not self._is_holding and self._end is _End.OPEN:
            self._is_holding = True
            self._source.pause()

    def _let_go(self) -> None:
        if self._is_holding and self._end is _End.OPEN:
            self._is_holding = False
            self._source.resume()

    def _soon(self) -> None:
        if self._turn is None and self._sink is not None and not self._is_paused:
            self._turn = self._clock.callLater(0, self._work)

    def _work(self) -> None:
        """Compress a piece, and send it."""
        self._turn = None
        sink = self._sink
        if sink is None or self._is_paused:
            return
        done = self._compress_piece()
        is_last = not self._waiting
        if is_last:
            done += self._encoder.finish() if self._end is _End.COMPLETE else self._encoder.flush()
        if done:
            sink.write(done)
        if self._sink is None:
            return  # the client left while this was written
        if not is_last:
            self._soon()
        elif self._end is _End.OPEN:
            if not self._is_paused:
                self._let_go()
        else:
            self._sink = None
            sink.finish() if self._end is _End.COMPLETE else sink.abort()

    def _compress_piece(self) -> bytes:
        waiting = self._waiting
        room, done = PIECE_BYTES, b""
        while waiting and room:
            part = waiting.popleft()
            if len(part) > room:
                waiting.appendleft(part[room:])
                part = part[:room]
            room -= len(part)
            self._held -= len(part)
            done += self._encoder.compress(part)
        return done


def compressed(response: Response, encoding: bytes, clock: IReactorTime) -> Response:
    """Return an answer whose body is compressed.

    Its ``ETag``, if it has quotes, becomes a weak one (RFC 9110 8.8.1), as this is the same document in
    another form.

    :param response: an answer without ``Content-Encoding``.
    :param encoding: one of :data:`ENCODINGS`, or :data:`SNAPPY` for a body that is bytes.
    """
    body = response.body
    headers = []
    is_varied = False
    for name, value in response.headers:
        if name == b"ETag" and value.startswith(b'"'):
            value = b"W/" + value
        elif name == b"Vary" and b"Accept-Encoding" in value:
            is_varied = True
        headers.append((name, value))
    headers.append((b"Content-Encoding", encoding))
    if not is_varied:
        headers.append((b"Vary", b"Accept-Encoding"))
    if isinstance(body, bytes):
        encoder: Encoder = _Block(len(body)) if encoding == SNAPPY else _Stream(encoding)
        if len(body) <= PIECE_BYTES:
            done = encoder.compress(body) if body else b""
            return Response(response.status, headers, done + encoder.finish())
        body = Slices(body)
    else:
        encoder = _Stream(encoding)
    return Response(response.status, headers, Compressing(body, encoder, clock))
