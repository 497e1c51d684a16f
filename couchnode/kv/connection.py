"""A connection to the key-value port: requests in, answers out in the same order, and limits on both.

All requests of one received chunk are handled together, and their answers leave in one write. An
answer that has to wait (for a synchronous write) keeps its place in the order, and later answers
queue behind it. Reading from a slow reader is paused: a connection holds at most one chunk of
requests and one batch of answers.

Requests stay bytes until they are handled: :mod:`couchnode.kv.fastpath` answers usual requests straight
from the bytes, and only the others are decoded into frames.

A connection has three independent states: its life, its input and its output
(:mod:`couchnode.kv.phases`).
"""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from couchbase.protocol.constants import HEADER_BYTES, REQUEST_MAGICS, Opcode
from couchbase.protocol.frames import HEADER, Frame, FrameReader
from couchnode.kv.aside import InTurn
from couchnode.kv.commands import dispatch
from couchnode.kv.commands.table import COMMANDS
from couchnode.kv.durations import add_durations
from couchnode.kv.fastpath import quick_answers
from couchnode.kv.output import LARGE_BYTES, Output, Place
from couchnode.kv.owner import Owner
from couchnode.kv.phases import MAY_FOLLOW, Flow, Input, Life
from couchnode.kv.session import Session, Standing
from reactor.writer import writer_to

MAX_OUTPUT_BYTES = 128 * 2**10
"""Answers that are collected before they are written and the transport's buffer is checked: as much as
Twisted's TCP transport passes to the socket at once."""

MAX_WAITING = 1024
"""Answers that may queue on one connection behind one that waits."""

MAX_STRANGER_BYTES = 64 * 2**10
"""Largest incomplete frame of a connection before it is admitted: handshakes are short."""

HANDSHAKE_SECONDS = 60.0
"""How long a connection may stay without credentials where credentials are needed."""

TURN_SECONDS = 0.01
"""How long a connection handles requests in one turn of the reactor; the rest waits for the next one."""

CLOSE_SECONDS = 10.0
"""How long a peer may take to read its last answers before the connection is cut."""

# A look-up of an enumeration's member takes as long as the look-up of the document.
_IDLE, _READING, _WRITING = Life.IDLE, Input.OPEN, Flow.OPEN
_BODY = 6  # the place of the body's length in a header
# These may change the bucket in use, or the form of answers.
_CHANGES_SESSION = frozenset({Opcode.SELECT_BUCKET, Opcode.SASL_AUTH, Opcode.SASL_STEP, Opcode.HELLO})


@implementer(IPushProducer, IHandshakeListener)
class KeyValueConnection(StreamProtocol):
    """One client's connection."""

    transport: Any

    def __init__(self, owner: Owner[KeyValueConnection], peer: str) -> None:
        self.session = Session(owner.node, peer, owner.log)
        self._owner = owner
        self._clock = owner.node.cluster.clock
        self._life = Life.IDLE
        self._reading = Input.OPEN
        self._output = Output(self._hold_output)
        # Input that is not handled yet: requests from _at on, the last of them perhaps incomplete.
        self._input = b""
        self._at = 0
        # The pieces of one incomplete request, which is decoded once _need bytes have arrived.
        self._parts: list[bytes] = []
        self._need = 0
        self._places: deque[Place] = deque()
        # The answer that all later requests wait for.
        self._barrier: Place | None = None
        self._push_is_due = False
        self._held_input = 0
        self._cut: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        # The turn until which input is not handled, and the end of the present one.
        self._next_turn: IDelayedCall | None = None
        self._until = 0.0

    # ---- Protocol --------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Twisted: the connection is up."""
        if not self._owner.admit(self):
            self._enter(Life.LOST)
            self.transport.abortConnection()
            return
        self._output.open(writer_to(self.transport))
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        self._deadline = self._clock.callLater(HANDSHAKE_SECONDS, self._check_handshake)

    def handshakeCompleted(self) -> None:
        """Twisted: TLS is up. Log a client in by its certificate; cut it off if no user has that name."""
        tls = self._owner.tls
        user = None if tls is None else tls.user_of(self.transport)
        if user is None:
            return
        if user in self._owner.node.cluster.users:
            self.session.authenticated(user, Standing.CERTIFIED)
        else:
            self._owner.log.info("{peer}: closing: its certificate is of no user", peer=self.session.peer)
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes arrived."""
        output = self._output
        if (
            self._life is _IDLE
            and self._reading is _READING
            and output.flow is _WRITING
            and not (self._parts or self._places or output.unsent)
            and self._at == len(self._input)
        ):
            # Usually nothing is under way, and a chunk has whole, usual requests. For a client that waits for
            # each answer, all of the below would cost more than the answer.
            self._input, self._at = data, 0
            out: list[bytes] = []
            session = self.session
            bucket = session.bucket
            if bucket is not None and bucket.state == "ready" and not session.traces:
                self._at, held = quick_answers(session, bucket, data, 0, out, MAX_OUTPUT_BYTES)
                output.write_all(out, held)
                if self._at == len(data) and output.flow is _WRITING:
                    return
                self._run(declined=held < MAX_OUTPUT_BYTES)
            else:
                self._run()
            return
        if self._reading is Input.ENDED:
            return
        if self._parts:
            self._parts.append(data)
            held = self._held_input + len(data)
            if held < self._need:
                self._hold_input(held)
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._hold_input(0)
            if held > LARGE_BYTES:
                # Handled in the next turn, because joining and handling both take milliseconds.
                self._input, self._at = data, 0
                self._next_turn = self._clock.callLater(0, self._go_on)
                self._settle_input()
                return
        elif self._at < len(self._input):
            # Reading is paused, but a TLS transport may still deliver decrypted bytes.
            data = self._input[self._at :] + data
        self._input, self._at = data, 0
        self._run()

    def _go_on(self) -> None:
        self._next_turn = None
        self._run()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the connection is gone."""
        if self._life is not Life.LOST:
            self._enter(Life.LOST)
        self._drop_input()
        self._places.clear()
        self._output.lose()
        for timer in (self._cut, self._deadline, self._next_turn):
            if timer is not None and timer.active():
                timer.cancel()
        self._cut = self._deadline = None
        self._owner.held_bytes -= self._held_input
        self._held_input = 0
        self._owner.release(self)

    # ---- IPushProducer: the transport's view of our answers --------------------------------------

    def pauseProducing(self) -> None:
        """Twisted: the peer does not read; stop handling requests, and so stop reading."""
        self._output.pause()

    def resumeProducing(self) -> None:
        """Twisted: the peer has read all output so far."""
        self._output.resume()
        if not self._output.unsent:
            self._run()

    def stopProducing(self) -> None:
        """Twisted: the connection is going away."""
        self._output.pause()

    # ---- what the factory asks -------------------------------------------------------------------

    def config_changed(self, bucket: str) -> None:
        """The configuration of that bucket has changed: push it, or hang up if the bucket is gone."""
        if self.session.is_orphaned:
            self.transport.abortConnection()
            return
        current = self.session.bucket
        if current is None or current.name == bucket:
            self._push_is_due = True
            self._push()

    # ---- inside ----------------------------------------------------------------------------------

    def _run(self, declined: bool = False) -> None:
        """Handle requests while there is room for answers; the fast path may have declined the first one."""
        if self._life is not Life.IDLE:
            return
        self._enter(Life.HANDLING)
        self._until = self._clock.seconds() + TURN_SECONDS
        try:
            while self._may_go_on():
                self._handle_some(declined)
                declined = False
        finally:
            self._rest()
        if self._push_is_due:
            self._push()
        self._settle_input()

    def _rest(self) -> None:
        """End the handling of requests, unless the connection has ended."""
        if self._life is Life.HANDLING:
            self._enter(Life.IDLE)

    def _may_go_on(self) -> bool:
        if (
            self._at == len(self._input)
            or self._output.flow is not Flow.OPEN
            or self._next_turn is not None
            or self._output.unsent
            or self._barrier is not None
            or self.session.closing
            or len(self._places) >= MAX_WAITING
        ):
            return False
        if self._clock.seconds() > self._until:
            self._next_turn = self._clock.callLater(0, self._go_on)
        return self._next_turn is None

    def _handle_some(self, declined: bool) -> None:
        """Handle requests until their answers fill one write, and write them."""
        session, places, data = self.session, self._places, self._input
        bucket = session.bucket
        if bucket is not None and bucket.state != "ready":
            bucket = None
        begun = self._clock.seconds() if session.traces else None
        out: list[bytes] = []
        room = MAX_OUTPUT_BYTES
        while True:
            if declined:
                declined = False
            elif bucket is not None and not places:
                self._at, held = quick_answers(session, bucket, data, self._at, out, room)
                room -= held
                if room <= 0 or self._at == len(data):
                    break
            frame = self._next_frame()
            if frame is None:
                break
            answer = dispatch(session, frame)
            if isinstance(answer, bytes):
                room -= len(answer)
                if places:
                    places.append(Place(answer))
                else:
                    out.append(answer)
            elif answer is not None:
                self._hold_place(answer, frame.opcode)
            if room <= 0 or frame.opcode in _CHANGES_SESSION or not self._may_go_on():
                break
        if begun is not None:
            add_durations(out, places, self._clock.seconds() - begun)
        self._output.write_all(out, MAX_OUTPUT_BYTES - room)
        if places:
            self._release_places()
        elif session.closing:
            self._close()

    def _next_frame(self) -> Frame | None:
        """Take the next request from the input, as a frame; ``None`` if it is not complete. In that case the
        input is empty, its last bytes wait for more, or the stream cannot continue."""
        data, at = self._input, self._at
        end = min(at + HEADER_BYTES, len(data))
        need = HEADER_BYTES
        if at + HEADER_BYTES <= len(data):
            need += HEADER.unpack_from(data, at)[_BODY]
            if at + need <= len(data):
                end = at + need
        # The reader gets a whole frame or a header: it checks the header, while this class keeps the pieces
        # of an incomplete frame.
        reader = FrameReader(magics=REQUEST_MAGICS)
        frames = reader.feed(data[at:end] if at or end < len(data) else data)
        if frames:
            self._at = end
            return frames[0]
        self._drop_input()
        if reader.violation is not None:
            self._owner.log.info(
                "{peer}: closing: {violation}", peer=self.session.peer, violation=reader.violation
            )
            self._reading = Input.ENDED
            if self._places:
                self.transport.pauseProducing()
        elif at < len(data):
            self._parts.append(data[at:] if at else data)
            self._need = need
            self._hold_input(len(data) - at)
        return None

    def _drop_input(self) -> None:
        self._input, self._at = b"", 0
        self._parts.clear()

    def _hold_place(self, answer: Deferred[bytes], opcode: int) -> None:
        place = Place()
        self._places.append(place)
        row = COMMANDS[opcode]
        begun = self._clock.seconds() if self.session.traces else None
        is_barrier = isinstance(answer, InTurn) or (row is not None and row.barrier)
        if is_barrier:
            self._barrier = place

        def fill(result: object) -> None:
            if isinstance(result, Failure):
                self._owner.log.failure("{peer}: an answer failed", result, peer=self.session.peer)
                self.transport.abortConnection()
                return
            place.answer = cast(bytes, result)
            if begun is not None:
                add_durations([], [place], self._clock.seconds() - begun)
            if self._barrier is place:
                self._barrier = None
            if self._life is not Life.HANDLING:
                self._release_places()

        answer.addBoth(fill)

    def _release_places(self) -> None:
        """Write the complete answers at the front of the queue."""
        if self._life is Life.LOST:
            return
        ready: list[bytes] = []
        places = self._places
        while places and (answer := places[0].answer) is not None:
            places.popleft()
            ready.append(answer)
        if ready:
            self._output.write(b"".join(ready))
        if self.session.closing and not places:
            self._close()
        else:
            self._run()

    def _hold_output(self, change: int) -> None:
        """Count output held by a full transport; negative when it is empty again."""
        self._owner.held_bytes += change
        if change > 0:
            self._cut_if_too_much("unread answers")

    def _hold_input(self, size: int) -> None:
        """Record the size of the incomplete request that is held."""
        self._owner.held_bytes += size - self._held_input
        self._held_input = size
        if size > MAX_STRANGER_BYTES:
            if not self.session.is_admitted:
                self._owner.log.info("{peer}: closing: too long for a handshake", peer=self.session.peer)
                self.transport.abortConnection()
            else:
                self._cut_if_too_much("incomplete requests")

    def _cut_if_too_much(self, what: str) -> None:
        if self._owner.held_bytes > self._owner.max_held_bytes:
            self._owner.log.warn(
                "{peer}: cut off: {what} take {held} bytes",
                peer=self.session.peer,
                what=what,
                held=self._owner.held_bytes,
            )
            self.transport.abortConnection()

    def _check_handshake(self) -> None:
        if not self.session.is_admitted:
            self._owner.log.info("{peer}: closing: no credentials", peer=self.session.peer)
            self.transport.abortConnection()

    def _settle_input(self) -> None:
        """Continue reading only if all input is handled; end if the stream cannot continue."""
        if self._life is Life.LOST:
            return
        waits = self._at < len(self._input)
        if self._reading is Input.ENDED:
            if not waits and not self._places:
                self._close()
            return
        wanted = Input.PAUSED if waits or self._output.flow is not Flow.OPEN else Input.OPEN
        if wanted is not self._reading:
            self._reading = wanted
            if wanted is Input.PAUSED:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _close(self) -> None:
        """Close once the peer has read its answers, or after :data:`CLOSE_SECONDS`."""
        self._reading = Input.ENDED
        self._drop_input()
        if self._output.unsent:
            # The rest of a large answer; _settle_input() comes back here.
            return
        if self._life in (Life.IDLE, Life.HANDLING):
            self._enter(Life.CLOSING)
            # A registered producer would hold the connection open.
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._cut = self._clock.callLater(CLOSE_SECONDS, self._cut_off)

    def _enter(self, life: Life) -> None:
        assert life in MAY_FOLLOW[self._life], f"{life} after {self._life}"
        self._life = life

    def _cut_off(self) -> None:
        self._cut = None
        self.transport.abortConnection()

    def _push(self) -> None:
        """Send the configuration to a client that asked for changes, unless it already has this one. A
        client that does not read gets the newest configuration when it reads again."""
        if self._output.flow is not Flow.OPEN or self._life is Life.CLOSING:
            return
        self._push_is_due = False
        push = self.session.config_push()
        if push:
            self._output.write(push)
