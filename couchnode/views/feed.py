"""The changes in a bucket since the last update of an index, as steps that update the index.

An index keeps, for each vbucket, a mark: the branch of history that it followed and the sequence number up to
which it is complete. There are two ways to update it. While the process runs, a log of changed keys lists
what to read, so the cost of an update depends on the changes only. Without it (new index, restart, moved
vbucket) all documents are scanned for higher sequence numbers, and forgotten deletions are found by comparing
keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from couchnode.data.bucket import NodeBucket
from couchnode.data.item import Item
from couchnode.data.manifest import DEFAULT_ID
from couchnode.data.vbucket import VBucket

Mark = tuple[int, int]
"""(uuid of the branch of history, sequence number)."""

Change = tuple[int, bytes, bytes | None, int, int, int, int, int, bool | None, bytes]
"""(vbucket, key, value or None if deleted, seqno, CAS, expiry, flags, revid, is JSON or None: not checked,
attributes)."""

Step = tuple[str, dict[str, Any]]
"""A request to the worker, in its protocol, but still without its views."""

BATCH_CHANGES = 500
BATCH_BYTES = 1024 * 1024
"""Largest number of changes in a batch, and the size that ends it."""

LOOKED_AT = 20_000
"""Documents scanned between two pauses, changed or not."""

MAX_RECONCILED = 100_000
"""Most keys that one step compares; a vbucket with more documents is indexed from the start instead."""

_PIECE = 5000


def gone(bucket: NodeBucket, marks: Mapping[int, Mark], wanted: Collection[int] | None = None) -> list[int]:
    """Return the vbuckets of an index whose rows no longer belong to this node or to this history."""
    found = []
    for vbid, mark in marks.items():
        vbucket = bucket.vbuckets[vbid] if vbid < len(bucket.vbuckets) else None
        strange = vbucket is None or vbucket.state != "active" or not _continues(vbucket, mark)
        if strange or (wanted is not None and vbid not in wanted):
            found.append(vbid)
    return found


def steps(
    bucket: NodeBucket,
    marks: Mapping[int, Mark],
    changed: Mapping[int, Collection[bytes]] | None,
    wanted: Collection[int] | None = None,
) -> Iterator[Step]:
    """Yield the steps that update an index from ``marks``; each is a bounded amount of work.

    Documents are read when their step is made, so one may be newer than its mark; the next update then sends
    it again, which changes nothing.

    :param changed: held keys that changed since the marks, by vbucket; ``None`` if that is not known.
    :param wanted: vbuckets that the index covers; ``None`` for all that are active here.
    """
    strange = gone(bucket, marks, wanted)
    if strange:
        yield "drop", {"vbs": strange}
    builder = _StepBuilder()
    # Documents of a dropped collection may still be held.
    is_indexed = _is_indexed if DEFAULT_ID in bucket.collections.by_id else _is_never_indexed
    for vbid in range(len(bucket.vbuckets)) if wanted is None else sorted(wanted):
        vbucket = bucket.vbuckets[vbid]
        if vbucket is None or vbucket.state != "active":
            continue
        mark = marks.get(vbid) if vbid not in strange else None
        since = mark[1] if mark is not None else 0
        if vbucket.high_seqno == 0 or (mark is not None and vbucket.high_seqno == since):
            continue
        new_mark = (vbucket.uuid, _stable_seqno(vbucket))
        if changed is not None and since:
            found = _changes_of(vbucket, [key for key in changed.get(vbid, ()) if is_indexed(key)])
        else:
            if mark is not None and vbucket.purge_seqno > since:
                if len(vbucket.items) > MAX_RECONCILED:
                    yield "drop", {"vbs": [vbid]}
                    mark, since = None, 0
                else:
                    live = [key[1:] for key in vbucket.items if is_indexed(key)]
                    yield "reconcile", {"vb": vbid, "keys": live}
            found = _changes_after(vbucket, since, mark is not None, is_indexed)
        if mark is None:
            # If this ends before its last document, some rows exist, but the mark says nothing is known.
            builder.marks[vbid] = (vbucket.uuid, 0)
        for piece in found:
            for change in piece:
                if builder.add(change):
                    yield builder.take()
            builder.looked_at += min(_PIECE, len(vbucket.items) + 1)
            if builder.looked_at >= LOOKED_AT:
                yield builder.take()
        if new_mark != mark:
            builder.marks[vbid] = new_mark
    if builder.changes or builder.marks:
        yield builder.take()


class _StepBuilder:
    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.marks: dict[int, Mark] = {}
        self.looked_at = 0
        self._bytes = 0

    def add(self, change: Change) -> bool:
        """Add a change; return whether the batch is full."""
        self.changes.append(change)
        if change[2] is not None:
            self._bytes += len(change[2]) + len(change[9])
        return len(self.changes) >= BATCH_CHANGES or self._bytes >= BATCH_BYTES

    def take(self) -> Step:
        taken = {"changes": self.changes, "marks": self.marks}
        self.changes, self.marks, self._bytes, self.looked_at = [], {}, 0, 0
        return "apply", taken


def _continues(vbucket: VBucket, mark: Mark) -> bool:
    """Return whether an index's state at ``mark`` is part of this vbucket's history."""
    uuid, seqno = mark
    ended: int | None = None  # the sequence number at which this branch was left
    for branch, began in vbucket.failover_log:
        if branch == uuid:
            return seqno <= (vbucket.high_seqno if ended is None else ended)
        ended = began
    return False


def _stable_seqno(vbucket: VBucket) -> int:
    """Return the sequence number up to which all changes are visible: prepared writes are not yet."""
    if vbucket.pending:
        return min(item.seqno for item in vbucket.pending.values()) - 1
    return vbucket.high_seqno


def _changes_of(vbucket: VBucket, keys: list[bytes]) -> Iterator[list[Change]]:
    for at in range(0, len(keys), _PIECE):
        yield [_change(vbucket, key) for key in keys[at : at + _PIECE]]


def _changes_after(
    vbucket: VBucket, since: int, deletions: bool, is_indexed: Callable[[bytes], bool]
) -> Iterator[list[Change]]:
    """Yield the changes, in pieces; later changes come after the mark."""
    items = list(vbucket.items.values())
    tombstones = [*vbucket.tombstones.values(), *vbucket.lasting.values()] if deletions else []
    for at in range(0, len(items), _PIECE):
        yield [
            _stored(vbucket.id, item)
            for item in items[at : at + _PIECE]
            if item.seqno > since and is_indexed(item.key)
        ]
    yield [
        _deleted(vbucket.id, item.key, item.seqno)
        for item in tombstones
        if item.seqno > since and is_indexed(item.key)
    ]


def _change(vbucket: VBucket, key: bytes) -> Change:
    item = vbucket.items.get(key)
    if item is None:
        return _deleted(vbucket.id, key, vbucket.high_seqno)
    return _stored(vbucket.id, item)


def _stored(vbid: int, item: Item) -> Change:
    return (
        vbid,
        item.key[1:],
        item.value,
        item.seqno,
        item.cas,
        item.expiry,
        item.flags,
        item.revid,
        item.known_json,
        item.xattrs,
    )


def _deleted(vbid: int, key: bytes, seqno: int) -> Change:
    return (vbid, key[1:], None, seqno, 0, 0, 0, 0, None, b"")


def _is_indexed(key: bytes) -> bool:
    if key[0]:
        return False  # views see the default collection only, whose prefix is one byte
    # The view engine skips keys that are not UTF-8 (reference, 12.2).
    if key.isascii():
        return True
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_never_indexed(key: bytes) -> bool:
    return False
