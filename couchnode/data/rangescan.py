"""Range scans: the documents of one vbucket as they were at one moment, in the order of their keys.

A scan holds only the items that it will return. Items never change, so later writes do not affect the scan.
Creating and reading a scan are done in short steps, however many documents there are.
"""

from __future__ import annotations

import heapq
import random
import secrets
from collections.abc import Iterator
from operator import attrgetter
from struct import Struct
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from couchbase.protocol.constants import Datatype, Status
from couchbase.protocol.leb128 import encode_leb128
from couchnode.data.attributes import section
from couchnode.data.item import Item, StatusError
from couchnode.data.vbucket import VBucket

LIFETIME_SECONDS = 180.0
"""How long a scan may take, from its creation, as on the server."""

MAX_SCANS = 256
"""Open scans of one bucket on one node."""

MAX_PAGE_ITEMS = 20_000
MAX_PAGE_BYTES = 2**20
"""Limits on one page, whatever the client requested, to keep the reactor's turn and the answer short.
A single longer document is returned whole."""

FRAME_BYTES = 8192
"""Entries of a page are grouped into pieces of about this size."""

ID_BYTES = 16

_PIECE = 20_000
_KEY = attrgetter("key")
_DOCUMENT = Struct(">IIQQB")
_XATTR = int(Datatype.XATTR)
_LENGTHS = [encode_leb128(size) for size in range(4096)]


class Selection(NamedTuple):
    """The documents that a scan returns: those with ``start <= key < end``.

    :ivar start, end: keys as vbuckets hold them.
    :ivar samples: return about this many of them, chosen at random; ``None`` for all.
    :ivar seed: the same seed chooses the same documents.
    """

    start: bytes
    end: bytes
    samples: int | None = None
    seed: int = 0


class Page(NamedTuple):
    """A part of a scan's result.

    :ivar pieces: entries, packed and grouped.
    :ivar is_last: whether nothing follows.
    """

    pieces: list[bytes]
    is_last: bool


class RangeScan:
    """One scan of one vbucket.

    :param prefix_bytes: length of the key prefix, which answers leave out.
    :param keys_only: return keys without documents.
    :param with_attributes: return documents with their attributes.
    :param with_system: include the system attributes.
    """

    def __init__(
        self,
        vbucket: VBucket,
        selection: Selection,
        prefix_bytes: int,
        *,
        keys_only: bool,
        with_attributes: bool = False,
        with_system: bool = True,
    ) -> None:
        self.vbucket = vbucket
        self.keys_only = keys_only
        self._with_attributes = with_attributes
        self._with_system = with_system
        self._selection = selection
        self._prefix_bytes = prefix_bytes
        self._rest: Iterator[Item] = iter(())
        self._next: Item | None = None

    def collect(self) -> Iterator[None]:
        """Take the snapshot: it shows the moment of the first step, and is complete when the generator ends.

        The generator yields between bounded pieces of work.
        """
        start, end = self._selection.start, self._selection.end
        items = list(self.vbucket.items.values())
        runs: list[list[Item]] = []
        for at in range(0, len(items), _PIECE):
            if at:
                yield
            run = [item for item in items[at : at + _PIECE] if start <= item.key < end]
            if run:
                run.sort(key=_KEY)
                runs.append(run)
        if self._selection.samples is not None:
            runs = _sampled(runs, self._selection.samples, self._selection.seed)
        self._rest = iter(runs[0]) if len(runs) == 1 else heapq.merge(*runs, key=_KEY)
        self._next = next(self._rest, None)

    @property
    def start(self) -> bytes:
        """The first held key of the range."""
        return self._selection.start

    @property
    def is_over(self) -> bool:
        """Whether everything was returned; before the first page, whether the scan is empty."""
        return self._next is None

    @property
    def first(self) -> Item | None:
        """The document with which the next page begins, if its datatype may be needed."""
        return None if self.keys_only else self._next

    def page(self, max_items: int, max_bytes: int, json_mask: int = 0) -> Page:
        """Return the next documents, at least one if any is left; expired documents are left out.

        The page ends before a document whose datatype is yet to be found in a thread, unless it is the first.

        :param max_items: maximum number of documents, 0 for :data:`MAX_PAGE_ITEMS`.
        :param max_bytes: the page ends with the document that reaches this size, 0 for
            :data:`MAX_PAGE_BYTES`.
        :param json_mask: datatype bits that may be returned.
        """
        count = min(max_items or MAX_PAGE_ITEMS, MAX_PAGE_ITEMS)
        room = min(max_bytes or MAX_PAGE_BYTES, MAX_PAGE_BYTES)
        now, cut, keys_only = int(self.vbucket.now()), self._prefix_bytes, self.keys_only
        item = first = self._next
        rest = self._rest
        pieces: list[bytes] = []
        group: list[bytes] = []
        size = 0
        # Expired items take time as well.
        looked = MAX_PAGE_ITEMS
        while item is not None and count and room > 0 and looked:
            looked -= 1
            if not item.expiry or item.expiry >= now:
                count -= 1
                entry = self._key_entry(item.key[cut:])
                if not keys_only:
                    if json_mask and item.is_unchecked and item is not first:
                        break
                    entry = self._document_entry(item, entry, json_mask)
                group.append(entry)
                size += len(entry)
                room -= len(entry)
                if size >= FRAME_BYTES:
                    pieces.append(b"".join(group))
                    group.clear()
                    size = 0
            item = next(rest, None)
        self._next = item
        if group or not pieces:
            pieces.append(b"".join(group))
        return Page(pieces, item is None)

    def keys(self, count: int) -> list[bytes]:
        """Return the next keys, without those of expired documents."""
        now, cut = int(self.vbucket.now()), self._prefix_bytes
        keys: list[bytes] = []
        item = self._next
        while item is not None and len(keys) < count:
            if not item.expiry or item.expiry >= now:
                keys.append(item.key[cut:])
            item = next(self._rest, None)
        self._next = item
        return keys

    @staticmethod
    def _key_entry(key: bytes) -> bytes:
        return _LENGTHS[len(key)] + key

    def _document_entry(self, item: Item, key: bytes, json_mask: int) -> bytes:
        value, datatype = item.value, item.datatype & json_mask if json_mask else 0
        attributes = section(item.xattrs, self._with_system) if self._with_attributes and item.xattrs else b""
        if attributes:
            value, datatype = attributes + value, datatype | _XATTR
        meta = _DOCUMENT.pack(item.flags, item.expiry, item.seqno, item.cas, datatype)
        size = len(value)
        length = _LENGTHS[size] if size < len(_LENGTHS) else encode_leb128(size)
        return b"".join((meta, key, length, value))


def _sampled(runs: list[list[Item]], samples: int, seed: int) -> list[list[Item]]:
    """Choose items at random, ``samples`` of them on average."""
    total = sum(map(len, runs))
    if samples >= total:
        return runs
    chance, draw = samples / total, random.Random(seed).random
    return [[item for item in run if draw() < chance] for run in runs]


class _Open(NamedTuple):
    scan: RangeScan
    timer: IDelayedCall


class RangeScans:
    """The open scans of one bucket on one node."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._open: dict[bytes, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self) -> None:
        """Refuse another scan while too many are open.

        :raises StatusError: EBUSY.
        """
        if len(self._open) >= MAX_SCANS:
            raise StatusError(Status.EBUSY, f"{MAX_SCANS} range scans are open, and no more are allowed")

    def add(self, scan: RangeScan) -> bytes:
        """Keep a scan until it is removed or its lifetime ends; return its id.

        :raises StatusError: EBUSY.
        """
        self.check_room()
        identifier = secrets.token_bytes(ID_BYTES)
        timer = self._clock.callLater(LIFETIME_SECONDS, self._open.pop, identifier)
        self._open[identifier] = _Open(scan, timer)
        return identifier

    def find(self, identifier: bytes, vbid: int) -> RangeScan:
        """Return the scan with that id.

        :raises StatusError: KEY_ENOENT if there is none, or it belongs to another vbucket.
        """
        found = self._open.get(identifier)
        if found is None or found.scan.vbucket.id != vbid:
            raise StatusError(Status.KEY_ENOENT, "no range scan of that id is open for this vbucket")
        return found.scan

    def remove(self, identifier: bytes) -> None:
        """Forget a scan."""
        found = self._open.pop(identifier, None)
        if found is not None:
            found.timer.cancel()

    def close(self) -> None:
        """Forget all scans."""
        for identifier in list(self._open):
            self.remove(identifier)
