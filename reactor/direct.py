"""A reactor for programs of our own that passes events to their readers directly.

For each event, Twisted's epoll reactor opens a log context and goes through five functions; before each wait
it looks twice for calls that are due. For a small request this takes a third of all bytecode instructions of
a node. :class:`DirectReactor` calls ``doRead`` itself, and waits again as long as nothing else is due.
Everything else is inherited.

It uses six names of Twisted's reactor, four of them private. :func:`install` therefore installs Twisted's
default reactor if one of them is missing, and where there is no epoll. Twisted's own tests of reactors run on
this class, too (``tests/reactor/test_direct.py``).
"""

from __future__ import annotations

import select
from typing import Any

from twisted.internet import default, main
from twisted.python import log

try:
    from twisted.internet.epollreactor import EPollReactor as _Base
except ImportError:
    # No epoll on this platform; nothing makes an object of the class.
    _Base = object  # type: ignore[assignment,misc]

__all__ = ["DirectReactor", "install"]

_IN: int = getattr(select, "EPOLLIN", 0)

_WAITS_A_TURN = 64
"""Waits after which the reactor does what it does in each turn, such as forgetting cancelled calls."""

_USED = ("_disconnectSelectable", "_doReadOrWrite", "_poller", "_selectables", "threadCallQueue", "timeout")


class DirectReactor(_Base):
    """Twisted's epoll reactor with a shorter way to readers.

    It differs in one thing: code that a reader calls has no log context, so what :mod:`twisted.python.log`
    logs there does not name the connection. Errors of readers do.
    """

    _waits = 1

    def mainLoop(self) -> None:
        """Run until the reactor stops."""
        self._waits = _WAITS_A_TURN
        super().mainLoop()

    def iterate(self, delay: float = 0.0) -> None:
        """Do one turn, and wait only once; so does the main loop, if it calls this, from then on."""
        self._waits = 1
        super().iterate(delay)

    def stop(self) -> None:
        """Stop after this turn."""
        self._waits = 1
        super().stop()

    def doIteration(self, delay: float | None) -> None:
        """Wait for events and handle them, several times if nothing else is due between.

        :param delay: how long to wait at most, in seconds; ``None``: until an event.
        """
        watched, poll = self._selectables, self._poller.poll
        done = 0
        while True:
            # PyPy's epoll does not accept None.
            for fd, event in poll(-1 if delay is None else delay, len(watched)):
                selectable = watched.get(fd)
                if selectable is None:
                    # An earlier event has ended it.
                    continue
                if event == _IN and selectable.fileno() != -1:
                    # The usual case.
                    try:
                        why = selectable.doRead()
                    except BaseException as error:  # noqa: BLE001  # as in a reactor; includes sys.exit()
                        log.callWithLogger(selectable, log.err)
                        why = error
                    if why:
                        self._disconnectSelectable(selectable, why, True)
                else:
                    log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, event)
            done += 1
            if done >= self._waits or self.threadCallQueue or not self.running:
                return
            delay = self.timeout()
            if delay is not None and delay <= 0:
                return

    doPoll = doIteration


def install() -> None:
    """Install the reactor of this process; Twisted's default one if :class:`DirectReactor` cannot work here.

    :raises AssertionError: a reactor is installed already (``ReactorAlreadyInstalledError``).
    """
    made: Any = DirectReactor()
    if all(hasattr(made, name) for name in _USED):
        main.installReactor(made)
    else:
        default.install()
