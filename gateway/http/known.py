"""A bounded cache."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Known"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Known(dict[_Key, _Value]):
    """A cache that forgets everything when it is full.

    Clients can ask for any number of different things, so it has a limit, though most ask for few things
    often. Tracking the least recently used entry would slow down every lookup; forgetting all entries costs
    nothing until clients ask for many.

    :param most: largest number of entries.
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
