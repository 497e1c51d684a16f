"""What was found out before, for as long as there is room."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Known"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Known(dict[_Key, _Value]):
    """A cache that forgets everything when it is full.

    Anyone can ask for new things, so it has a limit, and most clients ask for few things often. To know which
    entry was used last would cost every look-up; to forget all costs nothing until somebody asks for many.

    :param most: entries that it may have.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def learn(self, key: _Key, value: _Value) -> _Value:
        """Keep and return a value."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value
