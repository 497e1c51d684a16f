"""Views of one cluster: which indexes a query needs, how fresh they must be, and which node answers it."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from couchnode.cluster.cluster import Cluster
from couchnode.cluster.config import bracketed
from couchnode.cluster.designs import DesignDocument, functions_of, read_design, syntax_error
from couchnode.cluster.members import Bucket, Node
from couchnode.cluster.metadata import DataDirectory
from couchnode.views.answers import MAX_QUERIES, Answers
from couchnode.views.errors import INDEX_MISSING, QueryError
from couchnode.views.indexer import IndexFile, IndexGone, PartIndexer
from couchnode.views.parameters import BodyMembers, parse_query, read_body
from couchnode.views.workerclient import WorkerClient, WorkerConnection, WorkerError, WorkerGone

UPDATE_INTERVAL_MS = 5000
UPDATE_MIN_CHANGES = 5000

DEVELOPMENT_MULTIPLE = 20
"""A development query sees all documents if there are at most this many per vbucket, and otherwise a part, as
on Couchbase Server."""

_ATTEMPTS = 3
_RETRY_SECONDS = 0.05
_MAX_CHECKS = 8
_MAX_QUIET_UPDATES = 2

_AT_ONCE_BYTES = 64 * 1024
"""Longer bodies are read in a thread, one at a time: a body of 4 MiB may have two million values."""


class UpdateSettings(NamedTuple):
    """When indexes of production design documents are updated without a query.

    :ivar interval_ms: pause between two checks.
    :ivar min_changes: number of changes that trigger an update; 0 for never.
    :ivar replica_min_changes: stored for clients without effect; there are no replica indexes.
    """

    interval_ms: int = UPDATE_INTERVAL_MS
    min_changes: int = UPDATE_MIN_CHANGES
    replica_min_changes: int = UPDATE_MIN_CHANGES


class _Source(NamedTuple):
    """One node's part in a query."""

    name: str
    indexer: PartIndexer
    files: list[IndexFile]


def obstacle() -> str | None:
    """Return why the view engine cannot run here and what to do about it; ``None`` if it can."""
    if not hasattr(socket, "AF_UNIX"):
        return "the view engine needs Unix sockets, which this system does not offer to Python"
    if find_spec("py_mini_racer") is None or find_spec("icu") is None:
        return (
            "mini-racer or pyicu-wheels is not installed; pip install 'couchgateway[views]' brings them "
            "where they come ready built"
        )
    return None


def is_available() -> bool:
    """Return whether the view engine can run here."""
    return obstacle() is None


class Views:
    """The views of all buckets of a cluster.

    :param directory: folder of the indexes; ``None`` for one that :meth:`stop` removes.
    :param limits: arguments for the worker, see :mod:`couchnode.views.worker`.
    """

    def __init__(self, cluster: Cluster, directory: DataDirectory | None, limits: Sequence[str] = ()) -> None:
        self.settings = UpdateSettings()
        self._cluster = cluster
        self._directory = directory
        self._temporary: Path | None = None
        # The surplus is for queries whose end the worker has not noticed yet.
        self._worker = WorkerClient((f"queries={MAX_QUERIES + 28}", *limits))
        self._indexers: dict[tuple[str, int], PartIndexer] = {}
        self._background: dict[object, Deferred[None]] = {}
        self._unswept: set[str] = set()
        self._sweeping = DeferredLock()
        self._checks = DeferredSemaphore(_MAX_CHECKS)
        self._quiet_updates = DeferredSemaphore(_MAX_QUIET_UPDATES)
        self._reading = DeferredLock()
        self._answers = Answers(self._worker, cluster.clock)
        self._updates = LoopingCall(self._update_all)
        self._updates.clock = cluster.clock
        self._stopping = False
        self._log = Logger()
        cluster.on_emptied.append(self._emptied)

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to update indexes automatically."""
        self._updates.start(self.settings.interval_ms / 1000, now=False)
        self._answers.start()

    async def stop(self) -> None:
        """End the worker; running queries are cut off."""
        self._stopping = True
        self._answers.stop()
        if self._updates.running:
            self._updates.stop()
        for running in list(self._background.values()):
            running.cancel()
        await self._worker.stop()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def set_update_settings(self, settings: UpdateSettings) -> None:
        """Apply new settings of automatic updates."""
        self.settings = settings
        if self._updates.running:
            self._updates.stop()
            self.start()

    # ---- design documents ------------------------------------------------------------------------

    async def put_design(self, bucket: str, name: str, text: bytes) -> DesignDocument:
        """Check and store a design document; delete index files that are no longer needed.

        :raises DesignError: it is invalid, or a function does not compile or is not a function.
        :raises NoSuchBucket: there is none of that name.
        :raises WorkerError: the functions could not be checked.
        """
        # A long one takes long to read, so it is read once.
        known = read_design(name, text, self._cluster.bucket(bucket).designs.get(name))
        functions = functions_of(known)
        if functions:
            await self._check(functions)
        design: DesignDocument = await self._cluster.put_design(bucket, name, text, known)
        self._sweep(bucket)
        return design

    async def delete_design(self, bucket: str, name: str) -> None:
        """Delete a design document with its indexes.

        :raises NoSuchBucket, NoSuchDesign: there is none.
        """
        await self._cluster.delete_design(bucket, name)
        self._sweep(bucket)

    async def _check(self, functions: Sequence[tuple[str, str, str]]) -> None:
        async with self._checks:
            connection = await self._worker.connect()
            try:
                found = await connection.ask(
                    ("check", {"functions": [(kind, source) for _, kind, source in functions]})
                )
            finally:
                connection.close()
        # Up to the first that is refused.
        for (view, kind, _), text in zip(functions, found, strict=False):
            if text is not None:
                raise syntax_error(view, kind, text)

    # ---- queries ---------------------------------------------------------------------------------

    async def query(
        self, node: Node, bucket_name: str, design_name: str, view_name: str, text: str, body: bytes | None
    ) -> WorkerConnection:
        """Begin a query; the body of the answer follows on the returned connection.

        :param node: the node that was asked.
        :param text: the query string.
        :param body: the body of a POST.
        :raises NoSuchBucket: there is none of that name.
        :raises ParameterError: the parameters are invalid.
        :raises QueryError: an unknown design document or view, an impossible range, an index that could not
            be built, or a view engine that does not work.
        """
        fault: WorkerError
        members: bytes | BodyMembers | None = body
        if body is not None and len(body) > _AT_ONCE_BYTES:
            async with self._reading:
                members = await deferToThread(read_body, body)
        for _ in range(_ATTEMPTS):
            try:
                return await self._attempt(node, bucket_name, design_name, view_name, text, members)
            except IndexGone as gone:
                fault = gone  # try again: the new index may answer
            except WorkerGone as gone:
                fault = gone  # try again: the next worker may answer
                await deferLater(self._cluster.clock, _RETRY_SECONDS)
            except WorkerError as failed:
                fault = failed
                break
        raise QueryError(500, "error", str(fault)) from fault

    async def _attempt(
        self,
        node: Node,
        bucket_name: str,
        design_name: str,
        view_name: str,
        text: str,
        body: bytes | BodyMembers | None,
    ) -> WorkerConnection:
        bucket = self._cluster.bucket(bucket_name)
        design = bucket.designs.get(design_name)
        if design is None:
            raise QueryError(
                404,
                "not_found",
                f"Design document `_design/{design_name}` missing in database `{bucket_name}/master`.",
            )
        view = design.views.get(view_name)
        if view is None:
            raise QueryError(
                404,
                "not_found",
                f"View `{view_name}` not defined in local design document `_design/{design_name}`.",
            )
        query = parse_query(text, body, view.reduce is not None)
        is_part = design.is_development and not query.full_set and self._is_large(bucket)
        sources = self._sources(node, bucket, design, is_part)
        errors: list[dict[str, str]] = []
        label = self._label(bucket, design)
        files = {source.name: source.indexer.file(view, is_part) for source in sources}
        # A query without ``stale`` sees everything, so that clients that cannot set it (the official one
        # never does) read their own writes.
        is_fresh = query.stale in (None, "false")
        if is_fresh:
            sources = await self._bring_level(label, sources, query.connection_timeout_ms / 1000, errors)
        else:
            for source in sources:
                await source.indexer.clean(label, files[source.name])
        if errors and query.plan["on_error"] == "stop":
            sources = []
        request = {
            "indexes": [
                {**files[source.name].request(label), "from": source.name, "made": is_fresh}
                for source in sources
            ],
            "query": {**query.plan, "errors": errors},
        }

        def check() -> None:
            # An index deleted after this stays readable for queries that have it open.
            for source in sources:
                source.indexer.check([files[source.name]])

        try:
            connection = await self._answers.ask(request)
        except (QueryError, WorkerError) as fault:
            if isinstance(fault, QueryError) and fault.error == INDEX_MISSING:
                raise IndexGone(str(fault)) from fault
            if not isinstance(fault, QueryError) or fault.status == 500:
                check()  # a deleted index as the cause makes the better message
            raise
        try:
            check()
        except IndexGone:
            connection.close()
            raise
        if query.stale == "update_after":
            self._update_later(bucket, design, is_part, node)
        return connection

    def _sources(self, node: Node, bucket: Bucket, design: DesignDocument, is_part: bool) -> list[_Source]:
        """Return the nodes that take part, beginning with the one that received the query."""
        nodes = [node] if is_part else [node, *(other for other in self._cluster.nodes if other is not node)]
        found = []
        for one in nodes:
            indexer = self._indexer(bucket, one)
            if indexer.part.state != "ready":
                raise QueryError(
                    503, "not_ready", f"the bucket is being loaded on {one.address.rest}; try again"
                )
            files = [indexer.file(view, is_part) for view in design.views.values()]
            host = bracketed(one.address.host)
            name = "local" if one is node else f"http://{host}:{one.address.views_port}/_view_merge/"
            found.append(_Source(name, indexer, list(dict.fromkeys(files))))
        return found

    async def _bring_level(
        self, label: str, sources: list[_Source], timeout: float, errors: list[dict[str, str]]
    ) -> list[_Source]:
        """Update all sources at once; remote ones that fail or are late are left out."""
        running = [Deferred.fromCoroutine(source.indexer.update(label, source.files)) for source in sources]
        for waiting in running[1:]:
            waiting.addTimeout(timeout, self._cluster.clock)
        level = []
        outcomes: Any = await DeferredList(running, consumeErrors=True)
        for source, (done, failure) in zip(sources, outcomes, strict=True):
            if done:
                level.append(source)
            elif source is sources[0] or failure.check(IndexGone, WorkerGone):
                raise failure.value
            elif failure.check(DeferredTimeout):
                errors.append({"from": source.name, "reason": "timeout"})
            elif failure.check(WorkerError):
                errors.append({"from": source.name, "reason": str(failure.value)})
            else:
                raise failure.value  # including CancelledError: the query was cancelled
        return level

    # ---- updates without a query -----------------------------------------------------------------

    def _update_later(self, bucket: Bucket, design: DesignDocument, is_part: bool, node: Node) -> None:
        key = (bucket.uuid, design.name, is_part)
        if key in self._background or self._stopping:
            return

        async def update() -> None:
            async with self._quiet_updates:
                for source in self._sources(node, bucket, design, is_part):
                    await source.indexer.update(self._label(bucket, design), source.files)

        self._run_in_background(key, update)

    def _is_large(self, bucket: Bucket) -> bool:
        """Return whether development queries see only a part of a bucket, as on Couchbase Server."""
        parts = (node.buckets.get(bucket.definition.name) for node in self._cluster.nodes)
        documents = sum(part.item_count for part in parts if part is not None)
        return documents > DEVELOPMENT_MULTIPLE * len(bucket.rows)

    def _update_all(self) -> None:
        for bucket in list(self._cluster.buckets.values()):
            for design in bucket.designs.values():
                least = design.options.get("updateMinChanges", self.settings.min_changes)
                if design.is_development or type(least) is not int or least <= 0:
                    continue
                for node in self._cluster.nodes:
                    part = node.buckets.get(bucket.definition.name)
                    if part is None or part.state != "ready":
                        continue
                    if self._indexer(bucket, node).pending(design.views.values()) >= least:
                        self._update_later(bucket, design, False, node)
                        break

    def _run_in_background(
        self, key: object, work: Callable[[], Coroutine[Deferred[Any], Any, None]]
    ) -> None:
        running = Deferred.fromCoroutine(work())

        def done(result: Any) -> None:
            self._background.pop(key, None)

        def failed(failure: Any) -> None:
            # An index that is gone, or not created yet, needs no update.
            if failure.check(CancelledError, IndexGone, QueryError) is None and not self._stopping:
                self._log.error("an index was not updated: {error}", error=failure.value)

        self._background[key] = running
        running.addErrback(failed).addCallback(done)

    # ---- files -----------------------------------------------------------------------------------

    def _indexer(self, bucket: Bucket, node: Node) -> PartIndexer:
        key = (bucket.uuid, node.index)
        known = self._indexers.get(key)
        if known is None:
            name = bucket.definition.name
            part = node.buckets.get(name)
            if part is None or part.uuid != bucket.uuid:
                raise QueryError(503, "not_ready", f"the bucket is not there yet on {node.address.rest}")
            known = self._indexers[key] = PartIndexer(part, self._worker, self._folder(node, name))
        return known

    def _folder(self, node: Node, bucket: str) -> Path:
        if self._directory is not None:
            return self._directory.views_directory(node.name, bucket)
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="couchnode-views-"))
        return self._temporary / node.name / f"{bucket}.views"

    def _sweep(self, name: str) -> None:
        """Delete index files that no design document of the bucket needs."""
        if name in self._unswept:
            return  # a sweep that has not begun yet covers this change too
        self._unswept.add(name)

        async def sweep() -> None:
            async with self._sweeping:
                self._unswept.discard(name)
                await self._sweep_now(name)

        self._run_in_background(object(), sweep)

    async def _sweep_now(self, name: str) -> None:
        for node in self._cluster.nodes:
            bucket = self._cluster.buckets.get(name)
            if bucket is None:
                return
            indexer = self._indexer(bucket, node)
            await indexer.forget(partial(self._wanted, name, indexer))

    def _wanted(self, name: str, indexer: PartIndexer) -> list[IndexFile]:
        bucket = self._cluster.buckets.get(name)
        designs = bucket.designs.values() if bucket is not None else ()
        return [
            indexer.file(view, is_part)
            for design in designs
            for view in design.views.values()
            for is_part in (False, True)
        ]

    def _emptied(self, name: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._forget(name))

    async def _forget(self, name: str) -> None:
        for (uuid, index), indexer in list(self._indexers.items()):
            if indexer.part.name == name:
                if indexer.part.state == "closed":
                    del self._indexers[uuid, index]
                await indexer.forget()

    def _label(self, bucket: Bucket, design: DesignDocument) -> str:
        return f"{bucket.uuid}/{design.name}"
