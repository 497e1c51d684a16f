"""The phases of a key-value connection: one field for each thing that can be in a state of its own.

life     IDLE <-> HANDLING, then CLOSING, then LOST    what is being done
input    OPEN <-> PAUSED, then ENDED                   what is done with bytes that arrive
flow     OPEN <-> FULL, then LOST                      what the transport does with answers
"""

from __future__ import annotations

from enum import Enum, auto


class Life(Enum):
    """Where a connection is between its beginning and its end."""

    IDLE = auto()
    """Nothing is being handled: bytes that arrive are handled at once."""
    HANDLING = auto()
    """Requests are being handled; whatever happens meanwhile is seen to at the end of that."""
    CLOSING = auto()
    """All answers are written. The peer may read them, for :data:`CLOSE_SECONDS`."""
    LOST = auto()
    """It is gone, or was refused."""


class Input(Enum):
    """What is done with bytes that arrive."""

    OPEN = auto()
    """They are read."""
    PAUSED = auto()
    """They are left in the socket: what was read before has to be handled first."""
    ENDED = auto()
    """They are dropped: the stream cannot continue, or is to end. Answers are still sent."""


MAY_FOLLOW = {
    Life.IDLE: frozenset({Life.HANDLING, Life.CLOSING, Life.LOST}),
    Life.HANDLING: frozenset({Life.IDLE, Life.CLOSING, Life.LOST}),
    Life.CLOSING: frozenset({Life.LOST}),
    Life.LOST: frozenset(),
}
"""Phase -> the phases that may follow it."""


class Flow(Enum):
    """What the transport does with answers."""

    OPEN = auto()
    """It takes them."""
    FULL = auto()
    """The peer does not read. Further output is held, and counted."""
    LOST = auto()
    """The connection is gone, or was never there; what is written is dropped."""
