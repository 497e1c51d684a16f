"""Changes of a document by parts: body, attributes and whether it is a tombstone, in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from couchnode.data.item import ITEM_OVERHEAD_BYTES, Item
from couchnode.data.vbucket import VBucket


class Edit(NamedTuple):
    """The new content of a document.

    :ivar expiry: as on the wire; ignored for a tombstone.
    :ivar xattrs: its attributes, in the form of :mod:`couchnode.data.attributes`.
    :ivar settle: (CAS, sequence number) -> the attributes to store, as long as ``xattrs``.
    """

    value: bytes
    flags: int
    expiry: int
    xattrs: bytes
    deleted: bool
    settle: Callable[[int, int], bytes]


def edit(
    vbucket: VBucket, key: bytes, old: Item | None, change: Edit, *, preserve_expiry: bool, durable: bool
) -> Item:
    """Store a new version of a document or tombstone, and return it.

    The caller has looked up ``old`` and checked CAS, lock and pending writes.

    :param old: the document or its tombstone; ``None`` if there is none, or it does not matter.
    :param preserve_expiry: an existing document keeps its expiry; a tombstone does not.
    :raises StatusError: ENOMEM, ETMPFAIL.
    """
    growth = len(change.value) + len(change.xattrs)
    if old is not None:
        growth -= len(old.value) + len(old.xattrs)
    else:
        growth += len(key) + ITEM_OVERHEAD_BYTES
    if change.deleted:
        expiry = int(vbucket.now())
    elif preserve_expiry and old is not None and not old.deleted:
        expiry = old.expiry
    else:
        expiry = vbucket.stored_expiry(key, change.expiry)
    seqno, cas, revid = vbucket.next_version(key, old, growth)
    item = Item(key, change.value, change.flags, expiry, cas, seqno, revid, deleted=change.deleted)
    xattrs = change.settle(cas, seqno)
    return vbucket.publish(item.with_xattrs(xattrs) if xattrs else item, durable)
