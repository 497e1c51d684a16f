"""Range scans: the documents of a collection, by vbucket, in small pages.

A server (Couchbase Server 7.6 and later) scans one vbucket at a time, with opcodes 0xda to 0xdc. A scanner
reads some vbuckets ahead of the one whose documents it returns, so that the network is busy and memory use is
constant. Documents are ordered by vbucket, and within a vbucket by key, compared bytewise; so a later scan
can continue at a :class:`Position`. Older servers list keys in the same order
(:mod:`couchbase.protocol.keylist`).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Generator, Sequence
from struct import Struct
from typing import Any, NamedTuple, Protocol

from couchbase import exceptions
from couchbase.exceptions import error_of
from couchbase.protocol.clustermap import ClusterMap
from couchbase.protocol.constants import MAX_KEY_BYTES, Datatype, Feature, Opcode, Status
from couchbase.protocol.frames import Frame
from couchbase.protocol.keylist import KeyLister
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.leb128 import decode_leb128
from couchbase.protocol.observation import resolve
from couchbase.protocol.plans import Ask, Pause
from couchbase.protocol.scananswers import GONE, LATER, OPERATION, UNSUPPORTED, malformed, refused
from couchbase.protocol.scanpages import unpack_documents, unpack_keys

WINDOW = 16
"""Number of vbuckets that are scanned at a time."""

PAGE_BYTES = 2**16
"""A vbucket's answer ends with the document that reaches this size, in bytes."""

# Number of rows of a vbucket that are expected before any have arrived.
_ROWS_OF_VBUCKET = 64
_RETRY_SECONDS = 0.02
_MOST_RETRY_SECONDS = 0.5
_CONTINUE = Struct(">16sIII")
# No key is greater: keys have at most 250 bytes.
_NO_END = b"\xff" * MAX_KEY_BYTES


class Selection(NamedTuple):
    """The parameters of a scan.

    :ivar start, end: keys; ``None`` for no limit.
    :ivar after_start: leave out ``start`` itself.
    :ivar before_end: leave out ``end`` itself.
    :ivar samples: about this many documents of each vbucket, chosen at random, instead of a range.
    :ivar seed: the same seed chooses the same documents.
    """

    start: bytes | None = None
    end: bytes | None = None
    after_start: bool = False
    before_end: bool = False
    samples: int | None = None
    seed: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether no key can be in the range."""
        if self.start is None or self.end is None:
            return False
        return self.start > self.end or (self.start == self.end and (self.after_start or self.before_end))


def keys_with(prefix: bytes) -> Selection:
    """Return the selection of all keys that begin with ``prefix``."""
    end = prefix.rstrip(b"\xff")
    if not end:
        return Selection(prefix or None)
    # The first key that is greater than all of them.
    return Selection(prefix, end[:-1] + bytes([end[-1] + 1]), before_end=True)


class Position(NamedTuple):
    """The position of a scan.

    :ivar vbucket: the vbucket whose documents come next.
    :ivar after: its last key that was returned, ``None`` if there is none yet.
    """

    vbucket: int = 0
    after: bytes | None = None


class Page(NamedTuple):
    """Some documents of one vbucket.

    :ivar vbucket: its number.
    :ivar rows: their keys, or the documents; never empty.
    :ivar position: the position after them; ``None`` if nothing is known to follow.
    """

    vbucket: int
    rows: Sequence[Any]
    position: Position | None


class Map(Protocol):
    """The part of a cluster that a scan needs; :class:`couchbase.protocol.dispatch.Dispatcher` is one."""

    def current_map(self) -> ClusterMap:
        """Return the map in use."""

    def refresh(self) -> None:
        """Request a newer map."""

    def hello(self, *more: int) -> tuple[int, dict[str, Any]]:
        """Return the request that gives a connection its usual features, and additional ones until the next
        HELLO."""


class _Vbucket:
    """The scan of one vbucket, which is not created, open, or over."""

    __slots__ = ("after", "identifier", "is_over", "number", "rows")

    def __init__(self, number: int, after: bytes | None) -> None:
        self.number = number
        self.after = after
        """The last key that was received."""
        self.identifier: bytes | None = None
        """The server's id of the scan while it is open."""
        self.rows: Sequence[Any] = ()
        """The page that was received, but not returned yet."""
        self.is_over = False

    def forget(self) -> None:
        """Note that the server's scan is gone: a new one begins after the last key."""
        self.identifier = None


class Scanner:
    """One scan of a collection.

    Its methods return plans (:mod:`couchbase.protocol.plans`), which a driver runs one after the other.

    :param cluster: the cluster.
    :param seconds: the current time, on any clock.
    :param keys_only: return keys without documents.
    :param with_attributes: return documents with their extended attributes, if the server supports it.
    :param keyspace: the collection.
    :param position: position to start at.
    """

    def __init__(
        self,
        cluster: Map,
        seconds: Callable[[], float],
        selection: Selection,
        *,
        keys_only: bool = False,
        with_attributes: bool = False,
        keyspace: Keyspace = DEFAULT_KEYSPACE,
        position: Position | None = None,
    ) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._selection = selection
        self._keys_only = keys_only
        self._with_attributes = with_attributes
        self._keyspace = keyspace
        self._window: deque[_Vbucket] = deque()
        first = position or Position()
        self._lister: KeyLister | None = None
        """Replaces range scans on a server without them."""
        self._following = first.vbucket
        self._after_first = first.after
        self._count: int | None = None
        # The number of vbuckets to scan at a time, and the largest number of rows in each answer, 0 for no
        # limit.
        self._ahead, self._most_rows = WINDOW, 0
        self.is_over = selection.is_empty
        """Whether nothing follows."""

    def expect(self, rows: int) -> None:
        """Limit the number of further rows, so that servers do not send many more.

        It can be called before each page. The scan begins with few vbuckets at a time, and doubles that with
        every round.
        """
        if not self._most_rows:
            self._ahead = min(max(rows // _ROWS_OF_VBUCKET, 2), WINDOW)
        # One more row shows whether any follow.
        self._most_rows = min(rows + 1, 0xFFFFFFFF)

    def next_page(self, timeout: float) -> Generator[Any, Any, Page | None]:
        """Return the plan that gets the next page; its result is ``None`` if nothing follows.

        :param timeout: seconds until the plan fails.
        :raises CouchbaseError: NotSupportedError (the server has no range scans), AuthError,
            CollectionNotFound, TimeoutError, ProtocolError.
        """
        deadline = self._seconds() + timeout
        pause = _RETRY_SECONDS
        while not self.is_over:
            self._fill()
            page = self._take()
            if page is not None or self.is_over:
                return page
            progressed = yield from self._round()
            if progressed:
                pause = _RETRY_SECONDS
            elif self._seconds() + pause >= deadline:
                raise error_of(exceptions.ETIMEDOUT, "the scan got no answer in time", operation=OPERATION)
            else:
                self._cluster.refresh()
                yield Pause(pause)
                pause = min(2 * pause, _MOST_RETRY_SECONDS)
        return None

    def cancel(self) -> Generator[Any, Any, None]:
        """Return the plan that ends the scan early, on the servers, too."""
        self.is_over = True
        rows = self._cluster.current_map().rows
        questions = [
            (rows[each.number][0], Opcode.RANGE_SCAN_CANCEL, fields)
            for each in self._window
            if each.identifier is not None and not each.is_over
            for fields in ({"extras": each.identifier, "vbucket": each.number},)
        ]
        self._window.clear()
        if questions:
            yield Ask(questions)

    # ---- the window ------------------------------------------------------------------------------

    def _fill(self) -> None:
        count = len(self._cluster.current_map().rows)
        if self._count is None:
            self._count = count
        elif self._count != count:
            raise error_of(
                exceptions.ERROR,
                f"the bucket has {count} vbuckets and had {self._count}: it was recreated during the scan",
                operation=OPERATION,
            )
        while len(self._window) < self._ahead and self._following < count:
            self._window.append(_Vbucket(self._following, self._after_first))
            self._following += 1
            self._after_first = None

    def _take(self) -> Page | None:
        """Return the page of the first vbucket in the window, and forget vbuckets that are over."""
        window = self._window
        while window:
            first = window[0]
            if first.is_over:
                window.popleft()
            if first.rows:
                rows, first.rows = first.rows, ()
                return Page(first.number, rows, self._position(first))
            if not first.is_over:
                return None
            self._fill()
        self.is_over = True
        return None

    def _position(self, first: _Vbucket) -> Position | None:
        if not first.is_over:
            return Position(first.number, first.after)
        following = first.number + 1
        if following < (self._count or 0):
            return Position(following)
        self.is_over = True
        return None

    # ---- asking ----------------------------------------------------------------------------------

    def _round(self) -> Generator[Any, Any, bool]:
        """Create the scans that are not open, then get a page for each vbucket that has none.

        Returns whether any answer was useful.
        """
        if self._lister is not None:
            if not (yield from self._resolve()):
                return False
            hungry = [each for each in self._window if not each.is_over and not each.rows]
            self._ahead = min(2 * self._ahead, WINDOW)
            return (yield from self._lister.read(hungry))
        unopened = [each for each in self._window if each.identifier is None and not each.is_over]
        created = yield from self._create(unopened)
        if self._lister is not None:
            return True
        hungry = [each for each in self._window if each.identifier is not None and not each.is_over]
        self._ahead = min(2 * self._ahead, WINDOW)
        continued = yield from self._continue([each for each in hungry if not each.rows])
        return created or continued

    def _create(self, wanted: Sequence[_Vbucket]) -> Generator[Any, Any, bool]:
        progressed = False
        if not (yield from self._resolve()):
            return False
        fields = [{"value": self._body(each), "datatype": int(Datatype.JSON)} for each in wanted]
        answers = yield from self._ask(Opcode.RANGE_SCAN_CREATE, wanted, fields)
        for each, answer in zip(wanted, answers):
            if answer is None:
                continue
            status = answer.specific
            if status == Status.SUCCESS:
                each.identifier = answer.value
                progressed = True
            elif status == Status.KEY_ENOENT:
                each.is_over = progressed = True
            elif status == Status.UNKNOWN_COLLECTION:
                # The name is resolved again: the collection is gone, or another one has it.
                self._keyspace.forget()
            elif status in UNSUPPORTED and self._selection.samples is None:
                self._lister = KeyLister(self._ask, self._keyspace, self._selection, self._keys_only)
            elif status not in LATER:
                raise refused(answer)
        return progressed

    def _resolve(self) -> Generator[Any, Any, bool]:
        """Find out the collection's id; returns whether it is known."""
        if not self._keyspace.prefix:
            yield from resolve(self._cluster.current_map(), self._keyspace)
        return bool(self._keyspace.prefix)

    def _continue(self, wanted: Sequence[_Vbucket]) -> Generator[Any, Any, bool]:
        progressed = False
        fields = [
            {"extras": _CONTINUE.pack(each.identifier, self._most_rows, 0, PAGE_BYTES)} for each in wanted
        ]
        answers = yield from self._ask(Opcode.RANGE_SCAN_CONTINUE, wanted, fields, int(Status.SUCCESS))
        for each, answer in zip(wanted, answers):
            if answer is None:
                # The node was lost together with its scans.
                each.forget()
                continue
            status = answer.specific
            if status in (Status.RANGE_SCAN_MORE, Status.RANGE_SCAN_COMPLETE):
                self._receive(each, answer.value)
                each.is_over = status == Status.RANGE_SCAN_COMPLETE
                progressed = True
            elif status in GONE:
                each.forget()
            elif status not in LATER:
                raise refused(answer)
        return progressed

    def _receive(self, each: _Vbucket, content: bytes) -> None:
        try:
            if self._keys_only:
                each.rows = keys = unpack_keys(content)
                each.after = keys[-1] if keys else each.after
            else:
                each.rows = documents = unpack_documents(content)
                each.after = documents[-1].key if documents else each.after
        except ValueError as fault:
            raise malformed(fault) from fault

    # ---- requests --------------------------------------------------------------------------------

    def _ask(
        self,
        opcode: int,
        wanted: Sequence[_Vbucket],
        fields: Sequence[dict[str, Any]],
        partial: int | None = None,
    ) -> Generator[Any, Any, list[Frame | None]]:
        """Ask the active nodes of vbuckets; returns an answer for each, ``None`` for a missing one."""
        rows = self._cluster.current_map().rows
        asked = [at for at, each in enumerate(wanted) if rows[each.number][0] >= 0]
        found: list[Frame | None] = [None] * len(wanted)
        if not asked:
            return found
        questions = [
            (rows[each.number][0], opcode, {"vbucket": each.number, **fields[at]})
            for at, each in ((at, wanted[at]) for at in asked)
        ]
        # Only a connection with the feature JSON may create a scan. The feature is enabled only for this
        # request, because a server that marks JSON values may have to parse each one that it sends.
        servers = sorted({server for server, _, _ in questions}) if opcode == Opcode.RANGE_SCAN_CREATE else []
        before = [(server, *self._cluster.hello(Feature.JSON)) for server in servers]
        after = [(server, *self._cluster.hello()) for server in servers]
        answers: Sequence[Frame | None] = yield Ask([*before, *questions, *after], True, partial)
        for at, answer in zip(asked, answers[len(before) :]):
            found[at] = answer
        return found

    def _body(self, each: _Vbucket) -> bytes:
        selection = self._selection
        members: dict[str, Any] = {}
        if self._keyspace is not DEFAULT_KEYSPACE:
            members["collection"] = f"{decode_leb128(self._keyspace.prefix)[0]:x}"
        if self._keys_only:
            members["key_only"] = True
        if self._with_attributes:
            members["include_xattrs"] = True
        if selection.samples is not None:
            members["sampling"] = {"samples": selection.samples, "seed": selection.seed}
        else:
            start, after = selection.start or b"", selection.after_start
            if each.after is not None:
                start, after = each.after, True
            end = _NO_END if selection.end is None else selection.end
            members["range"] = {
                "excl_start" if after else "start": b64encode(start).decode(),
                "excl_end" if selection.before_end else "end": b64encode(end).decode(),
            }
        return json.dumps(members).encode()
