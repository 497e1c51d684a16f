"""Copies of a vbucket on other nodes of the same process, kept up to date.

The active copy's changes are sent once per reactor turn, in the order of their sequence numbers, to one
:class:`ReplicaStream` per replica. A new stream (a node starts, a bucket is flushed) first brings the replica
up to date: with the missing changes if both share a history, else with all documents, some per turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from couchnode.data.item import Item
from couchnode.data.ports import Copy
from couchnode.data.vbucket import VBucket

_ITEMS_A_TURN = 2000


class ChangeKind(Enum):
    """The kind of a change on the active copy."""

    STORED = auto()
    """Stored or deleted (a tombstone)."""
    PREPARED = auto()
    COMMITTED = auto()
    ABORTED = auto()


class Change(NamedTuple):
    """One step of a vbucket's history. A commit or abort needs only the item's key."""

    kind: ChangeKind
    item: Item


class ReplicaStream:
    """Passes one vbucket's changes from its active copy to one replica.

    :param replicator: all streams of the bucket that has the active copy.
    :param source: the bucket that has the active copy.
    :param target: the bucket, on another node, that has the replica.
    """

    def __init__(self, replicator: Replicator, source: Copy, vbid: int, target: Copy) -> None:
        self._replicator = replicator
        self._source = source
        self.vbid = vbid
        self.target = target
        self.connected = False
        self.backlog: deque[Change] = deque()

    @property
    def acknowledged_seqno(self) -> int:
        """The last change that the replica has in memory; -1 without a replica."""
        copy = self._replica() if self.connected else None
        return copy.high_seqno if copy is not None else -1

    @property
    def persisted_seqno(self) -> int:
        """The last change that the replica has on its disk; -1 without a replica."""
        copy = self._replica() if self.connected else None
        return copy.persisted_seqno if copy is not None else -1

    def reconnect(self) -> None:
        """Bring the replica level again, soon."""
        self._replicator.reconnect(self)

    def acknowledge(self) -> None:
        """Report to the active copy that the replica has more on its disk."""
        self._source.replica_acknowledged(self.vbid)

    def connect(self) -> int:
        """Compare both copies and queue the changes that the replica lacks; return the amount of work.

        Does nothing (and stays unconnected) until both buckets are ready and hold their copy.
        """
        self.connected = False
        self.backlog.clear()
        active, copy = self._active(), self._replica()
        if active is None or copy is None:
            return 1
        shared = copy.uuid == active.uuid and active.purge_seqno <= copy.high_seqno <= active.high_seqno
        if not shared:
            self.target.reset_vbucket(self.vbid, active)
        else:
            copy.failover_log = list(active.failover_log)
        since = copy.high_seqno if shared else 0
        self.connected = True
        if since == active.high_seqno:
            return 1
        lacking = [
            item
            for held in (active.items, active.tombstones, active.lasting)
            for item in held.values()
            if item.seqno > since
        ]
        changes = [Change(ChangeKind.STORED, item) for item in lacking]
        changes += [
            Change(ChangeKind.PREPARED, item) for item in active.pending.values() if item.seqno > since
        ]
        changes.sort(key=lambda change: change.item.seqno)
        self.backlog.extend(changes)
        return len(active.items) + 1

    def deliver(self, limit: int) -> int:
        """Apply up to ``limit`` queued changes to the replica; return their number."""
        copy = self._replica()
        if copy is None:
            self.connected = False
            self.backlog.clear()
            return 0
        has_collection = self.target.collections.has
        backlog = self.backlog
        count = min(limit, len(backlog))
        for _ in range(count):
            kind, item = backlog.popleft()
            if not has_collection(item.key):
                copy.skip(item)
            elif kind is ChangeKind.STORED:
                copy.apply(item.copy())
            elif kind is ChangeKind.PREPARED:
                copy.apply_prepare(item.copy())
            elif item.key in copy.pending:
                if kind is ChangeKind.COMMITTED:
                    copy.commit(item.key)
                else:
                    copy.abort(item.key)
        return count

    def _active(self) -> VBucket | None:
        return self._source.copy(self.vbid, "active")

    def _replica(self) -> VBucket | None:
        return self.target.copy(self.vbid, "replica")


class Replicator:
    """All streams that leave one bucket on one node.

    :param clock: provides reactor turns (``callLater(0)``).
    :ivar streams: those of each vbucket that has replicas, by its number.
    """

    def __init__(self, source: Copy, clock: IReactorTime) -> None:
        self._source = source
        self._clock = clock
        self.streams: dict[int, list[ReplicaStream]] = {}
        self._outbox: list[tuple[int, Change]] = []
        self._to_connect: dict[ReplicaStream, None] = {}
        self._busy: dict[ReplicaStream, None] = {}
        self._turn_asked = False

    def feeds(self, vbid: int, target: Copy) -> bool:
        """Return whether ``target`` gets every change to a vbucket."""
        return any(stream.target is target and stream.connected for stream in self.streams_of(vbid))

    def streams_of(self, vbid: int) -> list[ReplicaStream]:
        """The streams to the replicas of one vbucket, connected or not."""
        return self.streams.get(vbid, [])

    def set_replicas(self, vbid: int, targets: Sequence[Copy]) -> None:
        """Send the vbucket's changes to these buckets from now on; the same ones keep their stream."""
        old = {stream.target: stream for stream in self.streams.pop(vbid, [])}
        streams: list[ReplicaStream] = []
        for target in targets:
            stream = old.pop(target, None)
            if stream is None:
                stream = ReplicaStream(self, self._source, vbid, target)
                target.upstreams[vbid] = stream
                self.reconnect(stream)
            streams.append(stream)
        for stream in old.values():
            self._drop(stream)
        if streams:
            self.streams[vbid] = streams

    def reconnect(self, stream: ReplicaStream) -> None:
        """Bring the replica level again, soon."""
        stream.connected = False
        self._to_connect[stream] = None
        self._ask_turn()

    def reconnect_all(self) -> None:
        """Bring every replica up to date again: this bucket became ready or was flushed."""
        for streams in self.streams.values():
            for stream in streams:
                self.reconnect(stream)

    def send(self, vbid: int, kind: ChangeKind, item: Item) -> None:
        """Queue a change for this turn's end, if the vbucket has replicas."""
        if vbid in self.streams:
            self._outbox.append((vbid, Change(kind, item)))
            if not self._turn_asked:
                self._ask_turn()

    def deliver_now(self, vbid: int) -> None:
        """Send everything to the connected replicas of one vbucket in this turn: one of them is about to
        become the active copy."""
        self._distribute()
        for stream in self.streams.get(vbid, ()):
            stream.deliver(len(stream.backlog))
            self._busy.pop(stream, None)
        self._source.replica_acknowledged(vbid)

    def stop(self) -> None:
        """Deliver queued changes, then drop all streams."""
        self._distribute()
        for stream in list(self._busy):
            stream.deliver(len(stream.backlog))
        for streams in self.streams.values():
            for stream in streams:
                self._drop(stream)
        self.streams.clear()
        self._to_connect.clear()
        self._busy.clear()

    def _drop(self, stream: ReplicaStream) -> None:
        stream.connected = False
        self._to_connect.pop(stream, None)
        self._busy.pop(stream, None)
        if stream.target.upstreams.get(stream.vbid) is stream:
            del stream.target.upstreams[stream.vbid]

    def _ask_turn(self) -> None:
        if not self._turn_asked:
            self._turn_asked = True
            self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turn_asked = False
        # Queued changes first: new streams start from a state that includes them.
        self._distribute()
        budget = _ITEMS_A_TURN
        while self._to_connect and budget > 0:
            stream = next(iter(self._to_connect))
            del self._to_connect[stream]
            budget -= stream.connect()
            if stream.connected:
                self._busy[stream] = None
        budget = max(budget, _ITEMS_A_TURN // 4)
        acknowledged: set[int] = set()
        for stream in list(self._busy):
            if budget <= 0:
                break
            budget -= stream.deliver(budget)
            acknowledged.add(stream.vbid)
            if not stream.backlog:
                del self._busy[stream]
        for vbid in acknowledged:
            self._source.replica_acknowledged(vbid)
        if self._busy or self._to_connect:
            self._ask_turn()

    def _distribute(self) -> None:
        outbox, self._outbox = self._outbox, []
        busy = self._busy
        for vbid, change in outbox:
            for stream in self.streams.get(vbid, ()):
                if stream.connected:
                    stream.backlog.append(change)
                    busy[stream] = None
