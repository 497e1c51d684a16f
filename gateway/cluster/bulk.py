"""Separate connections for large operations, so that small ones need not wait behind them.

Operations of one (bucket, user) share a connection to each node, on which answers come one after the other:
behind a thousand documents of 20 MiB, a small one would wait for a minute. Batches, and operations on
documents known to be large, therefore use connections of their own. A *window* limits the bytes requested at
a time, so that the rest can still be cancelled; operations enter it in the order of their arrival.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from gateway.dialect.errors import Refusal
from reactor.window import Window
from txcouchbase.calls import Call
from txcouchbase.connection import Connection

__all__ = ["LARGE_BYTES", "LEAST_RATE", "LargeKeys", "Lane"]

LARGE_BYTES = 2**18
"""Size in bytes from which a document counts as large."""

LEAST_RATE = 2**20
"""Lowest assumed transfer rate of a document, in bytes a second."""

LANE_BYTES = 32 * 2**20
"""Limit in bytes on expected answers and sent values of all large operations of one (bucket, user) at a
time."""

KEYS_KEPT = 16384


class LargeKeys:
    """The most recent documents that were large when last seen.

    :ivar sizes: (bucket, or bucket/scope/collection; key) -> bytes.
    :param kept: largest number of entries.
    """

    def __init__(self, kept: int = KEYS_KEPT) -> None:
        self.sizes: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()
        self._kept = kept

    def note(self, name: tuple[bytes, bytes], size: int) -> None:
        """Record a document's size."""
        if size < LARGE_BYTES:
            self.sizes.pop(name, None)
            return
        self.sizes[name] = size
        self.sizes.move_to_end(name)
        if len(self.sizes) > self._kept:
            self.sizes.popitem(last=False)


def _too_many() -> Refusal:
    return Refusal("Overloaded", "Too many large documents are under way.")


class _Passage:
    """One large operation, waiting for the window or in it.

    If the client leaves, a sent operation keeps its place in the window until its answer has come.
    """

    def __init__(self, call: Call, leave: Callable[[], None]) -> None:
        self._call = call
        self._leave = leave
        self._ended = call.ended
        call.ended = self._is_over

    def _is_over(self, call: Call) -> None:
        if self._ended is not None:
            self._ended(call)
        self._leave()

    def abandon(self) -> None:
        """Cancel: the client is gone."""
        self._call.ended = self._ended
        self._call.give_up(self._leave)


class Lane:
    """The connection and the window for large operations of one (bucket, user).

    :param connect: makes a connection that is not connected yet; called at the first use, and again after a
        failure to connect.
    :param timeout: timeout of a small operation, in seconds.
    """

    def __init__(self, connect: Callable[[], Any], clock: IReactorTime, timeout: float) -> None:
        self.window = Window(LANE_BYTES, clock, _too_many)
        self.timeout = timeout
        self._connect = connect
        self._made: Any = None

    @property
    def connection(self) -> Any:
        """The connection for large operations."""
        made = self._made
        if made is None or made.closed:
            made = self._made = self._connect()
            made.connect().addErrback(self._failed, made)
        return made

    def _failed(self, _: object, made: Connection) -> None:
        # Its operations have failed with the reason; the next one tries again.
        if self._made is made:
            self._made = None
        made._close()

    def seconds_for(self, size: int) -> float:
        """Return how many seconds an operation on a document of ``size`` bytes may wait."""
        return self.timeout + size / LEAST_RATE

    def carry_out(
        self, size: int, begin: Callable[[Any], Any], seconds: float | None = None
    ) -> Deferred[Any]:
        """Carry out an operation on a large document when there is room for it.

        :param size: size of the document, in bytes.
        :param begin: called with the connection; works and returns like a handler.
        :param seconds: how long it may wait for room; ``None`` for :meth:`seconds_for` that size.
        :returns: fires with the running operation, as a handler returns it; fails with :class:`Refusal`
            (Overloaded) if there was no room in that time. Cancelling it is safe.
        """

        def leave() -> None:
            self.window.adjust(-size)

        def passed(outcome: Any) -> Any:
            leave()
            return outcome

        def enter(_: None) -> Any:
            try:
                under_way = begin(self.connection)
            except BaseException:
                leave()
                raise
            if isinstance(under_way, Deferred):
                return under_way.addBoth(passed)
            if not hasattr(under_way, "give_up") or under_way.done:
                return passed(under_way)
            return _Passage(under_way, leave)

        entered: Deferred[Any] = self.window.enter(
            size, self.seconds_for(size) if seconds is None else seconds
        )
        return entered.addCallback(enter)

    def ask(self, size: int, begin: Callable[[Any], Deferred[Any]]) -> Deferred[Any]:
        """Read documents of unknown or large size when there is room for them, however long that takes.

        :param size: their expected total size, in bytes.
        :param begin: called with the connection.
        :returns: fires as what ``begin`` returned. Cancelling it is safe: requests already sent keep their
            place in the window until their answers have come, which are dropped.
        """

        def enter(_: None) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()

            def passed(outcome: Any) -> None:
                self.window.adjust(-size)
                # Does nothing after a cancellation.
                answer.callback(outcome)

            maybeDeferred(lambda: begin(self.connection)).addBoth(passed)
            return answer

        if self.window.take(size):
            return enter(None)
        return self.window.enter(size, None).addCallback(enter)

    def close(self) -> None:
        """Drop the connection."""
        made, self._made = self._made, None
        if made is not None:
            made._close()
