"""The last valid content of the files of rules and keys, kept for workers that start while a file is
invalid."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from gateway.access.files import Copies, ReadFile
from gateway.access.options import READERS, files_of
from gateway.access.watched import WatchedFile, Watcher
from gateway.settings import Settings

__all__ = ["LastValid"]

_log = Logger()

_File = tuple[str, str]
"""A setting, and the path that it names."""


class LastValid:
    """Watches the files as workers do, and keeps a copy of each that workers can inherit.

    Workers log whether a change of a file is in effect.

    :param run: runs a function in a thread; see :class:`gateway.access.watched.Watcher`.
    """

    def __init__(
        self, clock: IReactorTime, run: Callable[[Callable[[], Any]], Deferred[Any]] = deferToThread
    ) -> None:
        self._watcher = Watcher(clock, run)
        self._files: dict[_File, _Kept] = {}

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of the copies; see :meth:`gateway.access.files.Copies.of`."""
        return [file.value for file in self._files.values()]

    def keep(self, settings: Settings) -> None:
        """Keep the files that these settings name, besides those that are kept already."""
        for name, path in files_of(vars(settings)):
            if (name, path) not in self._files:
                try:
                    file = _Kept(path, partial(_written, name))
                except ValueError:
                    # It has become invalid since the settings were checked: no worker can start with them.
                    continue
                except OSError as error:
                    _not_copied(path, error)
                    continue
                self._files[name, path] = file
                self._watcher.files.append(file)
        self._watcher.start()

    def keep_only(self, settings: Settings) -> None:
        """Keep no files but those that these settings name."""
        self._drop(self._files.keys() - files_of(vars(settings)))

    def close(self) -> None:
        """Stop watching, and drop all copies."""
        self._watcher.stop()
        self._drop(set(self._files))

    def _drop(self, names: set[_File]) -> None:
        for name in names:
            file = self._files.pop(name)
            self._watcher.files.remove(file)
            file.close()


class _Kept(WatchedFile[int]):
    """The descriptor of the copies of a file and of those that it names."""

    _is_closed = False

    def take(self, value: int) -> None:
        """Replace the copies."""
        if self._is_closed:
            os.close(value)
            return
        os.close(self.value)
        self.value = value

    def refuse(self, error: BaseException | None) -> None:
        """Do nothing: the copies stay."""
        if isinstance(error, OSError):
            _not_copied(self._path, error)

    def close(self) -> None:
        """Drop the copies."""
        self._is_closed = True
        os.close(self.value)


def _not_copied(path: str, error: OSError) -> None:
    _log.error(
        "{path} cannot be copied, so no worker can start if it becomes invalid: {error}",
        path=path,
        error=error,
    )


def _written(name: str, path: str, read: ReadFile) -> int:
    copies = Copies(read=read)
    READERS[name](path, copies.take)
    return copies.write()
