"""HTTP/2 for the applications of :mod:`gateway.http`: the same requests and answers in HTTP/2 frames."""

from gateway.http2.server import HTTP2

__all__ = ["HTTP2"]
