"""One node of the cluster: its connection, made when something is to be sent, and made again when lost.

Nothing here waits. A node is told by the loop when its socket is ready, and when time has passed.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Generator
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, Callable

from couchbase import exceptions as rc
from couchbase.blocking.calls import Call
from couchbase.exceptions import AuthError, BucketNotFoundError, CouchbaseError, error_of
from couchbase.protocol.answers import AnswerReader, Undecodable
from couchbase.protocol.constants import Magic, ServerOpcode
from couchbase.protocol.errormap import ServerStatus
from couchbase.protocol.frames import HEADER, Frame, encode_request
from couchbase.protocol.handshake import Session
from couchbase.protocol.offers import NO_FULL_LOOKUP, lacks
from couchbase.protocol.operations import (
    GET_WITH_EXPIRY,
    PathsRefused,
    client_error,
    complete,
    downgrade,
    head,
)
from couchbase.protocol.plans import Compute, Exchange, Pause
from couchbase.protocol.statuses import Action, action_for
from couchbase.protocol.strangers import MAYBE_TLS, tls_hint

FIRST_DELAY_SECONDS = 0.05
LAST_DELAY_SECONDS = 1.0
CONNECT_SECONDS = 2.0
"""Time for a connection and its handshake; then it is tried anew."""
RECEIVE_BYTES = 256 * 1024

_SERVER_REQUEST = int(Magic.SERVER_REQUEST)
_WAIT = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Listener = Callable[[Any], bool]


class Node:
    """A node's key-value service.

    :param owner: the :class:`couchbase.blocking.cluster.Cluster`, which gives a selector, time, TLS and
        handshakes, and is told what happens.
    """

    def __init__(self, host: str, port: int, owner: Any) -> None:
        self.host = host
        self.port = port
        self.ready = False
        self.closed = False
        self.failures = 0
        self.last_error: Exception | None = None
        self.asked_at = 0.0
        """When something was sent last, and when something came."""
        self.heard_at = 0.0
        self.session = Session(frozenset(), None, {})
        self.lacking: frozenset[int] = frozenset()
        """What its HELLO did not grant, and what it refused since; see :mod:`couchbase.protocol.offers`."""
        self.pending: dict[int, Call] = {}
        self.waiting: list[tuple[Call, int]] = []
        self._owner = owner
        self._sock: Any = None
        self._events = 0
        self._step: Callable[[], None] | None = None
        self._addresses: list[Any] = []
        self._plan: Generator[Any, Any, Any] | None = None
        # Whether the node has still to answer the first words of the handshake.
        self._greets = False
        self._retry_at = 0.0
        self._opaque = 0
        self._attempt = 0
        self._spent = False
        self._out: list[bytes] = []
        # What the socket did not take yet.
        self._unsent = memoryview(b"")
        self._reader = AnswerReader()
        # Requests of the driver itself: opaque -> called with each frame, true to keep listening.
        self._questions: dict[int, Listener] = {}
        self._unasked: dict[int, tuple[int, Listener, dict[str, Any]]] = {}

    @property
    def name(self) -> str:
        """``host:port`` of the node's key-value service."""
        return f"{self.host}:{self.port}"

    @property
    def idle(self) -> bool:
        """Whether there is no connection, nor is one being made."""
        return self._sock is None

    # --- sending ---------------------------------------------------------------------------

    def send(self, call: Call, vbucket: int) -> None:
        """Put an operation on the wire with the next flush, or once there is a connection."""
        if not self.ready:
            call.vbucket = vbucket
            self.waiting.append((call, vbucket))
            self.start()
            return
        if self.lacking and not self._owner.adapt(self, call):
            return
        self._opaque = opaque = (self._opaque + 1) & 0xFFFFFFFF
        call.opaque = opaque
        call.pending = pending = self.pending
        pending[opaque] = call
        out = self._out
        if not out:
            self._owner.dirty.append(self)
        if call.framing:
            out.append(head(call, vbucket, opaque))
        else:
            # head(), by hand: this is the path of nearly every operation.
            key, extras, value = call.key_bytes, call.extras, call.value
            call.vbucket = vbucket
            size, more = len(key), len(extras)
            out.append(
                HEADER.pack(
                    0x80,
                    call.operation.opcode,
                    size,
                    more,
                    0,
                    vbucket,
                    size + more + len(value),
                    opaque,
                    call.cas,
                )
            )
            out.append(extras + key if more else key)
        if call.value:
            out.append(call.value)

    def ask(self, opcode: int, listener: Listener, fields: dict[str, Any]) -> int:
        """Send a request of the driver's own; returns its number, for :meth:`forget`.

        :param listener: called with each answer, true to wait for more, and with ``None`` if there is no
            connection to be had, or it is lost first.
        """
        self._opaque = opaque = (self._opaque + 1) & 0xFFFFFFFF
        if self.ready:
            self._put_question(opaque, opcode, listener, fields)
        else:
            self._unasked[opaque] = opcode, listener, fields
            self.start()
        return opaque

    def _put_question(self, number: int, opcode: int, listener: Listener, fields: dict[str, Any]) -> None:
        self._questions[number] = listener
        if not self._out:
            self._owner.dirty.append(self)
        self._out.append(encode_request(opcode, opaque=number, **fields))

    def forget(self, number: int) -> None:
        """Stop listening for answers to a request of the driver's own."""
        self._questions.pop(number, None)
        self._unasked.pop(number, None)

    def flush(self) -> None:
        """Give the socket what is to be sent; it takes the rest when it can."""
        sock, out = self._sock, self._out
        if sock is None:
            out.clear()
            return
        if not self._unsent:
            if not out:
                return
            data = b"".join(out) if len(out) > 1 else out[0]
            out.clear()
            self.asked_at = self._owner.seconds()
            try:
                sent = sock.send(data)
            except _WAIT:
                sent = 0
            except OSError as error:
                self.lose(error)
                return
            if sent < len(data):
                self._unsent = memoryview(data)[sent:]
                self._watch(EVENT_READ | EVENT_WRITE)
            return
        self._watch(EVENT_READ | EVENT_WRITE)

    def _write(self) -> None:
        """The socket takes bytes again."""
        while self._unsent or self._out:
            if not self._unsent:
                self._unsent = memoryview(b"".join(self._out))
                self._out.clear()
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except _WAIT:
                return
            except OSError as error:
                self.lose(error)
                return
        self._watch(EVENT_READ)

    # --- connecting ------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, unless that is under way, or failed a moment ago: then it is done in a moment."""
        if self._sock is not None or self.closed:
            return
        if self._owner.seconds() < self._retry_at:
            self._owner.call_at(self._retry_at, self._start_if_wanted)
            return
        self._attempt += 1
        self._owner.call_at(self._owner.seconds() + CONNECT_SECONDS, partial(self._give_up, self._attempt))
        self._resolve()

    def _resolve(self) -> None:
        try:
            self._addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._unresolved(error)
        else:
            self._try_next()

    def _unresolved(self, error: Exception) -> None:
        self.lose(
            error_of(rc.UNKNOWN_HOST, f"the name {self.host!r} does not resolve: {error}", inner_cause=error)
        )

    def _give_up(self, attempt: int) -> None:
        if attempt == self._attempt and not self.ready and not self.closed:
            self.lose(error_of(rc.ETIMEDOUT, f"{self.name} does not answer"))

    def _start_if_wanted(self) -> None:
        if self.waiting or self._unasked:
            self.start()

    def _try_next(self, why: OSError | None = None) -> None:
        error = why or OSError("no address")
        while self._addresses:
            family, kind, protocol, _, address = self._addresses.pop(0)
            try:
                self._sock = sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    sock.connect(address)
                except _WAIT:
                    pass
            except OSError as failure:
                error = failure
                self._drop_socket()
                continue
            self._step = self._connected
            self._watch(EVENT_WRITE)
            return
        self.lose(error)

    def _connected(self) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._drop_socket()
            self._try_next(OSError(code, f"cannot connect to {self.name}: {os.strerror(code)}"))
            return
        try:
            self._sock.getpeername()
        except OSError:
            return  # An event of the socket before this one.
        context = self._owner.tls_context
        if context is not None:
            self._watch(0)
            try:
                self._sock = context.wrap_socket(
                    self._sock, server_hostname=self.host, do_handshake_on_connect=False
                )
            except (OSError, ValueError) as error:
                self.lose(_tls_error(self.name, error))
                return
            self._step = self._shake_tls
            self._shake_tls()
            return
        self._greet()

    def _shake_tls(self) -> None:
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(EVENT_WRITE)
        except (OSError, ValueError) as error:
            self.lose(_tls_error(self.name, error))
        else:
            self._greet()

    def _greet(self) -> None:
        """Connected: shake hands over the key-value protocol."""
        self._step = None
        self._watch(EVENT_READ)
        self._plan = self._owner.handshake(self.host)
        self._advance(None)

    def _advance(self, answer: Any) -> None:
        assert self._plan is not None
        self._greets = answer is None
        try:
            step = self._plan.send(answer)
            while isinstance(step, Compute):
                step = self._plan.send(step.function(*step.arguments))
            if isinstance(step, Pause):
                self._owner.call_at(
                    self._owner.seconds() + step.seconds, partial(self._after_pause, self._attempt)
                )
                return
            if not isinstance(step, Exchange):
                raise TypeError(f"a node cannot perform {step!r}")
        except StopIteration as done:
            self._greeted(done.value)
            return
        except CouchbaseError as error:
            self.lose(error)
            return
        frames: list[Frame] = []
        wanted = len(step.requests)

        def take(frame: Frame | None) -> bool:
            if frame is not None:
                frames.append(frame)
                if len(frames) == wanted:
                    # Answers come in the order of the requests.
                    self._advance(frames)
            return False

        for opcode, fields in step.requests:
            self._opaque += 1
            self._put_question(self._opaque, opcode, take, fields)

    def _after_pause(self, attempt: int) -> None:
        if attempt == self._attempt and self._plan is not None:
            self._advance(())

    def _greeted(self, session: Session) -> None:
        self._plan = None
        self.session = session
        self.lacking = lacks(session)
        self.ready = True
        self.failures = 0
        self.last_error = None
        waiting, self.waiting = self.waiting, []
        for call, vbucket in waiting:
            if not call.done:
                self.send(call, vbucket)
        unasked, self._unasked = self._unasked, {}
        for number, (opcode, listener, fields) in unasked.items():
            self._put_question(number, opcode, listener, fields)
        self._owner.node_ready(self)

    # --- receiving -------------------------------------------------------------------------

    def handle(self, events: int) -> None:
        """The socket can be read, written, or both."""
        if self._step is not None:
            self._step()
            return
        if self._sock is None:
            # Lost by what another socket's event led to.
            return
        if events & EVENT_READ:
            self._read()
        if events & EVENT_WRITE and self._sock is not None:
            self._write()

    def _read(self) -> None:
        sock = self._sock
        while True:
            try:
                data = sock.recv(RECEIVE_BYTES)
            except _WAIT:
                return
            except OSError as error:
                self._cut(error)
                return
            if not data:
                self._cut(OSError("the node closed the connection"))
                return
            self.heard_at = self._owner.seconds()
            self.received(data)
            # What TLS has decrypted already does not show in the socket's readiness.
            if self._sock is not sock or self._owner.tls_context is None or not sock.pending():
                return

    def _cut(self, error: OSError) -> None:
        """The peer has ended the connection."""
        if self._greets and self._owner.tls_context is None:
            error = OSError(f"{error}: {MAYBE_TLS}")
        self.lose(error)

    def received(self, data: bytes) -> None:
        """Complete the operations whose answers arrived."""
        reader = self._reader
        pairs = iter(reader.feed(data, self.pending))
        for call, result in zip(pairs, pairs):
            if call is None:
                self._other(result)
            # Call.succeed(), by hand.
            elif not call.done:
                call.done = True
                call.result = result
                call.batch.remaining -= 1
                if call.ended is not None:
                    call.ended(call)
        if self._reader is not reader:
            return
        if self.closed:
            self.close_if_spent()
        elif self._spent:
            self.lose(OSError("the node asked for a new connection"))
        elif reader.violation is not None:
            self.lose(error_of(rc.PROTOCOL_ERROR, f"{self.name}: protocol violation: {reader.violation}"))

    def _answered_by(self, call: Call, frame: Frame) -> None:
        if not frame.specific:
            try:
                result = complete(call, frame, None, self.name)
            except Exception as error:  # noqa: BLE001 - a transcoder's failure is the caller's
                self._undecodable(call, error)
            else:
                call.succeed(result)
            return
        error_map = self.session.error_map
        if frame.specific in error_map:
            self._explained(call, frame, error_map[frame.specific])
            return
        action = action_for(call.operation.name, frame.specific, self.session.xerror)
        if action is Action.SURFACE:
            if downgrade(call, frame.specific):
                self.lacking |= {NO_FULL_LOOKUP}
                self.send(call, call.vbucket)
                return
            try:
                call.succeed(complete(call, frame, None, self.name))
            except CouchbaseError as error:
                call.fail(error)
            return
        self._owner.put_off(self, call, frame, action)
        if action is Action.RECONNECT:
            self._spent = True

    def _explained(self, call: Call, frame: Frame, status: ServerStatus) -> None:
        """Handle a status that only the server's error map explains."""
        action = status.action(call.attempts)
        if action is not Action.SURFACE or status.refreshes:
            self._owner.put_off(self, call, frame, action)
        if action is Action.SURFACE:
            try:
                call.succeed(complete(call, frame, status, self.name))
            except CouchbaseError as error:
                call.fail(error)
        self._spent = self._spent or status.reconnects

    def _undecodable(self, call: Call, error: Exception) -> None:
        if isinstance(error, PathsRefused) and call.operation is GET_WITH_EXPIRY:
            self.lacking |= {NO_FULL_LOOKUP}
            self.send(call, call.vbucket)
            return
        if isinstance(error, CouchbaseError):
            error.key = call.key if error.key is None else error.key
            error.operation = call.operation.name
        call.fail(error)

    def _other(self, found: Frame | Undecodable) -> None:
        """Handle what is no plain success."""
        if isinstance(found, Undecodable):
            self._undecodable(*found)
            return
        frame = found
        if frame.magic == _SERVER_REQUEST:
            # The server's numbers are its own.
            if frame.opcode == ServerOpcode.CLUSTERMAP_CHANGE and frame.value:
                self._owner.adopt_from(self, frame.value)
            return
        call = self.pending.pop(frame.opaque, None)
        if call is not None:
            call.pending = None
            self._answered_by(call, frame)
            return
        listener = self._questions.pop(frame.opaque, None)
        if listener is not None and listener(frame):
            self._questions[frame.opaque] = listener

    # --- the end ---------------------------------------------------------------------------

    def lose(self, error: Exception) -> None:
        """Give the connection up. What was in flight fails: nobody knows whether it was carried out."""
        self._drop_socket()
        self._step = self._plan = None
        served, self.ready, self._spent = self.ready, False, False
        self._attempt += 1
        self._out.clear()
        self._unsent = memoryview(b"")
        self._reader = AnswerReader()
        self.failures += 1
        self.last_error = error
        delay = min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self.failures - 1, 10))
        # A connection that served is worth another try at once.
        self._retry_at = 0.0 if served else self._owner.seconds() + delay
        questions, self._questions = self._questions, {}
        unasked, self._unasked = self._unasked, {}
        calls, self.pending = list(self.pending.values()), {}
        code = error.rc if isinstance(error, CouchbaseError) else rc.NETWORK_ERROR
        for call in calls:
            call.pending = None
            failure = client_error(call, code, f"the connection was lost: {_words(error)}", ambiguous=True)
            failure.inner_cause = error
            call.fail(failure)
        if isinstance(error, (AuthError, BucketNotFoundError)):
            waiting, self.waiting = self.waiting, []
            for call, _ in waiting:
                call.fail(refusal(call, error))
        for listener in (*questions.values(), *(entry[1] for entry in unasked.values())):
            listener(None)
        if not self.closed:
            self._owner.node_lost(self)
            if any(not call.done for call, _ in self.waiting):
                self._owner.call_at(self._retry_at, self._start_if_wanted)

    def retire(self) -> list[Call]:
        """Take no more operations; returns those that waited. Answers that are due may still come."""
        self.closed = True
        waiting, self.waiting = self.waiting, []
        self.close_if_spent()
        return [call for call, _ in waiting if not call.done]

    def close_if_spent(self) -> bool:
        """Close a retired node's connection if no answers are due on it any more; say if it is closed."""
        if self._sock is not None and not (self.ready and self.pending):
            self.close()
        return self._sock is None

    def close(self) -> None:
        """Drop the connection for good."""
        self.closed = True
        if self._sock is not None:
            self.lose(OSError("the connection was closed"))

    def forget_socket(self) -> None:
        """Close this process's copy of the socket without a word to the node (after a fork)."""
        self.closed = True
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _drop_socket(self) -> None:
        if self._sock is not None:
            self._watch(0)
            self._sock.close()
            self._sock = None

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        selector = self._owner.selector
        if not events:
            selector.unregister(self._sock)
        elif self._events:
            selector.modify(self._sock, events, self.handle)
        else:
            selector.register(self._sock, events, self.handle)
        self._events = events


def refusal(call: Call, error: Exception) -> CouchbaseError:
    """Return a connection's failure as the failure of one operation."""
    code = error.rc if isinstance(error, CouchbaseError) else rc.NETWORK_ERROR
    refused = client_error(call, code, _words(error))
    refused.inner_cause = error
    return refused


def connection_error(name: str, error: Exception) -> CouchbaseError:
    """Return why a node cannot be reached as the SDK's error."""
    if isinstance(error, CouchbaseError):
        return error
    return error_of(rc.NETWORK_ERROR, f"cannot connect to {name}: {error}", inner_cause=error)


def _words(error: Exception) -> str:
    return str(getattr(error, "message", None) or error)


def _tls_error(name: str, error: Exception) -> CouchbaseError:
    code = rc.SSL_CANTVERIFY if isinstance(error, ssl.CertificateError) else rc.SSL_ERROR
    text = f"no TLS connection to {name}: {error}{tls_hint(str(error))}"
    return error_of(code, text, inner_cause=error)
