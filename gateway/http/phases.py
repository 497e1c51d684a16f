"""The phases of connections, bodies and answers, each with its possible successors.

Only names and tables live here. An object keeps its phase in one attribute; the tests run conversations in
any order and check each change against these tables. Two states that exclude each other are values of one
phase, not two flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

__all__ = ["AFTER", "AnswerPhase", "BodyFlow", "BodyPhase", "ConnectionPhase", "InputPhase"]


class ConnectionPhase(IntEnum):
    """What a connection waits for; it determines the timeout. From ``CLOSING`` on, received bytes are not
    served."""

    IDLE = 0
    """Waits for another request, of which nothing has arrived."""
    HEAD = 1
    """Waits for the rest of a head; on a new connection, for the first head."""
    BODY = 2
    """Waits for the rest of a body."""
    HANDLING = 3
    """Waits for the answer: the request is complete."""
    DRAINING = 4
    """Waits for the rest of a body that is dropped: the answer is sent, and the connection stays open."""
    CLOSING = 5
    """Waits until the client has received everything written."""
    LINGERING = 6
    """Waits for the client to close its half: ours is closed, and received bytes are dropped."""
    CLOSED = 7


class InputPhase(IntEnum):
    """The client's half of a connection."""

    READING = 0
    PAUSED = 1
    """Nothing is read: there is no room for more."""
    ENDED = 2
    """The client sends nothing more; it may still read."""
    PROBED = 3
    """As ``ENDED``, and something was sent to find out whether the client still exists."""


class BodyFlow(IntEnum):
    """Whether a request's body is read."""

    FLOWING = 0
    PAUSED = 1
    """The reader of the body has no room for more."""
    HELD = 2
    """The handler has not asked for the body yet."""


class BodyPhase(IntEnum):
    """The phases of receiving a body, for bodies that do not arrive together with their heads."""

    BUFFERED = 0
    """Its parts are collected; the handler gets the whole."""
    HELD = 1
    """It is left unread until the handler asks for it."""
    STREAMED = 2
    """Its parts are handed to the handler as they arrive."""
    JOINING = 3
    """It is complete, and so large that its parts are joined in a reactor turn of their own."""
    DROPPED = 4
    """It is not wanted; received bytes are counted and dropped."""
    COMPLETE = 5


class AnswerPhase(IntEnum):
    """The phases of an answer."""

    OPEN = 0
    """Nothing of the answer is written; the handler is running."""
    KLEIN = 1
    """As ``OPEN``, but Klein will write the answer."""
    BEGUN = 2
    """The head is written, and the body is being produced."""
    COMPLETE = 3
    """The whole answer is written."""
    LEFT = 4
    """The client was gone before anything was written."""
    CUT = 5
    """The client was gone afterwards."""


Table = Mapping[IntEnum, frozenset[IntEnum]]


def _table(rows: dict[IntEnum, tuple[IntEnum, ...]]) -> Table:
    return {phase: frozenset(following) for phase, following in rows.items()}


_C, _I, _F, _B, _A = ConnectionPhase, InputPhase, BodyFlow, BodyPhase, AnswerPhase

AFTER: dict[type[IntEnum], Table] = {
    ConnectionPhase: _table(
        {
            _C.IDLE: (_C.HEAD, _C.HANDLING, _C.CLOSING, _C.CLOSED),
            _C.HEAD: (_C.HANDLING, _C.CLOSING, _C.CLOSED),
            _C.BODY: (_C.HANDLING, _C.DRAINING, _C.CLOSING, _C.CLOSED),
            _C.HANDLING: (_C.IDLE, _C.BODY, _C.CLOSING, _C.CLOSED),
            _C.DRAINING: (_C.IDLE, _C.CLOSING, _C.CLOSED),
            _C.CLOSING: (_C.LINGERING, _C.CLOSED),
            _C.LINGERING: (_C.CLOSED,),
            _C.CLOSED: (),
        }
    ),
    InputPhase: _table(
        {
            _I.READING: (_I.PAUSED, _I.ENDED),
            _I.PAUSED: (_I.READING, _I.ENDED),
            _I.ENDED: (_I.PROBED,),
            _I.PROBED: (),
        }
    ),
    BodyFlow: _table(
        {
            _F.FLOWING: (_F.PAUSED, _F.HELD),
            _F.PAUSED: (_F.FLOWING,),
            _F.HELD: (_F.FLOWING,),
        }
    ),
    BodyPhase: _table(
        {
            _B.BUFFERED: (_B.HELD, _B.STREAMED, _B.JOINING, _B.DROPPED, _B.COMPLETE),
            _B.HELD: (_B.BUFFERED, _B.DROPPED),
            _B.STREAMED: (_B.DROPPED, _B.COMPLETE),
            _B.JOINING: (_B.DROPPED, _B.COMPLETE),
            _B.DROPPED: (_B.COMPLETE,),
            _B.COMPLETE: (),
        }
    ),
    AnswerPhase: _table(
        {
            _A.OPEN: (_A.KLEIN, _A.BEGUN, _A.COMPLETE, _A.LEFT),
            _A.KLEIN: (_A.OPEN, _A.BEGUN, _A.LEFT),
            _A.BEGUN: (_A.COMPLETE, _A.CUT),
            _A.COMPLETE: (_A.CUT,),
            _A.LEFT: (),
            _A.CUT: (),
        }
    ),
}
"""For each kind of phase: phase -> possible next phases."""
