"""The common base of connections in asynchronous packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, overload

from couchbase.asynchronous.view import AsyncViewBase
from couchbase.connection import Connection
from couchbase.exceptions import ArgumentError
from couchbase.signatures import (
    ConnectionOptions,
    DesignT,
    ExpiryT,
    OperationsT,
    OperationT,
    StatsT,
    SubdocsT,
    SubdocT,
    ValuesT,
    ValueT,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

AsyncViewT = TypeVar("AsyncViewT", bound=AsyncViewBase)


class Async(
    Connection[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, DesignT, SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, DesignT, SubdocT, SubdocsT],
):
    """Base of connections in an event loop: one thread, any number of concurrent operations.

    There is no lock (``LOCKMODE_NONE``), and no pipeline: operations that are started together are sent
    together anyway. A package for an event loop subclasses this class.

    :param iops: the event loop.
    :param kwargs: as for :class:`couchbase.connection.Connection`.
    :raises ValueError: no event loop was given.
    :raises NotImplementedError: this class itself was instantiated.
    """

    def __init__(self, iops: object = None, **kwargs: Unpack[ConnectionOptions]) -> None:
        if iops is None:
            raise ValueError("an asynchronous connection needs an event loop")
        if self._driver_type is Connection._driver_type:
            raise NotImplementedError("only a subclass, made for an event loop, can use one")
        self._iops = iops
        # False means no lock, regardless of lockmode.
        kwargs["unlock_gil"] = False
        super().__init__(**kwargs)

    @overload  # type: ignore[override]  # the class of the view must be given, and be another
    def query(
        self, design: str, view: str, use_devmode: bool, itercls: type[AsyncViewT], **kwargs: object
    ) -> AsyncViewT: ...

    @overload
    def query(
        self, design: str, view: str, use_devmode: bool = ..., *, itercls: type[AsyncViewT], **kwargs: object
    ) -> AsyncViewT: ...

    def query(
        self,
        design: str,
        view: str,
        use_devmode: bool = False,
        itercls: type[AsyncViewT] | None = None,
        **kwargs: object,
    ) -> AsyncViewT:
        """Return a view object; call its ``start`` to send the query.

        :param itercls: a subclass of AsyncViewBase.
        :param kwargs: arguments of the view.
        :raises TypeError: ``itercls`` is not a class.
        :raises ArgumentError: ``itercls`` is not a subclass of AsyncViewBase, or options are invalid.
        """
        if not isinstance(itercls, type):
            raise TypeError(f"itercls must be a subclass of AsyncViewBase, not {itercls!r}")
        if not issubclass(itercls, AsyncViewBase):
            raise ArgumentError.pyexc("itercls must be a subclass of AsyncViewBase", obj=itercls)
        return super().query(design, view, use_devmode, itercls, **kwargs)
