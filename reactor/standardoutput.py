"""The log on standard output, which does not wait for a reader that has stopped reading."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from typing import TextIO

from twisted.application.service import IServiceCollection
from twisted.logger import ILogObserver, LogEvent, formatEventAsClassicLogText
from twisted.python.components import Componentized
from zope.interface import implementer

__all__ = ["PATIENCE_SECONDS", "LogsItself", "PlainObserver", "StandardOutput"]

PATIENCE_SECONDS = 0.02
"""How long a write may wait for the reader. Afterwards lines are lost, without a wait for each, until the
reader goes on."""

_CHUNK = 4096
"""A pipe that can be written takes as many bytes at once (``PIPE_BUF`` of Linux)."""


class StandardOutput:
    """Writes to standard output. Lines that cannot be written are lost, and counted.

    A pipe whose reader hangs, or a terminal after Ctrl-S, would block the process, and with it all requests.

    :param stream: standard output, as Python opened it.
    """

    def __init__(self, stream: TextIO, seconds: Callable[[], float] = time.monotonic) -> None:
        stream.flush()
        self._stream = stream
        self._seconds = seconds
        self._lost = 0
        self._is_cut = False
        try:
            self._descriptor = stream.fileno()
        except (OSError, io.UnsupportedOperation):
            # A program has replaced it.
            self._descriptor = -1
        self._may_block = self._descriptor >= 0 and not stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def write(self, text: str) -> None:
        """Write whole lines."""
        if self._descriptor < 0 or sys.platform == "win32":
            # Windows can wait for sockets only.
            self._stream.write(text)
            self._stream.flush()
            return
        patience = PATIENCE_SECONDS
        if self._lost:
            if not self._put(b"%d log entries could not be written\n" % self._lost, 0.0):
                self._lost += text.count("\n")
                return
            self._lost = 0
        if not self._put(text.encode(self._stream.encoding, "backslashreplace"), patience):
            self._lost += text.count("\n")

    def _put(self, data: bytes, patience: float) -> bool:
        """Write as much as possible; return whether that is all."""
        if self._is_cut:
            # The previous line has no end.
            data = b"\n" + data
        left = data
        end = self._seconds() + patience
        try:
            while left:
                if self._may_block and not select.select([], [self._descriptor], [], patience)[1]:
                    break
                left = left[os.write(self._descriptor, left[:_CHUNK]) :]
                # Several parts wait no longer than one.
                patience = max(0.0, end - self._seconds())
        except OSError:
            # The reader is gone, or the disk is full.
            pass
        if len(left) < len(data):
            self._is_cut = not data[: len(data) - len(left)].endswith(b"\n")
        return not left


@implementer(ILogObserver)
class PlainObserver:
    """Writes log events as lines like twistd's own.

    :param write: takes text that ends with a newline.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        text = formatEventAsClassicLogText(event)
        if text:
            self._write(text)


class LogsItself:
    """Mixin of a service that chooses the log observer of its program."""

    log_observer: Callable[[LogEvent], None] | None = None
    """``None`` leaves the log to twistd."""

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Set the log observer on the parent application, where twistd looks for it."""
        super().setServiceParent(parent)  # type: ignore[misc]
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)
