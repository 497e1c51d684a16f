"""Files that are read again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

__all__ = ["WatchedFile", "Watcher"]

_Value = TypeVar("_Value")

LOOK_SECONDS = 2.0
"""Seconds between two checks of the files."""


class WatchedFile(Generic[_Value]):
    """The parsed content of a file.

    :param parse: reads and parses the file at a path; raises ``ValueError`` if it is invalid.
    :param otherwise: returns the value to begin with if the file is invalid at the start; raises
        ``ValueError`` if there is none.
    :raises ValueError: the file is invalid at the start.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        parse: Callable[[str], _Value],
        otherwise: Callable[[str], _Value] | None = None,
    ) -> None:
        self._path = path
        self._parse = parse
        self._seen = self._state()
        self.value = self._first(otherwise)
        """The parsed content; if a change made the file invalid, the content before that change."""
        self.on_change: Callable[[], object] = int
        """Called when the value has changed."""

    def _first(self, otherwise: Callable[[str], _Value] | None) -> _Value:
        try:
            return self._parse(self._path)
        except ValueError as error:
            if otherwise is None:
                raise
            try:
                value = otherwise(self._path)
            except ValueError:
                raise error from None
            self.log.error(
                "{path} is invalid; its last valid content is in effect: {error}",
                path=self._path,
                error=error,
            )
            return value

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def look(self) -> None:
        """Read the file again if it has changed."""
        if self.has_changed():
            try:
                self.take(self.read())
            except ValueError as error:
                self.refuse(error)

    def has_changed(self) -> bool:
        """Return whether the file has changed since the last call."""
        seen, self._seen = self._seen, self._state()
        return seen != self._seen

    def read(self) -> _Value:
        """Return the file's current content, parsed; raises ``ValueError``. May be called in a thread."""
        return self._parse(self._path)

    def take(self, value: _Value) -> None:
        """Put a new value into force."""
        self.value = value
        self.log.info("{path} has changed, and is in effect", path=self._path)
        self.on_change()

    def refuse(self, error: BaseException | None) -> None:
        """Keep the old value, and log that the file is invalid."""
        self.log.error(
            "{path} has changed and is invalid; its old content stays in effect: {error}",
            path=self._path,
            error=error,
        )


class Watcher:
    """Checks files periodically, and reads those that have changed.

    :param run: runs a function in a thread, as ``deferToThread`` does: reading a large file would block the
        reactor.
    """

    def __init__(
        self, clock: IReactorTime, run: Callable[[Callable[[], Any]], Deferred[Any]] = deferToThread
    ) -> None:
        self.files: list[WatchedFile[Any]] = []
        self._run = run
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to check the files."""
        if self.files and not self._loop.running:
            self._loop.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Stop checking the files."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> Deferred[Any] | None:
        # The next check starts when all files have been read.
        changed = [file for file in self.files if file.has_changed()]
        return gatherResults([self._read(file) for file in changed]) if changed else None

    def _read(self, file: WatchedFile[Any]) -> Deferred[Any]:
        reading = self._run(file.read)
        return reading.addCallbacks(file.take, lambda failure: file.refuse(failure.value))
