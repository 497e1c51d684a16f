"""A node of the cluster: its connection, reopened when lost, and the operations that wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger

from couchbase import exceptions
from couchbase.protocol.call import Call
from couchbase.protocol.clustermap import NodeAddress
from couchbase.protocol.conversation import Conversation
from couchbase.protocol.failures import client_error, refusal
from couchbase.protocol.peer import REFUSALS
from reactor.clock import cancel_timer
from reactor.kinds import IReactor
from txcouchbase.causes import cause_text
from txcouchbase.node import NodeProtocol

_log = Logger()

MAX_BACKLOG_CALLS = 65_536
"""Largest number of operations that wait for one node to become reachable."""
MAX_BACKLOG_BYTES = 64 * 2**20
"""Largest total size of their values, in bytes."""

FIRST_DELAY_SECONDS = 0.05
LAST_DELAY_SECONDS = 5.0


class Backlog:
    """A bounded queue of operations, in order."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call, why: str) -> None:
        """Append a call, or fail it with ClientTemporaryFailError if the queue is full."""
        full = len(self._calls) >= MAX_BACKLOG_CALLS or self._bytes + len(call.value) > MAX_BACKLOG_BYTES
        if full:
            self._purge()
            full = len(self._calls) >= MAX_BACKLOG_CALLS or self._bytes + len(call.value) > MAX_BACKLOG_BYTES
        if full and self._calls:
            call.fail(client_error(call, exceptions.CLIENT_ETMPFAIL, f"too many operations wait: {why}"))
            return
        self._calls.append(call)
        self._bytes += len(call.value)

    def take(self) -> list[Call]:
        """Return the calls that are not over, oldest first, and empty the queue."""
        calls = [call for call in self._calls if not call.done]
        self._calls.clear()
        self._bytes = 0
        return calls

    def expired(self, now: float) -> list[Call]:
        """Remove and return the calls whose timeout has passed."""
        late = [call for call in self._calls if not call.done and call.deadline <= now]
        if late:
            gone = set(map(id, late))
            self._calls = deque(call for call in self._calls if not call.done and id(call) not in gone)
            self._bytes = sum(len(call.value) for call in self._calls)
        return late

    def _purge(self) -> None:
        self._calls = deque(call for call in self._calls if not call.done)
        self._bytes = sum(len(call.value) for call in self._calls)


class Link:
    """Keeps a connection to one node, and the operations that wait while there is none.

    :param connect: makes a connection and its handshake; returns a Deferred of the protocol.
    :param changed: called with the link when it becomes able or unable to send.
    """

    def __init__(
        self,
        address: NodeAddress,
        port: int,
        reactor: IReactor,
        connect: Callable[[str, int], Deferred[NodeProtocol]],
        changed: Callable[[Link], None],
        random: Callable[[], float],
    ) -> None:
        self.address = address
        self.port = port
        self.protocol: NodeProtocol | None = None
        self.backlog = Backlog()
        self.closed = False
        self.failures = 0
        self.last_error: BaseException | None = None
        self._reactor = reactor
        self._connect = connect
        self._changed = changed
        self._random = random
        self._paused = False
        self._waiters: list[Deferred[NodeProtocol | None]] = []
        self._retry: Any = None
        self._attempt: Deferred[Any] | None = None

    @property
    def name(self) -> str:
        """``host:port`` of the node's key-value service."""
        return f"{self.address.host}:{self.port}"

    @property
    def conversation(self) -> Conversation | None:
        """The conversation with the node, if there is a connection."""
        return None if self.protocol is None else self.protocol.conversation

    @property
    def open_conversation(self) -> Conversation | None:
        """The same, if the connection takes operations now."""
        return None if self._paused else self.conversation

    def send(self, call: Call, vbucket: int) -> None:
        """Put an operation into the conversation now, or into the backlog."""
        conversation = self.open_conversation
        if conversation is not None:
            conversation.put(call, vbucket)
        else:
            call.vbucket = vbucket
            self.backlog.add(call, f"node {self.name} cannot take them")

    def take_waiting(self) -> list[Call]:
        """Return the operations in the backlog, and empty it."""
        return self.backlog.take()

    def up(self) -> Deferred[NodeProtocol | None]:
        """Connect, now if necessary; fires with the connection, or with ``None`` if that attempt failed.

        Cancelling it does not affect the attempt.
        """
        if self.protocol is not None:
            return succeed(self.protocol)
        waiter: Deferred[NodeProtocol | None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.start()
        return waiter

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(self.protocol)

    def start(self) -> None:
        """Connect, and again whenever the connection is lost."""
        if not self.closed and self._attempt is None and self.protocol is None and self._retry is None:
            attempt = self._try()
            self._attempt = None if attempt.called else attempt

    @inlineCallbacks
    def _try(self) -> Generator[Any, Any, None]:
        try:
            protocol = yield self._connect(self.address.host, self.port)
        except Exception as error:  # noqa: BLE001  # any failure is a reason to try again
            self._attempt = None
            if self.closed:
                return
            self.failures += 1
            self.last_error = error
            why = cause_text(error)
            _log.info("{why}" if self.name in why else "node {node}: {why}", node=self.name, why=why)
            # The timer first: a callback may close the connection.
            self._try_later()
            if isinstance(error, REFUSALS):
                for call in self.backlog.take():
                    call.fail(refusal(call, error))
            self._tell_waiters()
            self._changed(self)
        else:
            self._attempt = None
            self.adopt(protocol)

    def adopt(self, protocol: NodeProtocol) -> None:
        """Use a connection whose handshake is done."""
        if self.closed or self.protocol is not None:
            protocol.transport.loseConnection()  # type: ignore[union-attr]
            return
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.protocol = protocol
        self.failures = 0
        self._paused = False
        protocol.lost.addCallback(self._lost, protocol)
        # The connection first: waiting operations may need several steps, which use it.
        self._changed(self)
        self._drain()
        self._tell_waiters()

    def set_writable(self, writable: bool) -> None:
        """Hold operations back while the node does not read, and send them afterwards."""
        self._paused = not writable
        self._changed(self)
        if writable:
            self._drain()

    def _drain(self) -> None:
        conversation = self.conversation
        if conversation is not None:
            for call in self.backlog.take():
                conversation.put(call, call.vbucket)

    def _lost(self, reason: BaseException, protocol: NodeProtocol) -> None:
        if self.protocol is protocol:
            self.protocol = None
            self.last_error = reason
            if not self.closed:
                self._try_later()
            self._changed(self)

    def _try_later(self) -> None:
        # Jitter keeps a thousand clients from reconnecting in the same instant.
        longest = min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self.failures, 10))
        if self._retry is None:
            self._retry = self._reactor.callLater(longest * (0.5 + self._random() / 2), self._again)

    def _again(self) -> None:
        self._retry = None
        self.start()

    def close(self) -> list[Call]:
        """Drop the connection; returns the operations that waited."""
        self.closed = True
        self._tell_waiters()
        cancel_timer(self._retry)
        self._retry = None
        if self._attempt is not None:
            self._attempt.cancel()
        if self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.loseConnection()
        return self.backlog.take()
