"""The data of buckets on the nodes: opened, distributed by the map, handed over, closed and removed."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import (
    Deferred,
    DeferredList,
    FirstError,
    gatherResults,
    inlineCallbacks,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchnode.cluster.layout import NO_NODE, LayoutError, Rows, states_of
from couchnode.cluster.members import Bucket, Node
from couchnode.cluster.metadata import DataDirectory
from couchnode.data.bucket import NodeBucket
from couchnode.data.storage import History, MemoryStore, SqliteStore

HAND_OVER_SECONDS = 30.0
"""How long a new map waits for replicas that become active to catch up, in seconds."""

Steps = Generator[Deferred[Any], Any, Any]


class Placement:
    """The data of each bucket on each node.

    :param directory: the data directory; ``None`` to keep documents in memory only.
    """

    def __init__(self, nodes: Sequence[Node], clock: IReactorTime, directory: DataDirectory | None) -> None:
        self._nodes = nodes
        self._clock = clock
        self._directory = directory
        self._log = Logger()

    def place(self, bucket: Bucket, history: History | None, starts: int) -> None:
        """Give every node its part of a bucket, which answers "temporary failure" until it is loaded.

        :param history: the record of its files from earlier runs.
        :param starts: number of this start of the cluster.
        """
        definition = bucket.definition
        for node in self._nodes:
            node.buckets[definition.name] = NodeBucket(
                definition.name,
                bucket.uuid,
                vbucket_count=definition.vbuckets,
                quota_bytes=definition.quota_bytes,
                store=self._store(bucket, node, history, starts),
                clock=self._clock,
                flush_enabled=definition.flush_enabled,
                manifest=bucket.manifest,
                replica_count=definition.replica_number,
            )
        self.define(bucket)
        self.wire(bucket)

    def load(self, name: str) -> Deferred[Any]:
        """Load the parts of a bucket; fires when all of them are loaded."""
        return all_of([node.buckets[name].start() for node in self._nodes])

    @inlineCallbacks
    def close(self, parts: Sequence[NodeBucket]) -> Steps:
        """Close these buckets' data; fires with whether all of them were closed properly."""
        outcomes = yield DeferredList([maybeDeferred(part.close) for part in parts], consumeErrors=True)
        for part, (closed, failure) in zip(parts, outcomes, strict=True):
            if not closed:
                self._log.error(
                    "bucket {bucket} was not closed cleanly: {error}", bucket=part.name, error=failure.value
                )
        return all(closed for closed, _ in outcomes)

    @inlineCallbacks
    def close_all(self) -> Steps:
        """Close the data of every bucket; fires as :meth:`close`."""
        in_order = yield self.close([part for node in self._nodes for part in node.buckets.values()])
        for node in self._nodes:
            node.buckets.clear()
        return in_order

    def define(self, bucket: Bucket) -> None:
        """Apply the settings of a bucket, and its scopes and collections, on every node."""
        definition = bucket.definition
        for node in self._nodes:
            part = node.buckets[definition.name]
            if part.collections.manifest is not bucket.manifest:
                part.set_manifest(bucket.manifest)
            part.ledger.quota_bytes = definition.quota_bytes
            part.flush_enabled = definition.flush_enabled
            part.replica_count = definition.replica_number
            part.min_level = definition.min_level
            part.ledger.max_ttl = definition.max_ttl
            part.evictor.is_on = definition.eviction_policy == "nruEviction"

    def wire(self, bucket: Bucket) -> None:
        """Apply the map to the nodes."""
        name = bucket.definition.name
        parts = [node.buckets[name] for node in self._nodes]
        for node, part in zip(self._nodes, parts, strict=True):
            part.set_topology(states_of(bucket.rows, node.index))
        for vbucket, row in enumerate(bucket.rows):
            if row[0] != NO_NODE:
                parts[row[0]].set_replicas(vbucket, [parts[index] for index in row[1:] if index != NO_NODE])

    @inlineCallbacks
    def hand_over(self, name: str, old: Rows, new: Rows) -> Steps:
        """Bring the copies that become active up to date with the previous active ones; fires when done.

        The caller must change the states before the reactor's next turn.
        """
        parts = [node.buckets[name] for node in self._nodes]
        moves = [
            (vbucket, parts[before[0]], parts[after[0]])
            for vbucket, (before, after) in enumerate(zip(old, new, strict=True))
            if NO_NODE not in (before[0], after[0]) and before[0] != after[0]
        ]
        deadline = self._clock.seconds() + HAND_OVER_SECONDS
        while not all(source.replicator.feeds(vbucket, target) for vbucket, source, target in moves):
            if self._clock.seconds() > deadline:
                raise LayoutError(
                    f"bucket {name}: a copy that is to become active is not being kept up to date"
                )
            yield deferLater(self._clock, 0.01)
        for vbucket, source, _ in moves:
            source.replicator.deliver_now(vbucket)

    def remove_files(self, name: str) -> Deferred[None]:
        """Remove a bucket's data from the disk; fires when it is gone."""
        directory = self._directory
        if directory is None:
            return succeed(None)

        def remove() -> None:
            for node in self._nodes:
                for suffix in ("", "-wal", "-shm", "-open"):
                    path = directory.store_path(node.name, name)
                    Path(f"{path}{suffix}").unlink(missing_ok=True)
                shutil.rmtree(directory.views_directory(node.name, name), ignore_errors=True)

        return deferToThread(remove)

    def _store(
        self, bucket: Bucket, node: Node, history: History | None, starts: int
    ) -> SqliteStore | MemoryStore:
        if self._directory is None or not bucket.definition.persistent:
            return MemoryStore()
        path = self._directory.store_path(node.name, bucket.definition.name, make=True)
        return SqliteStore(path, history=history, starts=starts)


def all_of(deferreds: Iterable[Deferred[Any]]) -> Deferred[Any]:
    """Wait for all Deferreds; fails with the first failure."""

    def unwrap(failure: Failure) -> Failure:
        first = failure.value
        assert isinstance(first, FirstError)
        return first.subFailure

    return gatherResults(deferreds, consumeErrors=True).addErrback(unwrap)
