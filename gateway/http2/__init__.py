"""HTTP/2 for the applications of :mod:`gateway.http`: other frames, the same requests and answers."""

from gateway.http2.server import HTTP2

__all__ = ["HTTP2"]
