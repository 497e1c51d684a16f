"""The phases of a connection and of what passes over it, each with what may follow.

Only names and tables live here. Whoever has such a phase keeps it in one attribute; the tests run
conversations in any order and hold each change to these tables. Two things that cannot be at the same time
are values of one phase, not two flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

__all__ = ["AFTER", "AnswerPhase", "BodyFlow", "BodyPhase", "ConnectionPhase", "InputPhase"]


class ConnectionPhase(IntEnum):
    """What a connection waits for; how long that may take depends on it. From ``CLOSING`` on nothing that
    arrives is served."""

    IDLE = 0
    """For another request, of which nothing is there."""
    HEAD = 1
    """For the rest of a head; and, on a new connection, for the first one."""
    BODY = 2
    """For the rest of a body."""
    HANDLING = 3
    """For the answer: the request is complete."""
    DRAINING = 4
    """For the rest of a body that is dropped: the answer is out, and the connection goes on afterwards."""
    CLOSING = 5
    """For the client to take what was written last."""
    LINGERING = 6
    """For the client to close its half: ours is closed, and what arrives is dropped."""
    CLOSED = 7


class InputPhase(IntEnum):
    """The client's half of a connection."""

    READING = 0
    PAUSED = 1
    """Nothing is read: there is no room for more."""
    ENDED = 2
    """The client sends nothing more; it may still read."""
    PROBED = 3
    """As ``ENDED``, and something was sent to find out whether the client is there at all."""


class BodyFlow(IntEnum):
    """Whether a request's body is read."""

    FLOWING = 0
    PAUSED = 1
    """Who reads the body has no room for more."""
    HELD = 2
    """The handler has not asked for the body yet."""


class BodyPhase(IntEnum):
    """A body's way in, for bodies that do not arrive together with their heads."""

    BUFFERED = 0
    """Its parts are collected; the handler gets the whole."""
    HELD = 1
    """It is left where it is until the handler asks for it."""
    STREAMED = 2
    """Its parts are handed to the handler as they arrive."""
    JOINING = 3
    """It is there, and so large that its parts are joined in a turn of the reactor of their own."""
    DROPPED = 4
    """Nobody wants it; what arrives is counted."""
    COMPLETE = 5


class AnswerPhase(IntEnum):
    """An answer's way out."""

    OPEN = 0
    """Nothing of it is written; the handler is at work."""
    KLEIN = 1
    """As ``OPEN``; it is Klein who will write it."""
    BEGUN = 2
    """Its head is written, and its body is being made."""
    COMPLETE = 3
    """All of it is written."""
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
"""For each kind of phase: phase -> what may come next."""
