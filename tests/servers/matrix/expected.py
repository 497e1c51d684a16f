"""Expected outcomes of each row on each server: the only source for the tests and for docs/servers.md.

A row that is not mentioned here works.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from tests.servers.matrix.rows import WORKS, Found, Outcome, Row
from tests.servers.versions import FEATURES

MOCK_ONE, MOCK_FOUR, GOCAVES = "CouchbaseMock, 1 node", "CouchbaseMock, 4 nodes", "gocaves"
VERSIONS = tuple(FEATURES)
PROGRAMS = (MOCK_ONE, MOCK_FOUR, GOCAVES)
"""Servers of other projects: what is sent to them cannot be observed."""
COUCHNODE = "couchnode"
"""The node that comes along."""
SERVERS = (COUCHNODE, *VERSIONS, *PROGRAMS)

_LEVELS = ("* durability_level", "* X-CB-DurabilityLevel", "* durabilityLevel")
_OBSERVED = (
    "observe*", "endure*", "* persist_to", "* replicate_to",
    "GET D/observe*", "POST D/endure*", "* X-CB-PersistTo", "* X-CB-ReplicateTo",
    "* persistTo", "* replicateTo", "*/batch observe", "*/batch endure",
)  # fmt: skip
_OF_REPLICAS = ("get replica", "get_multi replica", "rget*", "GET D ?replica", "*/batch get_replica")
_KEPT = (
    "set preserve_expiry",
    "replace preserve_expiry",
    "PUT D without an expiry",
    "*/batch set without an expiry",
)
_SHOWN = ("get_with_expiry", "GET D of one that expires")


class Limit(NamedTuple):
    """Rows that do not work on some servers."""

    servers: tuple[str, ...]
    rows: tuple[str, ...]
    """Patterns, as of file names, of the rows' texts."""
    outcome: Outcome
    reasons: tuple[str, ...]
    """The missing part, or the names of the errors that show it: the SDK's class, the gateway's code."""
    note: str
    """A sentence for the page."""


LIMITS = (
    Limit(
        ("5.0", "6.0", MOCK_ONE, MOCK_FOUR), _LEVELS, Outcome.REFUSED, ("NotSupportedError", "NotSupported"),
        "Durability levels need Couchbase Server 6.5. The write is not sent: NotSupportedError, 501"
        " `NotSupported`.",
    ),
    Limit(
        (MOCK_ONE, MOCK_FOUR), _SHOWN, Outcome.PARTLY, ("its expiry is not shown", "`Expires` is not shown"),
        "The document is read, but its expiry is always 0, because CouchbaseMock has no virtual attributes.",
    ),
    Limit(
        (MOCK_ONE, MOCK_FOUR), _KEPT, Outcome.PARTLY, ("the expiry is not kept",),
        "The document is stored, but loses its expiry, because CouchbaseMock does not report the expiry.",
    ),
    Limit(
        ("5.0", "6.0", "6.6", MOCK_ONE, MOCK_FOUR), ("mutate_in preserve_expiry",), Outcome.REFUSED,
        ("NotSupportedError",),
        "A mutation of paths that keeps the expiry needs Couchbase Server 7.0. It is not sent:"
        " NotSupportedError.",
    ),
    Limit(
        ("5.0", "6.0", "6.6", "7.0", MOCK_FOUR, GOCAVES), ("lookup_in* replica",), Outcome.REFUSED,
        ("NotSupportedError",),
        "Reading paths from replicas needs Couchbase Server 7.6. It is not sent: NotSupportedError.",
    ),
    Limit(
        (MOCK_ONE,), (*_OF_REPLICAS, "lookup_in* replica"), Outcome.LACKS,
        ("CouchbaseTransientError", "InvalidArgument"),
        "The bucket has no replicas on this server: CouchbaseTransientError, 400 `InvalidArgument`.",
    ),
    Limit(
        (MOCK_ONE,), ("* replicate_to", "* X-CB-ReplicateTo", "* replicateTo"),
        Outcome.LACKS, ("ArgumentError", "DurabilityImpossible"),
        "The bucket has no replicas on this server: ArgumentError, 400 `DurabilityImpossible`, and nothing is"
        " stored.",
    ),
    Limit(
        ("5.0", "6.0", "6.6", MOCK_ONE, MOCK_FOUR), ("scope*", "collection_*"), Outcome.LACKS,
        ("NotSupportedError",),
        "Scopes and collections need Couchbase Server 7.0: NotSupportedError.",
    ),
    Limit(
        ("5.0", "6.0", "6.6", MOCK_ONE, MOCK_FOUR), ("GET */scopes",), Outcome.REFUSED, ("NotSupported",),
        "Scopes and collections need Couchbase Server 7.0: 501 `NotSupported`.",
    ),
    Limit(
        PROGRAMS, ("GET */documents", "scan*"), Outcome.REFUSED,
        ("NotSupportedError", "NotSupported"),
        "Listings need range scans (Couchbase Server 7.6) or lists of keys (earlier versions):"
        " NotSupportedError, 501 `NotSupported`.",
    ),
    Limit(
        (MOCK_ONE, MOCK_FOUR), ("user*", "group*", "roles_get", "change_password"), Outcome.LACKS,
        ("HTTPError",),
        "CouchbaseMock does not manage users.",
    ),
    Limit(
        (GOCAVES,), ("group*", "change_password"), Outcome.LACKS, ("HTTPError",),
        "gocaves has users, but no groups.",
    ),
    Limit(
        (GOCAVES,), _OBSERVED, Outcome.LACKS, ("NotSupportedError", "NotSupported"),
        "gocaves does not support OBSERVE: NotSupportedError, 501 `NotSupported`. A write that waits for"
        " copies has already been executed, so its error is `ambiguous`.",
    ),
    Limit(
        (GOCAVES,), ("POST D/lock",), Outcome.LACKS, ("DocumentLocked",),
        "The document is locked, but `PUT` with its ETag is refused unless it sets an expiry: to keep the"
        " expiry, the gateway has to read it, and gocaves does not allow this for a locked document.",
    ),
    Limit(
        (GOCAVES,), ("query*", "GET */views/*", "POST */views/*"), Outcome.PARTLY, ("no rows come",),
        "gocaves accepts design documents and queries, but never returns rows.",
    ),
)  # fmt: skip


def limit_of(server: str, row: Row) -> Limit | None:
    """Return what a row does not do on a server; ``None`` if it works."""
    text = str(row)
    fitting = [
        limit
        for limit in LIMITS
        if server in limit.servers and any(fnmatchcase(text, pattern) for pattern in limit.rows)
    ]
    assert len(fitting) <= 1, f"{row} on {server}: more than one limit"
    return fitting[0] if fitting else None


def differences(server: str, found: dict[Row, Found]) -> list[str]:
    """Return each row with an unexpected outcome on a server, with both outcomes."""
    wrong = []
    for row, what in found.items():
        limit = limit_of(server, row)
        if limit is None:
            fits = what == WORKS
        else:
            wanted = limit.outcome
            if server in PROGRAMS and wanted is Outcome.REFUSED:
                wanted = Outcome.LACKS
            fits = what.outcome is wanted and what.reason in limit.reasons
        if not fits:
            expected = f"{limit.outcome.value} {limit.reasons}" if limit else WORKS
            wrong.append(f"{row}: {what}; expected: {expected}")
    return wrong
