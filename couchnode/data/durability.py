"""Synchronous writes: a change that readers see only once enough copies have it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from couchbase.protocol.constants import DurabilityLevel, Status
from couchnode.data.item import Item, StatusError
from couchnode.data.keys import prefix_of
from couchnode.data.vbucket import VBucket

DEFAULT_TIMEOUT_SECONDS = 30.0
"""Timeout in seconds of a synchronous write whose request has none."""


MAX_SYNC_REPLICAS = 2
"""With more replicas than this, the server refuses synchronous writes."""


class Copies(NamedTuple):
    """The progress of one vbucket's copies: the last sequence numbers in memory and on disk, and the number
    of copies that form a majority of those configured."""

    active_persisted: int
    replicas_in_memory: list[int]
    replicas_persisted: list[int]
    majority: int


def satisfied(level: int, seqno: int, copies: Copies) -> bool:
    """Return whether a write with this sequence number holds at this level."""
    in_memory = 1 + sum(have >= seqno for have in copies.replicas_in_memory)
    on_active = copies.active_persisted >= seqno
    if level == DurabilityLevel.PERSIST_TO_MAJORITY:
        return on_active + sum(have >= seqno for have in copies.replicas_persisted) >= copies.majority
    enough = in_memory >= copies.majority
    return enough and (on_active or level == DurabilityLevel.MAJORITY)


def has_to_wait(level: int, persistent: bool, replica_count: int, live: int, majority: int) -> bool:
    """Return whether a write at ``level`` has to wait for other copies or the disk.

    :param replica_count: configured replicas.
    :param live: available copies, including the active one.
    :raises StatusError: DURABILITY_INVALID_LEVEL for a level that needs a disk on an ephemeral bucket,
        DURABILITY_IMPOSSIBLE while too few copies are there.
    """
    if level > DurabilityLevel.MAJORITY and not persistent:
        raise StatusError(Status.DURABILITY_INVALID_LEVEL, "an ephemeral bucket has no disk to persist to")
    if replica_count > MAX_SYNC_REPLICAS:
        raise StatusError(
            Status.DURABILITY_IMPOSSIBLE, "a bucket with 3 replicas takes no synchronous writes"
        )
    if live < majority:
        raise StatusError(Status.DURABILITY_IMPOSSIBLE, f"{live} of {majority} copies are there")
    return level > DurabilityLevel.MAJORITY or majority > 1


class _SyncWrite(NamedTuple):
    vbucket: VBucket
    item: Item
    level: int
    done: Deferred[Item]
    timer: IDelayedCall


class SyncWrites:
    """The synchronous writes of one bucket that wait for other copies.

    :param copies: returns the progress of a vbucket's copies.
    """

    def __init__(self, clock: IReactorTime, copies: Callable[[VBucket], Copies]) -> None:
        self._clock = clock
        self._copies = copies
        self._waiting: dict[int, list[_SyncWrite]] = {}

    def wait(self, vbucket: VBucket, item: Item, level: int, seconds: float | None = None) -> Deferred[Item]:
        """Commit the prepared ``item`` once ``level`` holds.

        Fires with the item, or fails with :class:`StatusError`: SYNC_WRITE_AMBIGUOUS after a
        timeout of ``seconds`` (default 30), or when the vbucket leaves this node meanwhile. The write is then
        dropped here, but a replica may have kept it.
        """
        done: Deferred[Item] = Deferred()
        wait_seconds = DEFAULT_TIMEOUT_SECONDS if seconds is None else seconds
        timer = self._clock.callLater(wait_seconds, self._expire, vbucket, item)
        self._waiting.setdefault(vbucket.id, []).append(_SyncWrite(vbucket, item, level, done, timer))
        self.check(vbucket.id)
        return done

    def check(self, vbid: int) -> None:
        """Commit the writes of a vbucket that now have enough copies."""
        waiting = self._waiting.get(vbid)
        if not waiting:
            return
        copies = self._copies(waiting[0].vbucket)
        ready = [write for write in waiting if satisfied(write.level, write.item.seqno, copies)]
        for write in ready:
            self._remove(write)
            write.vbucket.commit(write.item.key)
            write.done.callback(write.item)

    def fail(self, vbid: int) -> None:
        """Fail the pending writes of a vbucket that is no longer active, or was emptied: their outcome is
        unknown."""
        for write in list(self._waiting.get(vbid, ())):
            self._give_up(write)

    def fail_all(self) -> None:
        """Fail the pending writes of every vbucket."""
        for vbid in list(self._waiting):
            self.fail(vbid)

    def fail_keys(self, prefixes: Collection[bytes]) -> None:
        """Fail the pending writes of keys with one of these prefixes."""
        for waiting in list(self._waiting.values()):
            for write in list(waiting):
                if prefix_of(write.item.key) in prefixes:
                    self._give_up(write)

    def _expire(self, vbucket: VBucket, item: Item) -> None:
        for write in list(self._waiting.get(vbucket.id, ())):
            if write.item is item:
                self._give_up(write)

    def _give_up(self, write: _SyncWrite) -> None:
        self._remove(write)
        if write.vbucket.pending.get(write.item.key) is write.item:
            write.vbucket.abort(write.item.key)
        write.done.errback(StatusError(Status.SYNC_WRITE_AMBIGUOUS))

    def _remove(self, write: _SyncWrite) -> None:
        if write.timer.active():
            write.timer.cancel()
        waiting = self._waiting[write.vbucket.id]
        waiting.remove(write)
        if not waiting:
            del self._waiting[write.vbucket.id]
