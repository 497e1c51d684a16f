"""Writes that bring their own version along: those of tools that copy documents between clusters."""

from __future__ import annotations

from typing import NamedTuple

from couchbase.protocol.constants import MAX_VALUE_BYTES, Status
from couchnode.data.attributes import section_bytes
from couchnode.data.item import ITEM_OVERHEAD_BYTES, Item, StatusError
from couchnode.data.vbucket import VBucket


class Version(NamedTuple):
    """What a document has beside its value.

    :ivar expiry: Unix time in seconds, 0 for never; of a tombstone, the time of the deletion.
    """

    revid: int
    cas: int
    expiry: int
    flags: int


class Content(NamedTuple):
    """What a document becomes.

    :ivar xattrs: its attributes, as :mod:`couchnode.data.attributes` has them.
    """

    value: bytes
    xattrs: bytes = b""
    deleted: bool = False


# Many parameters: what a request says; keywords.
def write(
    vbucket: VBucket,
    key: bytes,
    content: Content,
    version: Version,
    *,
    cas: int = 0,
    must_be_new: bool = False,
    resolves: bool = True,
    makes_cas: bool = False,
) -> Item:
    """Store a document, or its tombstone, with its version.

    :param cas: write only over this version; 0 for any.
    :param must_be_new: refuse if there is such a document.
    :param resolves: of two versions the one with the higher revision stays; with equal ones the higher CAS,
        expiry and flags decide, in this order.
    :param makes_cas: give it a CAS of this vbucket.
    :raises StatusError: KEY_EEXISTS (the present version stays, or is another one than ``cas``), KEY_ENOENT,
        LOCKED, SYNC_WRITE_IN_PROGRESS, E2BIG, ENOMEM, ETMPFAIL.
    """
    if key in vbucket.pending:
        raise StatusError(Status.SYNC_WRITE_IN_PROGRESS)
    if len(content.value) + sum(section_bytes(content.xattrs)) > MAX_VALUE_BYTES:
        raise StatusError(Status.E2BIG)
    live = vbucket.get(key)
    if live is not None:
        vbucket.check_cas(live, cas)
        if must_be_new:
            raise StatusError(Status.KEY_EEXISTS)
    elif cas:
        raise StatusError(Status.KEY_ENOENT)
    old = live if live is not None else vbucket.tombstone(key)
    if resolves and old is not None and version <= Version(old.revid, old.cas, old.expiry, old.flags):
        raise StatusError(Status.KEY_EEXISTS, "the present version is not older")
    growth = len(content.value) + len(content.xattrs)
    growth += len(key) + ITEM_OVERHEAD_BYTES if old is None else -len(old.value) - len(old.xattrs)
    seqno, own_cas, _ = vbucket.next_version(key, old, growth)
    item = Item(
        key,
        content.value,
        version.flags,
        version.expiry or (int(vbucket.now()) if content.deleted else 0),
        own_cas if makes_cas else version.cas,
        seqno,
        version.revid,
        deleted=content.deleted,
    )
    vbucket.max_cas = max(vbucket.max_cas, item.cas)
    return vbucket.publish(item.with_xattrs(content.xattrs) if content.xattrs else item, False)
