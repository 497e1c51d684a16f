"""Bounded caches."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Known", "KnownBySize"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Known(dict[_Key, _Value]):
    """A cache that forgets everything when it is full.

    Clients can ask for any number of different things, so the cache needs a limit, though most clients ask
    for few things often. Tracking the least recently used entry would slow down every lookup; forgetting all
    entries costs nothing unless clients ask for many things.

    :param most: largest number of entries.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def learn(self, key: _Key, value: _Value) -> _Value:
        """Add a value, and return it."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value


class KnownBySize(Known[_Key, _Value]):
    """Such a cache of values whose size the client decides: it has a limit on their bytes, too.

    :param most: largest number of entries.
    :param most_bytes: largest sum of their sizes.
    """

    __slots__ = ("_bytes", "_most_bytes")

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__(most)
        self._most_bytes = most_bytes
        self._bytes = 0

    def learn_sized(self, key: _Key, value: _Value, size: int) -> _Value:
        """Return a value, and keep it unless it would take more than a quarter of the room.

        :param size: bytes that key and value take. A value that replaces another counts like one more.
        """
        if size > self._most_bytes // 4:
            return value
        if self._bytes + size > self._most_bytes:
            self.clear()
        # This, too, may forget all others.
        self.learn(key, value)
        self._bytes += size
        return value

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._bytes = 0
