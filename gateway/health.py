"""``/health`` and ``/ready``, for supervisors and load balancers."""

from __future__ import annotations

from collections.abc import Callable

from gateway.request import Request
from gateway.response import Response, json_response
from gateway.routing import endpoint

__all__ = ["Health"]

_NO_STORE = ((b"Cache-Control", b"no-store"),)


class Health:
    """Liveness and readiness.

    :param is_ready: returns ``None`` if documents can be served, else one line that tells why not.
    """

    def __init__(self, is_ready: Callable[[], str | None]) -> None:
        self._is_ready = is_ready

    @endpoint("health", "GET", "/health")
    def health(self, request: Request) -> Response:
        """The process answers: 200, always."""
        return json_response({"status": "ok"}, headers=_NO_STORE)

    @endpoint("ready", "GET", "/ready")
    def ready(self, request: Request) -> Response:
        """200 if documents can be served, else 503 with the reason."""
        reason = self._is_ready()
        if reason is None:
            return json_response({"status": "ready"}, headers=_NO_STORE)
        return json_response({"status": "unavailable", "reason": reason}, 503, _NO_STORE)
