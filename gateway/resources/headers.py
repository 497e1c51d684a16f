"""A request on a document as the source of an operation's parameters: its headers and its body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from couchbase.protocol.constants import RELATIVE_EXPIRY_MAX
from gateway.dialect.conditions import (
    NO_CONDITION,
    Condition,
    Selective,
    check_encoding,
    one_version,
    parse_if_match,
    plain_tag,
    read_condition,
)
from gateway.dialect.contenttypes import flags_of
from gateway.dialect.encodings import inflated, inflated_bytes
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.expiry import expiry_from_expires, expiry_from_touch, expiry_from_ttl, parse_duration
from gateway.dialect.headers import Durability, parse_durability, parse_flags
from gateway.http.known import Known
from gateway.http.request import Request
from gateway.operations.kind import Words
from gateway.resources.base import asked_of, check_collection, note

__all__ = ["MUTATION_HEADERS", "NO_HEADERS", "WORDS", "MutationHeaders", "RequestSource", "read_mutation"]

_SNAPPY = b"snappy"

WORDS = Words(
    version="If-Match",
    told_as="the ETag",
    expiry="Expires needs",
    add="increment",
    subtract="decrement",
)


class MutationHeaders:
    """The headers of a mutation, as sent: looked up early, because a repeated header is refused before
    anything else; parsed later, because the Data API checks credentials and bucket before them.

    Requests with the same headers share an object, to which only parsed values are added later. A version in
    ``If-Match`` is another one each time, so it is not shared; see :meth:`of_version`.
    """

    cas: int | None = None
    """The CAS in ``if_match``, if that is one ETag as it was sent, and there is no other condition."""
    if_match: bytes | None = None
    if_none_match: bytes | None = None
    encoding: bytes | None = None
    expires: str | None = None
    ttl: str | None = None
    level: bytes | None = None
    persist_to: bytes | None = None
    replicate_to: bytes | None = None
    flags = 0

    _expiry: int | None = None
    _durability: Durability | None = None

    def __init__(self) -> None:
        self.forms: dict[str, Any] = {}
        """The operations for these headers; see :func:`gateway.resources.stores.form_of`."""

    def of_version(self, match: bytes) -> MutationHeaders:
        """Return the same headers with another version in ``If-Match``.

        If that is one ETag, both have the operations that were found for either.
        """
        found = object.__new__(MutationHeaders)
        found.__dict__.update(self.__dict__)
        found.if_match = match
        cas = found.cas = plain_tag(match) if self.if_none_match is None else None
        if cas is None:
            found.forms = {}
        return found

    def expiry(self, now: float) -> int | None:
        """Return the expiry in ``Expires`` or ``X-CB-TTL``, in the protocol's form; ``None`` if there is
        none.

        :param now: Unix time in seconds.
        :raises Refusal: 400.
        """
        if self._expiry is not None:
            return self._expiry
        if self.ttl is None:
            if self.expires is None:
                return None
            expiry = expiry_from_expires(self.expires, now)
            if expiry <= RELATIVE_EXPIRY_MAX or parse_duration(self.expires) is None:
                # A longer duration ends at a different time for each request; a date does not.
                self._expiry = expiry
            return expiry
        if self.expires is not None:
            raise bad_request("Expires and X-CB-TTL both set the expiry; send one of them")
        self._expiry = expiry_from_ttl(self.ttl)
        return self._expiry

    @property
    def has_condition(self) -> bool:
        """Whether the document is compared with versions."""
        return self.if_match is not None or self.if_none_match is not None

    @property
    def lasts(self) -> bool:
        """Whether the parsed values are the same for a later request."""
        return self._expiry is not None or self.expires is None

    def durability(self) -> Durability:
        """Return the requested durability; raises Refusal (400)."""
        if self._durability is None:
            self._durability = parse_durability(self.level, self.persist_to, self.replicate_to)
        return self._durability


def _of_flags(flags: int) -> MutationHeaders:
    found = MutationHeaders()
    found.flags = flags
    return found


NO_HEADERS = _of_flags(0)

_FLAGS = b"x-cb-flags"
# Header -> its attribute and its usual spelling, in the order in which they are checked.
_ATTRIBUTES = {
    spelling.lower(): (attribute, spelling)
    for attribute, spelling in (
        ("", b"X-CB-Flags"),
        ("if_match", b"If-Match"),
        ("if_none_match", b"If-None-Match"),
        ("encoding", b"Content-Encoding"),
        ("level", b"X-CB-DurabilityLevel"),
        ("persist_to", b"X-CB-PersistTo"),
        ("replicate_to", b"X-CB-ReplicateTo"),
        ("expires", b"Expires"),
        ("ttl", b"X-CB-TTL"),
    )
}
MUTATION_HEADERS = frozenset(_ATTRIBUTES)
"""The headers (lower case) that :func:`read_mutation` reads, in addition to the content type."""

_TEXTS = frozenset({"expires", "ttl"})
_IF_MATCH, _IF_NONE_MATCH = b"if-match", b"if-none-match"
_SHARED = tuple(MUTATION_HEADERS - {_IF_MATCH})
_A_VERSION = b""

# What was read before, by the content type alone, or with the values of all the headers, of which a version
# is replaced by another value.
_of_type: Known[bytes | None, MutationHeaders] = Known(256)
_known: Known[tuple[Any, ...], MutationHeaders] = Known(1024)
_LONGEST_KNOWN = 128


def read_mutation(request: Request) -> MutationHeaders:
    """Look up the headers of a mutation; raises Refusal (400) for repeated headers or invalid flags."""
    if request.query_string:
        request.query()
    selective = request.selective
    if selective is None:
        try:
            return _of_type[request.headers.get(b"content-type")]  # type: ignore[index]  # a list is caught
        except (KeyError, TypeError):
            return _by_type(request.header(b"Content-Type"))
    known: MutationHeaders | None = selective.mutation
    if known is None:
        return _read_selective(request, selective)
    if _IF_MATCH in selective.varying:
        # Not a list: a header whose values vary is given once.
        return known.of_version(request.headers[_IF_MATCH])  # type: ignore[arg-type]
    return known


def _by_type(declared: bytes | None) -> MutationHeaders:
    """Return the parsed headers of requests that have only a content type."""
    known = _of_type.get(declared)
    if known is None:
        known = _of_flags(0 if declared is None else flags_of(declared))
        if declared is None or len(declared) <= _LONGEST_KNOWN:
            _of_type.learn(declared, known)
    return known


def _read_selective(request: Request, selective: Selective) -> MutationHeaders:
    """Return the parsed headers, and leave what is the same for all requests with this head."""
    declared = request.header(b"Content-Type")
    if MUTATION_HEADERS.isdisjoint(selective.names):
        found = selective.mutation = _by_type(declared)
        return found
    headers = request.headers
    match: Any = headers.get(_IF_MATCH)
    is_version = type(match) is bytes and match != b"*"
    said = declared, _A_VERSION if is_version else match, *map(headers.get, _SHARED)
    try:
        known = _known.get(said)
    except TypeError:
        # A list: a header that is given twice, which is refused.
        known = None
    if known is None:
        known = _read_all(request, declared)
        if sum(len(value) for value in said if value is not None) <= _LONGEST_KNOWN:
            _known.learn(said, known)
    found = known.of_version(match) if is_version else known
    if _IF_NONE_MATCH not in selective.varying:
        selective.mutation = known if _IF_MATCH in selective.varying else found
    return found


def _read_all(request: Request, declared: bytes | None) -> MutationHeaders:
    found = MutationHeaders()
    flags = None
    for name, (attribute, spelling) in _ATTRIBUTES.items():
        if name not in request.headers:
            continue
        if name == _FLAGS:
            flags = request.header(spelling)
        elif attribute in _TEXTS:
            setattr(found, attribute, request.text_header(spelling))
        else:
            setattr(found, attribute, request.header(spelling))
    found.flags = flags_of(declared or b"") if flags is None else parse_flags(flags)
    return found


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

    # ---- the parameters --------------------------------------------------------------------------

    def condition(self) -> Condition:
        """Return the condition of ``If-Match`` and ``If-None-Match``."""
        headers = self._headers
        if headers.if_match is None and headers.if_none_match is None:
            return NO_CONDITION
        return read_condition(headers.if_match, headers.if_none_match)

    def version(self) -> int:
        """Return the CAS of ``If-Match``, which must be one ETag."""
        return one_version(parse_if_match(self._headers.if_match))

    def expiry(self, now: float) -> int | None:
        """Return the expiry in ``Expires`` or ``X-CB-TTL``."""
        return self._headers.expiry(now)

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
        return self._headers.durability()

    def look_at_value(self) -> None:
        """Refuse a body that is too large, or has an unsupported encoding."""
        self._request.check_size()
        check_encoding(self._headers.encoding, is_document=True)

    @property
    def is_encoded(self) -> bool:
        """Whether the size of the document differs from the size of the body."""
        return self._headers.encoding == _SNAPPY

    @property
    def value_bytes(self) -> int:
        """The size of the document in the body in bytes, if it is known; 0 if the body is invalid."""
        request = self._request
        if self._headers.encoding != _SNAPPY:
            return len(request.raw_body)
        try:
            return inflated_bytes(request.raw_body) if request.raw_body else 0
        except Refusal:
            return 0

    def value(self) -> tuple[bytes, int]:
        """Return the decompressed body; a collection that cannot exist is refused first, before the body is
        sent."""
        check_collection(self._request)
        body = self._request.body()
        return inflated(body) if self._headers.encoding == _SNAPPY else body, self._headers.flags

    def addition(self, how: str) -> bytes:
        """Return the body."""
        request = self._request
        if not request.body_is_awaited and not request.body():
            raise bad_request(f"the request has no body; expected the bytes to {how}")
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
        note(self._request, is_given, asked_of(self._request).durable)

    @property
    def durable(self) -> bool:
        """Whether it waits for copies, or for a durability level."""
        return asked_of(self._request).durable

    @durable.setter
    def durable(self, is_durable: bool) -> None:
        note(self._request, asked_of(self._request).cas_given, is_durable)
