"""The view worker: ``python -m couchnode.views.worker SOCKET [name=value ...]``.

A process of blocking threads beside the node. It owns the index files, orders keys, maps documents in
sandboxes and answers queries. It listens on a Unix socket, prints ``ready``, and ends when its standard input
is closed, which means that the node is gone, or on SIGTERM. It may end at any point without loss.

Each connection is for one activity, and begins with a control frame (operation, arguments):

``check``
    Report the first function that V8 does not accept, and why. Any number of times on a connection.
``open``
    Open indexes to write, then any number of ``apply``, ``reconcile`` and ``drop``, answered in order.
    Opening an index takes it away from the connection that had it. After an answer ``("error", reason)`` the
    connection is closed, and uncommitted changes are rolled back. A failed build is not such an error, but a
    member of the answer; further requests for that view on this connection are answered with it and ignored.
``query``
    Stream rows: ``("head", {})``, data frames, an empty one; or ``("refused", {...})``.
``forget``
    Delete index files.

The other arguments set limits: those of :class:`couchnode.views.sandbox.Limits`, ``sandboxes``, ``queries``.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sqlite3
import sys
import threading
import traceback
from collections.abc import Sequence
from time import monotonic
from typing import Any

from couchnode.views.collation import KeyEncoder
from couchnode.views.files import File, Files, NotOwnedError, Readers
from couchnode.views.index import IndexReader, is_damage
from couchnode.views.query import Query, Refused
from couchnode.views.reducers import Call, ReductionError
from couchnode.views.sandboxes import BuildError, FunctionError, Limits, MapOutput, SandboxError, SandboxPool
from couchnode.views.wire import Blocked, Wire
from reactor.framing import FrameError

MAX_QUERIES = 64
MAX_CONNECTIONS = 512
PAUSE_SECONDS = 5.0
PATIENCE_SECONDS = 60.0

_COMMIT_CHANGES = 20_000
_COMMIT_SECONDS = 1.0
_IDLE_COMMIT_SECONDS = 0.2


class WorkerError(Exception):
    """A request cannot be carried out; the text says why."""


class Worker:
    """The state shared by all connections.

    :param pool: runs functions.
    :param max_queries: queries at a time; more are refused.
    """

    def __init__(self, pool: SandboxPool, max_queries: int = MAX_QUERIES) -> None:
        self.pool = pool
        self.files = Files()
        self.readers = Readers()
        self.queries = threading.BoundedSemaphore(max_queries)
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def listen(self, listener: socket.socket) -> None:
        """Serve connections, each in a thread; returns when the listener is closed."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if not self._connections.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        wire = Wire(connection)
        try:
            self._converse(wire)
        except (FrameError, Blocked, OSError) as error:
            if not isinstance(error, ConnectionError):
                print(f"view worker: a connection ended: {error}", file=sys.stderr, flush=True)
        except BaseException as error:  # noqa: BLE001  # the peer must get an answer in any case
            _tell(wire, error)
        finally:
            wire.close()
            self._connections.release()

    def _converse(self, wire: Wire) -> None:
        while (request := wire.receive()) is not None:
            operation, arguments = request
            if operation == "check":
                wire.send(("ok", self._check(arguments["functions"])), PATIENCE_SECONDS)
            elif operation == "open":
                Updating(self, wire, arguments["indexes"]).run()
                return
            elif operation == "query":
                self._answer(wire, arguments)
                return
            elif operation == "forget":
                for path in arguments["paths"]:
                    self.readers.forget(path)
                    self.files.forget(path)
                wire.send(("ok", None), PATIENCE_SECONDS)
            else:
                raise WorkerError(f"unknown operation {operation!r}")

    def _check(self, functions: list[tuple[str, str]]) -> list[str | None]:
        """Check functions up to the first that is refused: each may take the full time of a call."""
        found: list[str | None] = []
        for function in functions:
            found += self.pool.check([function])
            if found[-1] is not None:
                break
        return found

    # ---- queries ---------------------------------------------------------------------------------

    def _answer(self, wire: Wire, arguments: dict[str, Any]) -> None:
        if not self.queries.acquire(blocking=False):
            _refuse(wire, Refused(503, "too_many_requests", "too many queries at a time; try again later"))
            return
        try:
            with self.readers.lent([given["path"] for given in arguments["indexes"]]) as readers:
                self._stream(wire, arguments, readers)
        finally:
            self.queries.release()

    def _stream(self, wire: Wire, arguments: dict[str, Any], readers: list[IndexReader | None]) -> None:
        def reduce_many(design: str, source: str, calls: list[Call]) -> list[str]:
            if wire.is_closed():
                raise ConnectionResetError("the answer is no longer wanted")
            try:
                return self.pool.reduce_many(design, source, calls)
            except (FunctionError, SandboxError) as error:
                raise ReductionError(str(error)) from error

        try:
            indexes = list(zip(arguments["indexes"], readers, strict=True))
            running = Query(indexes, arguments["query"], reduce_many, KeyEncoder(), self.damaged)
            blocks = running.blocks()
            first = next(blocks)
        except Refused as refused:
            _refuse(wire, refused)
            return
        wire.send(("head", {}), PATIENCE_SECONDS)
        wire.send_data(first, PATIENCE_SECONDS, PAUSE_SECONDS, running.release)
        try:
            for block in blocks:
                wire.send_data(block, PATIENCE_SECONDS, PAUSE_SECONDS, running.release)
        except (FrameError, Blocked, OSError):
            raise
        except Exception:  # noqa: BLE001  # too late for an error: the answer is cut off
            traceback.print_exc()
            return
        wire.send_data(b"", PATIENCE_SECONDS, PAUSE_SECONDS, running.release)

    def damaged(self, path: str) -> None:
        """Delete a damaged file; it is rebuilt when it is opened next."""
        print(f"view worker: {path} is damaged, it will be made anew", file=sys.stderr, flush=True)
        self.files.forget(path)


class Updating:
    """A connection that writes indexes.

    Its thread reads requests and maps documents; a second one writes at the same time. A request may be
    answered before the commit if more requests are on their way, because a later answer can still report that
    the commit failed.
    """

    def __init__(self, worker: Worker, wire: Wire, given: list[dict[str, Any]]) -> None:
        self._worker = worker
        self._wire = wire
        self._given = given
        self._files: list[File] = []
        self._failed: dict[int, str] = {}
        self._held: list[File] = []
        self._work: queue.Queue[tuple[str, dict[str, Any], Any] | None] = queue.Queue(1)
        self._received = 0
        self._done = 0
        self._began = 0.0
        self._changes = 0
        self._broken = False

    def run(self) -> None:
        """Serve the connection to its end."""
        try:
            for given in self._given:
                self._files.append(self._worker.files.open(given, self))
            states = []
            for file in self._files:
                with file.lock:
                    index = file.of(self)
                    states.append({"marks": index.marks, "rows": index.rows, "error": index.error})
            self._wire.send(("ok", states), PATIENCE_SECONDS)
            writer = threading.Thread(target=self._write_all, daemon=True)
            writer.start()
            try:
                self._read_all()
            finally:
                self._work.put(None)
                writer.join()
        finally:
            for file in self._files:
                self._worker.files.release(file)

    def _read_all(self) -> None:
        while not self._broken and (request := self._wire.receive()) is not None:
            operation, arguments = request
            self._received += 1
            mapped: Any = None
            if operation == "apply":
                try:
                    mapped = self._map(arguments)
                except Exception as error:  # noqa: BLE001  # reported by the writer, in order
                    mapped = error
            self._work.put((operation, arguments, mapped))

    def _map(self, arguments: dict[str, Any]) -> list[tuple[list[int], MapOutput | _Failed]]:
        """Map changes for the views that have not failed, one design after the other."""
        changes = arguments["changes"]
        latest = {(change[0], change[1]): change for change in changes}
        if len(latest) < len(changes):
            changes = arguments["changes"] = list(latest.values())
        designs: dict[str, list[int]] = {}
        for view in arguments["views"]:
            if view not in self._failed:
                designs.setdefault(self._given[view]["design"], []).append(view)
        return [
            part for design, views in designs.items() for part in self._map_design(design, views, changes)
        ]

    def _map_design(
        self, design: str, views: list[int], changes: list[tuple[Any, ...]]
    ) -> list[tuple[list[int], MapOutput | _Failed]]:
        sources = [self._given[view]["map"] for view in views]
        try:
            output = self._worker.pool.map(design, sources, changes)
        except (BuildError, FunctionError) as error:
            failed = _Failed(error.reason)
            if error.index is None:
                return [(views, failed)]
            others = [view for at, view in enumerate(views) if at != error.index]
            rest = self._map_design(design, others, changes) if others else []
            return [([views[error.index]], failed), *rest]
        for at, function, reason in output.dropped:
            which = "all views" if function is None else self._given[views[function]]["name"]
            key = changes[at][1].decode("utf-8", "replace")
            print(f"{design}: {which}: no rows of {key}: {reason}", file=sys.stderr, flush=True)
        for text in output.logged:
            print(f"{design}: log: {text}", file=sys.stderr, flush=True)
        return [(views, output)]

    def _write_all(self) -> None:
        """Write the prepared changes; runs in the second thread."""
        work: tuple[str, dict[str, Any], Any] | None = ("", {}, None)
        try:
            while True:
                try:
                    work = self._work.get(timeout=_IDLE_COMMIT_SECONDS if self._held else None)
                except queue.Empty:
                    self._commit()
                    continue
                if work is None:
                    self._commit()
                    return
                answer = self._do(*work)
                self._done += 1
                late = self._changes >= _COMMIT_CHANGES or monotonic() - self._began >= _COMMIT_SECONDS
                if late or self._received == self._done:
                    self._commit()
                self._wire.send(("ok", answer), PATIENCE_SECONDS)
        except BaseException as error:  # noqa: BLE001  # report it to the peer, and end the reader
            self._give_up(error)
            # The reader may be about to pass on more.
            while work is not None:
                work = self._work.get()

    def _give_up(self, error: BaseException) -> None:
        self._broken = True
        for file in self._held:
            try:
                if file.index is not None and file.owner is self:
                    file.index.rollback()
            except Exception:  # noqa: BLE001  # it is closed next, which rolls back as well
                traceback.print_exc()
            if isinstance(error, sqlite3.Error) and is_damage(error):
                self._worker.damaged(file.path)
        self._unlock()
        _tell(self._wire, error)
        self._wire.shut()

    def _do(self, operation: str, arguments: dict[str, Any], mapped: Any) -> Any:
        if isinstance(mapped, Exception):
            raise mapped
        views: list[int] = arguments["views"]
        self._lock([self._files[view] for view in views])
        if operation == "apply":
            changes = arguments["changes"]
            self._changes += len(changes)
            for group, output in mapped:
                for position, view in enumerate(group):
                    if view not in self._failed:
                        self._apply(view, position, changes, output, arguments["marks"])
        elif operation == "reconcile":
            for view in views:
                self._files[view].of(self).reconcile(arguments["vb"], arguments["keys"])
        elif operation == "drop":
            for view in views:
                self._files[view].of(self).drop(arguments["vbs"])
        else:
            raise WorkerError(f"unknown operation {operation!r} in an update")
        return [
            {"rows": index.rows, "error": self._failed.get(view)}
            for view, index in [(view, self._files[view].of(self)) for view in views]
        ]

    def _apply(
        self, view: int, position: int, changes: list[Any], output: MapOutput | _Failed, marks: Any
    ) -> None:
        index = self._files[view].of(self)
        reason: str | None
        if isinstance(output, _Failed):
            reason = output.reason
            index.fail(reason, {change[0] for change in changes})
        else:
            rows = output.rows[position]
            reason = index.apply(changes, zip(rows.changes, rows.keys, rows.values, strict=True), marks)
        if reason is not None:
            self._failed[view] = reason

    def _lock(self, files: list[File]) -> None:
        """Lock files, always in the same order, so that two connections never wait for each other."""
        new = [file for file in files if file not in self._held]
        if not new:
            return
        everything = {file.path: file for file in (*self._held, *new)}
        self._commit()
        for _, file in sorted(everything.items()):
            file.lock.acquire()
            self._held.append(file)
        self._began = monotonic()

    def _commit(self) -> None:
        for file in self._held:
            if file.index is not None and file.owner is self:
                file.index.commit()
        self._unlock()

    def _unlock(self) -> None:
        held, self._held = self._held, []
        for file in held:
            file.lock.release()
        self._changes = 0


class _Failed:
    """Stands for rows: the build failed."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _refuse(wire: Wire, refused: Refused) -> None:
    told = {"status": refused.status, "error": refused.error, "reason": refused.reason}
    wire.send(("refused", told), PATIENCE_SECONDS)


def _tell(wire: Wire, error: BaseException) -> None:
    """Answer with an error, and log its origin."""
    if isinstance(error, (WorkerError, NotOwnedError)):
        print(f"view worker: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
    try:
        wire.send(("error", str(error) or type(error).__name__), PATIENCE_SECONDS)
    except (Blocked, OSError):
        pass  # it is gone


def main(arguments: Sequence[str]) -> int:
    """Run the worker until its standard input ends.

    :param arguments: the socket's path, then ``name=value`` for limits.
    """
    if not arguments:
        print("usage: python -m couchnode.views.worker SOCKET [name=value ...]", file=sys.stderr)
        return 2
    path, *settings = arguments
    try:
        limits, others = _limits(settings)
    except ValueError as error:
        print(f"view worker: {error}", file=sys.stderr)
        return 2
    worker = Worker(
        SandboxPool(limits, int(others.get("sandboxes", 3))), int(others.get("queries", MAX_QUERIES))
    )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        listener.listen(128)
    except OSError as error:
        print(f"view worker: cannot listen at {path}: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Computing threads yield sooner, so that an update does not delay a short query.
    sys.setswitchinterval(0.001)
    threading.Thread(target=worker.listen, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    try:
        while os.read(0, 4096):
            pass
    finally:
        listener.close()
        worker.pool.close()
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads may be at any point, which is safe for index files.
        os._exit(0)
    return 0


def _limits(settings: Sequence[str]) -> tuple[Limits, dict[str, float]]:
    values: dict[str, float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in (*Limits._fields, "sandboxes", "queries"):
            raise ValueError(f"unknown limit {name!r}")
        try:
            values[name] = float(text) if name == "call_seconds" else int(text)
        except ValueError:
            raise ValueError(f"the limit {name} takes a number, not {text!r}") from None
        if values[name] <= 0:
            raise ValueError(f"the limit {name} must be more than 0")
    others: dict[str, float] = {name: values.pop(name) for name in ("sandboxes", "queries") if name in values}
    return Limits(**values), others  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
