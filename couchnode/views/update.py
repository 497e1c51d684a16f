"""An update of indexes in the view worker: one connection, a thread that maps and one that writes."""

from __future__ import annotations

import queue
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic
from typing import Any

from couchnode.views.files import File, Files, NotOwnedError
from couchnode.views.index import is_damage
from couchnode.views.sandboxes import BuildError, FunctionError, MapOutput, SandboxPool
from couchnode.views.wire import Blocked, Wire

PATIENCE_SECONDS = 60.0
"""How long the node may read nothing before its connection is closed."""

_COMMIT_CHANGES = 20_000
_COMMIT_SECONDS = 1.0
_IDLE_COMMIT_SECONDS = 0.2


class UnknownOperationError(Exception):
    """A request cannot be carried out; the text says why."""


class Updating:
    """A connection that writes indexes.

    Its thread reads requests and maps documents; a second one writes at the same time. A request may be
    answered before the commit if more requests are on their way, because a later answer can still report that
    the commit failed.
    """

    def __init__(
        self,
        files: Files,
        pool: SandboxPool,
        on_damage: Callable[[str], object],
        wire: Wire,
        given: list[dict[str, Any]],
    ) -> None:
        self._opened = files
        self._pool = pool
        self._on_damage = on_damage
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
                self._files.append(self._opened.open(given, self))
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
                self._opened.release(file)

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
            output = self._pool.map(design, sources, changes)
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
                self._on_damage(file.path)
        self._unlock()
        tell(self._wire, error)
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
            raise UnknownOperationError(f"unknown operation {operation!r} in an update")
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


def tell(wire: Wire, error: BaseException) -> None:
    """Answer with an error, and log its origin."""
    if isinstance(error, (UnknownOperationError, NotOwnedError)):
        print(f"view worker: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
    try:
        wire.send(("error", str(error) or type(error).__name__), PATIENCE_SECONDS)
    except (Blocked, OSError):
        pass  # it is gone
