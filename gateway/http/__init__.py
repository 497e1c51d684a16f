"""HTTP/1.1 for Klein apps.

    application = Application(app, reactor)
    application.routes_are_complete()
    endpoint.listen(ChannelFactory(application, reactor, Gate(reactor)))

serves any Klein app. Handlers that are declared with :func:`endpoint` and :func:`mount` take a
:class:`Request` and return a :class:`Response`; they are called directly. Every other handler is Klein's, and
is called as Klein does, with a request of twisted.web.
"""

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
