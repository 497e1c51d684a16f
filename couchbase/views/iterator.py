"""Views: their queries, their answers, and the processing of rows."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, Generic, NamedTuple, Protocol
from urllib.parse import quote

from couchbase.exceptions import PROTOCOL_ERROR, ArgumentError, CouchbaseError, ViewEngineError, error_of
from couchbase.result import HttpResult
from couchbase.views.params import Query, QueryOptions, make_dvpath

if TYPE_CHECKING:
    from typing_extensions import Unpack

MAX_URI_LENGTH = 2048
"""A longer path, query string included, turns the query into a POST."""


class AlreadyQueriedError(CouchbaseError):
    """The view was queried before; make a new view to query again."""


class ViewRow(NamedTuple):
    """One row of a view."""

    key: Any
    value: Any
    docid: str | None
    """Id of the document that emitted the row; ``None`` for reduced rows."""
    doc: Any
    """Result with the document, if documents were requested."""


class ReadsDocuments(Protocol):
    """An object that fetches the documents of rows: a connection."""

    def get_multi(self, keys: list[str], *, quiet: bool) -> Any:
        """Read many documents; a missing one is not an error."""


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    RowT = TypeVar("RowT", default=ViewRow)
    MadeT = TypeVar("MadeT", covariant=True, default=Any)
else:
    from typing import TypeVar

    RowT = TypeVar("RowT")
    MadeT = TypeVar("MadeT", covariant=True)


class HandlesRows(Protocol[MadeT]):
    """An object that can replace a :class:`RowProcessor`."""

    def handle_rows(self, rows: Iterable[Any], connection: Any, include_docs: bool, /) -> Iterable[MadeT]:
        """Return the view's output for some rows, in their order."""


class RowProcessor:
    """Turns decoded rows into a view's output.

    Any object with a ``handle_rows`` like this one's can take its place.

    :param rowclass: called with ``(key, value, docid, doc)`` for each row.
    """

    def __init__(self, rowclass: Callable[..., Any] = ViewRow) -> None:
        self.rowclass = rowclass

    def handle_rows(
        self, rows: Iterable[Any], connection: ReadsDocuments, include_docs: bool
    ) -> Iterable[Any]:
        """Return the view's output for some rows, in their order.

        :param rows: decoded rows, dicts with ``key``, ``value`` and (unless reduced) ``id``.
        :param connection: the connection given to the view.
        :param include_docs: fetch the rows' documents, with one ``get_multi``.
        :raises CouchbaseError: ProtocolError, an object is not a row of a view.
        """
        rowclass = self.rowclass
        try:
            if include_docs:
                return self._with_documents(list(rows), connection)
            if rowclass is ViewRow:
                # The hot path: twice as fast as calling the class.
                new = tuple.__new__
                return [new(ViewRow, (row["key"], row["value"], row.get("id"), None)) for row in rows]
            fields = [(row["key"], row["value"], row.get("id"), None) for row in rows]
        except (KeyError, TypeError, AttributeError) as error:
            raise error_of(PROTOCOL_ERROR, "a row without key or value", inner_cause=error) from error
        return [rowclass(*row) for row in fields]

    def _with_documents(self, rows: list[Any], connection: ReadsDocuments) -> list[Any]:
        ids = dict.fromkeys(row["id"] for row in rows if row.get("id") is not None)
        documents = connection.get_multi(list(ids), quiet=True) if ids else {}
        made = []
        for row in rows:
            docid = row.get("id")
            document = documents.get(docid)
            if document is None:
                warnings.warn(f"no document came for the row of {docid!r}", RuntimeWarning, stacklevel=3)
            made.append(self.rowclass(row["key"], row["value"], docid, document))
        return made


class ViewRequest(NamedTuple):
    """The HTTP request of a view query."""

    method: str
    path: str
    """With its query, encoded."""
    body: bytes | None
    """JSON, for a POST."""


class PlainOptions(QueryOptions, total=False):
    """Arguments of a view by name, except the row processor; its query's options are among them."""

    streaming: bool
    include_docs: bool
    query: Query | dict[str, Any] | str | None


class ViewOptions(PlainOptions, total=False):
    """All arguments of a view by name."""

    row_processor: HandlesRows | None


class View(Generic[RowT]):
    """A query of one view.

    Iterating or starting the view sends the query.

    :param parent: the connection.
    :param design: name of the design document.
    :param view: name of the view.
    :param row_processor: turns rows into the view's output; a :class:`RowProcessor` by default.
    :param streaming: deliver rows as they arrive.
    :param include_docs: fetch the document of each row.
    :param query: a Query, a dict or a query string; it is copied.
    :param params: options of the Query, instead of ``query``.
    :raises ArgumentError: wrong options, ``query`` together with ``params``, or ``include_docs`` with a query
        that reduces.
    """

    # Many parameters: SDK 1.2's arguments of a view.
    def __init__(
        self,
        parent: Any,
        design: str,
        view: str,
        row_processor: HandlesRows[RowT] | None = None,
        streaming: bool = False,
        include_docs: bool = False,
        query: Query | dict[str, Any] | str | None = None,
        **params: Unpack[QueryOptions],
    ) -> None:
        for name, value in (("design", design), ("view", view)):
            if not isinstance(value, str) or not value:
                raise ArgumentError.pyexc(f"{name} must be a str that is not empty", obj=value)
        if query is not None and params:
            raise ArgumentError.pyexc(
                "options must be given either by query or by name, not both", obj=params
            )
        self._parent = parent
        self.design = design
        self.view = view
        self.row_processor: HandlesRows[RowT] = RowProcessor() if row_processor is None else row_processor
        self._streaming = bool(streaming)
        self.include_docs = include_docs
        self._query = Query.from_any(dict(params) if query is None else query)
        if include_docs and _reduces(self._query):
            raise ArgumentError.pyexc(
                "include_docs cannot be used with reduced rows, which belong to no document"
            )
        self.errors: list[Any] = []
        """Errors inside the answer, as the view engine sent them."""
        self.rows_returned = 0
        """Number of rows received so far."""
        self._raw: HttpResult | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Set up the additional state of a kind of view."""

    @property
    def query(self) -> Query:
        """The options."""
        return self._query

    @property
    def streaming(self) -> bool:
        """Whether rows are delivered as they arrive."""
        return self._streaming

    @property
    def raw(self) -> HttpResult | None:
        """The HttpResult of the query; ``None`` until it was sent."""
        return self._raw

    @property
    def indexed_rows(self) -> int:
        """``total_rows`` of the answer: how many rows the index holds; 0 for reduced rows."""
        value = self._raw.value if self._raw is not None else None
        total = value.get("total_rows") if isinstance(value, dict) else None
        return total if isinstance(total, int) else 0

    def request(self, bucket: str) -> ViewRequest:
        """Return the request to send: a GET, or a POST if the URI would be too long.

        :param bucket: name of the bucket.
        """
        path = _path_of(bucket, self.design, self.view)
        encoded = self._query.encoded
        if len(path) + len(encoded) <= MAX_URI_LENGTH:
            return ViewRequest("GET", path + encoded, None)
        encoded, body = self._query._long_query_encoded
        return ViewRequest("POST", path + encoded, body.encode())

    def __iter__(self) -> Iterator[RowT]:
        """Send the query and yield the row processor's output, once.

        :raises AlreadyQueriedError: (at the first row) a second time.
        """
        return iter(self._parent._iterate_view(self))

    def _take_errors(self, answer: dict[str, Any]) -> CouchbaseError | None:
        """Record the errors inside an answer, and return the exception to raise for them, or for an answer
        that has no rows either.

        With ``on_error='continue'`` they become warnings, and ``None`` is returned.
        """
        found = answer.get("errors")
        if not found and "error" in answer:
            found = {name: answer[name] for name in ("error", "reason") if name in answer}
        if not found:
            if "rows" not in answer:
                return error_of(PROTOCOL_ERROR, "the answer of the view engine has neither rows nor errors")
            return None
        errors = found if isinstance(found, list) else [found]
        self.errors.extend(errors)
        message = f"the view engine reported {len(errors)} errors: {json.dumps(errors)[:500]}"
        if self._query._sent.get("on_error") == "continue":
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return None
        return ViewEngineError.pyexc(message, obj=errors)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}<Design={self.design}, View={self.view}, Query={self._query!r}, "
            f"Rows Fetched={self.rows_returned}>"
        )


@lru_cache(maxsize=128)
def _path_of(bucket: str, design: str, view: str) -> str:
    return f"/{quote(bucket, safe='')}/{make_dvpath(design, view)}"


def _reduces(query: Query) -> bool:
    sent = query._sent
    return sent.get("reduce") == "true" or sent.get("group") == "true" or sent.get("group_level", "0") != "0"
