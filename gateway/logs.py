"""Destinations of the log: a file that logrotate may move away, or standard output in the journal's
format."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from os.path import isdir
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, LogEvent, eventAsText, formatEvent, formatEventAsClassicLogText
from zope.interface import implementer

from gateway.jsonlog import JsonObserver
from reactor.clock import cancel_timer
from reactor.kinds import IReactor
from reactor.standardoutput import StandardOutput

__all__ = [
    "MOST_GATHERED",
    "GatheredLines",
    "LogFile",
    "LogObserver",
    "check_folder",
    "is_journal",
    "is_noise",
    "observer_for",
]

MOST_GATHERED = 256
"""Number of lines that are written even before the turn ends."""

_LOOK_SECONDS = 1.0
"""Seconds between two checks of the file's name."""

# Lines that Twisted's ports and factories log about themselves, regardless of ``noisy``. The service's own
# lines name the same addresses in readable form.
_OF_PORTS = re.compile(
    r"\S.* starting on \S+|\((?:TCP|UNIX) Port \S+ Closed\)|(?:Starting|Stopping) factory .*", re.IGNORECASE
)

# Control characters of ASCII and Latin-1 except tabs and line feeds (Twisted's format puts a tab after
# these), and two separators that some readers treat as ends of lines.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class LogFile:
    """A file that lines are appended to, by name: if it is moved away or removed, a new file is created.

    :param path: its folder must exist.
    :raises OSError: the file cannot be opened.
    """

    def __init__(self, path: str, seconds: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._seconds = seconds
        self._looked = seconds()
        self._lost = 0
        self._descriptor = self._open()

    def _open(self) -> int:
        # In append mode, so that writing continues at the end of a truncated file, too (logrotate's
        # copytruncate).
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def write(self, text: str) -> None:
        """Append whole lines. Lines that cannot be written (the disk is full) are lost, and counted."""
        now = self._seconds()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if self._has_gone():
                self.reopen()
        data = text.encode("utf-8", "backslashreplace")
        if self._lost:
            data = b"%d log entries could not be written\n" % self._lost + data
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._lost += text.count("\n")
        else:
            self._lost = 0

    def reopen(self) -> None:
        """Continue in the file that has the name now, or in the old file if that one cannot be opened."""
        if self._descriptor < 0:
            return
        try:
            descriptor = self._open()
        except OSError:
            return
        old, self._descriptor = self._descriptor, descriptor
        os.close(old)

    def reopen_on_signal(self, reactor: IReactor) -> None:
        """Reopen the file on each SIGUSR1 from now on. Call this in the main thread."""
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(self.reopen))

    def close(self) -> None:
        """Close the file; lines that are written later are lost."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _has_gone(self) -> bool:
        if self._descriptor < 0:
            return False
        mine = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)


class GatheredLines:
    """Writes the lines of one turn of the reactor together, at its end.

    :param file: takes the lines; it is closed together with this object.
    """

    def __init__(self, file: LogFile, clock: IReactorTime) -> None:
        self._file = file
        self._clock = clock
        self._lines: list[str] = []
        self._turn: IDelayedCall | None = None

    def write_line(self, line: str) -> None:
        """Append a line, given without its newline."""
        self._lines.append(line)
        if self._turn is None:
            self._turn = self._clock.callLater(0, self.flush)
        elif len(self._lines) >= MOST_GATHERED:
            self._write()

    def flush(self) -> None:
        """Write the gathered lines."""
        cancel_timer(self._turn)
        self._turn = None
        self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._file.write("\n".join([*lines, ""]))

    def close(self) -> None:
        """Write the gathered lines, and close the file."""
        self.flush()
        self._file.close()


@implementer(ILogObserver)
class LogObserver:
    """Writes log events as lines; control characters become ``\\xHH``, so that no value can forge a line.

    The line of an event with ``is_alone`` is written as it is.

    :param write: takes text that ends with a newline.
    :param has_time: whether lines begin with the time, like Twisted's.
    """

    def __init__(self, write: Callable[[str], object], *, has_time: bool = True) -> None:
        self._write = write
        self._has_time = has_time

    def __call__(self, event: LogEvent) -> None:
        """Write an event, except those of Twisted's ports."""
        if is_noise(event):
            return
        if event.get("is_alone"):
            self._write(event["line"] + "\n")
            return
        if self._has_time:
            text = formatEventAsClassicLogText(event)
        else:
            text = eventAsText(event, includeTimestamp=False).replace("\n", "\n\t")
        if text:
            text = _CONTROLS.sub(_shown, text)
            self._write(text if text.endswith("\n") else text + "\n")


def is_noise(event: LogEvent) -> bool:
    """Return whether an event is a report of Twisted's ports and factories about themselves."""
    return event.get("log_namespace") == "log_legacy" and bool(_OF_PORTS.fullmatch(formatEvent(event)))


def _shown(control: re.Match[str]) -> str:
    number = ord(control[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def is_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Return whether a descriptor is a stream to systemd's journal (systemd.exec(5), ``JOURNAL_STREAM``)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def observer_for(
    file: LogFile | None, environment: Mapping[str, str], form: str = "text"
) -> LogObserver | JsonObserver | None:
    """Return the log observer; ``None`` leaves the log to twistd.

    :param form: ``text`` or ``json``.
    """
    if file is None and sys.stdout is None:
        return None
    has_time = True
    if file is not None:
        write = file.write
    else:
        assert sys.__stdout__ is not None
        write = StandardOutput(sys.__stdout__).write
        # The journal adds the time itself.
        has_time = not is_journal(1, environment)
    if form == "json":
        return JsonObserver(write, is_noise)
    return LogObserver(write, has_time=has_time)


def check_folder(path: str) -> str:
    """Return the absolute path of a log file.

    :raises ValueError: its folder does not exist, or the path is a folder.
    """
    absolute = Path(path).absolute()
    # Not the methods of Path, which raise an error for a name that is too long.
    if isdir(absolute) or not isdir(absolute.parent):
        raise ValueError(path)
    return str(absolute)
