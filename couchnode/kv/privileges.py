"""The privileges that commands need, and the checks for them.

One table, opcode -> privilege (management-rest reference, section 6.2). A connection whose user may do
everything has no :class:`Limits`, so these checks cost it nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from couchbase.protocol.constants import Opcode, Status
from couchnode.access.rights import (
    ADMINISTRATOR,
    COLLECTION_PRIVILEGES,
    DELETE,
    INSERT,
    META_WRITE,
    NAMES,
    RANGE_SCAN,
    READ,
    SIMPLE_STATS,
    STATS,
    UPSERT,
    BucketRights,
    Rights,
)
from couchnode.data.item import StatusError


class Needs(NamedTuple):
    """The privileges that a command needs.

    :ivar one_of: masks, one of which the user must have in full; empty for a command that needs no privilege.
    :ivar anywhere: a privilege on any collection suffices; otherwise it must be on the collection of the key,
        or, for commands without a key, on the whole bucket.
    """

    one_of: tuple[int, ...] = ()
    anywhere: bool = False


NOTHING = Needs()
_READS, _WRITES, _BOTH = Needs((READ,)), Needs((UPSERT,)), Needs((READ | UPSERT,))
_ANYTHING = Needs(
    (*(one for one in NAMES if one & COLLECTION_PRIVILEGES and one != READ), READ), anywhere=True
)

NEEDS: dict[Opcode, Needs] = {
    **dict.fromkeys(
        (
            Opcode.GET,
            Opcode.GETK,
            Opcode.GET_REPLICA,
            Opcode.GETEX,
            Opcode.GETEX_REPLICA,
            Opcode.GET_META,
            Opcode.GET_KEYS,
            Opcode.GET_LOCKED,
            Opcode.UNLOCK,
            Opcode.SUBDOC_GET,
            Opcode.SUBDOC_EXISTS,
            Opcode.SUBDOC_GET_COUNT,
            Opcode.SUBDOC_MULTI_LOOKUP,
            Opcode.GET_FAILOVER_LOG,
        ),
        _READS,
    ),
    **dict.fromkeys(
        (
            Opcode.SET,
            Opcode.REPLACE,
            Opcode.APPEND,
            Opcode.PREPEND,
            Opcode.TOUCH,
            Opcode.SUBDOC_DICT_ADD,
            Opcode.SUBDOC_DICT_UPSERT,
            Opcode.SUBDOC_DELETE,
            Opcode.SUBDOC_REPLACE,
            Opcode.SUBDOC_ARRAY_PUSH_LAST,
            Opcode.SUBDOC_ARRAY_PUSH_FIRST,
            Opcode.SUBDOC_ARRAY_INSERT,
            Opcode.SUBDOC_ARRAY_ADD_UNIQUE,
            Opcode.SUBDOC_MULTI_MUTATION,
            Opcode.SUBDOC_REPLACE_BODY_WITH_XATTR,
        ),
        _WRITES,
    ),
    **dict.fromkeys((Opcode.SET_WITH_META, Opcode.ADD_WITH_META, Opcode.DEL_WITH_META), Needs((META_WRITE,))),
    Opcode.ADD: Needs((INSERT, UPSERT)),
    Opcode.DELETE: Needs((DELETE,)),
    Opcode.INCREMENT: _BOTH,
    Opcode.DECREMENT: _BOTH,
    Opcode.GAT: _BOTH,
    Opcode.SUBDOC_COUNTER: _BOTH,
    Opcode.STAT: Needs((SIMPLE_STATS, STATS)),
    Opcode.OBSERVE_SEQNO: Needs((READ,), anywhere=True),
    # Couchbase Server leaves these to its cluster manager.
    Opcode.SEQNO_PERSISTENCE: Needs((ADMINISTRATOR,)),
    Opcode.VERBOSITY: Needs((ADMINISTRATOR,)),
    # These name their collections in extras or value: their handlers check the rest.
    **dict.fromkeys(
        (
            Opcode.OBSERVE,
            Opcode.GET_RANDOM_KEY,
            Opcode.RANGE_SCAN_CREATE,
            Opcode.GET_COLLECTION_ID,
            Opcode.GET_SCOPE_ID,
        ),
        _ANYTHING,
    ),
    # Only the client that created a scan, with the privilege, knows its id.
    **dict.fromkeys(
        (Opcode.RANGE_SCAN_CONTINUE, Opcode.RANGE_SCAN_CANCEL), Needs((RANGE_SCAN,), anywhere=True)
    ),
    **dict.fromkeys(
        (
            Opcode.HELLO,
            Opcode.SASL_LIST_MECHS,
            Opcode.SASL_AUTH,
            Opcode.SASL_STEP,
            Opcode.GET_ERROR_MAP,
            Opcode.SELECT_BUCKET,
            Opcode.LIST_BUCKETS,
            Opcode.GET_CLUSTER_CONFIG,
            Opcode.GET_MANIFEST,
            Opcode.NOOP,
            Opcode.VERSION,
            Opcode.QUIT,
            Opcode.FLUSH,
        ),
        NOTHING,
    ),
}
"""Opcode -> what it needs, without the quiet twins."""


class Limits(NamedTuple):
    """The rights in the bucket in use of a user who may not do everything.

    :ivar bucket: the privileges on it, and on its parts.
    :ivar general: the privileges that belong to no bucket.
    """

    bucket: BucketRights
    general: int

    def with_more(self, mask: int) -> Limits:
        """Return these limits with additional privileges on the whole bucket."""
        return Limits(self.bucket._replace(mask=self.bucket.mask | mask), self.general)

    def on(self, scope: str, collection: str) -> int:
        """Return the privileges on one collection."""
        return self.bucket.on(scope, collection) | self.general

    def shows(self, scope: str, collection: str) -> bool:
        """Return whether the user may know that a collection exists."""
        return bool(self.bucket.on(scope, collection) & COLLECTION_PRIVILEGES)

    def shows_scope(self, scope: str) -> bool:
        """Return whether the user may know that a scope exists."""
        return bool(self.bucket.on_scope(scope) & COLLECTION_PRIVILEGES)

    def require(self, needs: Needs, opcode: int) -> None:
        """Check a command that names no collection, or any command of a user without privileges in the
        bucket, for whom all collections are alike.

        :raises StatusError: EACCESS.
        """
        if needs.one_of:
            mask = self.bucket.anywhere() if needs.anywhere else self.bucket.mask
            self._require(needs.one_of, mask | self.general, opcode)

    def has(self, privilege: int, scope: str, collection: str) -> bool:
        """Return whether the user has a privilege on a collection."""
        return bool(self.on(scope, collection) & privilege)

    def require_on(self, one_of: tuple[int, ...], scope: str, collection: str, opcode: int) -> bool:
        """Check a command on a collection.

        :returns: false if the user may not know of the collection; answer as for a missing collection.
        :raises StatusError: EACCESS if the user has only other privileges on the collection.
        """
        if one_of:
            mask = self.on(scope, collection)
            if not any(mask & wanted == wanted for wanted in one_of) and not self.shows(scope, collection):
                return False
            self._require(one_of, mask, opcode)
        return True

    def _require(self, one_of: tuple[int, ...], mask: int, opcode: int) -> None:
        for wanted in one_of:
            if mask & wanted == wanted:
                return
        missing = one_of[-1] & ~mask
        raise lacks(missing & -missing, opcode)


def lacks(privilege: int, opcode: int) -> StatusError:
    """Return the error for a user who lacks a privilege."""
    return StatusError(
        Status.EACCESS,
        f"Authorization failure: can't execute {Opcode(opcode).name} operation without the "
        f"{NAMES[privilege]} privilege",
    )


NO_BUCKET = BucketRights(0, {})


def limits_of(rights: Rights, bucket: str | None) -> Limits | None:
    """Return a user's limits in a bucket (``None``: no bucket is selected); ``None`` for no limits."""
    if rights.has_all:
        return None
    return Limits(NO_BUCKET if bucket is None else rights.on_bucket(bucket), rights.global_privileges)
