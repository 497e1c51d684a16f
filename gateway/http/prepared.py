"""Answers that are the same for all callers: compressed once, and with a validator."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterable
from hashlib import blake2b

from gateway.http.request import Request
from gateway.http.response import Headers, Response

__all__ = ["Prepared", "preparing"]

_LEVEL = 9
_GZIP = 31
"""Window size of zlib that adds the header of gzip."""
_STEP_BYTES = 32 * 1024


class Prepared:
    """A body with its content type, plain and compressed by gzip.

    The endpoint must declare that it takes ``If-None-Match``, if the application refuses undeclared headers.

    :param content_type: the content type.
    :param headers: further headers of each answer.
    :param compressed: the body compressed by gzip, if available; see :func:`preparing`.
    :ivar tag: entity tag of the body, without quotes.
    """

    def __init__(
        self, body: bytes, content_type: bytes, headers: Headers = (), compressed: bytes | None = None
    ) -> None:
        self.body = body
        self.compressed = gzip.compress(body, _LEVEL, mtime=0) if compressed is None else compressed
        self.tag = blake2b(body, digest_size=12).hexdigest().encode("ascii")
        self._content_type = (b"Content-Type", content_type)
        self._always = (
            (b"Vary", b"Accept-Encoding"),
            (b"X-Content-Type-Options", b"nosniff"),
            *headers,
        )

    def response(self, request: Request, caching: bytes = b"no-cache") -> Response:
        """Return the body, or 304 if the caller has it already.

        :param caching: the ``Cache-Control`` of the answer; by default caches ask each time whether their
            copy is still valid.
        """
        always = ((b"Cache-Control", caching), *self._always)
        is_compressed = takes_gzip(b",".join(request.header_values(b"Accept-Encoding")))
        # Each coding is another representation, so it has another strong validator (RFC 9110 8.8.3).
        tag = b'"%b%b"' % (self.tag, b"-gzip" if is_compressed else b"")
        known = b",".join(request.header_values(b"If-None-Match"))
        if known.strip() == b"*" or self.tag in known:
            return Response(304, [(b"ETag", tag), *always])
        headers = [self._content_type, (b"ETag", tag), *always]
        if is_compressed:
            return Response(200, [*headers, (b"Content-Encoding", b"gzip")], self.compressed)
        return Response(200, headers, self.body)


def preparing(
    parts: Iterable[bytes], content_type: bytes, headers: Headers = ()
) -> Generator[None, None, Prepared]:
    """Prepare a long body in steps; yields after each step.

    :param parts: parts of the body, each made in one step.
    """
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    plain = []
    packed = []
    for part in parts:
        for at in range(0, len(part), _STEP_BYTES):
            packed.append(packer.compress(part[at : at + _STEP_BYTES]))
            yield
        plain.append(part)
    packed.append(packer.flush())
    yield
    return Prepared(b"".join(plain), content_type, headers, b"".join(packed))


def takes_gzip(accepted: bytes) -> bool:
    """Return whether an ``Accept-Encoding`` names gzip, and does not refuse it."""
    for one in accepted.lower().split(b","):
        name, _, weight = one.partition(b";")
        if name.strip() in (b"gzip", b"x-gzip"):
            return weight.replace(b" ", b"").rstrip(b"0.") != b"q="
    return False
