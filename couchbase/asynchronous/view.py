"""Views whose rows are passed to callbacks as they arrive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from couchbase.exceptions import ArgumentError, CouchbaseError
from couchbase.result import HttpResult
from couchbase.views.iterator import AlreadyQueriedError, View
from couchbase.views.rows import RowReader

if TYPE_CHECKING:
    from typing_extensions import Self


class AsyncViewBase(View):
    """A view with callbacks: subclass it and override :meth:`on_rows`, :meth:`on_error`, :meth:`on_done`.

    Takes View's arguments; streaming is always on. After :meth:`start`, :meth:`on_rows` is called with rows;
    the last call is either :meth:`on_done` or :meth:`on_error`, once. ``raw.rows_per_call`` (1 by default,
    may be set after the start) is the minimum number of rows in a call of :meth:`on_rows`; with -1, all rows
    come in one call at the end.

    :raises ArgumentError: wrong options, or include_docs (see :meth:`raise_include_docs`).
    """

    row_form = "rows"
    """``"rows"``: on_rows gets the row processor's output for decoded rows. ``"lines"`` and ``"blocks"``:
    on_rows gets the rows' text as received, without a row processor; see
    :class:`couchbase.views.rows.RowReader`. (An addition to SDK 1.2.)"""

    def _prepare(self) -> None:
        self._streaming = True
        if self.include_docs:
            self.raise_include_docs()
        self._reader = RowReader(self.row_form, getattr(self._parent, "_json_loads", None))
        # Rows that are held because they are too few for a call, and the number of answer rows they stand
        # for.
        self._held: list[Any] = []
        self._handle: Any = None
        self._paused = False
        self._over = False

    # ---- to be overridden ------------------------------------------------------------------------

    def on_rows(self, rowiter: Iterable[Any], /) -> Any:
        """Take rows; never called without rows.

        A driver may wait for the returned object before it reads on (txcouchbase: for a Deferred or a
        coroutine). An exception ends the query, and goes to :meth:`on_error`.

        :param rowiter: some rows, in the order of the view.
        """
        raise NotImplementedError("a subclass must override on_rows")

    def on_error(self, ex: BaseException, /) -> Any:
        """Handle the failure of the query; rows before the failure have been delivered.

        :param ex: a CouchbaseError: HTTPError, ViewEngineError (``objextra``: the errors inside of the
            answer), a network error; or the exception that a row processor or :meth:`on_rows` raised.
        """
        raise NotImplementedError("a subclass must override on_error")

    def on_done(self) -> Any:
        """Handle the end: all rows were delivered and the answer was complete."""
        raise NotImplementedError("a subclass must override on_done")

    def raise_include_docs(self) -> None:
        """Refuse include_docs, because fetching documents would block. Override this method if it is
        possible.

        :raises ArgumentError: always.
        """
        raise ArgumentError.pyexc("include_docs is not supported by asynchronous views")

    # ---- for the program -------------------------------------------------------------------------

    def start(self) -> Self:
        """Send the query, now or as soon as the connection is ready; return this object.

        No callback is made before this returns.

        :raises AlreadyQueriedError: a second call.
        """
        if self._raw is not None:
            raise AlreadyQueriedError.pyexc("this view was started before", obj=self)
        self._raw = HttpResult(done=False)
        self._handle = self._parent._start_view(self)
        return self

    def pause(self) -> None:
        """Stop reading from the node until :meth:`resume`; no callback is made in between.

        Only data that was already read stays buffered, so the node has to wait. The view timeout is
        suspended. (An addition to SDK 1.2.)
        """
        if not self._over:
            self._paused = True
            if self._handle is not None:
                self._handle.pause()

    def resume(self) -> None:
        """Continue after :meth:`pause`."""
        if self._paused and not self._over:
            self._paused = False
            if self._handle is not None:
                self._handle.resume()

    def stop(self) -> None:
        """Cancel the query: its connection is closed, and no more callbacks are made.

        (An addition to SDK 1.2.)
        """
        if not self._over:
            handle = self._handle
            self._end()
            if handle is not None:
                handle.stop()

    @property
    def paused(self) -> bool:
        """Whether the view is paused by :meth:`pause`."""
        return self._paused

    @property
    def meta(self) -> dict[str, Any]:
        """Members of the answer other than the rows (``total_rows``, ``errors``, ``debug_info`` ...).

        Members are added as they arrive, and are complete at on_done. (An addition to SDK 1.2.)
        """
        return self._reader.meta

    @property
    def indexed_rows(self) -> int:
        """``total_rows`` of the answer, as soon as it has been read; 0 for reduced rows."""
        return self._reader.total_rows or 0

    def __iter__(self) -> Iterator[Any]:
        """Refuse to iterate: rows are passed to callbacks.

        :raises NotImplementedError: always.
        """
        self._no_iteration()

    def _no_iteration(self) -> NoReturn:
        raise NotImplementedError("this view cannot be iterated; its rows are passed to callbacks")

    # ---- for the driver --------------------------------------------------------------------------

    def _answered(self, url: str, status: int) -> None:
        """Take the head of the answer."""
        raw = self._raw
        assert raw is not None
        raw._key, raw._http_status = url, status
        raw._value = {"rows": []}
        if not self._reader.is_new:
            # Another node answers again.
            self._reader = RowReader(self.row_form, getattr(self._parent, "_json_loads", None))

    def _received(self, data: bytes) -> Any:
        """Take bytes of a successful answer; return the result of on_rows.

        :raises Exception: to be passed to :meth:`_failed`.
        """
        rows = self._reader.feed(data)
        if not rows:
            return None
        self.rows_returned = self._reader.count
        held = self._held
        held += rows
        assert self._raw is not None
        least = self._raw.rows_per_call
        if least < 0 or len(held) < least:
            return None
        return self._hand_over()

    def _hand_over(self) -> Any:
        """Pass the held rows to on_rows; return its result."""
        rows: Any
        rows, self._held = self._held, []
        if self.row_form == "rows":
            rows = self.row_processor.handle_rows(rows, self._parent, self.include_docs)
        return self.on_rows(rows)

    def _last_rows(self) -> Any:
        """Pass the held rows to on_rows, however few; call this before the two methods below."""
        return self._hand_over() if self._held and not self._over else None

    def _finished(self) -> None:
        """End the view with its answer: call on_done, or on_error if the answer was cut off or carries
        errors."""
        if self._over:
            return
        try:
            self._reader.finish()
        except CouchbaseError as error:
            self._failed(error)
            return
        raw = self._raw
        assert raw is not None
        raw._value = {"rows": [], **self._reader.meta}
        raw._done = True
        failure = self._take_errors(raw._value if self._reader.rows_seen else self._reader.meta)
        self._end()
        if failure is not None:
            self.on_error(failure)
        else:
            self.on_done()

    def _cut(self, error: BaseException) -> None:
        """End the view whose connection was cut: with the error, unless the answer was complete."""
        try:
            self._reader.finish()
        except CouchbaseError:
            self._failed(error)
        else:
            self._finished()

    def _refused(self, url: str, status: int, body: bytes) -> None:
        """Take a whole answer whose status is not one of 200 to 299."""
        raw = self._raw
        assert raw is not None
        raw._key, raw._http_status, raw._done = url, status, True
        raw._value = decode_answer(body)
        try:
            raw._maybe_raise()
        except CouchbaseError as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """Call on_error, unless the view is over."""
        if not self._over:
            self._end()
            self.on_error(error)

    def _end(self) -> None:
        # A view that the program keeps must not keep the connection alive.
        self._over = True
        self._paused = False
        self._handle = self._parent = None
        self._held = []


def decode_answer(body: bytes) -> Any:
    """Decode an HTTP body: the value of its JSON, or its text if it is not JSON."""
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
