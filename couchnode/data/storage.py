"""The store of a bucket's documents: a SQLite file, or memory only.

The reactor never touches the file. Each :class:`SqliteStore` owns one thread, which opens the
file, reads it during warm-up and writes batches; every method returns a Deferred. A batch is one
transaction in write-ahead mode with ``synchronous=FULL``: when its Deferred fires, the batch
survives a power failure, and a process killed at any point leaves a file that opens without repair.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from couchnode.data.item import Item
from couchnode.data.storecopy import Copying
from couchnode.data.storeerrors import (
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreLostError,
    StoreVersionError,
)
from couchnode.data.storefile import History, Opened, StoreFile, Transaction

__all__ = [
    "Transaction",
    "History",
    "MemoryStore",
    "Opened",
    "SqliteStore",
    "Store",
    "StoreClosedError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreLostError",
    "StoreVersionError",
]

_T = TypeVar("_T")


class Store(Protocol):
    """A bucket's interface to its store. Calls are executed one after another, in order."""

    persistent: bool
    """Whether anything ever reaches a disk."""

    @property
    def disk_bytes(self) -> int:
        """Size of the files, in bytes, as of the last write."""

    def open(self, bucket: str, uuid: str) -> Deferred[Opened]:
        """Open or create the store of that bucket; fires with its content, or fails with a StoreError."""

    def load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> Deferred[None]:
        """Pass every document to ``consume``, in the reactor's thread, a chunk at a time."""

    def write(self, transaction: Transaction) -> Deferred[None]:
        """Write a batch; fires once it is on the disk, or fails with nothing of it written."""

    def copy(self, path: Path) -> Deferred[int]:
        """Copy everything written so far to a new file; fires with its size in bytes, or fails."""

    def stop_copying(self) -> None:
        """End a copy early; it fails."""

    def close(self) -> Deferred[None]:
        """Mark the store as cleanly closed, and close it."""

    def abandon(self) -> Deferred[None]:
        """Close the store without that mark, because a write failed."""


class MemoryStore:
    """A store that keeps nothing, for ephemeral buckets."""

    persistent = False
    disk_bytes = 0

    def open(self, bucket: str, uuid: str) -> Deferred[Opened]:
        """Fire with an empty store."""
        return succeed(Opened([], 0, True))

    def load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> Deferred[None]:
        """Fire at once: there is nothing to load."""
        return succeed(None)

    def write(self, transaction: Transaction) -> Deferred[None]:
        """Refuse: an ephemeral bucket has nothing to write.

        :raises TypeError: always; calling this is a bug.
        """
        raise TypeError("an ephemeral bucket is never written")

    def copy(self, path: Path) -> Deferred[int]:
        """Refuse: there is nothing to copy.

        :raises TypeError: always; calling this is a bug.
        """
        raise TypeError("an ephemeral bucket is never copied")

    def stop_copying(self) -> None:
        """Do nothing."""

    def close(self) -> Deferred[None]:
        """Fire at once."""
        return succeed(None)

    def abandon(self) -> Deferred[None]:
        """Fire at once."""
        return succeed(None)


class SqliteStore:
    """One SQLite file, written by one thread.

    The file is held exclusively: a second process gets :class:`StoreLockedError`.

    :param path: the file; its folder must exist.
    :param call_from_thread: passes results back to the reactor's thread; by default
        ``reactor.callFromThread`` of the global reactor.
    :param history: the cluster's record of the store; ``None`` for a new one.
    :param starts: number of this start of the cluster.
    """

    persistent = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        call_from_thread: Callable[..., object] | None = None,
        *,
        history: History | None = None,
        starts: int = 1,
    ) -> None:
        self._file = StoreFile(Path(path))
        self._history = history
        self._starts = starts
        if call_from_thread is None:
            from twisted.internet import reactor

            call_from_thread = reactor.callFromThread  # type: ignore[attr-defined]
        self._call_from_thread: Callable[..., object] = call_from_thread
        self._thread: _StoreThread | None = None
        self._copying: Copying | None = None

    @property
    def disk_bytes(self) -> int:
        """Size of the file and its log, in bytes, as of the last write."""
        return self._file.disk_bytes

    def open(self, bucket: str, uuid: str) -> Deferred[Opened]:
        """Open or create the file.

        Fails with :class:`StoreVersionError`, :class:`StoreDamagedError`,
        :class:`StoreLockedError`, :class:`StoreFullError`, :class:`StoreLostError` (it does not match its
        history), or :class:`StoreError` (no such folder, no permission, the file belongs to another bucket).
        """
        if self._thread is not None:
            raise ValueError("this store is open already")
        file = self._file
        self._thread = _StoreThread(f"store {file.path.name}", self._call_from_thread)
        opening: Deferred[Opened] = self._submit(lambda: file.open(bucket, uuid, self._history, self._starts))
        return opening.addErrback(self._give_up)

    def load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> Deferred[None]:
        """Pass every document to ``consume``; at most one chunk waits while another is being processed.

        Fails with :class:`StoreDamagedError` at the end if some documents are damaged.
        """
        return self._submit(lambda: self._load(consume))

    def write(self, transaction: Transaction) -> Deferred[None]:
        """Write a batch as one transaction and sync it; while the file is being copied, between two parts."""
        return self._submit(lambda: self._file.write(transaction), self._copying)

    def copy(self, path: Path) -> Deferred[int]:
        """Copy the file while it is in use; writes continue meanwhile, and are included in the copy.

        :param path: a file that does not exist, in a folder that does.
        :returns: fires with the size of the copy, in bytes, when it is on the disk. Fails with
            :class:`StoreFullError`, :class:`StoreError`, or :class:`StoreClosedError` after
            :meth:`stop_copying`; nothing is left of the copy then.
        :raises ValueError: another copy is being made.
        """
        if self._copying is not None:
            raise ValueError("a copy of this store is being made")
        copying = Copying(path)
        done: Deferred[int] = self._submit(lambda: copying.run(self._file.db))
        if self._thread is not None:
            self._copying = copying
        return done.addBoth(self._copied, copying)

    def stop_copying(self) -> None:
        """End a copy early; it fails with :class:`StoreClosedError`."""
        if self._copying is not None:
            self._copying.is_stopped = True

    def close(self) -> Deferred[None]:
        """Mark the file clean and close it; fires when the file is free for another process."""
        return self._finish(True)

    def abandon(self) -> Deferred[None]:
        """Close the file without the mark."""
        return self._finish(False)

    # ---- in the reactor's thread -----------------------------------------------------------------

    def _copied(self, result: int | Failure, copying: Copying) -> int | Failure:
        self._put_back(copying)
        self._copying = None
        return result

    def _put_back(self, copying: Copying) -> None:
        """Move the writes that came too late for a copy ahead of later ones."""
        for call in copying.take():
            if self._thread is not None:
                self._thread.put(call)

    def _submit(self, work: Callable[[], _T], copying: Copying | None = None) -> Deferred[_T]:
        if self._thread is None:
            failed: Deferred[_T] = Deferred()
            failed.errback(StoreClosedError(f"{self._file.path} is not open"))
            return failed
        put = self._thread.put if copying is None else copying.writes.put
        return self._thread.submit(lambda: self._file.translated(work), put)

    def _finish(self, clean: bool) -> Deferred[None]:
        if self._thread is None:
            return succeed(None)
        self.stop_copying()
        if self._copying is not None:
            self._put_back(self._copying)
        closing = self._submit(lambda: self._file.close(clean))
        self._thread.stop()
        self._thread = None
        return closing

    def _give_up(self, failure: Failure) -> Failure:
        if self._thread is not None:
            self._thread.stop()
            self._thread = None
        return failure

    # ---- in the worker's thread ------------------------------------------------------------------

    def _load(self, consume: Callable[[list[tuple[int, Item]]], None]) -> None:
        waiting: _Handover | None = None
        for chunk in self._file.chunks():
            if waiting is not None:
                waiting.wait()
            waiting = _Handover(consume, chunk)
            self._call_from_thread(waiting.run)
        if waiting is not None:
            waiting.wait()

    @property
    def _db(self) -> Any:
        return self._file.db


class _Handover:
    """One chunk passed from the worker to the reactor's thread."""

    def __init__(
        self, consume: Callable[[list[tuple[int, Item]]], None], chunk: list[tuple[int, Item]]
    ) -> None:
        self._consume = consume
        self._chunk = chunk
        self._taken = Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Take the chunk (in the reactor's thread)."""
        try:
            self._consume(self._chunk)
        except BaseException as error:  # noqa: BLE001  # passed to the worker, which fails the load with it
            self._error = error
        self._taken.set()

    def wait(self) -> None:
        """Wait (in the worker's thread) until the chunk has been taken."""
        self._taken.wait()
        if self._error is not None:
            raise self._error


class _StoreThread:
    """A thread that executes calls in order. It is a daemon thread: data acknowledged as persisted is safe
    without its orderly end, so a process that exits without close() need not wait for it."""

    def __init__(self, name: str, call_from_thread: Callable[..., object]) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._call_from_thread = call_from_thread
        self.put: Callable[[Callable[[], None]], None] = self._calls.put
        """Executes a call after all earlier ones."""
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(
        self, work: Callable[[], _T], put: Callable[[Callable[[], None]], None] | None = None
    ) -> Deferred[_T]:
        """Execute ``work`` after all calls submitted before; fires with its result.

        :param put: another queue for the call, which this thread must serve.
        """
        done: Deferred[_T] = Deferred()

        def call() -> None:
            try:
                result = work()
            except BaseException:  # noqa: BLE001  # passed to the caller that waits for the result
                self._call_from_thread(done.errback, Failure())
            else:
                self._call_from_thread(done.callback, result)

        (put or self.put)(call)
        return done

    def stop(self) -> None:
        """End the thread after the submitted calls."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
