"""The lock of a blocking connection, which serves one thread at a time."""

from __future__ import annotations

import threading
from typing import Any, Callable

from couchbase.exceptions import ObjectThreadError
from couchbase.user_constants import LOCKMODE_NONE, LOCKMODE_WAIT


class ThreadLock:
    """Lets one thread at a time use a connection.

    :param mode: ``LOCKMODE_WAIT``, ``LOCKMODE_EXC`` or ``LOCKMODE_NONE``.
    """

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self._lock = None if mode == LOCKMODE_NONE else threading.Lock()
        self._user: int | None = None
        self.owner: Callable[[], Any] = lambda: None
        """A weak reference to the connection, for errors."""

    def acquire(self) -> None:
        """Acquire the connection for this thread.

        :raises ObjectThreadError: another thread has the lock and the mode forbids waiting, or this thread
            already has it.
        """
        lock = self._lock
        if lock is None:
            return
        if not lock.acquire(False):
            me = threading.get_ident()
            if self.mode != LOCKMODE_WAIT:
                raise ObjectThreadError.pyexc("another thread is using the connection", obj=self.owner())
            if self._user == me:
                raise ObjectThreadError.pyexc(
                    "an operation cannot start inside of another one on the same connection"
                )
            lock.acquire()
        self._user = threading.get_ident()

    def release(self) -> None:
        """Release the connection to other threads."""
        self._user = None
        if self._lock is not None:
            self._lock.release()

    def renew(self) -> None:
        """Replace the lock in a child process, where the thread that held it does not exist."""
        self._user = None
        if self._lock is not None:
            self._lock = threading.Lock()

    def by_hand(self, op: int) -> None:
        """Take (0) or release (1) the lock, for tests of programs that use threads.

        :raises ObjectThreadError: there is no lock: ``LOCKMODE_NONE``.
        """
        if self._lock is None:
            raise ObjectThreadError.pyexc("a connection with LOCKMODE_NONE has no lock")
        if op:
            self._user = None
            self._lock.release()
        else:
            self._lock.acquire()
            # An operation of the same thread is refused then, because it would deadlock.
            self._user = threading.get_ident()
