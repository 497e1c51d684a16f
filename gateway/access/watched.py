"""Files that are read again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from gateway.access.files import ReadFile, read_file

__all__ = ["WatchedFile", "Watcher"]

_Value = TypeVar("_Value")

LOOK_SECONDS = 2.0
"""Seconds between two checks of the files."""


_State = tuple[int, int, int]


class WatchedFile(Generic[_Value]):
    """The parsed content of a file, and of those that it names; a change of any of them counts.

    :param parse: reads and parses the file at a path, and reads files that it names, with the given function;
        raises ``ValueError`` if one is invalid.
    :param otherwise: returns the value to begin with if the file is invalid at the start; raises
        ``ValueError`` if there is none.
    :raises ValueError: the file is invalid at the start.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        parse: Callable[[str, ReadFile], _Value],
        otherwise: Callable[[str], _Value] | None = None,
    ) -> None:
        self._path = self._changed = path
        self._parse = parse
        self._seen: dict[str, _State | None] = {}
        self.value = self._first(otherwise)
        """The parsed content; if a change made the file invalid, the content before that change."""
        self.on_change: Callable[[], object] = int
        """Called when the value has changed."""

    def _first(self, otherwise: Callable[[str], _Value] | None) -> _Value:
        try:
            return self.read()
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

    def look(self) -> None:
        """Read the file again if it has changed."""
        if self.has_changed():
            try:
                self.take(self.read())
            except ValueError as error:
                self.refuse(error)

    def has_changed(self) -> bool:
        """Return whether one of the files has changed since the last :meth:`read`."""
        changed = (path for path, state in self._seen.items() if state != _state(path))
        self._changed = next(changed, "")
        return self._changed != ""

    def read(self) -> _Value:
        """Return the current content, parsed; raises ``ValueError``. May be called in a thread."""
        # Noted before a file is read: a change in the meantime causes another read.
        seen = {self._path: _state(self._path)}

        def read(path: str | Path, most: int) -> bytes:
            seen[str(path)] = _state(path)
            return read_file(path, most)

        try:
            return self._parse(self._path, read)
        finally:
            self._seen = seen

    def take(self, value: _Value) -> None:
        """Put a new value into force."""
        self.value = value
        self.log.info("{path} has changed, and is in effect", path=self._changed)
        self.on_change()

    def refuse(self, error: BaseException | None) -> None:
        """Keep the old value, and log that the file is invalid."""
        text = "{path} has changed and is invalid; its old content stays in effect: {error}"
        if self._changed != self._path:
            # The error may be in either file.
            text = (
                "{changed} has changed, and {path}, which names it, is invalid with it; the old content of "
                "both stays in effect: {error}"
            )
        self.log.error(text, path=self._path, changed=self._changed, error=error)


def _state(path: str | Path) -> _State | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a path may have a NUL
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


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
