"""One version of one document, and the counters shared by all documents of a bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from couchbase.protocol import jsontext
from couchbase.protocol.constants import RELATIVE_EXPIRY_MAX, Datatype, Status
from couchnode.data.keys import prefix_of

parse_json: Callable[[bytes], Any]
_strict: Callable[[bytes], Any] | None
try:
    from orjson import loads as parse_json

    _strict = parse_json
except ImportError:  # PyPy: orjson has no wheel there
    from json import loads as parse_json

    _strict = None  # it takes more than JSON

ITEM_OVERHEAD_BYTES = 320
"""Memory of one resident document in addition to its key and value: the object, its integers, the two
``bytes`` headers and the dictionary slot, measured on CPython 3.11 and rounded up."""

LONG_BYTES = 256 * 2**10
"""Values of this size are checked piece by piece: a parser takes up to 150 ms for each megabyte, in which no
other thread runs."""

_UNKNOWN = -1
# Plain numbers: operations on members of an enumeration run Python code.
_RAW, _JSON = int(Datatype.RAW), int(Datatype.JSON)
# Possible first bytes of a JSON text; they exclude most binary values.
_JSON_OPENERS = frozenset(b'{["-0123456789tfn \t\r\n')


class StatusError(Exception):
    """A command cannot be carried out; holds the status for the answer.

    :param status: the status for the client.
    :param context: a sentence for the error payload; empty if the status is enough.
    """

    def __init__(self, status: Status, context: str = "") -> None:
        super().__init__(status, context)
        self.status = status
        self.context = context


class Item:
    """One version of a document, or the tombstone of a deleted document.

    An item never changes once it is published in a vbucket: every change makes a new item. So
    the storage thread and replicas read it without a lock.

    ``expiry`` is in absolute Unix seconds, 0 for never; for a tombstone it is the time of the
    deletion. ``lock_until`` is the last Unix second of a lock, 0 when there is none.

    :ivar known_datatype: its :attr:`datatype`, -1 until that is first needed.
    :cvar xattrs: its attributes (:mod:`couchnode.data.attributes`). Items with attributes have a class of
        their own, so that the others need no memory for the field.
    """

    xattrs: bytes = b""

    __slots__ = (
        "cas",
        "deleted",
        "expiry",
        "flags",
        "key",
        "known_datatype",
        "lock_until",
        "revid",
        "seqno",
        "value",
    )

    # Many parameters: the fields of a document; one object each, so no dataclass.
    def __init__(
        self,
        key: bytes,
        value: bytes,
        flags: int,
        expiry: int,
        cas: int,
        seqno: int,
        revid: int,
        *,
        deleted: bool = False,
        lock_until: int = 0,
    ) -> None:
        self.key = key
        self.value = value
        self.flags = flags
        self.expiry = expiry
        self.cas = cas
        self.seqno = seqno
        self.revid = revid
        self.deleted = deleted
        self.lock_until = lock_until
        self.known_datatype = _UNKNOWN

    @property
    def size(self) -> int:
        """Bytes of memory this item is charged with."""
        return len(self.key) + len(self.value) + ITEM_OVERHEAD_BYTES

    @property
    def datatype(self) -> int:
        """``Datatype.JSON`` if the value is a JSON text (bare scalars included), else ``Datatype.RAW``.

        The client's claim is ignored. Computed on first use, once per version: most versions are never read
        by a connection that needs it. See also :attr:`is_unchecked`.
        """
        known = self.known_datatype
        if known == _UNKNOWN:
            known = self.known_datatype = _JSON if is_json(self.value) else _RAW
        return known

    @property
    def known_json(self) -> bool | None:
        """Whether the value is a JSON text, ``None`` until the datatype is first needed."""
        return None if self.known_datatype == _UNKNOWN else self.known_datatype == _JSON

    @property
    def is_unchecked(self) -> bool:
        """Whether the datatype is unknown, and takes so long to find out that it is done in a thread."""
        return self.known_datatype == _UNKNOWN and len(self.value) >= LONG_BYTES

    def with_xattrs(self, xattrs: bytes) -> Item:
        """Return a copy of the item with these attributes, which are not empty."""
        return AttributedItem(self, xattrs)

    def copy(self) -> Item:
        """Return a separate item for another vbucket, without the lock: locks are not replicated."""
        twin = Item(
            self.key,
            self.value,
            self.flags,
            self.expiry,
            self.cas,
            self.seqno,
            self.revid,
            deleted=self.deleted,
        )
        twin.known_datatype = self.known_datatype
        return twin

    def __repr__(self) -> str:
        state = "tombstone" if self.deleted else f"{len(self.value)} bytes"
        return f"<Item {self.key!r} seqno={self.seqno} cas={self.cas:#x} {state}>"


class AttributedItem(Item):
    """An item with attributes."""

    __slots__ = ("xattrs",)

    def __init__(self, item: Item, xattrs: bytes) -> None:
        super().__init__(
            item.key,
            item.value,
            item.flags,
            item.expiry,
            item.cas,
            item.seqno,
            item.revid,
            deleted=item.deleted,
            lock_until=item.lock_until,
        )
        self.known_datatype = item.known_datatype
        self.xattrs = xattrs

    @property
    def size(self) -> int:
        """Bytes of memory this item is charged with."""
        return super().size + len(self.xattrs)

    def copy(self) -> Item:
        """Return a separate item for another vbucket, without the lock."""
        return super().copy().with_xattrs(self.xattrs)


def tombstone_of(item: Item, cas: int, seqno: int, when: int, xattrs: bytes) -> Item:
    """Return the tombstone of a document deleted at that Unix second, with its system attributes."""
    tombstone = Item(item.key, b"", 0, when, cas, seqno, item.revid + 1, deleted=True)
    return tombstone.with_xattrs(xattrs) if xattrs else tombstone


def is_json(value: bytes) -> bool:
    """Return whether ``value`` is one JSON text."""
    if not value or value[0] not in _JSON_OPENERS:
        return False
    if len(value) >= LONG_BYTES:
        # Without the objects of the whole value it takes half of the time.
        return jsontext.is_json(value, _strict)
    try:
        parse_json(value)
    except (ValueError, RecursionError):
        # orjson refuses some valid JSON: an escaped lone surrogate, and numbers beyond the range of doubles.
        return jsontext.is_json(value)
    return True


def absolute_expiry(wire: int, now: int) -> int:
    """Convert an expiry of a request into the Unix second that is stored.

    0 means never; up to 30 days (inclusive) counts from ``now``; anything above is a Unix time,
    and one that is not in the future makes the document expire at once.
    """
    if wire == 0:
        return 0
    if wire <= RELATIVE_EXPIRY_MAX:
        return now + wire
    # A document still exists in the second of its expiry, so "now" becomes the second before.
    return wire if wire > now else now - 1


class Ledger:
    """Shared counters of one bucket's vbuckets on one node: memory, queue lengths and their limits.

    :param quota_bytes: memory for documents; a mutation that would exceed it is refused.
    :param max_queued_items: changes that may wait for the disk before new ones are refused.
    :param max_queued_bytes: the same in bytes of documents.
    :ivar max_ttl: longest lifetime of a document in seconds; 0 for no limit.
    :ivar max_ttls: key prefix -> the same limit, for collections that have their own.
    """

    __slots__ = (
        "max_queued_bytes",
        "max_queued_items",
        "max_ttl",
        "max_ttls",
        "memory_bytes",
        "queued_bytes",
        "queued_items",
        "quota_bytes",
    )

    def __init__(
        self, quota_bytes: int, max_queued_items: int = 500_000, max_queued_bytes: int = 256 * 2**20
    ) -> None:
        self.quota_bytes = quota_bytes
        self.max_queued_items = max_queued_items
        self.max_queued_bytes = max_queued_bytes
        self.memory_bytes = 0
        self.queued_items = 0
        self.queued_bytes = 0
        self.max_ttl = 0
        self.max_ttls: dict[bytes, int] = {}

    def until(self, key: bytes, wire: int, now: int) -> int:
        """Convert a request's expiry into the Unix second that is stored for that held key, within the limit
        of its collection or bucket."""
        expiry = absolute_expiry(wire, now)
        longest = self.max_ttls.get(prefix_of(key), self.max_ttl) if self.max_ttls else self.max_ttl
        latest = now + longest
        return latest if longest and (not expiry or expiry > latest) else expiry

    def admit(self, growth_bytes: int) -> None:
        """Refuse a change that exceeds the memory or the disk queue.

        :raises StatusError: ENOMEM over the quota, ETMPFAIL while too much waits for the disk.
        """
        if self.queued_items >= self.max_queued_items or self.queued_bytes >= self.max_queued_bytes:
            raise StatusError(
                Status.ETMPFAIL, "the disk does not keep up: too many changes wait to be written"
            )
        if growth_bytes > 0 and self.memory_bytes + growth_bytes > self.quota_bytes:
            raise StatusError(
                Status.ENOMEM, f"the bucket's memory quota of {self.quota_bytes} bytes is used up"
            )
