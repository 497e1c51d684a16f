"""The end of a request, which is counted exactly once."""

from __future__ import annotations

from typing import Any

from gateway.http.request import Request

__all__ = ["CountedRequest"]


class CountedRequest(Request):
    """A request that notifies its application when it is over."""

    _channel: Any
    _is_over = False
    _status = 0

    def replaced(self) -> None:
        """Note that another request object answers this one, and is counted in its place."""
        self._is_over = True

    def all_sent(self) -> None:
        """Count the request: the client's system has received everything."""
        self._over()

    def unsent(self) -> None:
        """Count the request as cut off: the connection was lost before all of the answer was sent."""
        if not self._is_over:
            self.cut = self.cut or self._channel.cut_by
            self._over()

    def _over(self) -> None:
        """Count the request, if it was not counted yet."""
        if not self._is_over:
            self._is_over = True
            status = 499 if self.cut == "client" else self._status
            self.application.ended(self, status)
