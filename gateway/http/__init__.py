"""HTTP/1.1 for Klein apps.

    application = Application(app, reactor)
    application.routes_are_complete()
    endpoint.listen(ChannelFactory(application, reactor, Gate(reactor)))

serves any Klein app. Handlers that are declared with :func:`endpoint` and :func:`mount` take a
:class:`Request` and return a :class:`Response`; they are called directly. All other handlers are called by
Klein as usual, with a request of twisted.web.

Names are loaded on first use: programs that need only the gateway's errors do not load Klein.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.http.application import Application
    from gateway.http.channel import HTTPChannel
    from gateway.http.factory import ChannelFactory
    from gateway.http.limits import Limits
    from gateway.http.refusal import Refusal, declare, no_route
    from gateway.http.request import Request
    from gateway.http.response import RenderedResponse, Response, json_response
    from gateway.http.routing import Endpoint, endpoint, mount
    from reactor.gate import Gate

__all__ = [
    "Application",
    "ChannelFactory",
    "Endpoint",
    "Gate",
    "HTTPChannel",
    "Limits",
    "Refusal",
    "RenderedResponse",
    "Request",
    "Response",
    "declare",
    "endpoint",
    "json_response",
    "mount",
    "no_route",
]

_HOMES = {
    "Application": "gateway.http.application",
    "ChannelFactory": "gateway.http.factory",
    "Endpoint": "gateway.http.routing",
    "Gate": "reactor.gate",
    "HTTPChannel": "gateway.http.channel",
    "Limits": "gateway.http.limits",
    "Refusal": "gateway.http.refusal",
    "RenderedResponse": "gateway.http.response",
    "Request": "gateway.http.request",
    "Response": "gateway.http.response",
    "declare": "gateway.http.refusal",
    "endpoint": "gateway.http.routing",
    "json_response": "gateway.http.response",
    "mount": "gateway.http.routing",
    "no_route": "gateway.http.refusal",
}


def __getattr__(name: str) -> Any:
    """Load a name of the package on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
