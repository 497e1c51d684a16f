"""Range scans: the documents of a collection, by vbucket, in small pages.

A server (Couchbase Server 7.6 and later) scans one vbucket at a time, with opcodes 0xda to 0xdc. A scanner
reads some vbuckets ahead of the one whose documents it returns, so that the network is busy and memory use is
constant. Documents are ordered by vbucket, and within a vbucket by key, compared bytewise; so a later scan
can continue at a :class:`Position`. Older servers list keys in the same order
(:mod:`couchbase.protocol.keylist`).
"""

from __future__ import annotations

from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
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
from couchbase.protocol.scananswers import GONE, LATER, OPERATION, UNDO, UNSUPPORTED, malformed, refused
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
_JSON = int(Datatype.JSON)
_base64 = partial(b2a_base64, newline=False)


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
        # The largest number of rows in each answer, 0 for no limit; and how many have come, of how many
        # vbuckets.
        self._most_rows = self._received = self._started = 0
        self.is_over = selection.is_empty
        """Whether nothing follows."""

    def expect(self, rows: int) -> None:
        """Limit the number of further rows, so that servers do not send many more.

        It can be called before each page. As many vbuckets are scanned at a time as probably have these rows.
        """
        # One more row shows whether any follow.
        self._most_rows = min(rows + 1, 0xFFFFFFFF)

    def next_page(self, timeout: float) -> Generator[Any, Any, Page | None]:
        """Return the plan that gets the next page; its result is ``None`` if nothing follows.

        :param timeout: seconds until the plan fails.
        :raises CouchbaseError: NotSupportedError (the server has neither range scans nor lists of keys; a
            sample needs range scans), AuthError, CollectionNotFoundError, TimeoutError, ProtocolError.
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
        """Return the plan that ends the scan early, on the servers, too.

        It may be run while the plan of a page runs, whose result is then ``None``.
        """
        self.is_over = True
        window = list(self._window)
        self._window.clear()
        yield from self._end(window)

    def pause(self) -> Generator[Any, Any, None]:
        """Return the plan that ends what servers have open; another page goes on after the last row."""
        yield from self._end(self._window)

    def _end(self, opened: Collection[_Vbucket]) -> Generator[Any, Any, None]:
        """End the scans of vbuckets that are open."""
        rows = self._cluster.current_map().rows
        questions = [
            (rows[each.number][0], Opcode.RANGE_SCAN_CANCEL, fields)
            for each in opened
            if each.identifier is not None and not each.is_over
            for fields in ({"extras": each.identifier, "vbucket": each.number},)
        ]
        for each in opened:
            each.forget()
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
        window = self._window
        if window and window[0].rows:
            return
        ahead = self._ahead() if self._most_rows else WINDOW
        while len(window) < ahead and self._following < count:
            window.append(_Vbucket(self._following, self._after_first))
            self._following += 1
            self._started += 1
            self._after_first = None

    def _ahead(self) -> int:
        """Return the number of vbuckets to scan at a time if few rows are expected."""
        done = self._started - len(self._window)
        if self._received:
            ahead = -(-self._most_rows * done // self._received)
        else:
            # The first ones, or all of them were empty.
            ahead = max(self._most_rows // _ROWS_OF_VBUCKET, 4 * done)
        return min(max(ahead, 1), WINDOW)

    def _take(self) -> Page | None:
        """Return the page of the first vbucket in the window, and forget vbuckets that are over."""
        window = self._window
        while window:
            first = window[0]
            if first.is_over:
                window.popleft()
            if first.rows:
                rows, first.rows = first.rows, ()
                self._received += len(rows)
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
            return (yield from self._lister.read(hungry))
        unopened = [each for each in self._window if each.identifier is None and not each.is_over]
        created = yield from self._create(unopened)
        if self._lister is not None:
            return True
        hungry = [
            each for each in self._window if each.identifier is not None and not (each.is_over or each.rows)
        ]
        continued = yield from self._continue(hungry)
        return created or continued

    def _create(self, wanted: Sequence[_Vbucket]) -> Generator[Any, Any, bool]:
        progressed, refusal = False, None
        if not (yield from self._resolve()):
            return False
        fields = [{"value": self._body(each), "datatype": _JSON} for each in wanted]
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
                refusal = refusal or answer
        if refusal is not None:
            raise refused(refusal)  # now that all scans that were created are known
        if self.is_over:
            # The scan was ended before these answers came.
            yield from self._end(wanted)
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
        try:
            answers = yield from self._ask(Opcode.RANGE_SCAN_CONTINUE, wanted, fields, int(Status.SUCCESS))
        except BaseException:
            # Rows that nobody has received were sent: new scans begin with them.
            for each in wanted:
                each.forget()
            raise
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
        part: int | None = None,
    ) -> Generator[Any, Any, list[Frame | None]]:
        """Ask the active nodes of vbuckets; returns an answer for each, ``None`` for a missing one."""
        rows = self._cluster.current_map().rows
        found: list[Frame | None] = [None] * len(wanted)
        asked, questions, leading = [], [], 0
        for at, each in enumerate(wanted):
            server = rows[each.number][0]
            if server >= 0:
                asked.append(at)
                questions.append((server, opcode, {"vbucket": each.number, **fields[at]}))
        if not asked:
            return found
        if opcode == Opcode.RANGE_SCAN_CREATE:
            # Only a connection with the feature JSON may create a scan. The feature is enabled only for this
            # request, because a server that marks JSON values may have to parse each one that it sends.
            servers = sorted({server for server, _, _ in questions})
            leading, (begin, end) = len(servers), (self._cluster.hello(Feature.JSON), self._cluster.hello())
            questions = [*((one, *begin) for one in servers), *questions, *((one, *end) for one in servers)]
        answers: Sequence[Frame | None] = yield Ask(questions, True, part, UNDO.get(opcode))
        for at, answer in zip(asked, answers[leading:]):
            found[at] = answer
        return found

    def _body(self, each: _Vbucket) -> bytes:
        selection = self._selection
        # JSON of numbers, booleans and base64: nothing in it has to be escaped.
        members = []
        if self._keyspace is not DEFAULT_KEYSPACE:
            members.append(b'"collection": "%x"' % decode_leb128(self._keyspace.prefix)[0])
        if self._keys_only:
            members.append(b'"key_only": true')
        if self._with_attributes:
            members.append(b'"include_xattrs": true')
        if selection.samples is not None:
            members.append(b'"sampling": {"samples": %d, "seed": %d}' % (selection.samples, selection.seed))
        else:
            start, after = selection.start or b"", selection.after_start
            if each.after is not None:
                start, after = each.after, True
            end = _NO_END if selection.end is None else selection.end
            names = (b"excl_" if after else b"", b"excl_" if selection.before_end else b"")
            bounds = (names[0], _base64(start), names[1], _base64(end))
            members.append(b'"range": {"%bstart": "%b", "%bend": "%b"}' % bounds)
        return b"{%b}" % b", ".join(members)
