"""The connection of SDK 1.2 for gevent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import gevent

from couchbase.asynchronous.connection import Async
from couchbase.blocking import http
from couchbase.connection import Connection
from couchbase.signatures import ConnectionOptions
from couchbase.views.iterator import HandlesRows, PlainOptions, RowT, View
from gcouchbase.calls import GCall
from gcouchbase.driver import GDriver

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["GConnection", "GCouchbase", "GView"]


class GView(View[RowT]):
    """A query that is sent on creation; iterate over it, once, for its rows.

    Takes View's arguments, ``include_docs`` too; streaming is always on.

    :raises ArgumentError: wrong options.
    """

    def _prepare(self) -> None:
        self._streaming = True
        self._opening: Any = gevent.spawn(self._parent._driver.begin_view, self.request(self._parent.bucket))

    def __del__(self) -> None:
        opening = getattr(self, "_opening", None)
        if opening is None:
            return
        try:
            open_ = not opening.ready()
        except RuntimeError:
            return  # The interpreter is exiting, and its greenlets are gone: there is nothing left to close.
        if open_:
            opening.kill(block=False)
        elif opening.successful() and isinstance(opening.value, http.Stream):
            opening.value.close()


ViewT = TypeVar("ViewT", bound=GView)


class GConnection(Async):
    """A connection whose operations let other greenlets run while they wait.

    Has the methods, results and exceptions of :class:`couchbase.connection.Connection`, and takes the same
    keywords. Any number of greenlets of one thread may use one connection at a time: operations of one round
    of gevent's hub are sent together, on one socket for each node. No monkey-patching is needed. The
    constructor waits until it has a cluster map, and raises the same exceptions as Connection.

    Differences from Connection: ``lockmode`` is always ``LOCKMODE_NONE`` and ``unlock_gil`` false; a pipeline
    raises PipelineError on entry; multi operations return an AsyncResult, which is a MultiResult;
    :meth:`query` returns a :class:`GView`. If a greenlet is killed, or its ``gevent.Timeout`` expires, its
    operation is cancelled; a mutation that was already sent may still be executed.
    """

    _driver_type = GDriver
    _request_type = GCall
    _member_type = GCall

    def __init__(self, **kwargs: Unpack[ConnectionOptions]) -> None:
        super().__init__(gevent.get_hub(), **kwargs)

    @overload  # type: ignore[override]  # other views than Async's, with a default as Connection has one
    def query(
        self,
        design: str,
        view: str,
        use_devmode: bool = ...,
        *,
        row_processor: HandlesRows[RowT],
        **kwargs: Unpack[PlainOptions],
    ) -> GView[RowT]: ...

    @overload
    def query(
        self,
        design: str,
        view: str,
        use_devmode: bool = ...,
        *,
        row_processor: None = ...,
        **kwargs: Unpack[PlainOptions],
    ) -> GView: ...

    @overload
    def query(
        self, design: str, view: str, use_devmode: bool, itercls: type[ViewT], **kwargs: object
    ) -> ViewT: ...

    @overload
    def query(
        self, design: str, view: str, use_devmode: bool = ..., *, itercls: type[ViewT], **kwargs: object
    ) -> ViewT: ...

    def query(
        self,
        design: str,
        view: str,
        use_devmode: bool = False,
        itercls: type[Any] = GView,
        **kwargs: object,
    ) -> Any:
        """Send a query, and return the view object to iterate over.

        :param design: name of the design document.
        :param view: name of the view in it.
        :param use_devmode: put ``dev_`` before the name of the design document, unless it is there already.
        :param itercls: a subclass of GView; anything else counts as GView.
        :param kwargs: its other arguments: ``query``, or options by name; ``include_docs``,
            ``row_processor``.
        :raises ArgumentError: wrong options.
        """
        if not (isinstance(itercls, type) and issubclass(itercls, GView)):
            itercls = GView
        return Connection.query(self, design, view, use_devmode, itercls, **kwargs)


GCouchbase = GConnection
"""The class's name in SDK 1.2's README."""
