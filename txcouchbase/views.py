"""Views for Twisted programs: rows arrive as the node sends them, no faster than they are consumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload
from weakref import WeakMethod

from twisted.internet.defer import Deferred, fail

from couchbase.arguments import check_seconds
from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import ArgumentError, CouchbaseError
from couchbase.views.iterator import HandlesRows, ViewOptions
from couchbase.views.params import Query, QueryOptions, with_devmode
from txcouchbase.http import HttpService
from txcouchbase.viewstream import ViewStream

if TYPE_CHECKING:
    from typing import Concatenate

    from typing_extensions import Unpack

__all__ = [
    "DEFAULT_TIMEOUT_SECONDS",
    "AsyncViewBase",
    "BatchedView",
    "ViewMethods",
    "json_loads",
]

AsyncViewT = TypeVar("AsyncViewT", bound=AsyncViewBase)
P = ParamSpec("P")

DEFAULT_TIMEOUT_SECONDS = 75.0

json_loads: Callable[[bytes], Any] | None
try:
    import orjson
except ImportError:  # PyPy
    json_loads = None
else:
    json_loads = orjson.loads


class BatchedView(AsyncViewBase):
    """The result of queryAll: a view with all its rows; iterate over it any number of times."""

    def _prepare(self) -> None:
        super()._prepare()
        self._rows: list[Any] = []
        self._deferred: Deferred[BatchedView] | None = None

    def whole(self) -> Deferred[BatchedView]:
        """Start, and return a Deferred of this view with all its rows; cancelling it stops the view.

        :raises AlreadyQueriedError: the view was started before.
        """
        deferred: Deferred[BatchedView] = Deferred(lambda _: self.stop())
        self._deferred = deferred
        self.start()
        return deferred

    def on_rows(self, rowiter: Iterable[Any], /) -> None:
        """Keep the rows."""
        self._rows.extend(rowiter)

    def on_done(self) -> None:
        """Fire the Deferred."""
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            deferred.callback(self)

    def on_error(self, ex: BaseException, /) -> None:
        """Fail the Deferred."""
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            deferred.errback(ex)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class ViewMethods:
    """queryEx and queryAll of a connection."""

    _bucket: str | None
    _client: Any
    _http: HttpService
    _json_loads = staticmethod(json_loads) if json_loads is not None else None
    _views_timeout = DEFAULT_TIMEOUT_SECONDS

    def _ready(self) -> Deferred[None]:
        raise NotImplementedError

    @property
    def views_timeout(self) -> float:
        """Timeout of a request to the view engine without progress, in seconds: 75 by default.

        Counts until the answer begins and between its pieces, but not while a view is paused.
        """
        return self._views_timeout

    @views_timeout.setter
    def views_timeout(self, value: float) -> None:
        self._views_timeout = check_seconds("views_timeout", value)

    @overload
    def queryEx(
        self, viewcls: Callable[Concatenate[Any, P], AsyncViewT], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncViewT: ...

    @overload
    def queryEx(
        self, viewcls: type[AsyncViewT], *args: object, use_devmode: bool, **kwargs: object
    ) -> AsyncViewT: ...

    def queryEx(  # type: ignore[misc]  # use_devmode is not handed to the view
        self, viewcls: Callable[..., Any], *args: object, use_devmode: bool = False, **kwargs: object
    ) -> Any:
        """Make ``viewcls(self, design, view, ...)``, start it now or once connected, and return it.

        No callback of the view is made before this returns. In addition to AsyncViewBase, on_rows may return
        a Deferred or a coroutine: nothing more is read until it is done, and its failure ends the view like
        an exception of on_rows.

        :param viewcls: a subclass of AsyncViewBase.
        :param use_devmode: put ``dev_`` before the name of the design document, unless it is there already.
        :raises TypeError: ``viewcls`` is something else.
        :raises ArgumentError: wrong options.
        """
        if not (isinstance(viewcls, type) and issubclass(viewcls, AsyncViewBase)):
            raise TypeError(f"viewcls must be a subclass of AsyncViewBase, not {viewcls!r}")
        return self._made(viewcls, args, use_devmode, kwargs).start()

    @overload
    def queryAll(
        self, design: str, view: str, *, use_devmode: bool = ..., **kwargs: Unpack[ViewOptions]
    ) -> Deferred[BatchedView]: ...

    # Many parameters: SDK 1.2's arguments of a view.
    @overload
    def queryAll(
        self,
        design: str,
        view: str,
        row_processor: HandlesRows | None,
        streaming: bool = ...,
        include_docs: Literal[False] = ...,
        query: Query | dict[str, Any] | str | None = ...,
        *,
        use_devmode: bool = ...,
        **kwargs: Unpack[QueryOptions],
    ) -> Deferred[BatchedView]: ...

    def queryAll(self, *args: object, use_devmode: bool = False, **kwargs: object) -> Deferred[BatchedView]:
        """Return a Deferred of a BatchedView with all rows.

        Takes View's arguments, from ``design`` on. Cancelling stops the query.
        It fails with HTTPError, ViewEngineError, ArgumentError, or a network error.
        """
        try:
            view: BatchedView = self._made(BatchedView, args, use_devmode, kwargs)
        except CouchbaseError as error:
            # Through its traceback the error would keep the connection alive as long as the program keeps the
            # error.
            return fail(error.with_traceback(None))
        return view.whole()

    def _made(
        self, viewcls: type[Any], args: tuple[object, ...], use_devmode: bool, options: dict[str, object]
    ) -> Any:
        if use_devmode:
            if args:
                args = (with_devmode(args[0]), *args[1:])
            elif "design" in options:
                options = {**options, "design": with_devmode(options["design"])}
        return viewcls(self, *args, **options)

    def _start_view(self, view: AsyncViewBase) -> ViewStream:
        if self._bucket is None:
            raise ArgumentError.pyexc("this connection has no bucket, so it has no views", obj=view)
        stream = ViewStream(self._http, view, view.request(self._bucket), self._views_timeout)
        # In a later turn, so that no callback is made inside of queryEx. The view keeps the connection alive
        # while it runs; a timer must not, as a reactor may hold one that has fired.
        self._client.reactor.callLater(0, stream.begin, WeakMethod(self._ready))
        return stream
