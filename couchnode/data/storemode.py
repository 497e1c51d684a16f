"""The kinds of stores."""

from __future__ import annotations

from enum import IntEnum


class StoreMode(IntEnum):
    """What a store requires of the existing document."""

    SET = 0
    ADD = 1
    REPLACE = 2
