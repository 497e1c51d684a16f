"""The writing half of a TLS connection: the queue, the encryption, and the producer's pauses."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IConsumer, IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from reactor.tls.layer import TlsLayer
from reactor.tls.pieces import PIECE_BYTES, RECORD_BYTES, TURN_BYTES, next_piece
from reactor.tls.source import Source

if TYPE_CHECKING:
    from reactor.tls.factory import TlsFactory

__all__ = ["HELD_DELIVERING", "HELD_OVER", "HELD_SHAKING", "Output", "Phase"]


class Phase(IntEnum):
    """The life of a connection."""

    SHAKING = 0
    """The handshake: what is written waits."""
    OPEN = 1
    ENDING = 2
    """What was written is still sent, then our close_notify."""
    ENDED = 3
    """Our close_notify is sent; the peer's is expected."""
    OVER = 4
    """Nothing more is sent, and nothing delivered."""


SHAKING, OPEN, ENDING, ENDED, OVER = Phase

# Reasons for which written bytes wait, as bits: each alone is enough.
HELD_SHAKING, HELD_DELIVERING, HELD_FULL, HELD_OVER = 1, 2, 4, 8


@implementer(IConsumer)
class Output(TlsLayer):
    """Encrypts what is written, as the stream below takes it.

    :param factory: has the settings and limits.
    :param above: the protocol above.
    """

    factory: Any
    _send: Callable[[bytes], int]
    disconnecting = False
    """Whether nothing more can be written."""

    def __init__(self, factory: TlsFactory, above: IProtocol) -> None:
        self.factory = factory
        self.wrappedProtocol: Any = above
        self.phase = SHAKING
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = factory.session(self._incoming, self._outgoing)
        # The object inside spares a Python function for each call.
        inner: Any = getattr(self._tls, "_sslobj", self._tls)
        self._read, self._encrypt = inner.read, inner.write
        self._take = self._outgoing.read
        self._hold = HELD_SHAKING
        self._queue: deque[bytes | memoryview] = deque()
        self.queued_bytes = 0
        """Written bytes that are not encrypted yet."""
        self._flushing: Any = None
        self._source = Source()
        self._reason: Failure | None = None

    def _fail(self, error: BaseException, *, abort: bool = False) -> None:
        raise NotImplementedError

    def _settle_end(self) -> None:
        raise NotImplementedError

    # ---- to the peer -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes: those of one turn of the reactor together, and many in pieces, as the peer reads."""
        if not self._append(data):
            return
        hold = self._hold
        if not hold:
            if self.queued_bytes >= PIECE_BYTES:
                self._flush()
            elif self._flushing is None:
                self._flushing = self.factory.clock.callLater(0, self._flush_later)
        elif hold & (HELD_SHAKING | HELD_FULL):
            self._source.pause()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send the bytes of several objects."""
        self.write(b"".join(data))

    def write_now(self, data: bytes) -> int:
        """Send bytes in this turn of the reactor.

        :returns: how many bytes of the stream are left to it, or written and not encrypted yet; 0 if the
            socket took all.
        """
        if self._hold or self._queue or self.disconnecting or not 0 < len(data) <= RECORD_BYTES:
            if self._append(data):
                return self._flush()
            return self.queued_bytes
        try:
            self._encrypt(data)
        except ssl.SSLError as error:
            self._fail(error)
            return 0
        return self._send(self._take())

    def _append(self, data: bytes) -> bool:
        """Have bytes wait; return whether there are any, and they are taken."""
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        # A producer may write until it is unregistered, but not after the peer's end.
        if not data or (self.disconnecting and (self._source.producer is None or self._reason is not None)):
            return False
        self._queue.append(data)
        self.queued_bytes += len(data)
        return True

    def _flush_later(self) -> None:
        self._flushing = None
        self._flush()

    def _flush(self) -> int:
        """Encrypt and send what is queued while the stream takes it; then close if that is wanted.

        :returns: how many bytes are left to the stream.
        """
        left, share = 0, TURN_BYTES
        try:
            while self._queue and not self._hold and share > 0:
                piece = next_piece(self._queue)
                share -= len(piece)
                self.queued_bytes -= len(piece)
                while piece:
                    piece = piece[self._encrypt(piece[:RECORD_BYTES]) :]
                if self._queue or self.phase is not ENDING:
                    left = self._send(self._take())
        except ssl.SSLError as error:
            self._fail(error)
            return 0
        if self._queue:
            if not self._hold and self._flushing is None:
                self._flushing = self.factory.clock.callLater(0, self._flush_later)
            if self._hold != HELD_DELIVERING:
                self._source.pause()
            return left + self.queued_bytes
        if self.phase is ENDING:
            # Our close_notify leaves with the last bytes.
            self._settle_end()
        if not self._hold & (HELD_OVER | HELD_FULL):
            self._send_outgoing()
        if self._source.is_paused and not self._hold:
            self._source.resume()
        return left

    def _send_outgoing(self) -> None:
        """Send what TLS itself has to say."""
        if self._outgoing.pending:
            self._send(self._take())

    # ---- back-pressure ---------------------------------------------------------------------------

    def below_is_full(self) -> None:
        """The peer does not read: encrypt nothing for now."""
        self._hold |= HELD_FULL
        self._source.pause()

    def below_has_room(self) -> None:
        """The peer has read: go on."""
        self._hold &= ~HELD_FULL
        self._flush()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause a producer while the peer does not read, and during the handshake once it has written.

        :raises RuntimeError: there is one already.
        """
        if self.phase is OVER:
            producer.stopProducing()
            return
        self._source.register(producer, self, streaming=streaming)
        if self._hold & HELD_FULL:
            self._source.pause()

    def unregisterProducer(self) -> None:
        """Forget the producer; a connection that was to be closed is closed when all is sent."""
        if self._source.unregister() and self.phase is ENDING:
            self._flush()
