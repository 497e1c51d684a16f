"""A request on a document as the source of an operation's parameters: its headers and its body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.dialect.conditions import (
    Condition,
    check_encoding,
    one_version,
    parse_if_match,
    read_condition,
)
from gateway.dialect.contenttypes import FLAGS_OF_TYPE, flags_of
from gateway.dialect.encodings import inflated, inflated_bytes
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.expiry import expiry_from_expires, expiry_from_touch, expiry_from_ttl
from gateway.dialect.headers import Durability, parse_durability, parse_flags
from gateway.http.request import Request
from gateway.operations.kind import Words
from gateway.resources.base import asked_of, check_collection, note

__all__ = ["NO_HEADERS", "WORDS", "MutationHeaders", "RequestSource", "read_mutation"]

_SNAPPY = b"snappy"

WORDS = Words(
    version="If-Match",
    told_as="the ETag",
    expiry="Expires needs",
    add="increment",
    subtract="decrement",
)


class MutationHeaders(NamedTuple):
    """The headers of a mutation, as sent: looked up early, because a repeated header is refused before
    anything else; parsed later, because the Data API checks credentials and bucket before them.
    """

    if_match: bytes | None
    if_none_match: bytes | None
    encoding: bytes | None
    expires: str | None
    ttl: str | None
    level: bytes | None
    persist_to: bytes | None
    replicate_to: bytes | None
    flags: int
    is_plain: bool = False
    """Whether there are no others than the flags and the expiry."""


def _of_flags(flags: int) -> MutationHeaders:
    return MutationHeaders(None, None, None, None, None, None, None, None, flags, True)


NO_HEADERS = _of_flags(0)
_NOT_PLAIN = [
    (name.lower(), name)
    for name in (
        b"If-Match",
        b"If-None-Match",
        b"Content-Encoding",
        b"X-CB-DurabilityLevel",
        b"X-CB-PersistTo",
        b"X-CB-ReplicateTo",
    )
]
_NONE_OF_THEM = [None] * len(_NOT_PLAIN)
_OF_TYPE: dict[bytes | None, MutationHeaders] = {
    declared: _of_flags(flags) for declared, flags in FLAGS_OF_TYPE.items()
}


def read_mutation(request: Request) -> MutationHeaders:
    """Look up the headers of a mutation; raises Refusal (400) for one given twice or bad flags."""
    request.query()
    header = request.header
    declared = header(b"Content-Type")
    if not request.is_selective:
        known = _OF_TYPE.get(declared)
        if known is None:
            known = NO_HEADERS if declared is None else _of_flags(flags_of(declared))
        return known
    # Most are absent, and to see that costs less than to look each of them up.
    given = request.headers
    flags = header(b"X-CB-Flags")
    others = [header(name) if lowered in given else None for lowered, name in _NOT_PLAIN]
    if_match, if_none_match, encoding, level, persist_to, replicate_to = others
    return MutationHeaders(
        if_match,
        if_none_match,
        encoding,
        request.text_header(b"Expires") if b"expires" in given else None,
        request.text_header(b"X-CB-TTL") if b"x-cb-ttl" in given else None,
        level,
        persist_to,
        replicate_to,
        flags_of(declared or b"") if flags is None else parse_flags(flags),
        others == _NONE_OF_THEM,
    )


class RequestSource:
    """A request's parameters for an operation.

    Its methods are those of :class:`gateway.operations.kind.Source`, its attributes those of
    :class:`gateway.operations.kind.Explained`.

    :param members: of the request's JSON body.
    """

    __slots__ = ("_headers", "_members", "_request")

    words = WORDS

    def __init__(
        self, request: Request, headers: MutationHeaders = NO_HEADERS, members: Mapping[str, object] = {}
    ) -> None:
        self._request = request
        self._headers = headers
        self._members = members

    # ---- what is asked ---------------------------------------------------------------------------

    def condition(self) -> Condition:
        """Return the condition of ``If-Match`` and ``If-None-Match``."""
        return read_condition(self._headers.if_match, self._headers.if_none_match)

    def version(self) -> int:
        """Return the CAS of ``If-Match``, which must be one ETag."""
        return one_version(parse_if_match(self._headers.if_match))

    def expiry(self, now: float) -> int | None:
        """Return the expiry in ``Expires`` or ``X-CB-TTL``."""
        headers = self._headers
        if headers.ttl is None:
            return None if headers.expires is None else expiry_from_expires(headers.expires, now)
        if headers.expires is not None:
            raise bad_request("Expires and X-CB-TTL both set the expiry; send one of them")
        return expiry_from_ttl(headers.ttl)

    def touched_expiry(self, now: float) -> int:
        """Return the expiry in ``X-CB-TTL`` or the member ``expiry``."""
        expiry = self._members.get("expiry")
        if self._headers.ttl is not None:
            if expiry is not None:
                raise bad_request("expiry and the header X-CB-TTL both set the expiry; send one of them")
            return expiry_from_ttl(self._headers.ttl)
        if not isinstance(expiry, str):
            raise bad_request("expiry: expected a string: a date, a duration as in '90s', or '' for none")
        return expiry_from_touch(expiry, now)

    def durability(self) -> Durability:
        """Return the durability in the headers."""
        headers = self._headers
        return parse_durability(headers.level, headers.persist_to, headers.replicate_to)

    def look_at_value(self) -> None:
        """Refuse a body that is too large, or compressed in an unknown way."""
        self._request.check_size()
        check_encoding(self._headers.encoding, is_document=True)

    @property
    def value_bytes(self) -> int:
        """The size of the document in the body, as far as it is known; 0 for an invalid one."""
        request = self._request
        if self._headers.encoding != _SNAPPY:
            return len(request.raw_body)
        try:
            return inflated_bytes(request.raw_body) if request.raw_body else 0
        except Refusal:
            return 0

    def value(self) -> tuple[bytes, int]:
        """Return the body, inflated; a collection that cannot exist is refused first, before the body is
        sent."""
        check_collection(self._request)
        body = self._request.body()
        return inflated(body) if self._headers.encoding == _SNAPPY else body, self._headers.flags

    def addition(self, how: str) -> bytes:
        """Return the body."""
        request = self._request
        if not request.body_is_awaited and not request.body():
            raise bad_request(f"the request has no body: there is nothing to {how}")
        check_collection(request)
        return request.body()

    # ---- what explains failures ------------------------------------------------------------------

    @property
    def operation(self) -> str:
        """The SDK's name of the operation carried out now."""
        return self._request.operation

    @operation.setter
    def operation(self, name: str) -> None:
        self._request.operation = name

    @property
    def cas_given(self) -> bool:
        """Whether it has a CAS."""
        return asked_of(self._request).cas_given

    @cas_given.setter
    def cas_given(self, is_given: bool) -> None:
        note(self._request, cas_given=is_given)

    @property
    def durable(self) -> bool:
        """Whether it waits for copies, or for a durability level."""
        return asked_of(self._request).durable

    @durable.setter
    def durable(self, is_durable: bool) -> None:
        note(self._request, durable=is_durable)
