"""The cluster of one process: nodes, buckets, and the map of which node holds which vbucket.

Every change follows one order: compute it, write it to disk, act on it, tell the clients. Changes run one
after another. A configuration's revision is on disk before any client can see it, so that after a crash no
revision is given out twice with different content.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredLock,
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

from couchnode.cluster import config, machine
from couchnode.cluster.activity import Rates, SystemStats, bucket_samples, interesting_stats
from couchnode.cluster.config import NodeReport
from couchnode.cluster.definition import MAX_BUCKETS, BucketDefinition, DefinitionError
from couchnode.cluster.designs import DesignDocument, Designs, restored, with_design, without_design
from couchnode.cluster.layout import (
    NO_NODE,
    VBUCKETS,
    LayoutError,
    Rows,
    check_move,
    check_rows,
    spread,
    states_of,
    with_replicas,
)
from couchnode.cluster.members import Bucket, FlushDisabled, Node, NoSuchBucket
from couchnode.cluster.metadata import DataDirectory, DataDirectoryError
from couchnode.cluster.users import UserStore
from couchnode.data.bucket import NodeBucket
from couchnode.data.storage import History, MemoryStore, SqliteStore
from couchnode.ports import NodeView
from reactor.clock import unix_time_of
from reactor.sharing import uncancellable

VERSION = "7.2.0-1-couchnode"
"""The server version that clients see: the release whose protocol we follow."""

HAND_OVER_SECONDS = 30.0
"""How long a map that makes replicas active waits for them to catch up, in seconds."""

OPEN_BUCKET = "default"
"""The bucket that old clients use without credentials, if it has no password."""

Steps = Generator[Deferred[Any], Any, Any]


class Cluster:
    """N nodes in one process, and everything they agree on.

    :param node_count: number of nodes, fixed for the life of the data.
    :param clock: source of time for everything inside.
    :param directory: folder of documents and metadata; ``None`` to keep everything in memory.
    :ivar on_config_change: called with a bucket's name after its configuration changed, or it was deleted.
    :ivar on_emptied: called with the name of a bucket that was flushed or deleted, and so has no documents
        any more; the flush or deletion waits for the returned Deferred.
    """

    version = VERSION

    def __init__(
        self,
        node_count: int,
        *,
        clock: IReactorTime,
        directory: DataDirectory | None = None,
        users: UserStore | None = None,
    ) -> None:
        self.clock = clock
        self.users = users if users is not None else UserStore()
        self.uuid = secrets.token_hex(16)
        self.nodes = [Node(self, index) for index in range(node_count)]
        self.buckets: dict[str, Bucket] = {}
        self.on_config_change: list[Callable[[str], None]] = []
        self.on_emptied: list[Callable[[str], Deferred[None]]] = []
        self.started_at = clock.seconds()
        self._log = Logger()
        self._directory = directory
        # A new cluster at the same address must look newer than the one that clients remember: its epoch is
        # the time of its creation.
        self._epoch = max(1, int(unix_time_of(clock)()))
        self._rev = 0
        # Number of starts, and whether the last run ended properly: see storefile.History.
        self._starts = 0
        self._was_stopped = False
        self._is_started = False
        self._nodes_revision = (self._epoch, 0)
        self._changes = DeferredLock()
        self.rates = Rates(clock.seconds)
        self._system = SystemStats()
        self._configs: dict[tuple[str | None, int], bytes] = {}

    # ---- what clients are told -------------------------------------------------------------------

    @property
    def unauthenticated_bucket(self) -> str | None:
        """The bucket that connections without credentials may use, if there is one.

        There is none in a cluster that requires credentials (see :attr:`UserStore.are_open`).
        """
        bucket = self.buckets.get(OPEN_BUCKET)
        return OPEN_BUCKET if bucket is not None and bucket.is_open and self.users.are_open else None

    def may_use(self, user: str | None, bucket: str) -> bool:
        """Return whether ``user`` (``None``: no credentials) may use ``bucket``; it need not exist."""
        if bucket == self.unauthenticated_bucket:
            return True
        return self.users.may_use(user, bucket)

    def config_revision(self, bucket: str | None) -> tuple[int, int]:
        """Return (epoch, rev) of a bucket's configuration, or of the cluster-level one for ``None``.

        :raises NoSuchBucket: there is none of that name.
        """
        return self._nodes_revision if bucket is None else self.bucket(bucket).revision

    def config_bytes(self, bucket: str | None, node: NodeView) -> bytes:
        """Return the configuration for clients of ``node``: terse JSON, cached until it changes.

        :raises NoSuchBucket: there is none of that name.
        """
        known = self._configs.get((bucket, node.index))
        if known is not None:
            return known
        addresses = [one.address for one in self.nodes]
        if bucket is None:
            document = config.cluster_config(self._nodes_revision, addresses, node.index)
        else:
            document = config.terse_bucket(self.bucket_state(bucket), addresses, node.index)
        made = self._configs[bucket, node.index] = config.encode(document)
        return made

    def bucket_state(self, name: str) -> config.BucketState:
        """Return the state of a bucket for configurations.

        :raises NoSuchBucket: there is none of that name.
        """
        return self.bucket(name).state._replace(on_disk=self._directory is not None)

    def bucket(self, name: str) -> Bucket:
        """Return the bucket of that name.

        :raises NoSuchBucket: there is none.
        """
        try:
            return self.buckets[name]
        except KeyError:
            raise NoSuchBucket(name) from None

    def node_reports(self, bucket: str | None = None, placeholder: str = "127.0.0.1") -> list[NodeReport]:
        """Return the report about each node for verbose documents.

        :param placeholder: host to write for nodes that listen on every interface.
        """
        total, free = machine.memory()
        system = self._system.read()
        uptime = int(self.clock.seconds() - self.started_at)
        reports = []
        for node in self.nodes:
            address = node.address
            if address.host == config.HOST_PLACEHOLDER:
                address = address._replace(host=placeholder)
            parts = [part for name, part in node.buckets.items() if bucket in (None, name)]
            interesting = interesting_stats(node.index, parts, self.rates)
            reports.append(
                NodeReport(
                    address, node.status(bucket), self.version, uptime, total, free, system, interesting
                )
            )
        return reports

    def bucket_samples(self, name: str) -> dict[str, list[float]]:
        """Return the current figures of a bucket over all nodes, one value each.

        :raises NoSuchBucket: there is none of that name.
        """
        self.bucket(name)
        parts = [node.buckets[name] for node in self.nodes if name in node.buckets]
        connections = sum(node.open_connections for node in self.nodes)
        return bucket_samples(name, parts, connections, self.rates)

    def disk(self) -> machine.Disk:
        """Return the file system of the data directory; all 0 without one."""
        return machine.disk(None if self._directory is None else self._directory.path)

    def basic_stats(self, name: str) -> dict[str, float]:
        """Return the ``basicStats`` of a bucket, over all nodes.

        :raises NoSuchBucket: there is none of that name.
        """
        definition = self.bucket(name).definition
        parts = [node.buckets[name] for node in self.nodes if name in node.buckets]
        used = sum(part.memory_bytes for part in parts)
        disk = sum(part.disk_bytes for part in parts)
        return {
            "quotaPercentUsed": 100 * used / (definition.quota_bytes * len(self.nodes)),
            "opsPerSec": self.rates.of((name, "ops"), sum(part.gets + part.stores for part in parts)),
            "itemCount": sum(part.item_count for part in parts),
            "memUsed": used,
            "dataUsed": disk,
            "diskUsed": disk,
            # Every document is in memory, so none is ever fetched.
            "diskFetches": 0,
        }

    # ---- start and stop --------------------------------------------------------------------------

    def restore(self, data: dict[str, Any]) -> None:
        """Restore the state from cluster.json; :meth:`start` opens the buckets.

        :raises DataDirectoryError: another number of nodes, or data of another shape.
        """
        try:
            count = int(data["nodes"])
            if count != len(self.nodes):
                raise DataDirectoryError(
                    f"{self._where()} was made with {count} node(s), not {len(self.nodes)}: start it with "
                    f"--nodes {count}; documents are not moved to another number of nodes"
                )
            self.uuid = str(data["uuid"])
            self._epoch, self._rev = int(data["epoch"]), int(data["rev"])
            self._starts, self._was_stopped = int(data.get("starts", 0)), bool(data.get("stopped", False))
            self.users.load(
                data["users"],
                [name for name, part in data["buckets"].items() if part["ownsUser"] and part["isOpen"]],
            )
            for name, part in data["buckets"].items():
                definition = BucketDefinition(**part["definition"]).check()
                rows = check_rows(part["rows"], count, definition.replica_number)
                self.buckets[name] = Bucket(
                    definition,
                    str(part["uuid"]),
                    rows,
                    owns_user=part["ownsUser"],
                    is_open=part["isOpen"],
                    is_made=part.get("made", True),
                    designs={
                        design: restored(design, data) for design, data in part.get("designs", {}).items()
                    },
                )
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise DataDirectoryError(f"{self._where()} has a damaged cluster.json: {fault!r}") from fault

    def start(self) -> Deferred[None]:
        """Open all buckets; nodes must have their addresses.

        :returns: fires when every bucket is warmed up. Before that, buckets answer commands with "temporary
            failure".
        """
        return self._change(self._start)

    @inlineCallbacks
    def _start(self) -> Steps:
        # Addresses may differ from those of the last run, so all configurations are new ones.
        self._bump(*self.buckets.values())
        self._nodes_revision = (self._epoch, self._rev)
        self._configs.clear()
        yield self._save()
        yield _all(self._open(bucket) for bucket in self.buckets.values())
        for bucket in self.buckets.values():
            bucket.is_made = True
        self._starts, self._was_stopped, self._is_started = self._starts + 1, False, True
        yield self._save()

    @inlineCallbacks
    def stop(self) -> Steps:
        """Close all buckets; fires when every document is on disk."""
        yield self._changes.acquire()
        try:
            parts = [part for node in self.nodes for part in node.buckets.values()]
            in_order = yield self._close(parts)
            for node in self.nodes:
                node.buckets.clear()
            if self._is_started:
                self._is_started, self._was_stopped = False, in_order
                try:
                    yield self._save()
                except DataDirectoryError as fault:
                    # The next start then treats it as a crash, which only costs a check.
                    self._log.error("{error}", error=fault)
        finally:
            self._changes.release()

    # ---- changes ---------------------------------------------------------------------------------

    def create_bucket(self, definition: BucketDefinition, password: str | None = None) -> Deferred[None]:
        """Create a bucket.

        :param password: creates a user named like the bucket; empty: in an open cluster the bucket can be
            used with an empty password, and ``default`` without credentials; ``None``: no such user.
        :returns: fires when the bucket accepts documents. Fails with :class:`DefinitionError` if it is
            invalid.
        """
        return self._change(self._create_bucket, definition, password)

    @inlineCallbacks
    def _create_bucket(self, definition: BucketDefinition, password: str | None) -> Steps:
        definition.check()
        name = definition.name
        # Names that differ in case only would share a file on some systems.
        if name.lower() in {other.lower() for other in self.buckets}:
            raise DefinitionError({"name": "Bucket with given name already exists"})
        if len(self.buckets) >= MAX_BUCKETS:
            raise DefinitionError({"_": f"Cannot create more than {MAX_BUCKETS} buckets"})
        if password is not None and name in self.users:
            raise DefinitionError({"name": f"there is a user {name!r} already, who is not this bucket's"})
        yield self._remove_files(name)  # of a bucket whose deletion a crash cut short
        if password is not None:
            yield self.users.add(name, password, buckets=[name])
        rows = spread(len(self.nodes), definition.replica_number)
        bucket = Bucket(
            definition,
            secrets.token_hex(16),
            rows,
            owns_user=password is not None,
            is_open=password == "",
            is_made=False,
        )
        self._bump(bucket)
        try:
            yield self._save({**self.buckets, name: bucket})
            yield self._open(bucket)
            bucket.is_made = True
            yield self._save({**self.buckets, name: bucket})
        except BaseException:
            # It is not visible yet; its files are removed when the name is used again.
            for node in self.nodes:
                node.buckets.pop(name, None)
            if bucket.owns_user:
                self.users.remove(name)
            yield self._save()
            raise
        self.buckets[name] = bucket
        self._log.info("bucket {bucket} created", bucket=name)
        self._tell(name)

    def delete_bucket(self, name: str) -> Deferred[None]:
        """Delete a bucket with its documents.

        :returns: fires when the files are gone too. Fails with :class:`NoSuchBucket`.
        """
        return self._change(self._delete_bucket, name)

    @inlineCallbacks
    def _delete_bucket(self, name: str) -> Steps:
        bucket = self.bucket(name)
        user = self.users.remove(name) if bucket.owns_user else None
        self._rev += 1
        try:
            yield self._save({other: one for other, one in self.buckets.items() if other != name})
        except DataDirectoryError:
            if user is not None:
                self.users.put_back(name, user)
            raise
        del self.buckets[name]
        self.rates.forget(name)
        parts = [node.buckets.pop(name) for node in self.nodes if name in node.buckets]
        self._tell(name)
        yield self._close(parts)
        yield self._tell_emptied(name)
        yield self._remove_files(name)
        self._log.info("bucket {bucket} deleted", bucket=name)

    def edit_bucket(
        self, name: str, change: Callable[[BucketDefinition], BucketDefinition]
    ) -> Deferred[None]:
        """Change a bucket's settings.

        :param change: current settings -> new ones; called after earlier changes are done.
        :returns: fires when the settings are in force. Fails with :class:`NoSuchBucket` or
            :class:`DefinitionError`.
        """
        return self._change(self._edit_bucket, name, change)

    @inlineCallbacks
    def _edit_bucket(self, name: str, change: Callable[[BucketDefinition], BucketDefinition]) -> Steps:
        bucket = self.bucket(name)
        definition = change(bucket.definition).check()
        rows = with_replicas(bucket.rows, len(self.nodes), definition.replica_number)
        yield self._publish(bucket, definition, rows)

    def set_bucket_password(self, name: str, password: str, *, save: bool = True) -> Deferred[None]:
        """Change the password of a bucket's own user, or create that user.

        :param save: false before :meth:`start`, which saves everything.
        :returns: fires when it is on disk. Fails with :class:`NoSuchBucket`, :class:`DefinitionError` if a
            user of that name has nothing to do with the bucket, or
            :class:`~couchnode.cluster.users.UserError`.
        """
        return self._change(self._set_bucket_password, name, password, save)

    @inlineCallbacks
    def _set_bucket_password(self, name: str, password: str, save: bool) -> Steps:
        bucket = self.bucket(name)
        if name in self.users and not bucket.owns_user:
            raise DefinitionError({"name": f"the user {name!r} is not this bucket's"})
        yield self.users.add(name, password, buckets=[name])
        bucket.owns_user, bucket.is_open = True, not password
        if save:
            yield self._save()

    def flush_bucket(self, name: str) -> Deferred[None]:
        """Remove all documents of a bucket.

        :returns: fires when they are gone from disk too. Fails with :class:`NoSuchBucket` or
            :class:`FlushDisabled`.
        """
        return self._change(self._flush_bucket, name)

    @inlineCallbacks
    def _flush_bucket(self, name: str) -> Steps:
        if not self.bucket(name).definition.flush_enabled:
            raise FlushDisabled(name)
        yield _all([node.buckets[name].flush_all() for node in self.nodes])
        yield self._tell_emptied(name)
        self._log.info("bucket {bucket} flushed", bucket=name)

    def apply_map(self, name: str, rows: Sequence[Sequence[int]]) -> Deferred[None]:
        """Change which nodes hold the vbuckets of a bucket.

        :param rows: one ``(active, replica 1, ...)`` a vbucket, indexes of nodes, -1 for none. A node becomes
            active only for vbuckets of which it holds a copy: to move a vbucket, make its new home a replica
            first.
        :returns: fires when clients have been notified. Fails with :class:`NoSuchBucket`, or
            :class:`~couchnode.cluster.layout.LayoutError` for invalid rows, having changed nothing.
        """
        return self._change(self._apply_map, name, rows)

    @inlineCallbacks
    def _apply_map(self, name: str, rows: Sequence[Sequence[int]]) -> Steps:
        bucket = self.bucket(name)
        new = check_rows(rows, len(self.nodes), bucket.definition.replica_number)
        check_move(bucket.rows, new)
        yield self._publish(bucket, bucket.definition, new)

    def put_design(self, bucket: str, name: str, text: bytes) -> Deferred[DesignDocument]:
        """Store a design document, or replace the one of that name.

        :returns: fires with it when it is on disk. Fails with :class:`NoSuchBucket` or
            :class:`~couchnode.cluster.designs.DesignError`.
        """
        change = partial(with_design, name=name, text=text)
        return self._change(self._change_designs, bucket, change).addCallback(itemgetter(name))

    def delete_design(self, bucket: str, name: str) -> Deferred[None]:
        """Delete a design document.

        :returns: fires when that is on disk. Fails with :class:`NoSuchBucket` or
            :class:`~couchnode.cluster.designs.NoSuchDesign`.
        """
        change = partial(without_design, name=name)
        return self._change(self._change_designs, bucket, change).addCallback(lambda _: None)

    @inlineCallbacks
    def _change_designs(self, name: str, change: Callable[[Designs], dict[str, DesignDocument]]) -> Steps:
        bucket = self.bucket(name)
        designs = change(bucket.designs)
        yield self._save({**self.buckets, name: bucket.changed(designs=designs)})
        bucket.designs = designs
        return designs

    @inlineCallbacks
    def save(self) -> Steps:
        """Write users and buckets to disk, after a change of users; fires when they are written."""
        yield self._change(self._save)

    # ---- inside ----------------------------------------------------------------------------------

    def _change(self, change: Callable[..., Deferred[Any]], *arguments: Any) -> Deferred[Any]:
        """Make a change after earlier ones are done.

        The waiting caller may be cancelled (a client that hung up), but the change itself is not: interrupted
        halfway, it would leave different states on disk and in memory, and the next one would begin.
        """
        return uncancellable(self._changes.run(change, *arguments))

    @inlineCallbacks
    def _publish(self, bucket: Bucket, definition: BucketDefinition, rows: Rows) -> Steps:
        """Put a new definition or map of an existing bucket in force."""
        name = definition.name
        changed = bucket.changed(definition=definition, rows=rows)
        self._bump(changed)
        yield self._save({**self.buckets, name: changed})
        try:
            yield self._hand_over(name, bucket.rows, rows)
        except LayoutError:
            yield self._save()
            raise
        # From here to the end nothing yields: clients see either the old state or the new one.
        self.buckets[name] = changed
        for node in self.nodes:
            part = node.buckets[name]
            part.ledger.quota_bytes = definition.quota_bytes
            part.flush_enabled = definition.flush_enabled
            part.replica_count = definition.replica_number
        if rows != bucket.rows:
            self._wire(changed)
        self._tell(name)

    @inlineCallbacks
    def _open(self, bucket: Bucket) -> Steps:
        definition = bucket.definition
        for node in self.nodes:
            node.buckets[definition.name] = NodeBucket(
                definition.name,
                bucket.uuid,
                vbucket_count=VBUCKETS,
                quota_bytes=definition.quota_bytes,
                store=self._store(bucket, node),
                clock=self.clock,
                flush_enabled=definition.flush_enabled,
                replica_count=definition.replica_number,
            )
        self._wire(bucket)
        yield _all([node.buckets[definition.name].start() for node in self.nodes])

    @inlineCallbacks
    def _close(self, parts: Sequence[NodeBucket]) -> Steps:
        """Close them; fires with whether all of them were closed in order."""
        outcomes = yield DeferredList([maybeDeferred(part.close) for part in parts], consumeErrors=True)
        for part, (closed, failure) in zip(parts, outcomes, strict=True):
            if not closed:
                self._log.error(
                    "bucket {bucket} was not closed cleanly: {error}", bucket=part.name, error=failure.value
                )
        return all(closed for closed, _ in outcomes)

    def _store(self, bucket: Bucket, node: Node) -> SqliteStore | MemoryStore:
        if self._directory is None or not bucket.definition.persistent:
            return MemoryStore()
        # Only buckets of earlier runs have a history.
        history = History(self._starts, self._was_stopped) if bucket.is_made else None
        return SqliteStore(
            self._directory.store_path(node.name, bucket.definition.name, make=True),
            history=history,
            starts=self._starts + (0 if self._is_started else 1),
        )

    def _wire(self, bucket: Bucket) -> None:
        """Apply the map to the nodes."""
        name = bucket.definition.name
        parts = [node.buckets[name] for node in self.nodes]
        for node, part in zip(self.nodes, parts, strict=True):
            part.set_topology(states_of(bucket.rows, node.index))
        for vbucket, row in enumerate(bucket.rows):
            if row[0] != NO_NODE:
                parts[row[0]].set_replicas(vbucket, [parts[index] for index in row[1:] if index != NO_NODE])

    @inlineCallbacks
    def _hand_over(self, name: str, old: Rows, new: Rows) -> Steps:
        """Bring the copies that become active up to date with the previous ones; fires when they are.

        The caller must change the states before the reactor's next turn.
        """
        parts = [node.buckets[name] for node in self.nodes]
        moves = [
            (vbucket, parts[before[0]], parts[after[0]])
            for vbucket, (before, after) in enumerate(zip(old, new, strict=True))
            if NO_NODE not in (before[0], after[0]) and before[0] != after[0]
        ]
        deadline = self.clock.seconds() + HAND_OVER_SECONDS
        while not all(source.replicator.feeds(vbucket, target) for vbucket, source, target in moves):
            if self.clock.seconds() > deadline:
                raise LayoutError(
                    f"bucket {name}: a copy that is to become active is not being kept up to date"
                )
            yield deferLater(self.clock, 0.01)
        for vbucket, source, _ in moves:
            source.replicator.deliver_now(vbucket)

    def _bump(self, *buckets: Bucket) -> None:
        self._rev += 1
        for bucket in buckets:
            bucket.revision = (self._epoch, self._rev)

    def _forget_configs(self, name: str | None) -> None:
        for node in self.nodes:
            self._configs.pop((name, node.index), None)

    def _tell(self, name: str) -> None:
        self._forget_configs(name)
        for listener in list(self.on_config_change):
            try:
                listener(name)
            except Exception:  # noqa: BLE001  # one broken listener must not affect the others
                self._log.failure("a listener to configuration changes failed", bucket=name)

    @inlineCallbacks
    def _tell_emptied(self, name: str) -> Steps:
        for listener in list(self.on_emptied):
            try:
                yield listener(name)
            except Exception:  # noqa: BLE001  # the documents are gone, whatever happens to their indexes
                self._log.failure("a listener to emptied buckets failed", bucket=name)

    def _where(self) -> str:
        return (
            f"the data directory {self._directory.path}"
            if self._directory is not None
            else "the data directory"
        )

    def _save(self, buckets: dict[str, Bucket] | None = None) -> Deferred[None]:
        """Write the metadata, with ``buckets`` in place of those in force if they are given."""
        if self._directory is None:
            return succeed(None)
        data = {
            "uuid": self.uuid,
            "epoch": self._epoch,
            "rev": self._rev,
            "starts": self._starts,
            "stopped": self._was_stopped,
            "nodes": len(self.nodes),
            "users": self.users.dump(),
            "buckets": {
                name: {
                    "definition": bucket.definition._asdict(),
                    "uuid": bucket.uuid,
                    "rows": bucket.rows,
                    "ownsUser": bucket.owns_user,
                    "isOpen": bucket.is_open,
                    "made": bucket.is_made,
                    "designs": {design: one.dump() for design, one in bucket.designs.items()},
                }
                for name, bucket in (self.buckets if buckets is None else buckets).items()
            },
        }
        return deferToThread(self._directory.save, data)

    def _remove_files(self, name: str) -> Deferred[None]:
        directory = self._directory
        if directory is None:
            return succeed(None)

        def remove() -> None:
            for node in self.nodes:
                for suffix in ("", "-wal", "-shm", "-open"):
                    path = directory.store_path(node.name, name)
                    Path(f"{path}{suffix}").unlink(missing_ok=True)
                shutil.rmtree(directory.views_directory(node.name, name), ignore_errors=True)

        return deferToThread(remove)


def _all(deferreds: Iterable[Deferred[Any]]) -> Deferred[Any]:
    """Wait for all of them; fails like the first that fails."""

    def unwrap(failure: Failure) -> Failure:
        first = failure.value
        assert isinstance(first, FirstError)
        return first.subFailure

    return gatherResults(deferreds, consumeErrors=True).addErrback(unwrap)
