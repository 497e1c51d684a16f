"""Constants of SDK 1.2 for programs."""

from __future__ import annotations


class FormatAuto:
    """Chooses a format by the type of the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "FMT_AUTO"

    def __reduce__(self) -> str:
        return "FMT_AUTO"


FMT_JSON = 0
"""Values are JSON."""
FMT_PICKLE = 1
"""Values are Python pickles. Unpickling can run code: only read pickles that you wrote."""
FMT_BYTES = 2
"""Values are bytes, stored unchanged."""
FMT_UTF8 = 4
"""Values are text, stored as UTF-8."""
FMT_MASK = 7
"""Bits of the flags that the four formats use."""
FMT_AUTO = FormatAuto()
"""Text as UTF-8, bytes as bytes, JSON's containers and constants as JSON, all else pickled."""

OBS_FOUND = 0x00
"""In the node's memory, not yet on its disk."""
OBS_PERSISTED = 0x01
"""On the node's disk."""
OBS_NOTFOUND = 0x80
"""Not on the node."""
OBS_LOGICALLY_DELETED = 0x81
"""Removed from memory, still on disk."""
OBS_MASK = 0x81

LOCKMODE_NONE = 0
"""Do not check for use by several threads."""
LOCKMODE_EXC = 1
"""Raise when two threads use the connection at once."""
LOCKMODE_WAIT = 2
"""Let the second thread wait."""
