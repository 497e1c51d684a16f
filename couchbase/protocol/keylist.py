"""Lists of keys, for scans on servers without range scans (Couchbase Server before 7.6).

GET_KEYS (0xb8) returns keys of one vbucket in their order, compared bytewise, from a given key on. Documents
are then read one by one; GET_META returns their expiry.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from struct import Struct
from typing import Any, Callable, NamedTuple, Optional, Protocol

from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.frames import Frame
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.scananswers import LATER, malformed, refused
from couchbase.protocol.scanpages import Document

KEYS_AT_ONCE = 1000
"""Number of keys to request at a time, if no documents are read."""

FIRST_AT_ONCE, MOST_AT_ONCE = 8, 64
"""Number of documents of a vbucket to read at a time: at the start, and while documents are small."""

MOST_BYTES = 2**20
"""Size of documents of all vbuckets above which fewer are read at once."""

_ATTEMPTS = 5
_U16 = Struct(">H")
_U32 = Struct(">I")
_META = Struct(">III")

AskEach = Callable[[int, Sequence[Any], Sequence[dict[str, Any]]], Generator[Any, Any, list[Optional[Frame]]]]
"""Asks the active nodes of vbuckets; its result is an answer for each, ``None`` where there is none."""


class WireKey:
    """A key on the wire, whose form depends on the connection that it is sent on.

    :ivar lead: its prefix.
    """

    __slots__ = ("_key", "_keyspace", "lead")

    def __init__(self, keyspace: Keyspace, key: bytes) -> None:
        self._keyspace = keyspace
        self._key = key
        self.lead = b""

    def __call__(self, default_prefix: bytes) -> bytes:
        """Return the key.

        :param default_prefix: prefix of keys in the default collection on this connection.
        """
        if self._keyspace is DEFAULT_KEYSPACE:
            self.lead = default_prefix
        elif default_prefix:
            self.lead = self._keyspace.prefix
        else:
            # A node without collections holds none of them.
            return b""
        return self.lead + self._key


class Part(Protocol):
    """A vbucket of a scan, as :class:`couchbase.protocol.rangescan.Scanner` keeps it."""

    after: bytes | None
    """The last key that was received."""
    rows: Sequence[Any]
    """The page that was received, but not returned yet."""
    is_over: bool


class Range(Protocol):
    """:class:`couchbase.protocol.rangescan.Selection`."""

    @property
    def start(self) -> bytes | None:
        """The first key."""

    @property
    def end(self) -> bytes | None:
        """The last key."""

    @property
    def after_start(self) -> bool:
        """Whether to leave out ``start`` itself."""

    @property
    def before_end(self) -> bool:
        """Whether to leave out ``end`` itself."""


class KeyLister:
    """Gets pages of vbuckets.

    :param ask: asks their nodes.
    :param keys_only: pages are keys, not documents.
    """

    def __init__(self, ask: AskEach, keyspace: Keyspace, selection: Range, keys_only: bool) -> None:
        self._ask = ask
        self._keyspace = keyspace
        self._selection = selection
        self._keys_only = keys_only
        self._at_once = FIRST_AT_ONCE
        """Documents of a vbucket to read at once."""

    def read(self, hungry: Sequence[Part]) -> Generator[Any, Any, bool]:
        """Plan that gets the next page of each vbucket; its result is whether any answer was useful.

        :raises CouchbaseError: as :meth:`couchbase.protocol.rangescan.Scanner.next_page`.
        """
        count = KEYS_AT_ONCE if self._keys_only else self._at_once
        questions = [self._wanted(each) for each in hungry]
        fields = [question.fields(self._keyspace, count) for question in questions]
        answers = yield from self._ask(int(Opcode.GET_KEYS), hungry, fields)
        keys: dict[Any, list[bytes]] = {}
        over: dict[Any, bool] = {}
        for each, question, sent, answer in zip(hungry, questions, fields, answers):
            if answer is None or self._is_for_later(answer):
                continue
            try:
                keys[each], over[each] = question.take(answer.value, sent["key"].lead, count)
            except ValueError as fault:
                raise malformed(fault) from fault
        rows: dict[Any, Any] = keys
        if not self._keys_only:
            rows, refusal = yield from read_documents(self._ask, self._keyspace, list(keys.items()))
            if refusal is not None:
                self._is_for_later(refusal)
            self._adapt(sum(len(row.value) for found in rows.values() for row in found))
        for each, found in rows.items():
            each.rows, each.is_over = found, over[each]
            each.after = keys[each][-1] if keys[each] else each.after
        return bool(rows)

    def _is_for_later(self, answer: Frame) -> bool:
        """Return whether the same request has to be repeated.

        :raises CouchbaseError: the server refuses.
        """
        if answer.specific == Status.UNKNOWN_COLLECTION:
            # The name is resolved again: the collection is gone, or another one has its name.
            self._keyspace.forget()
        elif answer.specific not in LATER and answer.specific != Status.SUCCESS:
            raise refused(answer)
        return bool(answer.specific)

    def _adapt(self, size: int) -> None:
        """Choose how many documents are read at a time, from the size of earlier ones."""
        if size > MOST_BYTES:
            self._at_once = max(self._at_once // 2, 1)
        elif size < MOST_BYTES // 4:
            self._at_once = min(self._at_once * 2, MOST_AT_ONCE)

    def _wanted(self, each: Part) -> Wanted:
        selection = self._selection
        start, without = selection.start or b"", selection.after_start
        if each.after is not None:
            start, without = each.after, True
        return Wanted(start, without, selection.end, selection.before_end)


class Wanted(NamedTuple):
    """The parameters of GET_KEYS.

    :ivar start: the first key; empty for the beginning.
    :ivar without_start: leave out ``start`` itself.
    :ivar end: the last key; ``None`` for no limit.
    :ivar before_end: leave out ``end`` itself.
    """

    start: bytes
    without_start: bool
    end: bytes | None
    before_end: bool

    def fields(self, keyspace: Keyspace, count: int) -> dict[str, Any]:
        """Return the request for a number of keys."""
        # One more than wanted, as the first may be left out. A key that follows it may be too long to name.
        return {"key": WireKey(keyspace, self.start or b"\0"), "extras": _U32.pack(count + 1)}

    def take(self, content: bytes, lead: bytes, count: int) -> tuple[list[bytes], bool]:
        """Return the keys of an answer, and whether no more follow.

        :raises ValueError: the answer is malformed.
        """
        keys = unpack_key_list(content, lead)
        is_over = len(keys) <= count
        if self.without_start and keys[:1] == [self.start]:
            del keys[0]
        if self.end is not None:
            found = len(keys)
            keys = [key for key in keys if key < self.end or (key == self.end and not self.before_end)]
            is_over = is_over or len(keys) < found
        return keys, is_over


def unpack_key_list(content: bytes, lead: bytes) -> list[bytes]:
    """Return the keys in the answer to GET_KEYS.

    :param lead: prefix of the keys on the connection.
    :raises ValueError: the answer is malformed.
    """
    keys, at, end = [], 0, len(content)
    while at < end:
        if at + _U16.size > end:
            raise ValueError("a key is cut off")
        (size,) = _U16.unpack_from(content, at)
        at += _U16.size
        key = content[at : at + size]
        at += size
        if at > end or not key.startswith(lead):
            raise ValueError("a key is cut off, or of another collection")
        keys.append(key[len(lead) :])
    return keys


def read_documents(
    ask: AskEach, keyspace: Keyspace, listed: Sequence[tuple[Any, Sequence[bytes]]]
) -> Generator[Any, Any, tuple[dict[Any, list[Document]], Frame | None]]:
    """Plan that reads the documents of listed keys; removed documents are left out.

    Value and expiry of a document come in two answers, which belong together if their CAS is the same;
    otherwise both are requested again, a few times.

    :param listed: vbuckets, and keys of each.
    :returns: the documents by vbucket, without the vbuckets that have to be read later because of a missing
        or temporary answer; and a refusing answer, if there was one.
    """
    found: dict[Any, dict[bytes, Document | None]] = {vbucket: {} for vbucket, _ in listed}
    left = [(vbucket, key) for vbucket, keys in listed for key in keys]
    refusal: Frame | None = None
    for attempt in range(_ATTEMPTS):
        vbuckets = [vbucket for vbucket, _ in left]
        values = yield from ask(int(Opcode.GET), vbuckets, _keys(keyspace, left))
        metas = yield from ask(int(Opcode.GET_META), vbuckets, _keys(keyspace, left))
        changed = []
        for (vbucket, key), value, meta in zip(left, values, metas):
            if value is None or meta is None:
                continue
            statuses = value.specific, meta.specific
            if Status.KEY_ENOENT in statuses:
                found[vbucket][key] = None
            elif statuses != (Status.SUCCESS, Status.SUCCESS):
                refusal = value if value.specific else meta
            elif value.cas == meta.cas or attempt == _ATTEMPTS - 1:
                (flags,) = _U32.unpack_from(value.extras)
                expiry = _META.unpack_from(meta.extras)[2]
                document = Document(key, value.value, flags, expiry, value.cas, value.datatype)
                found[vbucket][key] = document
            else:
                changed.append((vbucket, key))
        left = changed
        if not left:
            break
    whole = {
        vbucket: [document for document in (found[vbucket][key] for key in keys) if document is not None]
        for vbucket, keys in listed
        if len(found[vbucket]) == len(keys)
    }
    return whole, refusal


def _keys(keyspace: Keyspace, documents: Sequence[tuple[Any, bytes]]) -> list[dict[str, Any]]:
    return [{"key": WireKey(keyspace, key)} for _, key in documents]
