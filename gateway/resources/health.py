"""``/live``, ``/health`` and ``/ready``, for supervisors and load balancers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from couchbase.protocol.version import VERSION
from gateway.http.request import Request
from gateway.http.response import Response, json_response
from gateway.http.routing import endpoint
from gateway.openapi.description import JSON, Answer, Example, described
from gateway.openapi.schemas import text, thing

__all__ = ["CheckReady", "Health"]

CheckReady = Callable[[], "Deferred[str | None]"]

_NO_STORE = ((b"Cache-Control", b"no-store"),)
_UNKEPT = ("Cache-Control",)


class Health:
    """Liveness and readiness.

    :param is_ready: returns a Deferred of ``None`` if documents can be served, else of one line with the
        reason.
    """

    def __init__(self, is_ready: CheckReady) -> None:
        self._is_ready = is_ready

    @endpoint("live", "GET", "/live")
    @described(
        "Operations",
        {200: Answer("It answers.", {JSON: thing({"status": text()}, "status")}, _UNKEPT)},
        credentials=False,
        examples=(Example("Always", answer={"status": "alive"}),),
    )
    def live(self, request: Request) -> Response:
        """Answer 200, always: the process and its reactor run, whatever the cluster does."""
        return json_response({"status": "alive"}, headers=_NO_STORE)

    @endpoint("health", "GET", "/health")
    @described(
        "Operations",
        {
            200: Answer(
                "It answers.", {JSON: thing({"status": text(), "version": text()}, "status version")}, _UNKEPT
            )
        },
        credentials=False,
        examples=(Example("Always"),),
    )
    def health(self, request: Request) -> Response:
        """Answer 200, always, with the version."""
        return json_response({"status": "ok", "version": VERSION}, headers=_NO_STORE)

    @endpoint("ready", "GET", "/ready")
    @described(
        "Operations",
        {
            200: Answer("It can.", {JSON: thing({"status": text()}, "status")}, _UNKEPT),
            503: Answer(
                "It cannot.", {JSON: thing({"status": text(), "reason": text()}, more=True)}, _UNKEPT
            ),
        },
        credentials=False,
        examples=(Example("It can", answer={"status": "ready"}),),
    )
    def ready(self, request: Request) -> Deferred[Response]:
        """Answer 200 if documents can be served, else 503 with the reason."""
        return self._is_ready().addCallback(_readiness)


def _readiness(reason: str | None) -> Response:
    if reason is None:
        return json_response({"status": "ready"}, headers=_NO_STORE)
    return json_response({"status": "unavailable", "reason": reason}, 503, _NO_STORE)
