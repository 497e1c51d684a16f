"""What handlers see of a request. Nothing here knows of a transport.

A channel makes a :class:`Request` and hands it to the dispatcher; tests make one by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from gateway.errors import bad_request, too_large
from gateway.jsontools import loads

if TYPE_CHECKING:
    from gateway.credentials import Credentials
    from gateway.routing import Endpoint, Handler

__all__ = ["BodyReader", "BodyStream", "Request", "decode_percent", "parse_query"]

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")


class BodyReader(Protocol):
    """Who takes a streamed body."""

    def body_received(self, data: bytes) -> None:
        """Take the next part."""

    def body_finished(self) -> None:
        """The body is complete."""

    def body_lost(self) -> None:
        """The client is gone, or its chunked coding is broken; nothing more will come."""


class BodyStream(Protocol):
    """A body that has not been read yet."""

    def deliver_to(self, reader: BodyReader) -> None:
        """Begin reading into ``reader``. Parts that arrived already are delivered at once."""

    def pause(self) -> None:
        """Stop reading from the client until :meth:`resume`."""

    def resume(self) -> None:
        """Go on reading."""


def decode_percent(raw: bytes, what: str) -> bytes:
    """Undo percent-encoding, once.

    :param what: what the bytes are, for the error message.
    :raises Refusal: 400 for a broken escape, a raw control byte, or bytes that are not UTF-8.
    """
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise bad_request(
                f"{what}: '%' must be followed by two hexadecimal digits; '%25' stands for itself"
            )
        decoded = unquote_to_bytes(raw)
    else:
        decoded = raw
        if raw.isalnum():
            return raw
    if _CONTROL.search(raw):
        raise bad_request(f"{what}: control signs and blanks must be percent-encoded")
    try:
        decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request(f"{what}: after percent-decoding it must be UTF-8") from None
    return decoded


def parse_query(raw: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """Read a query string.

    :raises Refusal: 400 for a parameter that is unknown here or given twice, or bad encoding.
    """
    parameters: dict[str, str] = {}
    for pair in raw.split(b"&"):
        if not pair:
            continue
        name_bytes, _, value = pair.partition(b"=")
        name = decode_percent(name_bytes.replace(b"+", b"%20"), "query").decode("utf-8")
        if name not in allowed:
            takes = "it takes " + ", ".join(sorted(allowed)) if allowed else "it takes none"
            raise bad_request(f"unknown query parameter {name[:80]!r}; {takes}")
        if name in parameters:
            raise bad_request(f"query parameter {name!r} is given twice")
        decoded = decode_percent(value.replace(b"+", b"%20"), f"query parameter {name!r}")
        parameters[name] = decoded.decode("utf-8")
    return parameters


_NO_PARAMETERS: dict[str, str] = {}


class Request:
    """One request, parsed as far as every handler needs it.

    :param method: upper-case name.
    :param path: as sent, without the query, still percent-encoded.
    :param query_string: as sent, without ``?``.
    :param header_values: gives every value of a header, by its name in any case.
    :param body: the whole body of a buffered request, ``b""`` for a streamed one.
    :param body_limit: bytes the body may have; 0 for a streamed one.
    :param body_too_large: the body has more than that; it was not kept.
    :param stream: the body of a streamed request.
    """

    __slots__ = (
        "body_limit",
        "body_too_large",
        "caller",
        "cas_given",
        "durable",
        "endpoint",
        "handler",
        "header_values",
        "id",
        "method",
        "operation",
        "parameters",
        "path",
        "query_string",
        "raw_body",
        "started",
        "stream",
    )

    def __init__(
        self,
        method: str,
        path: bytes,
        query_string: bytes,
        header_values: Callable[[bytes], Sequence[bytes] | None],
        body: bytes = b"",
        *,
        body_limit: int = 0,
        body_too_large: bool = False,
        stream: BodyStream | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.header_values = header_values
        self.raw_body = body
        self.body_limit = body_limit
        self.body_too_large = body_too_large
        self.stream = stream
        # Filled by the dispatcher:
        self.parameters: dict[str, bytes] = {}
        self.endpoint: Endpoint | None = None
        self.handler: Handler | None = None
        self.id = ""
        self.started = 0.0
        # Filled by the handler, for whoever has to explain a failure:
        self.caller: Credentials | None = None
        self.operation = ""
        self.cas_given = False
        self.durable = False

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header, ``None`` if it is absent.

        :raises Refusal: 400 if it is given more than once: the values might contradict.
        """
        values = self.header_values(name)
        if not values:
            return None
        if len(values) > 1:
            raise bad_request(f"{name.decode('ascii')}: the header is given {len(values)} times")
        return values[0]

    def text_header(self, name: bytes) -> str | None:
        """Return the value of a header that may hold ASCII only."""
        value = self.header(name)
        if value is None:
            return None
        try:
            return value.decode("ascii")
        except UnicodeDecodeError:
            raise bad_request(f"{name.decode('ascii')}: the value must be ASCII") from None

    def query(self, allowed: frozenset[str] = frozenset()) -> dict[str, str]:
        """Return the query's parameters; see :func:`parse_query`."""
        if not self.query_string:
            return _NO_PARAMETERS
        return parse_query(self.query_string, allowed)

    def body(self) -> bytes:
        """Return the whole body.

        :raises Refusal: 413 if it is over the limit.
        """
        if self.body_too_large:
            raise too_large(f"the request body has more than {self.body_limit} bytes")
        return self.raw_body

    def json_object(self, members: frozenset[str], *, required: bool = True) -> dict[str, Any]:
        """Return the body as a JSON object.

        :param members: the names it may have.
        :param required: whether a body must be there; ``{}`` stands for an absent one.
        :raises Refusal: 400 if it is not JSON, no object, or has other members; 413.
        """
        body = self.body()
        if not body and not required:
            return {}
        takes = "a JSON object with " + ", ".join(sorted(members))
        if not body:
            raise bad_request(f"the request has no body; it takes {takes}")
        try:
            value = loads(body)
        except ValueError:
            raise bad_request(f"the body is not JSON; it takes {takes}") from None
        if not isinstance(value, dict):
            raise bad_request(f"the body is JSON but no object; it takes {takes}")
        for name in value:
            if name not in members:
                raise bad_request(f"the body has an unknown member {name[:80]!r}; it takes {takes}")
        return value
