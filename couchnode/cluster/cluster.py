"""The cluster of one process: nodes, buckets, and the map of vbuckets to nodes.

Every change follows one order: compute it, write it to disk, apply it, notify the clients. Changes run one
after another. A configuration's revision is on disk before any client can see it, so after a crash no
revision is published twice with different content.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from couchnode.access.rights import Rights
from couchnode.cluster import config
from couchnode.cluster.backups import Backups
from couchnode.cluster.definition import MAX_BUCKETS, BucketDefinition, DefinitionError
from couchnode.cluster.designs import DesignDocument, Designs, with_design, without_design
from couchnode.cluster.layout import LayoutError, check_move, check_rows, spread, with_replicas
from couchnode.cluster.listeners import tell, tell_and_wait
from couchnode.cluster.members import Bucket, FlushDisabled, Node, NoSuchBucket, places
from couchnode.cluster.metadata import DataDirectory, DataDirectoryError
from couchnode.cluster.naming import Naming
from couchnode.cluster.placement import Placement, all_of
from couchnode.cluster.record import Record, read_record
from couchnode.cluster.reports import Reports
from couchnode.cluster.useradmin import UserAdmin
from couchnode.cluster.users import UserStore
from couchnode.data.manifest import Manifest, check_total
from couchnode.data.storage import History
from couchnode.ports import NodeView
from reactor.clock import unix_time_of
from reactor.deferreds import uncancellable

VERSION = "7.6.4-1-enterprise"
"""The server version reported to clients: the release whose protocol this node follows."""

OPEN_BUCKET = "default"
"""The bucket that old clients use without credentials, if it has no password."""

Steps = Generator[Deferred[Any], Any, Any]


class Cluster:
    """The nodes of one process, and the state that they share.

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
        self._log, self._directory = Logger(), directory
        # The time of creation: a new cluster must look newer than an earlier one at the same address.
        self._epoch = max(1, int(unix_time_of(clock)()))
        self._rev = 0
        # Number of starts, and whether the last run ended properly (see storefile.History).
        self._starts, self._was_stopped, self._is_started = 0, False, False
        self._nodes_revision = (self._epoch, 0)
        self._placement = Placement(self.nodes, clock, directory)
        self._changes = DeferredLock()
        self.reports = Reports(self, directory)
        self.user_admin = UserAdmin(self.users, clock, self._change, self._save, lambda: places(self.buckets))
        self.naming = Naming(self._change, self._save, lambda: tell(self.on_config_change, ""))
        self._configs: dict[tuple[str | None, int], bytes] = {}
        self.backups = Backups(self.nodes, directory, self._change, self._record)

    # ---- configuration for clients ---------------------------------------------------------------

    @property
    def unauthenticated_bucket(self) -> str | None:
        """The bucket for connections without credentials, if there is one: see ``UserStore.are_open``."""
        bucket = self.buckets.get(OPEN_BUCKET) if self.users.are_open else None
        return OPEN_BUCKET if bucket is not None and bucket.is_open else None

    def rights(self, user: str | None) -> Rights:
        """Return the rights of ``user``; ``None`` (no credentials) has rights on the bucket above only."""
        return self.users.rights(user, self.unauthenticated_bucket)

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

    # ---- start and stop --------------------------------------------------------------------------

    def restore(self, data: dict[str, Any]) -> None:
        """Restore the state from cluster.json; :meth:`start` opens the buckets.

        :raises DataDirectoryError: another number of nodes, or data of another shape.
        """
        place = self._directory
        record = read_record(data, self.users, len(self.nodes), place.path if place else None)
        self.uuid, self._epoch, self._rev = record.uuid, record.epoch, record.rev
        self._starts, self._was_stopped = record.starts, record.was_stopped
        self.buckets, self.naming.name = record.buckets, record.name

    def start(self) -> Deferred[None]:
        """Open all buckets; nodes must have their addresses.

        :returns: fires when every bucket is warmed up. Before that, buckets answer commands with "temporary
            failure".
        """
        return self._change(self._start)

    @inlineCallbacks
    def _start(self) -> Steps:
        for bucket in self.buckets.values():
            self._place(bucket)  # at once: clients take a bucket without a place for a deleted one
        # Addresses may differ from those of the last run, so all configurations are new ones.
        self._bump(*self.buckets.values())
        self._nodes_revision = (self._epoch, self._rev)
        self._configs.clear()
        yield self._save()
        yield all_of(map(self._placement.load, self.buckets))
        for bucket in self.buckets.values():
            bucket.is_made = True
        self._starts, self._was_stopped, self._is_started = self._starts + 1, False, True
        yield self._save()

    @inlineCallbacks
    def stop(self) -> Steps:
        """Close all buckets; fires when their files are free, with whether every document is on disk."""
        self.backups.stop()
        yield self._changes.acquire()
        try:
            in_order = yield self._placement.close_all()
            if self._is_started:
                self._is_started, self._was_stopped = False, in_order
                try:
                    yield self._save()
                except DataDirectoryError as fault:
                    self._log.error("{error}", error=fault)  # it costs the next start a check, no more
        finally:
            self._changes.release()
        return in_order

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
        yield self._placement.remove_files(name)  # of a bucket whose deletion a crash cut short
        if password is not None:
            yield self.users.add(name, password, buckets=[name])
        rows = spread(len(self.nodes), definition.replica_number, definition.vbuckets)
        owns_user, is_open = password is not None, password == ""
        bucket = Bucket(
            definition, secrets.token_hex(16), rows, owns_user=owns_user, is_open=is_open, is_made=False
        )
        self._bump(bucket)
        try:
            yield self._save({**self.buckets, name: bucket})
            self._place(bucket)
            yield self._placement.load(name)
            bucket.is_made = True
            yield self._save({**self.buckets, name: bucket})
        except BaseException:
            # The bucket is not visible yet; its files are removed when the name is used again.
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
        before = self.users.snapshot()
        self.users.forget_bucket(name, with_user=bucket.owns_user)
        self._rev += 1
        try:
            yield self._save({other: one for other, one in self.buckets.items() if other != name})
        except DataDirectoryError:
            self.users.restore(before)
            raise
        del self.buckets[name]
        self.reports.rates.forget(name)
        parts = [node.buckets.pop(name) for node in self.nodes if name in node.buckets]
        self._tell(name)
        yield self._placement.close(parts)
        yield tell_and_wait(self.on_emptied, name)
        yield self._placement.remove_files(name)
        self._log.info("bucket {bucket} deleted", bucket=name)

    def edit_bucket(
        self, name: str, change: Callable[[BucketDefinition], BucketDefinition]
    ) -> Deferred[None]:
        """Change a bucket's settings.

        :param change: current settings -> new ones; called after earlier changes are done.
        :returns: fires when the settings are in effect. Fails with :class:`NoSuchBucket` or
            :class:`DefinitionError`.
        """
        return self._change(self._edit_bucket, name, change)

    @inlineCallbacks
    def _edit_bucket(self, name: str, change: Callable[[BucketDefinition], BucketDefinition]) -> Steps:
        bucket = self.bucket(name)
        definition = change(bucket.definition).check()
        rows = with_replicas(bucket.rows, len(self.nodes), definition.replica_number)
        yield self._publish(bucket, bucket.changed(definition=definition, rows=rows))

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
        yield all_of([node.buckets[name].flush_all() for node in self.nodes])
        yield tell_and_wait(self.on_emptied, name)
        self._log.info("bucket {bucket} flushed", bucket=name)

    def apply_map(self, name: str, rows: Sequence[Sequence[int]]) -> Deferred[None]:
        """Change which nodes hold the vbuckets of a bucket.

        :param rows: ``(active, replica 1, ...)`` for each vbucket: node indexes, -1 for none. A node becomes
            active only for vbuckets of which it holds a copy: to move a vbucket, make its new home a replica
            first.
        :returns: fires when clients have been notified. Fails with :class:`NoSuchBucket`, or
            :class:`~couchnode.cluster.layout.LayoutError` for invalid rows, having changed nothing.
        """
        return self._change(self._apply_map, name, rows)

    @inlineCallbacks
    def _apply_map(self, name: str, rows: Sequence[Sequence[int]]) -> Steps:
        bucket = self.bucket(name)
        new = check_rows(rows, len(self.nodes), bucket.definition.replica_number, bucket.definition.vbuckets)
        check_move(bucket.rows, new)
        yield self._publish(bucket, bucket.changed(rows=new))

    def change_manifest(self, name: str, change: Callable[[Manifest], Manifest]) -> Deferred[Manifest]:
        """Change the scopes and collections of a bucket.

        :param change: current manifest -> the next one; called after earlier changes are done.
        :returns: fires with the manifest when it is on disk and in effect on every node. Fails with
            :class:`NoSuchBucket` or :class:`~couchnode.data.manifest.ManifestError`.
        """
        return self._change(self._change_manifest, name, change)

    @inlineCallbacks
    def _change_manifest(self, name: str, change: Callable[[Manifest], Manifest]) -> Steps:
        bucket = self.bucket(name)
        manifest = change(bucket.manifest)
        if manifest is not bucket.manifest:
            check_total([manifest, *(one.manifest for one in self.buckets.values() if one is not bucket)])
            before = self.users.snapshot()
            for scope, collection in bucket.manifest.gone(manifest):
                self.users.forget(name, scope, collection)
            try:
                yield self._publish(bucket, bucket.changed(manifest=manifest))
            except DataDirectoryError:
                self.users.restore(before)
                raise
        return manifest

    def put_design(
        self, bucket: str, name: str, text: bytes, known: DesignDocument | None = None
    ) -> Deferred[DesignDocument]:
        """Store a design document, replacing the one with that name; ``known`` as in :func:`with_design`.

        :returns: fires with it when it is on disk. Fails with :class:`NoSuchBucket` or ``DesignError``.
        """
        change = partial(with_design, name=name, text=text, known=known)
        return self._change(self._change_designs, bucket, change).addCallback(itemgetter(name))

    def delete_design(self, bucket: str, name: str) -> Deferred[None]:
        """Delete a design document.

        :returns: fires when the change is on disk. Fails with :class:`NoSuchBucket` or ``NoSuchDesign``.
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

    # ---- inside ----------------------------------------------------------------------------------

    def _change(self, change: Callable[..., Deferred[Any]], *arguments: Any) -> Deferred[Any]:
        """Make a change after earlier ones are done.

        The caller may be cancelled (a client hung up), but the change is not: an interrupted change would
        leave different states on disk and in memory.
        """
        return uncancellable(self._changes.run(change, *arguments))

    @inlineCallbacks
    def _publish(self, bucket: Bucket, changed: Bucket) -> Steps:
        """Apply a new definition, map or manifest of an existing bucket."""
        name = bucket.definition.name
        self._bump(changed)
        yield self._save({**self.buckets, name: changed})
        try:
            yield self._placement.hand_over(name, bucket.rows, changed.rows)
        except LayoutError:
            yield self._save()
            raise
        # From here to the end nothing yields: clients see either the old state or the new one.
        self.buckets[name] = changed
        self._placement.define(changed)
        if changed.rows != bucket.rows:
            self._placement.wire(changed)
        self._tell(name)

    def _place(self, bucket: Bucket) -> None:
        history = History(self._starts, self._was_stopped) if bucket.is_made else None  # of earlier runs
        self._placement.place(bucket, history, self._starts + (0 if self._is_started else 1))

    def _bump(self, *buckets: Bucket) -> None:
        self._rev += 1
        for bucket in buckets:
            bucket.revision = (self._epoch, self._rev)

    def _tell(self, name: str) -> None:
        for node in self.nodes:
            self._configs.pop((name, node.index), None)
        tell(self.on_config_change, name)

    def _save(self, buckets: dict[str, Bucket] | None = None) -> Deferred[None]:
        """Write the metadata, with ``buckets`` in place of the current ones if they are given."""
        if self._directory is None:
            return succeed(None)
        return deferToThread(self._directory.save, self._record(buckets))

    def _record(self, buckets: dict[str, Bucket] | None = None) -> dict[str, Any]:
        state = self.uuid, self._epoch, self._rev, self._starts, self._was_stopped, len(self.nodes)
        held = self.buckets if buckets is None else buckets
        return Record(*state, self.users.dump(), held, self.naming.name).dump()
