"""The display name of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

MAX_NAME_CHARACTERS = 256

Steps = Generator[Deferred[Any], Any, None]


class Naming:
    """The name of a cluster, empty until it is changed.

    :param change: runs a change after earlier ones.
    :param save: writes the metadata to disk.
    :param tell: notifies listeners that documents about the cluster have changed.
    """

    def __init__(
        self,
        change: Callable[..., Deferred[Any]],
        save: Callable[[], Deferred[None]],
        tell: Callable[[], None],
    ) -> None:
        self.name = ""
        self._change = change
        self._save = save
        self._tell = tell

    def rename(self, name: str) -> Deferred[None]:
        """Change the name; fires when the change is on disk.

        :raises ValueError: the name is too long.
        """
        if len(name) > MAX_NAME_CHARACTERS:
            raise ValueError(f"Length ({len(name)}) must be at most {MAX_NAME_CHARACTERS}")
        return self._change(self._rename, name)

    @inlineCallbacks
    def _rename(self, name: str) -> Steps:
        before, self.name = self.name, name
        try:
            yield self._save()
        except Exception:
            self.name = before
            raise
        if name != before:
            self._tell()
