"""The headers of the dialect, each described once."""

from __future__ import annotations

from gateway.openapi.description import Parameter
from gateway.openapi.schemas import DURABILITY_LEVEL, TEXT, Schema, choice, text, whole

__all__ = ["ANSWERED", "EVERYWHERE", "FILE_TAG", "FILE_TAGS", "ONE_VERSION", "TAKEN", "UNDESCRIBED"]

_CAS: Schema = text(pattern=r'^(W/)?"?[0-9A-Fa-f]{1,16}"?$')
_CAS_DIGITS = r"(?!0+\b)[0-9A-Fa-f]{1,16}"
_TAG = rf'(W/)?("{_CAS_DIGITS}"|{_CAS_DIGITS})'
_ONE_TAG: Schema = text(pattern=rf"^{_TAG}$")
_TAGS: Schema = text(pattern=rf"^(\*|{_TAG}([ \t]*,[ \t]*{_TAG})*)$")
_OTHER_TAG = r'(W/)?("[!#-~]*"|[0-9A-Fa-f]{1,16})'
_OTHER_TAGS: Schema = text(pattern=rf"^(\*|{_OTHER_TAG}([ \t]*,[ \t]*{_OTHER_TAG})*)$")
_COPIES: Schema = whole(-1, 4)
_TERM = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|ms|s|m|h)"
_SECONDS: Schema = text("A duration, or seconds.", pattern=rf"^([0-9]{{1,6}}(\.[0-9]{{1,9}})?|({_TERM})+)$")
_DATE = (
    "(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3][0-9] (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    "[0-2][0-9]:[0-5][0-9]:[0-5][0-9] (GMT|UTC)"
)


def _table(*rows: Parameter) -> dict[str, Parameter]:
    return {row.name: row for row in rows}


TAKEN = _table(
    Parameter(
        "If-Match",
        "`*`, or a list of ETags: the operation applies to these versions only.",
        _TAGS,
    ),
    Parameter(
        "If-None-Match",
        "`*`, or a list of ETags: the operation applies to any other version.",
        _OTHER_TAGS,
    ),
    Parameter(
        "Expires",
        "When the document expires: an HTTP date, a duration such as `90s` or `1h30m`, or `0` for never.",
        text(pattern=rf"^({_DATE}|0?|({_TERM})+)$"),
        "1h30m",
    ),
    Parameter(
        "X-CB-TTL",
        "The expiry in seconds up to 2592000, above that as a Unix time; 0 for never. Not with `Expires`.",
        whole(0, 2**32 - 1),
    ),
    Parameter(
        "X-CB-DurabilityLevel",
        "The durability level that the write must reach before the cluster answers.",
        DURABILITY_LEVEL,
    ),
    Parameter(
        "X-CB-PersistTo",
        "Number of nodes that must have the write on disk, -1 for all.",
        _COPIES,
    ),
    Parameter(
        "X-CB-ReplicateTo",
        "Number of replicas that must have the write in memory, -1 for all.",
        _COPIES,
    ),
    Parameter(
        "X-CB-DurabilityTimeout", "How long to wait for copies or the durability level.", _SECONDS, "5s"
    ),
    Parameter(
        "X-CB-Timeout",
        "How long the request may take at the cluster, from `1ms` to `300s`: a duration, or seconds.",
        _SECONDS,
        "10s",
    ),
    Parameter(
        "X-CB-Flags",
        "The flags to store, instead of those that `Content-Type` sets.",
        whole(0, 2**32 - 1),
        33554432,
    ),
    Parameter(
        "Content-Encoding",
        "How the body is encoded; `snappy` for documents only: one block in its raw format.",
        choice("identity", "snappy"),
    ),
    Parameter("Accept-Encoding", "The codings that the client can decode.", TEXT, "gzip"),
    Parameter(
        "X-Request-Id",
        "The request's id, for the log and for errors: up to 64 letters, digits, `.`, `_`, `:`, `-`; "
        "another value is ignored.",
    ),
)  # fmt: skip
"""Request headers by name."""

ONE_VERSION = Parameter("If-Match", "One ETag.", _ONE_TAG)
"""``If-Match`` of operations that take exactly one version."""

FILE_TAG = Parameter("ETag", "Names this version of the page or file, in this coding.")
"""The validator of answers that are not documents."""

FILE_TAGS = Parameter("If-None-Match", "ETags of versions that the caller has.")
"""``If-None-Match`` for these answers."""

UNDESCRIBED = frozenset({"Authorization", "X-API-Key", "Accept", "Content-Type", "traceparent", "tracestate"})
"""Request headers that OpenAPI describes by other means (security schemes and media types), and those that
are set by instrumentation, not by programs."""

ANSWERED = _table(
    Parameter("ETag", "The document's CAS in hexadecimal.", _CAS, "18d2f3a4c5e60000"),
    Parameter("X-CB-Flags", "The document's flags.", whole(0, 2**32 - 1), 33554432),
    Parameter("Expires", "When the document expires; only if it does.", TEXT),
    Parameter("Cache-Control", "Whether a cache may keep the answer.", TEXT),
    Parameter(
        "X-CB-MutationToken",
        "`bucket:vbucket:vbuuid:seqno` of the change.",
        TEXT,
        "default:115:0a1b2c3d4e5f:7",
    ),
    Parameter("X-CB-TotalRows", "Number of rows in the view's index.", whole(0)),
    Parameter("X-CB-Revision", "The design document's revision, as counted by the node.", TEXT),
    Parameter("X-Request-Id", "The request's id, as in the log.", TEXT, required=True),
    Parameter("X-Accel-Buffering", "`no`: a proxy should forward the answer as it arrives.", TEXT),
    Parameter("Location", "The path of the created resource.", TEXT),
    Parameter("Content-Encoding", "The coding of the body.", TEXT),
    Parameter("Vary", "The request headers on which the answer depends.", TEXT),
    Parameter("Allow", "The methods of the resource.", TEXT),
    Parameter("WWW-Authenticate", "The accepted authentication schemes.", TEXT),
    Parameter("RateLimit-Policy", "Each rate limit: its quota `q`, and the window `w` in seconds.", TEXT),
    Parameter("RateLimit", "Each rate limit: `r` requests are left, and all again after `t` seconds.", TEXT),
    Parameter("Retry-After", "Seconds after which the request may be repeated.", whole(0)),
)
"""Response headers by name."""

EVERYWHERE = ("X-Request-Id",)
"""Headers that every request may have, and headers that every answer has."""
