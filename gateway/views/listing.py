"""The rows of a listing: a collection's keys or documents, in the pages that a scan returns."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.python.failure import Failure

from couchbase.protocol.constants import MAX_KEY_BYTES
from couchbase.protocol.rangescan import PAGE_BYTES, Page, Position, Selection, keys_with
from couchbase.protocol.scanpages import Document
from couchbase.scan import cursor_of, position_of
from gateway.cluster.bulk import Lane
from gateway.dialect.contenttypes import FLAGS_BINARY, FLAGS_JSON
from gateway.dialect.errors import Refusal, bad_request, describe, public_code
from gateway.dialect.jsontools import dumps, is_json
from gateway.dialect.numbers import checked_number
from gateway.dialect.values import VIEW, value_member, value_member_steps
from gateway.fairness.steps import AT_ONCE_BYTES, StepRunner
from gateway.http.response import BodySink, Response
from gateway.views.forms import Form, streamed

__all__ = ["PARAMETERS", "ListingAnswer", "ListingParameters", "read_parameters"]

_OF_DOCUMENTS = ("include_xattrs", "verbatim")
_BOUNDS = ("prefix", "start", "end")
_EVERYTHING = Selection(b"")
PARAMETERS = frozenset(
    {"prefix", "start", "end", "limit", "cursor", "cursors", "include_docs", *_OF_DOCUMENTS}
)

SCAN = "scan"
"""The operation's name, for errors and metrics."""

MOST_ROWS = 2**63 - 1

# A key that JSON does not escape.
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")
_ROW = b'{%b,"doc":{"meta":{%b,"cas":"%08x","flags":%d%b%b},%b}}'
_USUAL_ROW = b'{"id":"%b","doc":{"meta":{"id":"%b","cas":"%08x","flags":%d},"json":%b}}'
_BETWEEN = b'"}\n{"id":"'
_BLANKS = (b" ", b"\t")
# Memory for the pages that are being read: a scan reads some vbuckets ahead.
_EXPECTED_BYTES = 16 * PAGE_BYTES


class ListingParameters(NamedTuple):
    """The parameters of a listing.

    :ivar limit: largest number of rows; ``None`` for all.
    :ivar position: position to start at; ``None`` for the beginning.
    :ivar verbatim: show documents as base64 if a line cannot show them unchanged.
    :ivar cursors: return cursors between the rows.
    """

    what: Selection
    limit: int | None
    position: Position | None
    include_docs: bool
    include_xattrs: bool
    verbatim: bool
    cursors: bool


def read_parameters(query: Mapping[str, str]) -> ListingParameters:
    """Read the parameters of a request's query.

    :raises Refusal: 400.
    """
    limit = None
    if "limit" in query:
        text = query["limit"]
        if not text.isascii() or not text.isdigit():
            raise bad_request(f"limit: {text[:80]!r} is invalid; expected a whole number, 0 or more")
        limit = checked_number(int(text[:20]), "limit", 0, MOST_ROWS)
    include_docs = "include_docs" in query and _boolean(query, "include_docs")
    include_xattrs = "include_xattrs" in query and _boolean(query, "include_xattrs")
    verbatim = "verbatim" in query and _boolean(query, "verbatim")
    if (include_xattrs or verbatim) and not include_docs:
        raise bad_request(f"{_OF_DOCUMENTS[verbatim and not include_xattrs]} needs include_docs=true")
    position = None
    if query.get("cursor"):
        try:
            position = position_of(query["cursor"])
        except Exception:  # noqa: BLE001  # of the SDK's arguments; it says no more
            raise bad_request("cursor: this is not the cursor of a listing") from None
    cursors = "cursors" in query and _boolean(query, "cursors")
    return ListingParameters(_range(query), limit, position, include_docs, include_xattrs, verbatim, cursors)


def _boolean(query: Mapping[str, str], name: str) -> bool:
    given = query[name]
    if given not in ("true", "false"):
        raise bad_request(f"{name}: {given[:80]!r} is invalid; expected true or false")
    return given == "true"


def _range(query: Mapping[str, str]) -> Selection:
    if query.keys().isdisjoint(_BOUNDS):
        return _EVERYTHING
    within = keys_with(_key(query, "prefix") or b"")
    start, end = _key(query, "start"), _key(query, "end")
    first = max(start or b"", within.start or b"")
    if within.end is not None and (end is None or end >= within.end):
        return Selection(first, within.end, before_end=True)
    return Selection(first, end)


def _key(query: Mapping[str, str], name: str) -> bytes | None:
    if name not in query:
        return None
    key = query[name].encode("utf-8", "surrogateescape")
    if len(key) > MAX_KEY_BYTES:
        raise bad_request(f"{name} has {len(key)} bytes; keys have at most {MAX_KEY_BYTES}")
    return key


class ListingAnswer:
    """The answer to one listing, produced while it is sent.

    Documents are read on the lane for large operations, so that small operations do not wait for a page.

    :param begin: returns a scan on a connection; called again, with the position, if the connection has
        changed.
    :param on_end: called once with the outcome (``"ok"`` or an error's code), ``None`` if the failure became
        the response.
    """

    def __init__(
        self,
        form: Form,
        parameters: ListingParameters,
        lane: Lane,
        begin: Callable[[Any, Position | None], Any],
        steps: StepRunner,
        on_end: Callable[[str | None], None],
        log_bug: Callable[[Failure], None],
    ) -> None:
        self._form = form
        self._lane = lane
        self._begin_scan = begin
        self._steps = steps
        self._on_end: Callable[[str | None], None] | None = on_end
        self._log_bug = log_bug
        self._parameters = parameters
        self._left = parameters.limit
        self._position = parameters.position
        self._is_over = False
        self._count = 0
        self._scan: Any = None
        self._scanned_by: Any = None
        self._first: list[bytes] | None = None
        """The rows of the first page, until the answer begins."""
        self._sink: BodySink | None = None
        self._resumed: Deferred[None] | None = None
        self._work: Deferred[None] | None = None
        self._refusal: Refusal | None = None

    def refuse(self, refusal: Refusal | None) -> None:
        """Read no further page if there is a refusal; the answer ends with it."""
        self._refusal = refusal

    def begin(self) -> Deferred[Response]:
        """Get the first page; fires with the response, or fails if the page cannot be read."""
        if self._left == 0:
            return succeed(self._response(None))
        return self._ask().addCallbacks(self._take_first, self._failed)

    def _take_first(self, page: Page | None) -> Any:
        rows = self._taken(page)
        if rows is None:
            return self._response(self._last_cursor())
        if not self._parameters.include_docs:
            return self._response(self._with_cursor(key_rows(rows)))
        rendered = ensureDeferred(self._rendered(rows)).addCallback(self._response)
        return rendered.addErrback(self._failed)

    def _response(self, rows: list[bytes] | None) -> Response:
        self._first = rows
        return Response(200, streamed(self._form), self)

    def _failed(self, failure: Failure) -> Failure:
        # Also if the client left before the first page came.
        self._close_scan()
        self._end(None)
        return failure

    async def _send(self, sink: BodySink, rows: list[bytes] | None) -> None:
        unsent = self._form.head(None)
        outcome, errors = "ok", []
        try:
            while rows is not None:
                if rows:
                    data, unsent = unsent + self._form.rows(rows), b""
                    await self._ready()
                    sink.write(data)
                rows = await self._next()
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is becomes a part of the answer
            fault = describe(error, SCAN)
            if fault.is_bug:
                self._log_bug(Failure(error))
            entry: dict[str, Any] = {"from": "gateway", "reason": fault.message, **fault.fields()}
            del entry["message"]
            if self._position is not None:
                entry["cursor"] = cursor_of(self._position)
            errors.append(entry)
            self._close_scan()
            outcome = public_code(fault.problem)
        await self._ready()
        tail = unsent + self._tail(errors)
        if tail:
            sink.write(tail)
        self._work = None
        self._end(outcome)
        if errors:
            sink.abort()
        else:
            sink.finish()

    def _tail(self, errors: list[Any]) -> bytes:
        meta = {} if self._position is None or errors else {"cursor": cursor_of(self._position)}
        return self._form.tail(meta, errors, None if errors else self._count)

    def _send_whole(self, sink: BodySink, rows: list[bytes] | None) -> None:
        """Send an answer whose first page is its last: most answers to programs that show pages."""
        self._close_scan()
        form = self._form
        data = form.head(None) + (form.rows(rows) if rows else b"") + self._tail([])
        if data:
            sink.write(data)
        self._end("ok")
        sink.finish()

    async def _ready(self) -> None:
        while self._resumed is not None:
            await self._resumed

    async def _next(self) -> list[bytes] | None:
        """Return the next rows, rendered; ``None`` after the last."""
        if self._left == 0:
            self._close_scan()
            return None
        if self._is_over:
            return None
        if self._refusal is not None:
            raise self._refusal
        rows = self._taken(await self._ask())
        if rows is None:
            return self._last_cursor()
        return await self._rendered(rows)

    def _taken(self, page: Page | None) -> Sequence[Any] | None:
        """Take a page; return those of its rows that are wanted, ``None`` after the last page."""
        if page is None:
            self._position = None
            self._is_over = True
            return None
        rows: Sequence[Any] = page.rows
        self._position = page.position
        if self._left is not None and len(rows) >= self._left:
            cut = len(rows) > self._left
            rows = rows[: self._left]
            if cut:
                last = rows[-1].key if self._parameters.include_docs else rows[-1]
                self._position = Position(page.vbucket, last)
        if self._left is not None:
            self._left -= len(rows)
        self._count += len(rows)
        return rows

    def _ask(self) -> Deferred[Page | None]:
        return self._lane.ask(_EXPECTED_BYTES, self._page)

    def _page(self, bulk: Any) -> Deferred[Page | None]:
        if bulk is not self._scanned_by:
            self._scan, self._scanned_by = self._begin_scan(bulk, self._position), bulk
        if self._left is not None:
            self._scan.expect(self._left)
        page: Deferred[Page | None] = self._scan.next_rows()
        return page

    async def _rendered(self, rows: Sequence[Any]) -> list[bytes]:
        if not self._parameters.include_docs:
            return self._with_cursor(key_rows(rows))
        rendered = []
        verbatim = self._parameters.verbatim
        for document in rows:
            row = usual_row(document)
            if row is not None:
                rendered.append(row)
                continue
            value = document.value
            flags = FLAGS_BINARY if verbatim and not fits_line(value) else document.flags
            if len(value) <= AT_ONCE_BYTES:
                content = value_member(VIEW, flags, value)
            else:
                content = await self._steps.run(value_member_steps(VIEW, flags, value))
            rendered.append(document_row(document, content))
        return self._with_cursor(rendered)

    def _with_cursor(self, rows: list[bytes]) -> list[bytes]:
        if self._parameters.cursors and self._position is not None:
            rows.append(b'{"cursor":"%b"}' % cursor_of(self._position).encode())
        return rows

    def _last_cursor(self) -> list[bytes] | None:
        return [b'{"cursor":null}'] if self._parameters.cursors else None

    def _close_scan(self) -> None:
        if self._scan is not None:
            # The answer does not wait until the servers have closed the scan.
            self._scan.close()

    def _end(self, outcome: str | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(outcome)

    def _broken(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log_bug(failure)
            if self._sink is not None:
                self._sink.abort()
        self._end("RequestCanceled" if failure.check(CancelledError) else "Internal")

    # ---- from the channel ------------------------------------------------------------------------

    def start(self, sink: BodySink) -> None:
        """Begin to write."""
        rows, self._first = self._first, None
        if self._resumed is None and (self._left == 0 or self._is_over):
            self._send_whole(sink, rows)
            return
        self._sink = sink
        self._work = ensureDeferred(self._send(sink, rows)).addErrback(self._broken)

    def pause(self) -> None:
        """Stop reading pages: the client reads slowly."""
        if self._resumed is None:
            self._resumed = Deferred()

    def resume(self) -> None:
        """Continue: the client has caught up."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def cancel(self) -> None:
        """Stop: the client is gone, or needs no body."""
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
        self._end("RequestCanceled")
        self._close_scan()


def fits_line(value: bytes) -> bool:
    """Return whether a line can show JSON unchanged: surrounding blanks and line breaks would be lost."""
    return (
        value.find(b"\n") < 0
        and value.find(b"\r") < 0
        and value[:1] not in _BLANKS
        and value[-1:] not in _BLANKS
    )


def key_rows(keys: Sequence[bytes]) -> list[bytes]:
    """Return rows ``{"id": key}``; a key that is not UTF-8 becomes ``{"id_base64": ...}``."""
    text = b"".join(keys)
    if _PLAIN.fullmatch(text):
        # All keys at once: a listing has millions.
        return (b'{"id":"' + _BETWEEN.join(keys) + b'"}').split(b"\n")
    return [_key_row(key) for key in keys]


def _key_row(key: bytes) -> bytes:
    return b"{" + _name(key) + b"}"


def _name(key: bytes) -> bytes:
    try:
        return b'"id":' + dumps(key.decode())
    except UnicodeDecodeError:
        return b'"id_base64":"' + b64encode(key) + b'"'


def usual_row(document: Document) -> bytes | None:
    """Return the row of a short JSON document with a plain key, without expiry and attributes, else ``None``.

    A listing has millions of such rows, so this function does in one step what :func:`document_row` and its
    callers do.
    """
    key, value, flags, expires, cas, _, attributes = document
    if (
        flags != FLAGS_JSON
        or expires
        or attributes
        or len(value) > AT_ONCE_BYTES
        or not fits_line(value)
        or _PLAIN.fullmatch(key) is None
        or not is_json(value)
    ):
        return None
    return _USUAL_ROW % (key, key, cas, flags, value)


def document_row(document: Document, content: bytes) -> bytes:
    """Return the row of a document.

    :param content: the document's value, as a JSON member.
    """
    key, _, flags, expires, cas, _, attributes = document
    name = b'"id":"%b"' % key if _PLAIN.fullmatch(key) else _name(key)
    expiry = b',"expiry":%d' % expires if expires else b""
    xattrs = b',"xattrs":' + attributes if attributes else b""
    return _ROW % (name, name, cas, flags, expiry, xattrs, content)
