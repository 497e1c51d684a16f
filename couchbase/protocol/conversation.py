"""The conversation with a node over one connection: its requests, its answers, its end.

A conversation owns the numbers of requests (opaques), the operations that wait for answers, the driver's own
requests, and the handling of answers. Its inputs are received bytes and the loss of the connection; bytes to
send are in :attr:`Conversation.out`. It uses no socket and no clock: those belong to the driver, which
implements the two small interfaces below. Every connection has its own conversation, with these phases:

========  ======================================  ==========================================================
phase     operations                              leads to
========  ======================================  ==========================================================
GREETING  none yet                                OPEN (the handshake is done), LOST
OPEN      sent                                    LEAVING (the node says that it is of no use), LOST
LEAVING   given to others; answers still come     LOST
LOST      fail                                    nothing: a new connection has a new conversation
========  ======================================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import Any, Callable, Protocol

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.answers import AnswerReader, Undecodable
from couchbase.protocol.call import Call
from couchbase.protocol.collections import UNKNOWN_PLACES
from couchbase.protocol.constants import Feature, Magic, ServerOpcode
from couchbase.protocol.errormap import ServerStatus
from couchbase.protocol.failures import PathsRefused, client_error, too_many
from couchbase.protocol.frames import Frame, encode_request
from couchbase.protocol.handshake import HandshakeResult
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE
from couchbase.protocol.offers import NO_FLAGS_LOOKUP, NO_FULL_LOOKUP, lacks, refuses_flags_alone
from couchbase.protocol.operations import GET_WITH_EXPIRY, complete, downgrade
from couchbase.protocol.plans import Compute, Pause, RoundTrip
from couchbase.protocol.statuses import Action, action_for

LARGE_BYTES = 2**18
"""Size in bytes from which a value counts as large: a driver may send it in pieces, and extends its
operation's timeout."""

_SERVER_REQUEST = int(Magic.SERVER_REQUEST)

Listener = Callable[["Frame | None"], "bool | None"]
"""Called with each answer to a question (returns true to wait for more), or with ``None`` if the connection
is lost."""


Resume = Callable[..., None]
"""Called with the outcome of a step of the handshake: a result, or ``None`` and an exception."""


class Phase(Enum):
    """The phases of a conversation."""

    GREETING = "greeting"
    OPEN = "open"
    LEAVING = "leaving"
    LOST = "lost"


class Line(Protocol):
    """The driver's end of the connection, which a conversation writes to."""

    def schedule(self) -> None:
        """Send the content of ``out`` soon; called when ``out`` was empty before."""

    def flush(self) -> None:
        """Send the content of ``out`` now."""

    def leave(self) -> None:
        """Send no more operations to the conversation, and close the connection: the node announced that it
        is unusable (phase LEAVING), or violated the protocol (``fault``)."""


class Home(Protocol):
    """The common owner of all conversations with a cluster; :class:`couchbase.protocol.dispatch.Dispatcher`
    is one."""

    seconds: Callable[[], float]
    """Returns the current time of the driver's clock."""

    most_pending: int
    """Largest number of operations that may wait for answers in one conversation; later ones are refused."""

    @property
    def collections(self) -> Any:
        """The :class:`couchbase.protocol.collections.Collections` in use."""

    def opened(self, conversation: Any) -> None:
        """Take note of a conversation whose handshake is done, before any operation is sent."""

    def put_off(self, conversation: Any, call: Any, frame: Frame, action: Action) -> None:
        """Take back an operation that the node did not execute."""

    def adopt_from(self, conversation: Any, config: bytes) -> None:
        """Use a cluster map that the node sent, if it is newer than the one in use."""

    def adapt(self, conversation: Any, call: Any) -> bool:
        """Adapt an operation to the node's features; return false if it must not be sent (now)."""

    def reroute(self) -> None:
        """Rebuild the routing: a conversation has opened or closed, or lacks another feature."""


class Conversation:
    """The requests and answers on one connection to the key-value service of a node.

    :param name: ``host:port`` of the node, for messages.
    :param host: the node's host, as in cluster maps.
    :param line: the driver's end of the connection.
    :param home: handles everything that concerns more than this conversation.
    """

    __slots__ = (
        "_greeted",
        "_perform",
        "_plan",
        "_questions",
        "fault",
        "has_large",
        "home",
        "host",
        "is_answered",
        "lacking",
        "line",
        "name",
        "opaque",
        "out",
        "pending",
        "phase",
        "prefix",
        "reader",
        "session",
    )

    def __init__(self, name: str, host: str, line: Line, home: Home) -> None:
        self.name = name
        self.host = host
        self.line = line
        self.home = home
        self.phase = Phase.GREETING
        self.is_answered = False
        """Whether the node has answered the first request of the handshake."""
        self.session = HandshakeResult(frozenset(), None, {})
        self.lacking: frozenset[int] = frozenset()
        """Features that the node's HELLO did not grant, or that it refused later; see
        :mod:`couchbase.protocol.offers`."""
        self.prefix = b""
        """Prefix of keys in the default collection; empty if the node does not offer collections."""
        self.out: list[bytes] = []
        """Bytes to send."""
        self.has_large = False
        """Whether there is a large value in :attr:`out`."""
        self.opaque = 0
        """The number of the last request."""
        self.pending: dict[int, Call] = {}
        """Operations that wait for answers, by number."""
        self.reader = AnswerReader()
        self.fault: BaseException | None = None
        """Why the conversation ended: the node's violation of the protocol, or the reason given to
        :meth:`lose`."""
        self._questions: dict[int, Listener] = {}
        self._plan: Generator[Any, Any, Any] | None = None
        self._perform: Callable[[Compute | Pause, Resume], None] | None = None
        self._greeted: Callable[[BaseException | None], None] | None = None

    @property
    def takes_all(self) -> bool:
        """Whether the conversation accepts all operations without a check of the features that they need."""
        return self.phase is Phase.OPEN and not self.lacking

    @property
    def pushes_maps(self) -> bool:
        """Whether the node pushes new cluster maps without a request."""
        return Feature.CLUSTERMAP_CHANGE_NOTIFICATION in self.session.features

    # ---- sending ---------------------------------------------------------------------------------

    def put(self, call: Call, vbucket: int) -> None:
        """Send an operation, if the node supports it. Most operations come through
        :meth:`couchbase.protocol.dispatch.Dispatcher.send_all`, which does this for many.
        """
        if self.phase is Phase.LOST:
            call.fail(client_error(call, exceptions.NETWORK_ERROR, "the connection was lost"))
            return
        if (self.lacking or call.replica is not None) and not self.home.adapt(self, call):
            return
        keyspace, prefix = call.keyspace, self.prefix
        if keyspace is not DEFAULT_KEYSPACE:
            if not self.home.collections.admits(self, call):
                return
            prefix = keyspace.prefix
        if len(self.pending) >= self.home.most_pending:
            call.fail(too_many(call, self.home.most_pending))
            return
        head = call.enter(self, prefix, vbucket)
        out = self.out
        if not out:
            self.line.schedule()
        out.append(head)
        if call.value:
            out.append(call.value)
            if len(call.value) >= LARGE_BYTES:
                self.has_large = True

    def ask(self, opcode: int, listener: Listener, fields: dict[str, Any]) -> int:
        """Send one of the driver's own requests; returns its number, for :meth:`forget`.

        :param fields: arguments of :func:`couchbase.protocol.frames.encode_request`. A ``key``, and a
            ``value`` that contains keys, is a function that is called with :attr:`prefix`.
        """
        if self.phase is Phase.LOST:
            listener(None)
            return -1
        for name in ("key", "value"):
            if callable(fields.get(name)):
                fields = {**fields, name: fields[name](self.prefix)}
        self.opaque = opaque = (self.opaque + 1) & 0xFFFFFFFF
        self._questions[opaque] = listener
        if not self.out:
            self.line.schedule()
        self.out.append(encode_request(opcode, opaque=opaque, **fields))
        return opaque

    def forget(self, number: int, instead: Listener | None = None) -> None:
        """Stop listening for answers to one of the driver's own requests.

        :param instead: gets those that come later.
        """
        if self._questions.pop(number, None) is not None and instead is not None:
            self._questions[number] = instead

    # ---- the handshake ---------------------------------------------------------------------------

    def greet(
        self,
        plan: Generator[Any, Any, Any],
        perform: Callable[[Compute | Pause, Resume], None],
        greeted: Callable[[BaseException | None], None],
    ) -> None:
        """Run the plan of a handshake; the conversation is open when it is done.

        :param perform: called with a step that takes time, and with a function to call once with its outcome:
            a result, or ``None`` and an exception.
        :param greeted: called once, with ``None``, or with the reason why there will be no session.
        """
        self._plan, self._perform, self._greeted = plan, perform, greeted
        self._advance(None)

    def _advance(self, answer: Any, error: BaseException | None = None) -> None:
        plan, perform = self._plan, self._perform
        if plan is None or perform is None:
            return  # The connection was lost while a step was performed.
        try:
            step = plan.send(answer) if error is None else plan.throw(error)
            if not isinstance(step, (Compute, RoundTrip, Pause)):
                raise TypeError(f"a node cannot perform {step!r}")
        except StopIteration as done:
            self.session = done.value
            self.lacking = lacks(done.value)
            if Feature.COLLECTIONS in self.session.features:
                self.prefix = DEFAULT_KEYSPACE.prefix
            self.phase = Phase.OPEN
            self.home.opened(self)
            self._end_greeting(None)
            return
        except Exception as failure:  # noqa: BLE001  # any failure means that there is no session
            self._end_greeting(failure)
            return
        if not isinstance(step, RoundTrip):
            perform(step, self._advance)
            return
        frames: list[Frame] = []
        wanted = len(step.requests)

        def take(frame: Frame | None) -> bool:
            if frame is not None:
                frames.append(frame)
                if len(frames) == wanted:
                    # Answers come in the order of the requests.
                    self.is_answered = True
                    self._advance(frames)
            return False

        for opcode, fields in step.requests:
            self.ask(opcode, take, fields)

    def _end_greeting(self, error: BaseException | None) -> None:
        greeted, self._greeted = self._greeted, None
        self._plan = self._perform = None
        if greeted is not None:
            greeted(error)

    # ---- receiving -------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take one chunk of any size; end the operations whose answers it completes.

        Afterwards :attr:`fault` is set if the node violated the protocol.
        """
        reader, pending = self.reader, self.pending
        if len(pending) == 1:
            # A program that waits for each answer.
            (call,) = pending.values()
            try:
                result = reader.single(data, call, pending)
            except Exception as error:  # noqa: BLE001  # the caller handles a transcoder's failure
                self.undecodable(call, error)
                return
            if result is not None:
                call.succeed(result)
                return
        pairs = iter(reader.feed(data, pending))
        for call, result in zip(pairs, pairs):
            if call is None:
                self._other(result)
            else:
                call.succeed(result)
        if reader.violation is not None and self.fault is None:
            text = f"{self.name}: protocol violation: {reader.violation}"
            self.fault = error_of(exceptions.PROTOCOL_ERROR, text)
            self.line.leave()

    def _other(self, found: Frame | Undecodable) -> None:
        """Handle an answer other than a plain success."""
        if isinstance(found, Undecodable):
            self.undecodable(*found)
            return
        frame = found
        if frame.magic == _SERVER_REQUEST:
            # A request from the server: its opaque is unrelated to ours.
            if frame.opcode == ServerOpcode.CLUSTERMAP_CHANGE and frame.value:
                self.home.adopt_from(self, frame.value)
            return
        call = self.pending.pop(frame.opaque, None)
        if call is not None:
            call.pending = None
            call.take(frame) if call.takes_frames else self.answered(call, frame)
            return
        listener = self._questions.pop(frame.opaque, None)
        if listener is not None and listener(frame):
            self._questions[frame.opaque] = listener

    def answered(self, call: Call, frame: Frame) -> None:
        """Handle the answer to an operation that is no longer in the table, or to a request made for it."""
        if not frame.specific:
            try:
                result = complete(call, frame, None, self.name)
            except Exception as error:  # noqa: BLE001  # the caller handles a transcoder's failure
                self.undecodable(call, error)
            else:
                call.succeed(result)
            return
        explained = self.session.error_map.get(frame.specific)
        if explained is not None:
            self._explained(call, frame, explained)
            return
        if frame.specific in UNKNOWN_PLACES:
            self.home.collections.refused(self, call, frame)
            return
        action = action_for(call.operation.name, frame.specific, self.session.xerror)
        if action is Action.SURFACE:
            if call.operation is GET_WITH_EXPIRY and refuses_flags_alone(frame):
                self._lacks(NO_FLAGS_LOOKUP)
                self.put(call, call.vbucket)
            elif downgrade(call, frame.specific):
                self._lacks(NO_FULL_LOOKUP)
                self.put(call, call.vbucket)
            else:
                self._surface(call, frame)
            return
        if action is Action.RECONNECT:
            self._leave()
        self.home.put_off(self, call, frame, action)

    def _explained(self, call: Call, frame: Frame, status: ServerStatus) -> None:
        """Handle a status that only the server's error map explains."""
        now = self.home.seconds()
        since = getattr(call, "since", None)
        if since is None:
            call.since = since = now
        action = status.action(call.attempts, now - since)
        if status.reconnects:
            self._leave()
        if action is not Action.SURFACE or status.refreshes:
            self.home.put_off(self, call, frame, action)
        if action is Action.SURFACE:
            self._surface(call, frame, status)

    def _surface(self, call: Call, frame: Frame, status: ServerStatus | None = None) -> None:
        try:
            result = complete(call, frame, status, self.name)
        except CouchbaseError as error:
            call.fail(error)
        else:
            call.succeed(result)

    def undecodable(self, call: Call, error: BaseException) -> None:
        """Handle the success of an operation whose value could not be decoded."""
        if isinstance(error, PathsRefused) and call.operation is GET_WITH_EXPIRY:
            self._lacks(NO_FULL_LOOKUP)
            self.put(call, call.vbucket)
            return
        if isinstance(error, CouchbaseError):
            error.key = call.key if error.key is None else error.key
            error.operation = call.operation.name
        call.fail(error)

    def _lacks(self, feature: int) -> None:
        self.lacking |= {feature}
        self.home.reroute()

    # ---- the end ---------------------------------------------------------------------------------

    def _leave(self) -> None:
        if self.phase is Phase.OPEN:
            self.phase = Phase.LEAVING
            self.line.leave()

    def lose(self, error: BaseException, words: str, code: int = exceptions.NETWORK_ERROR) -> None:
        """End, because the connection is lost. Operations in flight fail: it is unknown whether they were
        executed.

        :param words: the reason, in one line.
        :param code: result code of the operations that fail.
        """
        if self.phase is Phase.LOST:
            return
        self.phase = Phase.LOST
        self.fault = self.fault or error
        self.out.clear()
        self.has_large = False
        questions, self._questions = self._questions, {}
        calls = list(self.pending.values())
        self.pending.clear()
        for call in calls:
            call.pending = None
            failure = client_error(call, code, f"the connection was lost: {words}", ambiguous=True)
            failure.inner_cause = error
            call.fail(failure)
        for listener in questions.values():
            listener(None)
        self._end_greeting(error)
