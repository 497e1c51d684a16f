"""An HTTP/2 connection: its streams, the state that they share, and its end.

h2 holds the state of the protocol (:mod:`gateway.http2.core`). This module decides when frames are read and
written: in small turns, and only while the client reads. It ends connections whose clients cause work without
making progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.http.clientconnection import ClientConnection
from gateway.http.counted import CountedRequest
from gateway.http.heads import Malformed
from gateway.http.linger import LingeringClose
from gateway.http.phases import ConnectionPhase, InputPhase
from gateway.http.ports import Timed
from gateway.http.refusal import Refusal
from gateway.http2.core import Core, is_whole_body
from gateway.http2.credit import Credit
from gateway.http2.frames import FrameCutter, Misuse, goaway, rst_stream
from gateway.http2.policing import Police
from gateway.http2.sender import FRAMES_A_TURN, Sender
from gateway.http2.stream import Stream
from reactor.gate import unread_bytes, waiting_bytes
from reactor.writer import send_small_parts, writer_to

if TYPE_CHECKING:
    from gateway.http2.server import HTTP2

__all__ = ["HTTP2Connection"]

IDLE, HEAD, BODY, HANDLING, DRAINING, CLOSING, LINGERING, CLOSED = ConnectionPhase
READING, PAUSED, ENDED, PROBED = InputPhase

_MAX_UNREAD = 2**16
"""Number of received, unprocessed bytes at which the connection stops reading from the socket."""

_MUCH_BYTES = 1024
"""Number of such bytes from which on connections share the reactor's time."""

_FEW_FRAMES = 8
"""Number of frames that are read at once if the share of this turn is used up."""

_LAST_STREAM = 2**31 - 1
_DRAINED = b"drained."


class Leaving(IntEnum):
    """Whether the client has to use another connection."""

    STAYS = 0
    ASKED = 1
    """GOAWAY was sent; requests that crossed it on the way are served."""
    KNOWS = 2
    """The client has read GOAWAY, and sends no further requests."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class HTTP2Connection(ClientConnection):
    """One client's connection.

    Its phases are those of :class:`gateway.http.phases.ConnectionPhase`: ``HEAD`` while a head is incomplete,
    ``HANDLING`` while there are streams, ``IDLE`` without any. Streams have their own phases.

    :param server: has the application, the limits, and the state that all connections share.
    """

    _turn: Any = None
    """The next turn, if one is scheduled."""
    _waits = False
    """Whether frames wait for this connection's share of a turn."""
    _is_processing = False
    _leaving = Leaving.STAYS

    def __init__(self, server: HTTP2, transport: Any) -> None:
        self.server = server
        self.factory = server.factory
        self.application = server.application
        self.transport = transport
        self.phase = HEAD
        self.input = READING
        limits = server.application.limits
        self.streams: dict[int, Stream] = {}
        self._max_streams = limits.max_streams
        self._core = Core(limits.max_streams, limits.max_headers)
        self._cutter = FrameCutter(2 * limits.max_headers)
        self.police = Police(limits.max_streams, self.factory.clock.seconds())
        self._sender = Sender(self._core, writer_to(transport))
        self._credit = Credit(self._core)
        self._idle_since: float | None = None

    # ---- Protocol --------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Send the settings."""
        send_small_parts(self.transport)
        self.transport.registerProducer(self, True)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """Take received bytes."""
        if self.phase >= CLOSING:
            if self._lingering is not None:
                self._lingering.discard(len(data))
            return
        try:
            self._cutter.receive(data)
        except Misuse as error:
            self._fail(error.code, error.text)
            return
        if self._turn is None and not self.is_stalled and not self._waits:
            self._process()
        else:
            self._settle_reading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel all requests."""
        self.phase = CLOSED
        self.factory.pipelines.leave(self)
        self.let_go()
        self.factory.lost(self)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if waiting_bytes(self.transport):
            self._sender.count_lost()
        else:
            self._sender.count_sent()
        for stream in list(self.streams.values()):
            stream.lose(reason)

    # ---- from bytes to streams -------------------------------------------------------------------

    def _process(self) -> None:
        """Read frames, but not so many that other connections have to wait."""
        self._is_processing = True
        try:
            is_much = self._cutter.waiting_bytes > _MUCH_BYTES and not self.factory.pipelines.may_go_on()
            frames = self._cutter.take(_FEW_FRAMES if is_much else FRAMES_A_TURN)
            data = self.police.inspect(frames, self.streams, self.factory.clock.seconds())
            events = deque(self._core.receive_data(data))
            while events and self.phase < CLOSING:
                self._handle(events.popleft(), events)
        except Misuse as error:
            self._fail(error.code, error.text)
        except ProtocolError as error:
            self._fail(error.error_code, str(error))
        finally:
            self._is_processing = False
        if self.phase < CLOSING:
            self._flush()
            self._settle()

    def _handle(self, event: Any, following: deque[Any]) -> None:
        kind = type(event)
        if kind is RequestReceived:
            self._begin(event, following)
        elif kind is WindowUpdated:
            self._widened(event.stream_id)
        elif kind is RemoteSettingsChanged:
            self._core.limit_table()
            self._widened(0)
        elif kind is PingAckReceived:
            if event.ping_data == _DRAINED:
                self._leaving = Leaving.KNOWS
        else:
            stream = self.streams.get(getattr(event, "stream_id", 0))
            if stream is not None:
                if kind is StreamReset:
                    self.police.reset(self.factory.clock.seconds())
                stream.take(event)
            if kind is DataReceived:
                self._credit.receive(event.flow_controlled_length)

    def _begin(self, event: RequestReceived, following: deque[Any]) -> None:
        """Serve a request."""
        number = event.stream_id
        assert number is not None
        if len(self.streams) >= self._max_streams:
            self.police.reset(self.factory.clock.seconds())
            self.reset(number, ErrorCodes.REFUSED_STREAM)
            return
        if self.factory.stopping:
            self.leave()
        stream = self.streams[number] = Stream(self, number)
        fields: Any = event.headers or []
        is_complete = event.stream_ended is not None
        body = None
        if is_complete:
            following.popleft()
        elif following and is_whole_body(following[0], number):
            # Most clients send a small body with its head.
            data = following.popleft()
            following.popleft()
            body, is_complete = data.data, True
            self._credit.receive(data.flow_controlled_length)
        try:
            head = self.server.heads.read(fields)
        except (Malformed, Refusal) as error:
            stream.refuse_head(error, fields, is_complete=is_complete)
        else:
            stream.serve(head, body, is_complete=is_complete)

    def _widened(self, number: int) -> None:
        """Send the bytes that had to wait for the window."""
        waiting = self.streams.values() if not number else [self.streams.get(number)]
        for stream in waiting:
            if stream is not None and stream.has_queued:
                self._sender.wake(stream)

    # ---- what streams ask for --------------------------------------------------------------------

    def wake(self, stream: Stream) -> None:
        """Schedule a stream's bytes to be sent at the end of the turn."""
        self._sender.wake(stream)
        if not self._is_processing:
            self._take_turn()

    def keep(self, size: int) -> None:
        """Note that bytes of bodies wait for their handlers; a negative number means that they no longer
        wait."""
        if self.phase < CLOSING and self._credit.keep(size):
            self._take_turn()

    def open_window(self, number: int, size: int) -> None:
        """Let the client send more of one body."""
        if self.phase < CLOSING:
            try:
                self._core.increment_flow_control_window(size, number)
            except (KeyError, ProtocolError):
                # The client has ended the stream: that event is not handled yet.
                return
            self._take_turn()

    def reset(self, number: int, code: ErrorCodes) -> None:
        """End a stream with RST_STREAM."""
        if self.phase >= CLOSING:
            return
        try:
            self._core.reset_stream(number, code)
        except ProtocolError:
            # Both sides have ended the stream; the client may still be notified.
            self._sender.write(rst_stream(number, code))
        self._take_turn()

    def sent(self, request: CountedRequest) -> None:
        """Count a request as soon as the kernel has its answer."""
        self._sender.complete(request)

    def left(self, stream: Stream) -> None:
        """Forget a stream that has ended."""
        self._sender.forget(stream)
        self.streams.pop(stream.number, None)
        if not self.streams:
            self._idle_since = self.factory.clock.seconds()
            self._take_turn()

    # ---- turns -----------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        if self._turn is None and not self._is_processing and self.phase < CLOSING:
            self._turn = self.factory.clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        if self.phase >= CLOSING:
            return
        if self._cutter.has_frame and not self.is_stalled and not self._waits:
            self._process()
        else:
            self._flush()
            self._settle()

    def go_on(self) -> None:
        """Read the frames that wait."""
        self._waits = False
        if self.phase < CLOSING and not self.is_stalled:
            self._process()

    def _flush(self) -> None:
        """Send the streams' bytes."""
        self._is_processing = True
        try:
            self._sender.flush()
        finally:
            self._is_processing = False

    def _settle(self) -> None:
        """Decide what to wait for."""
        if self.phase >= CLOSING:
            return
        if not self.is_stalled:
            if self._cutter.has_frame and not self._waits:
                self._waits = True
                self.factory.pipelines.wait(self)
            if self._sender.has_ready:
                self._take_turn()
        if not self.streams and (self._leaving is Leaving.KNOWS or self.input >= ENDED):
            self.close()
            return
        if self._cutter.awaits_head:
            if self.phase is not HEAD:
                self._enter(HEAD)
        elif self.streams:
            self.phase = HANDLING
        else:
            self.phase = IDLE
            self.since = self._idle_since
        self.note_unread()
        self._settle_reading()

    def _settle_reading(self) -> None:
        """Read from the socket only if there is room for the bytes, and the client reads, too."""
        if self.phase >= CLOSING or self.input >= ENDED:
            return
        if not self.is_stalled and self._cutter.waiting_bytes <= _MAX_UNREAD:
            self.read_on()
        elif self.input is READING:
            self.input = PAUSED
            self.transport.pauseProducing()

    # ---- back-pressure ---------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Stop sending: the kernel has no room."""
        self._sender.is_stalled = True
        self._settle_reading()

    def resumeProducing(self) -> None:
        """Continue to send."""
        self._sender.is_stalled = False
        self.stalled_since = None
        self._sender.count_sent()
        self._take_turn()

    def note_unread(self) -> None:
        """Count the bytes that wait for the client."""
        size = waiting_bytes(self.transport) if self.is_stalled else 0
        for stream in self.streams.values():
            size += stream.queued_bytes
        self.application.unread_answers.hold(self, size)

    # ---- deadlines (gateway.http.ports.Connection) -----------------------------------------------

    def timed(self) -> Sequence[Timed]:
        """Return itself and its streams."""
        return [self, *self.streams.values()]

    @property
    def is_stalled(self) -> bool:
        """Whether the client does not read from the connection at all."""
        return self._sender.is_stalled

    @property
    def allowance(self) -> float:
        """Extra seconds that the current phase may take: none."""
        return 0.0

    def probe(self) -> None:
        """Find out whether a client that has closed its half still exists."""
        if self.input is ENDED:
            self.input = PROBED
            self._core.ping(bytes(8))
            self._take_turn()

    def refuse(self, error: Refusal) -> None:
        """End a connection whose next head takes too long."""
        self._fail(ErrorCodes.ENHANCE_YOUR_CALM, error.message)

    def out_of_memory(self) -> bool:
        """Handle a lack of memory: refuse the requests whose bodies are held in memory; without any, end the
        connection, so that the client still gets the answers written before.

        :returns: true: it need not be cut.
        """
        refused = [stream for stream in list(self.streams.values()) if stream.out_of_memory()]
        if not refused:
            self._fail(ErrorCodes.INTERNAL_ERROR, "There is no memory left.")
        return True

    # ---- the end ---------------------------------------------------------------------------------

    def readConnectionLost(self) -> None:
        """Note that the client has closed its half: only running requests continue."""
        self.input = ENDED
        if self.phase >= CLOSING:
            self.transport.loseConnection()
            return
        for stream in list(self.streams.values()):
            stream.client_has_closed()
        self._take_turn()

    def leave(self) -> None:
        """Make the client send further requests elsewhere; those that it sends before it reads GOAWAY are
        still served."""
        if self.phase < CLOSING and self._leaving is Leaving.STAYS:
            self._leaving = Leaving.ASKED
            self._sender.write(goaway(_LAST_STREAM, ErrorCodes.NO_ERROR))
            # The client's answer to this PING shows that it has read GOAWAY.
            self._core.ping(_DRAINED)
            self._take_turn()

    def _fail(self, code: ErrorCodes, text: str) -> None:
        """End the connection, and send the reason."""
        if self.phase < CLOSING:
            self._end(code, text)

    def close(self) -> None:
        """Close; requests that the client has sent meanwhile are not served, and GOAWAY tells it so."""
        if self.phase < CLOSING:
            self._end(ErrorCodes.NO_ERROR)

    def _end(self, code: ErrorCodes, text: str = "", *, in_stages: bool = True) -> None:
        self._sender.write(goaway(self._core.highest_inbound_stream_id, code, text))
        self._enter(CLOSING)
        for stream in list(self.streams.values()):
            stream.lose(connectionDone)
        # Their answers are dropped now, and the client may take a long time to close.
        self.note_unread()
        self._lingering = LingeringClose(self, 0)
        self._lingering.begin(in_stages=in_stages and self.input < ENDED)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being served."""
        return not self.streams and not self._cutter.awaits_head

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being served, or has just arrived."""
        if self.is_idle and self.phase < CLOSING and not unread_bytes(self.transport):
            self._end(ErrorCodes.NO_ERROR, in_stages=False)
