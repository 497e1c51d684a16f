"""Keeps the indexes of one node up to date with its documents.

One :class:`PartIndexer` serves one bucket on one node. It knows the index files, sends changes to the worker
(:mod:`couchnode.views.feed`), and makes queries that need all changes up to now wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger

from couchnode.cluster.designs import View
from couchnode.data.bucket import NodeBucket
from couchnode.data.changes import ChangeLog
from couchnode.views.feed import Mark, gone, steps
from couchnode.views.workerclient import WorkerClient, WorkerConnection, WorkerError

OUTSTANDING_STEPS = 2
"""Steps sent to the worker in advance: one being processed, one waiting."""

Marks = dict[int, Mark]

_NO_HISTORY: Mark = (0, 0)
"""A mark that no vbucket continues."""


class IndexGone(WorkerError):
    """An index was deleted while in use, with its view or bucket: look it up again."""


class IndexFile:
    """One index: one view of one bucket on one node.

    :ivar position: its position in the change log; ``None`` if only its marks are valid.
    :ivar failed_at: its position in the change log when its build last failed.
    :ivar clean_at: number of times that the change log had been voided when the index last held only this
        node's rows.
    :ivar lock: held during an update.
    """

    def __init__(self, path: Path, view: View, subset: tuple[int, ...] | None) -> None:
        self.path = path
        self.view = view
        self.subset = subset
        self.position: int | None = None
        self.failed_at: int | None = None
        self.clean_at: int | None = None
        self.lock = DeferredLock()

    def request(self, design: str) -> dict[str, Any]:
        """Return the request for the worker to open it."""
        view = self.view
        return {
            "path": str(self.path),
            "design": design,
            "name": view.name,
            "map": view.map,
            "reduce": view.reduce,
        }


class PartIndexer:
    """The indexes of one bucket on one node.

    :param folder: of the index files; created with the first one.
    """

    def __init__(self, part: NodeBucket, worker: WorkerClient, folder: Path) -> None:
        self.part = part
        self.folder = folder
        self._worker = worker
        self._files: dict[str, IndexFile] = {}
        self._life = worker.lives
        self._expiring = DeferredLock()
        self._deleting = DeferredLock()
        self._log = Logger()

    def file(self, view: View, is_subset: bool) -> IndexFile:
        """Return the index of a view; views with the same functions share one.

        :param is_subset: whether it covers only the small part of the data for development queries, which has
            its own index.
        """
        subset = self._subset() if is_subset else None
        name = view.signature + ("" if subset is None else f"-part{subset[0] if subset else ''}")
        known = self._files.get(name)
        if known is None:
            known = self._files[name] = IndexFile(self.folder / f"{name}.sqlite", view, subset)
        return known

    def pending(self, views: Collection[View]) -> int:
        """Return the largest number of changes missing in the full indexes of these views."""
        log = self.part.change_log
        most = 0
        for view in views:
            file = self.file(view, False)
            # A failed build fails again, unless something changed.
            position = file.failed_at if file.position is None else file.position
            if log is None or position is None or position < log.start:
                return self.part.indexed_count
            most = max(most, log.end - position)
        return most

    async def update(self, design: str, files: Sequence[IndexFile]) -> None:
        """Update indexes to include everything acknowledged before this call.

        Build errors are stored with the index, and reported by queries; they do not fail this.

        :param design: names the design document, for the worker.
        :raises IndexGone: an index was deleted in the meantime.
        :raises WorkerError: the worker could not do it, for example because the disk is full.
        """
        log = self._change_log()
        async with self._expiring:
            for _ in log.expire_due(self.part):
                await deferLater(self.part.clock, 0)
        target = log.end
        if self._are_level(files, log, target):
            return
        ordered = sorted(files, key=lambda file: file.path)
        held: list[DeferredLock] = []
        try:
            for file in ordered:
                await file.lock.acquire()
                held.append(file.lock)
            if not self._are_level(files, log, target):
                async with self._worker.updates:
                    await self._update(design, ordered, log)
                self.check(files)
        except WorkerError:
            self.check(files)  # a deleted index as the cause makes the better message
            raise
        finally:
            for lock in held:
                lock.release()

    async def clean(self, design: str, file: IndexFile) -> None:
        """Remove rows from an index that are no longer this node's, without adding new ones.

        :raises IndexGone: it was deleted in the meantime.
        :raises WorkerError: the worker could not do it.
        """
        log = self._change_log()
        if file.clean_at == log.voids or not file.path.exists():
            return
        # The holder of the lock may have indexes open that were clean when it opened them.
        async with file.lock:
            if file.clean_at == log.voids:
                return
            connection = await self._connect([file])
            try:
                (state,) = await connection.ask(("open", {"indexes": [file.request(design)]}))
                voids = log.voids
                strange = gone(self.part, state["marks"], file.subset)
                if strange:
                    await connection.ask(("drop", {"views": [0], "vbs": strange}))
                file.clean_at = voids
            finally:
                connection.close()

    async def forget(self, wanted: Callable[[], Collection[IndexFile]] = lambda: ()) -> None:
        """Delete all index files except the ones in ``wanted``, evaluated when this gets the lock."""
        dropped = await self._forget(wanted)
        for file in dropped:
            # A running update may create its file only now; it ends soon, as that file is gone.
            async with file.lock:
                pass
        if dropped:
            await self._forget(wanted)

    async def _forget(self, wanted: Callable[[], Collection[IndexFile]]) -> list[IndexFile]:
        """Delete unwanted files; return the indexes known until now."""
        async with self._deleting:
            kept = {file.path for file in wanted()}
            dropped = [file for file in self._files.values() if file.path not in kept]
            # Users of these indexes are notified here; the files are deleted afterwards.
            self._files = {name: file for name, file in self._files.items() if file.path in kept}
            paths = [str(path) for path in self.folder.glob("*.sqlite") if path not in kept]
            if paths:
                connection = await self._worker.connect()
                try:
                    await connection.ask(("forget", {"paths": paths}))
                finally:
                    connection.close()
        return dropped

    def check(self, files: Collection[IndexFile]) -> None:
        """Check that indexes still exist.

        :raises IndexGone: one is not.
        """
        if self.part.state == "closed":
            raise IndexGone("the bucket was deleted")
        if any(self._files.get(file.path.stem) is not file for file in files):
            raise IndexGone("the view was changed or deleted")

    # ---- inside ----------------------------------------------------------------------------------

    async def _connect(self, files: Collection[IndexFile]) -> WorkerConnection:
        """Return a connection on which to open indexes; the caller must do so before the reactor turns."""
        connection = await self._worker.connect()
        try:
            async with self._deleting:
                pass  # a file of the same name must be gone before another is made
            self.check(files)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as fault:
            connection.close()
            raise WorkerError(f"the folder {self.folder} cannot be made: {fault.strerror}") from fault
        except BaseException:
            connection.close()
            raise
        return connection

    def _subset(self) -> tuple[int, ...]:
        for vbid, vbucket in enumerate(self.part.vbuckets):
            if vbucket is not None and vbucket.state == "active":
                return (vbid,)
        return ()

    def _change_log(self) -> ChangeLog:
        log = self.part.change_log
        if log is None:
            log = self.part.change_log = ChangeLog()
        return log

    def _are_level(self, files: Sequence[IndexFile], log: ChangeLog, target: int) -> bool:
        self._trust_marks_only()
        wanted = max(target, log.start)
        for file in files:
            if file.position is None or file.position < wanted:
                return False
            if not file.path.exists():  # it was deleted, perhaps because it was damaged
                return False
        return True

    def _trust_marks_only(self) -> None:
        """Forget positions if the worker has restarted: only the marks in the files are valid then."""
        if self._life != self._worker.lives:
            self._life = self._worker.lives
            for file in self._files.values():
                file.position = None

    async def _update(self, design: str, files: Sequence[IndexFile], log: ChangeLog) -> None:
        connection = await self._connect(files)
        try:
            states = await connection.ask(("open", {"indexes": [file.request(design) for file in files]}))
            self._trust_marks_only()
            marks: list[Marks] = [state["marks"] for state in states]
            for file, mark in zip(files, marks, strict=True):
                if not gone(self.part, mark, file.subset):
                    file.clean_at = log.voids
            # Indexes that lag behind the others catch up alone: a change of one view rebuilds only that one.
            # Then all continue together, and each document is mapped once for all of them.
            lead = max(range(len(files)), key=lambda index: sum(mark[1] for mark in marks[index].values()))
            behind = [index for index in range(len(files)) if marks[index] != marks[lead]]
            failed: set[int] = set()
            for group in _groups(behind, marks):
                position = log.end
                caught_up = await self._run(connection, group, marks[group[0]], None, files[0].subset, failed)
                for index in group:
                    marks[index], files[index].position = caught_up, position
            await self._together(connection, files, marks, log, failed)
        finally:
            connection.close()

    async def _together(
        self,
        connection: WorkerConnection,
        files: Sequence[IndexFile],
        marks: list[Marks],
        log: ChangeLog,
        failed: set[int],
    ) -> None:
        views = [index for index in range(len(files)) if index not in failed]
        if views:
            common = _common([marks[index] for index in views])
            positions = [files[index].position for index in views]
            known = [position for position in positions if position is not None]
            changed = log.since(min(known)) if len(known) == len(views) else None
            position, voids = log.end, log.voids
            await self._run(connection, views, common, changed, files[0].subset, failed)
            for index in views:
                files[index].position, files[index].clean_at = position, voids
        for index in failed:
            files[index].position, files[index].failed_at = None, log.end

    async def _run(
        self,
        connection: WorkerConnection,
        views: list[int],
        marks: Marks,
        changed: dict[int, set[bytes]] | None,
        subset: tuple[int, ...] | None,
        failed: set[int],
    ) -> Marks:
        """Send the steps that lead some views from ``marks`` to now; return the marks that they have then.

        A view whose build fails is left out from there on, and added to ``failed``.
        """
        views, after = list(views), dict(marks)
        errors: list[WorkerError] = []

        def answered(results: Any, asked: list[int]) -> None:
            for view, result in zip(asked, results or [], strict=False):
                if result["error"] is not None and view in views:
                    views.remove(view)
                    failed.add(view)

        def refused(failure: Any) -> None:
            failure.trap(WorkerError)
            errors.append(failure.value)

        outstanding: list[Deferred[Any]] = []
        for kind, content in steps(self.part, marks, changed, subset):
            if len(outstanding) >= OUTSTANDING_STEPS:
                await outstanding.pop(0)
            if errors or not views:
                break
            if kind == "drop":
                for vbid in content["vbs"]:
                    after.pop(vbid, None)
            elif kind == "apply":
                after.update(content["marks"])
            asked = list(views)
            answer = connection.ask((kind, {"views": asked, **content}))
            outstanding.append(answer.addCallbacks(answered, refused, callbackArgs=(asked,)))
        for waiting in outstanding:
            await waiting
        if errors:
            raise errors[0]
        return after


def _common(marks: Sequence[Marks]) -> Marks:
    """Return the marks that all indexes have reached."""
    first = marks[0]
    if all(other == first for other in marks):
        return first
    common = {}
    for vbid in set().union(*marks):
        known = [mark[vbid] for mark in marks if vbid in mark]
        uuid = known[0][0]
        if any(other != uuid for other, _ in known):
            common[vbid] = _NO_HISTORY  # different branches: all of these indexes start again
        else:
            # An index without the vbucket starts at 0; the others need the deletions too.
            common[vbid] = uuid, min(seqno for _, seqno in known) if len(known) == len(marks) else 0
    return common


def _groups(indexes: Sequence[int], marks: Sequence[Marks]) -> list[list[int]]:
    """Group indexes with the same marks."""
    groups: list[list[int]] = []
    for index in indexes:
        for group in groups:
            if marks[group[0]] == marks[index]:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups
