"""Files that are read again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = ["WatchedFile", "Watcher"]

_Value = TypeVar("_Value")

LOOK_SECONDS = 2.0
"""Time between two looks at the files."""


class WatchedFile(Generic[_Value]):
    """The content of a file, parsed.

    :param parse: reads and parses the file at a path; raises ``ValueError`` if it is invalid.
    :raises ValueError: it is invalid at the start.
    """

    log = Logger()

    def __init__(self, path: str, parse: Callable[[str], _Value]) -> None:
        self._path = path
        self._parse = parse
        self._seen = self._state()
        self.value = parse(path)
        """What the file says; after a change that made it invalid, what it said before."""
        self.on_change: Callable[[], object] = int
        """Called when there is another value."""

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def look(self) -> None:
        """Read the file again if it has changed."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self.value = self._parse(self._path)
        except ValueError as error:
            self.log.error(
                "{path} has changed and is invalid; its old content stays in force: {error}",
                path=self._path,
                error=error,
            )
            return
        self.log.info("{path} has changed, and is in force", path=self._path)
        self.on_change()


class Watcher:
    """Looks at files from time to time."""

    def __init__(self, clock: IReactorTime) -> None:
        self.files: list[WatchedFile[object]] = []
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to look."""
        if self.files and not self._loop.running:
            self._loop.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        for file in self.files:
            file.look()
