"""Writes that carry their own version: from tools that copy documents between clusters."""

from __future__ import annotations

from typing import NamedTuple

from couchbase.protocol.constants import MAX_VALUE_BYTES, Status
from couchnode.data.attributes import section_bytes
from couchnode.data.item import ITEM_OVERHEAD_BYTES, Item, StatusError
from couchnode.data.vbucket import VBucket


class Version(NamedTuple):
    """The metadata of a document.

    :ivar expiry: Unix time in seconds, 0 for never; of a tombstone, the time of the deletion.
    """

    revid: int
    cas: int
    expiry: int
    flags: int


class Content(NamedTuple):
    """The new content of a document.

    :ivar xattrs: its attributes, in the form of :mod:`couchnode.data.attributes`.
    """

    value: bytes
    xattrs: bytes = b""
    deleted: bool = False


# Many parameters: the fields of a request; keywords.
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
    :param must_be_new: refuse if the document exists.
    :param resolves: resolve conflicts: the version with the higher revision wins; between equal revisions the
        higher CAS, expiry and flags decide, in this order.
    :param makes_cas: give the document a new CAS from this vbucket.
    :raises StatusError: KEY_EEXISTS (the present version wins, or does not match ``cas``), KEY_ENOENT,
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
