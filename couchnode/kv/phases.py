"""The phases of a key-value connection: one field for each of its independent states.

life     IDLE <-> HANDLING, then CLOSING, then LOST    the connection's current activity
input    OPEN <-> PAUSED, then ENDED                   the handling of bytes that arrive
flow     OPEN <-> FULL, then LOST                      the transport's readiness for answers
"""

from __future__ import annotations

from enum import Enum, auto


class Life(Enum):
    """Where a connection is between its beginning and its end."""

    IDLE = auto()
    """Nothing is being handled: bytes that arrive are handled at once."""
    HANDLING = auto()
    """Requests are being handled; events that occur meanwhile are processed afterwards."""
    CLOSING = auto()
    """All answers are written. The peer has :data:`CLOSE_SECONDS` to read them."""
    LOST = auto()
    """The connection is gone, or was refused."""


class Input(Enum):
    """The handling of bytes that arrive."""

    OPEN = auto()
    """Bytes are read."""
    PAUSED = auto()
    """Bytes are left in the socket until earlier input is handled."""
    ENDED = auto()
    """Bytes are dropped: the stream cannot continue, or must end. Answers are still sent."""


MAY_FOLLOW = {
    Life.IDLE: frozenset({Life.HANDLING, Life.CLOSING, Life.LOST}),
    Life.HANDLING: frozenset({Life.IDLE, Life.CLOSING, Life.LOST}),
    Life.CLOSING: frozenset({Life.LOST}),
    Life.LOST: frozenset(),
}
"""Phase -> the phases that may follow it."""


class Flow(Enum):
    """The transport's readiness for answers."""

    OPEN = auto()
    """The transport accepts answers."""
    FULL = auto()
    """The peer does not read. Further output is held, and counted."""
    LOST = auto()
    """The connection is gone, or not open yet; output is dropped."""
