"""Headers for conditions, expiry, durability, flags, encoding, parts: checks which ones an endpoint takes,
and evaluates conditions.

A header such as ``If-Match`` must never be ignored, since its sender relies on it. So each endpoint declares
the headers that it takes (``takes=`` of :func:`gateway.http.routing.endpoint`), and
:func:`check_taken` refuses the others on every resource. Batch lines have members instead of these headers
(:data:`MEMBERS`), and refuse unknown ones too.

Conditions on dates are ignored, as RFC 9110 13.1.3 and 13.1.4 require for resources without a modification
date; so are ``Range`` (optional by 14.2) and with it ``If-Range``. No endpoint takes ``Content-Range``, by
which a client writes a part (14.5): the part would replace the whole document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks

from couchbase.exceptions import CouchbaseError, NotFoundError
from couchbase.protocol.constants import Status
from gateway.dialect.errors import Refusal, bad_request
from gateway.http.refusal import FixedRefusal
from gateway.http.request import HeaderTable, Request

__all__ = [
    "CONDITIONS",
    "CREATE",
    "DURABILITY",
    "ENCODING",
    "EXCLUDED",
    "EXPIRY",
    "FLAGS",
    "MEMBERS",
    "NO_CONDITION",
    "PARTS",
    "SELECTIVE",
    "TIMEOUT",
    "Condition",
    "Selective",
    "Versions",
    "check_encoding",
    "check_taken",
    "compare_and_write",
    "one_version",
    "parse_if_match",
    "parse_if_none_match",
    "plain_tag",
    "read_condition",
    "select",
]

CONDITIONS = ("If-Match", "If-None-Match")
EXPIRY = ("Expires", "X-CB-TTL")
DURABILITY = ("X-CB-DurabilityLevel", "X-CB-PersistTo", "X-CB-ReplicateTo", "X-CB-DurabilityTimeout")
TIMEOUT = ("X-CB-Timeout",)
FLAGS = ("X-CB-Flags",)
ENCODING = ("Content-Encoding",)
PARTS = ("Content-Range",)

_NAMES = {
    name.lower().encode(): name
    for name in (*CONDITIONS, *EXPIRY, *DURABILITY, *TIMEOUT, *FLAGS, *ENCODING, *PARTS)
}

SELECTIVE = frozenset(_NAMES)
"""The headers (lower case) that an endpoint either takes or refuses."""

_CONDITIONS = frozenset(name.lower().encode() for name in CONDITIONS)
_LIMITS = frozenset({b"x-cb-timeout", b"x-cb-durabilitytimeout"})


class Selective:
    """The headers of :data:`SELECTIVE` that requests with the same head have, and what was read from them.

    :ivar names: their names, in lower case.
    :ivar taken_by: see :class:`gateway.http.ports.Selective`.
    :ivar varying: those of them whose values differ among these requests.
    :ivar has_condition: whether there is a condition.
    :ivar has_limit: whether there is a time limit.
    :ivar limits: the time limits, once they were read; see
        :func:`gateway.cluster.timelimits.limits_of`.
    :ivar mutation: the headers of a mutation, once they were read; see
        :func:`gateway.resources.headers.read_mutation`.
    """

    __slots__ = ("has_condition", "has_limit", "limits", "mutation", "names", "taken_by", "varying")

    def __init__(self, names: frozenset[bytes], varying: frozenset[bytes]) -> None:
        self.names = names
        self.varying = varying
        self.has_condition = not names.isdisjoint(_CONDITIONS)
        self.has_limit = not names.isdisjoint(_LIMITS)
        self.limits: Any = None
        self.taken_by: Any = None
        self.mutation: Any = None


def select(headers: HeaderTable, varying: Iterable[bytes] = ()) -> Selective | None:
    """Return the headers of :data:`SELECTIVE`; see :meth:`gateway.http.application.Application.select`."""
    names = SELECTIVE.intersection(headers)
    return Selective(names, names.intersection(varying)) if names else None


MEMBERS = {
    "If-Match": "cas",
    "Expires": "expires",
    "X-CB-TTL": "ttl",
    "X-CB-DurabilityLevel": "durabilityLevel",
    "X-CB-PersistTo": "persistTo",
    "X-CB-ReplicateTo": "replicateTo",
    "X-CB-DurabilityTimeout": "durabilityTimeout",
    "X-CB-Timeout": "timeout",
    "X-CB-Flags": "flags",
}
"""Header -> the batch member with the same meaning."""


def check_taken(request: Request) -> None:
    """Refuse the headers of :data:`SELECTIVE` that the request's endpoint does not take.

    :raises Refusal: 400, naming the header and those that the endpoint takes.
    """
    endpoint = request.endpoint
    if endpoint is None or endpoint.takes >= SELECTIVE.intersection(request.headers):
        return
    for name in _NAMES:
        if name in request.headers and name not in endpoint.takes:
            if name == b"content-encoding":
                # "identity" is the default.
                check_encoding(request.header(b"Content-Encoding"))
                continue
            taken = [shown for known, shown in _NAMES.items() if known in endpoint.takes]
            takes = "it takes " + ", ".join(taken) if taken else "it takes none"
            raise bad_request(
                f"{_NAMES[name]}: {request.method} does not take this header here; "
                f"of those for conditions, expiry, durability, flags, encoding and parts {takes}"
            )


def check_encoding(encoding: bytes | None, *, is_document: bool = False) -> None:
    """Refuse a compressed body; raises Refusal (400).

    :param is_document: whether it may be a Snappy block, as in the Data API.
    """
    if encoding is None or encoding == b"identity" or (is_document and encoding == b"snappy"):
        return
    takes = "it takes identity and snappy" if is_document else "send the body without encoding"
    raise bad_request(f"Content-Encoding: {encoding[:40].decode('latin-1')!r} is not supported here; {takes}")


# ---- entity tags ---------------------------------------------------------------------------------


class Versions(NamedTuple):
    """The versions of a document that a condition names."""

    named: frozenset[int]
    """CAS values."""
    is_any: bool = False
    """``*``: any existing version."""

    def has(self, cas: int) -> bool:
        """Return whether a document's version is one of them."""
        return self.is_any or cas in self.named


_ANY = Versions(frozenset(), True)

# A CAS as an entity tag, in the forms that clients return: bare as in our ETag, in quotes as RFC 9110
# requires, marked weak by a proxy that compressed the answer (nginx, Varnish), or followed by the name of the
# compression (Apache, Caddy). A comma or the end follows.
_TAG = re.compile(rb'(?:W/)?("?)([0-9A-Fa-f]{1,16})(?:--?(?:gzip|br|zstd|deflate))?\1[ \t]*(?=,|\Z)')
# The usual form: a single tag, not zero, as this gateway sends it.
_ONE_TAG = re.compile(rb'("?)((?=0*[1-9A-Fa-f])[0-9A-Fa-f]{1,16})\1')
_OTHER_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(?=,|\Z)')
# RFC 9110 5.6.1.2: empty list elements are ignored.
_BETWEEN = re.compile(rb"[ \t,]*")


def parse_if_match(value: bytes | None) -> Versions | None:
    """Read ``If-Match``: ``*`` or a list of ETags; ``None`` if it is absent.

    Tags marked weak count as strong ones: a proxy that compressed the answer marked them, and a CAS names the
    document in any encoding.

    :raises Refusal: 400 if a tag is not a CAS, as in the Data API.
    """
    return None if value is None else _parse(value, "If-Match", others=False)


def plain_tag(value: bytes) -> int | None:
    """Return the CAS of an ``If-Match`` that is one ETag as this gateway sends it; ``None`` for any other."""
    tag = _ONE_TAG.fullmatch(value)
    return None if tag is None else int(tag[2], 16)


def one_version(versions: Versions | None) -> int:
    """Return the CAS of an ``If-Match`` that must name exactly one; 0 if it is absent.

    :raises Refusal: 400 for ``*`` and for a list.
    """
    if versions is None:
        return 0
    if len(versions.named) != 1:
        raise bad_request("If-Match: here it takes one ETag, neither '*' nor a list")
    return min(versions.named)


def parse_if_none_match(value: bytes | None) -> Versions | None:
    """Read ``If-None-Match``: as :func:`parse_if_match`, but a tag that is not a CAS matches nothing."""
    return None if value is None else _parse(value, "If-None-Match", others=True)


def _parse(value: bytes, name: str, *, others: bool) -> Versions:
    if value == b"*":
        return _ANY
    one = _ONE_TAG.fullmatch(value)
    if one is not None:
        # The usual case.
        return Versions(frozenset((int(one[2], 16),)))
    named = set()
    tags = 0
    at = _end(_BETWEEN, value, 0)
    while at < len(value):
        tag = _TAG.match(value, at)
        if tag is not None and (others or int(tag[2], 16)):
            named.add(int(tag[2], 16))
        else:
            tag = _OTHER_TAG.match(value, at) if others else None
            if tag is None:
                break
        tags += 1
        at = _end(_BETWEEN, value, tag.end())
    if at < len(value) or not tags:
        raise bad_request(
            f"{name}: {value[:80].decode('latin-1')!r} is neither '*' nor a list of ETags, each "
            "of 1 to 16 hexadecimal digits, not zero, as this gateway sends them"
        )
    return Versions(frozenset(named))


def _end(pattern: re.Pattern[bytes], value: bytes, at: int) -> int:
    found = pattern.match(value, at)
    assert found is not None
    return found.end()


# ---- conditions of reads and writes --------------------------------------------------------------

_LOCKED_CAS = 2**64 - 1
"""The CAS that readers of a locked document get instead of the real one."""

ATTEMPTS = 10
"""Number of times that a version is read and compared before the write is given up."""


class Condition(NamedTuple):
    """The versions of a document to which a request applies."""

    match: Versions | None = None
    none_match: Versions | None = None

    def cas(self) -> int | None:
        """Return the CAS with which the cluster can check the condition.

        0 if there is no condition; ``None`` if the version has to be read and compared first.
        """
        match, none_match = self
        if match is None or match.is_any:
            return 0 if none_match is None else None
        if len(match.named) != 1 or (none_match is not None and none_match.has(min(match.named))):
            return None
        return min(match.named)

    def check_read(self, cas: int) -> bool | FixedRefusal:
        """Return whether to send the version that was read: false if the caller has it (304), a refusal (412)
        if ``If-Match`` is false."""
        match, none_match = self
        if match is not None and not (match.is_any or cas in match.named):
            return _NOT_THE_VERSION
        return none_match is None or not (none_match.is_any or cas in none_match.named)

    def check_write(self, cas: int) -> None:
        """Check that a version may be changed.

        :raises Refusal: 409 CasMismatch if ``If-Match`` is false (the Data API's code), 412 if
            ``If-None-Match`` is false, 409 DocumentLocked if the version is hidden.
        """
        match, none_match = self
        if none_match is not None and none_match.is_any and (match is None or match.is_any):
            raise _exists()
        if cas == _LOCKED_CAS:
            raise Refusal("DocumentLocked")
        if match is not None and not match.has(cas):
            raise Refusal("CasMismatch")
        if none_match is not None and none_match.has(cas):
            raise Refusal("PreconditionFailed", "The document is a version that If-None-Match excludes.")


EXCLUDED = FixedRefusal("PreconditionFailed", "The document exists, which If-None-Match: * excludes.")
"""The refusal if a document exists that must not exist. To be returned, not raised."""


def _exists() -> Refusal:
    return Refusal("PreconditionFailed", EXCLUDED.message)


NO_CONDITION = Condition()
CREATE = Condition(None, _ANY)
"""The condition that the document must not exist."""

_NOT_THE_VERSION = FixedRefusal("PreconditionFailed", "The document is not a version that If-Match names.")


def read_condition(if_match: bytes | None, if_none_match: bytes | None) -> Condition:
    """Read both headers; raises Refusal (400)."""
    if if_match is None and if_none_match is None:
        return NO_CONDITION
    return Condition(parse_if_match(if_match), parse_if_none_match(if_none_match))


@inlineCallbacks
def compare_and_write(
    read: Callable[[], Deferred[Any]],
    condition: Condition,
    write: Callable[[int], Deferred[Any]],
    create: Callable[[], Deferred[Any]] | None = None,
) -> Any:
    """Read a version, compare it, and write with its CAS, for conditions that the cluster cannot check.

    So the write changes the version that was compared. If another write happens in between, the comparison is
    repeated.

    :param read: reads the document.
    :param write: ``write(cas)`` changes that version.
    :param create: stores a new document; ``None`` if the operation needs an existing one.
    :returns: Deferred of the result.
    :raises Refusal: the condition is false; 503 if the document changed each of :data:`ATTEMPTS` times.
    """
    is_create = create is not None and condition == CREATE
    for _ in range(ATTEMPTS):
        try:
            # If the document must not exist, it is not read: the write reports whether it exists.
            found = None if is_create else (yield read())
        except NotFoundError:
            if create is None or condition.match is not None:
                raise
            found = None
        try:
            if found is None:
                assert create is not None
                return (yield create())
            condition.check_write(found.cas)
            return (yield write(found.cas))
        except CouchbaseError as error:
            if is_create and error.status == Status.KEY_EEXISTS:
                raise _exists() from None
            # These are a node's answers if the version was replaced; other errors are passed to the caller.
            if error.status not in (Status.KEY_EEXISTS, Status.KEY_ENOENT, Status.NOT_STORED):
                raise
    raise Refusal(
        "TemporarilyUnavailable",
        f"The document changed {ATTEMPTS} times while its version was compared; nothing was written.",
    )
