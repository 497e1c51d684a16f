"""SDK 1.2's methods that query views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote

from couchbase.result import HttpResult
from couchbase.views.iterator import HandlesRows, PlainOptions, RowT, View
from couchbase.views.params import Query, make_dvpath, with_devmode

if TYPE_CHECKING:
    from typing_extensions import Unpack

ViewT = TypeVar("ViewT")


class ViewCommands:
    """``query`` and ``_view``."""

    _bucket: Any
    _driver: Any

    @overload
    def query(
        self,
        design: str,
        view: str,
        use_devmode: bool = ...,
        *,
        row_processor: HandlesRows[RowT],
        **kwargs: Unpack[PlainOptions],
    ) -> View[RowT]: ...

    @overload
    def query(
        self,
        design: str,
        view: str,
        use_devmode: bool = ...,
        *,
        row_processor: None = ...,
        **kwargs: Unpack[PlainOptions],
    ) -> View: ...

    @overload
    def query(
        self, design: str, view: str, use_devmode: bool = False, *, itercls: type[ViewT], **kwargs: object
    ) -> ViewT: ...

    @overload
    def query(
        self, design: str, view: str, use_devmode: bool, itercls: type[ViewT], **kwargs: object
    ) -> ViewT: ...

    def query(
        self, design: str, view: str, use_devmode: bool = False, itercls: type[Any] = View, **kwargs: object
    ) -> Any:
        """Return a view object to iterate over; the iteration sends the query.

        :param design: name of the design document.
        :param view: name of the view in it.
        :param use_devmode: put ``dev_`` before the name of the design document, unless it is there already.
        :param itercls: class of the object, :class:`couchbase.views.iterator.View` or similar.
        :param kwargs: its other arguments: ``query``, or options by name; ``streaming``, ``include_docs``,
            ``row_processor``.
        :raises ArgumentError: wrong options.
        """
        return itercls(self, with_devmode(design) if use_devmode else design, view, **kwargs)

    def _view(
        self,
        ddoc: str,
        view: str,
        use_devmode: bool = False,
        params: Query | dict[str, Any] | str | None = None,
        unrecognized_ok: bool = False,
        passthrough: bool = False,
    ) -> HttpResult:
        """Send one request to a view and return the answer, decoded, without a row object.

        :param params: query string, dict or Query.
        :raises HTTPError: a status outside 200..299.
        """
        if isinstance(params, dict):
            params = Query(passthrough=passthrough, unrecognized_ok=unrecognized_ok, **params)
        query = Query.from_any({} if params is None else params)
        below = make_dvpath(with_devmode(ddoc) if use_devmode else ddoc, view)
        result: HttpResult = self._driver.view_once(f"/{quote(self._bucket, safe='')}/{below}{query.encoded}")
        return result

    def _iterate_view(self, view: View) -> Any:
        """Send a view's query and yield the row processor's output.

        :raises AlreadyQueriedError: it was sent before.
        :raises HTTPError: a status outside 200..299.
        :raises ViewEngineError: errors inside of the answer, unless the query has on_error=continue.
        """
        return self._driver.iterate_view(view, self)
