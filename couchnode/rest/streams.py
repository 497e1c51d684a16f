"""Streams of configurations over HTTP: one document now, and one more with every change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

SEPARATOR = b"\n\n\n\n"
"""The separator that is sent after every document."""

STALLED_SECONDS = 30.0
"""How long a reader may leave its connection full before it is dropped."""


@implementer(IPushProducer)
class DocumentStream:
    """One client's stream.

    A slow reader costs one buffered document: while its connection is full, changes are only noted, and the
    newest document is sent when the reader has caught up. A reader that does not read for
    :data:`STALLED_SECONDS` is dropped; it will reconnect if it is alive.

    :param document: returns the document as it is now, ``None`` once there will be no more.
    :param on_end: called once, however the stream ends.
    """

    def __init__(
        self,
        request: Request,
        document: Callable[[], bytes | None],
        clock: IReactorTime,
        on_end: Callable[[DocumentStream], None],
    ) -> None:
        self._request = request
        self._document = document
        self._clock = clock
        self._on_end = on_end
        self._full = False
        self._newer = False
        self._stall: IDelayedCall | None = None
        self._last: bytes | None = None
        self._ended: Deferred[None] = Deferred(self._cancelled)
        self._over = False

    def start(self) -> Deferred[None]:
        """Send the first document.

        :returns: fires when the stream has ended and the response should be finished; cancel it when the
            connection is lost.
        """
        self._request.setHeader(b"content-type", b"application/json")
        self._request.registerProducer(self, True)
        self.refresh()
        return self._ended

    def refresh(self) -> None:
        """Check for a newer document, and send it as soon as the reader is ready."""
        if self._over:
            return
        document = self._document()
        if document is None:
            self.end()
        elif self._full:
            self._newer = True
        elif document != self._last:
            self._last = document
            # A write may call pauseProducing before it returns.
            self._request.write(document + SEPARATOR)

    def end(self) -> None:
        """End the stream properly; ending it again does nothing."""
        if not self._over:
            self._request.unregisterProducer()
            self._finish()
            self._ended.callback(None)

    def pauseProducing(self) -> None:
        """Pause: the connection is full."""
        self._full = True
        if self._stall is None:
            self._stall = self._clock.callLater(STALLED_SECONDS, self._drop)

    def resumeProducing(self) -> None:
        """Resume: the reader has caught up."""
        self._full = False
        self._stop_waiting()
        if self._newer:
            self._newer = False
            self.refresh()

    def stopProducing(self) -> None:
        """The connection is lost; Klein cancels the Deferred of :meth:`start`, which does the rest."""
        self._full = True

    def _drop(self) -> None:
        self._stall = None
        transport: Any = self._request.channel.transport
        transport.abortConnection()

    def _cancelled(self, ended: Deferred[None]) -> None:
        # The connection is lost, and with it the transport where this producer was registered.
        if not self._over:
            self._finish()

    def _finish(self) -> None:
        self._over = True
        self._stop_waiting()
        self._on_end(self)

    def _stop_waiting(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
