"""One node of the cluster: its connection, opened when there is something to send, and reopened when lost.

Nothing here blocks. The loop notifies a node when its socket is ready, and when a timer is due.
"""

from __future__ import annotations

import os
import socket
import ssl
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any
from uuid import uuid4

from couchbase import exceptions
from couchbase.blocking.calls import WaitingCalls
from couchbase.blocking.faults import tls_error
from couchbase.blocking.question import Question
from couchbase.blocking.wire import WAIT, Wire
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.call import Call
from couchbase.protocol.conversation import Conversation, Listener, Phase, Resume
from couchbase.protocol.failures import refusal
from couchbase.protocol.peer import REFUSALS
from couchbase.protocol.plans import Compute, Pause
from couchbase.protocol.strangers import MAYBE_TLS

FIRST_DELAY_SECONDS = 0.05
LAST_DELAY_SECONDS = 1.0
CONNECT_SECONDS = 2.0
"""Timeout of connecting and handshake, in seconds; after it, another attempt is made."""


class NodeConnection(Wire):
    """A node's key-value service: the dispatcher's peer, and the transport of its conversation.

    :param owner: the :class:`couchbase.blocking.cluster.Cluster`, which provides selector, time, TLS and
        handshakes, and is notified of events.
    """

    def __init__(self, host: str, port: int, owner: Any) -> None:
        super().__init__(owner)
        self.host = host
        self.port = port
        self.closed = False
        self.failures = 0
        self.last_error: BaseException | None = None
        self.waiting = WaitingCalls()
        self._addresses: list[Any] = []
        self._retry_at = 0.0
        self._attempt = 0
        self._unasked: list[Question] = []

    @property
    def name(self) -> str:
        """``host:port`` of the node's key-value service."""
        return f"{self.host}:{self.port}"

    @property
    def idle(self) -> bool:
        """Whether there is no connection, and none is being opened."""
        return self._sock is None

    @property
    def conversation(self) -> Conversation | None:
        """The conversation with the node, if its handshake is done."""
        talk = self._talk
        return None if talk is None or talk.phase is Phase.GREETING else talk

    @property
    def open_conversation(self) -> Conversation | None:
        """The conversation, if the connection takes operations now."""
        talk = self._talk
        return talk if talk is not None and talk.phase is Phase.OPEN else None

    @property
    def is_ready(self) -> bool:
        """Whether operations can be sent."""
        return self.open_conversation is not None

    @property
    def pending(self) -> dict[int, Call]:
        """The operations that wait for answers."""
        return {} if self._talk is None else self._talk.pending

    # ---- sending ---------------------------------------------------------------------------------

    def send(self, call: Call, vbucket: int) -> None:
        """Send an operation with the next flush, or once there is a connection."""
        talk = self.open_conversation
        if talk is not None:
            talk.put(call, vbucket)
        else:
            call.vbucket = vbucket
            self.waiting.add(call)
            self.start()

    def take_waiting(self) -> list[Call]:
        """Remove and return the operations that wait for the connection."""
        return self.waiting.take()

    def ask(self, opcode: int, listener: Listener, fields: dict[str, Any]) -> Question:
        """Send one of the driver's own requests, now or once there is a connection.

        :param listener: called with each answer; returns true to wait for more. Called with ``None`` if no
            connection can be opened, or if it is lost before.
        """
        question = Question(opcode, listener, fields)
        talk = self.conversation
        if talk is not None:
            question.put(talk)
        else:
            self._unasked.append(question)
            self.start()
        return question

    # ---- connecting ------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, unless already connecting; after a recent failure, connect a moment later."""
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
            error_of(
                exceptions.UNKNOWN_HOST,
                f"the name {self.host!r} does not resolve: {error}",
                inner_cause=error,
            )
        )

    def _give_up(self, attempt: int) -> None:
        if attempt == self._attempt and not self.is_ready and not self.closed:
            self.lose(error_of(exceptions.ETIMEDOUT, f"{self.name} does not answer"))

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
                except WAIT:
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
            return  # This event belongs to a previous socket.
        context = self._owner.tls_context
        if context is not None:
            self._watch(0)
            try:
                self._sock = context.wrap_socket(
                    self._sock, server_hostname=self.host, do_handshake_on_connect=False
                )
            except (OSError, ValueError) as error:
                self.lose(tls_error(self.name, error))
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
            self.lose(tls_error(self.name, error))
        else:
            self._greet()

    def _greet(self) -> None:
        """Begin the handshake over the new connection."""
        self._step = None
        self._watch(EVENT_READ)
        talk = self._talk = Conversation(self.name, self.host, self, self._owner)
        talk.greet(self._owner.handshake(self.host, uuid4().hex), self._perform, partial(self._greeted, talk))

    def _perform(self, step: Compute | Pause, resume: Resume) -> None:
        if isinstance(step, Pause):
            self._owner.call_at(self._owner.seconds() + step.seconds, partial(resume, None))
            return
        try:
            result = step.function(*step.arguments)
        except Exception as error:  # noqa: BLE001  # the handshake decides
            resume(None, error)
        else:
            resume(result)

    def _greeted(self, talk: Conversation, error: BaseException | None) -> None:
        if talk is not self._talk:
            return
        if error is not None:
            self.lose(error)
            return
        self.failures = 0
        self.last_error = None
        self._owner.reroute()
        for call in self.take_waiting():
            talk.put(call, call.vbucket)
        unasked, self._unasked = self._unasked, []
        for question in unasked:
            question.put(talk)
        self._owner.node_ready(self)

    # ---- receiving -------------------------------------------------------------------------------

    def _cut(self, error: OSError) -> None:
        """Handle the end of the connection by the peer."""
        if self._talk is not None and not self._talk.is_answered and self._owner.tls_context is None:
            error = OSError(f"{error}: {MAYBE_TLS}")
        self.lose(error)

    def received(self, data: bytes) -> None:
        """Complete the operations whose answers arrived."""
        talk = self._talk
        if talk is None:
            return
        talk.receive(data)
        if self._talk is not talk:
            return
        if self.closed:
            self.close_if_spent()
        elif talk.phase is Phase.LEAVING:
            self.lose(OSError("the node asked for a new connection"))
        elif talk.fault is not None:
            self.lose(talk.fault)

    def leave(self) -> None:
        """Give the conversation no more operations; :meth:`received` closes the connection."""
        self._owner.reroute()

    # ---- the end ---------------------------------------------------------------------------------

    def lose(self, error: BaseException) -> None:
        """Drop the connection. Operations in flight fail: it is unknown whether they were executed."""
        self._drop_socket()
        talk, self._talk = self._talk, None
        served = talk is not None and talk.phase is not Phase.GREETING
        self._step = None
        self._attempt += 1
        self._unsent = memoryview(b"")
        self.failures += 1
        self.last_error = error
        delay = min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self.failures - 1, 10))
        # If the connection has worked before, try again at once.
        self._retry_at = 0.0 if served else self._owner.seconds() + delay
        unasked, self._unasked = self._unasked, []
        if talk is not None:
            if served:
                self._owner.reroute()
            code = error.rc if isinstance(error, CouchbaseError) else exceptions.NETWORK_ERROR
            talk.lose(error, str(getattr(error, "message", None) or error), code)
        if isinstance(error, REFUSALS):
            for call in self.take_waiting():
                call.fail(refusal(call, error))
        for question in unasked:
            question.lose()
        if not self.closed:
            self._owner.node_lost(self)
            if any(not call.done for call in self.waiting):
                self._owner.call_at(self._retry_at, self._start_if_wanted)

    def retire(self) -> list[Call]:
        """Take no more operations; returns those that waited. Outstanding answers may still come."""
        self.closed = True
        waiting = self.take_waiting()
        self.close_if_spent()
        return waiting

    def close_if_spent(self) -> bool:
        """Close a retired node's connection if no answers are outstanding; return whether it is closed."""
        if self._sock is not None and not (self.is_ready and self.pending):
            self.close()
        return self._sock is None

    def close(self) -> None:
        """Drop the connection for good."""
        self.closed = True
        if self._sock is not None:
            self.lose(OSError("the connection was closed"))

    def forget_socket(self) -> None:
        """Close this process's copy of the socket without notifying the node (after a fork)."""
        self.closed = True
        if self._sock is not None:
            self._sock.close()
            self._sock = self._talk = self.readable = None
