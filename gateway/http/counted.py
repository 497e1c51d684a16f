"""The end of a request, which is counted once, however it came."""

from __future__ import annotations

from typing import Any

from gateway.http.request import Request

__all__ = ["CountedRequest"]


class CountedRequest(Request):
    """A request that tells its application when it is over."""

    _channel: Any
    _is_over = False
    _status = 0

    def replaced(self) -> None:
        """Another one answers this request, and is counted for it."""
        self._is_over = True

    def all_sent(self) -> None:
        """The client's system has what was still to be sent."""
        self._over()

    def unsent(self) -> None:
        """The connection went before all of the answer was sent."""
        if not self._is_over:
            self.cut = self.cut or self._channel.cut_by
            self._over()

    def _over(self) -> None:
        """Be counted, if that has not happened yet."""
        if not self._is_over:
            self._is_over = True
            status = 499 if self.cut == "client" else self._status
            self.application.ended(self, status)
