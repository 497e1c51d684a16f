"""A request that passed its checks, and what it is about: the collection of its key, and privileges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import Status
from couchbase.protocol.frames import Frame
from couchbase.protocol.leb128 import decode_leb128
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import Item, StatusError
from couchnode.data.keys import DEFAULT_PREFIX, longest_key
from couchnode.data.manifest import DEFAULT_ID, Collection
from couchnode.data.vbucket import VBucket
from couchnode.kv.session import Session

Answer = Union[bytes, "Deferred[bytes]", None]
"""An encoded response, a Deferred of one, or ``None``."""


class CommandRequest:
    """A request that passed its checks.

    ``collection`` is the one that the key is in, for commands with a key; ``key`` is then the held key, as
    vbuckets take it (:mod:`couchnode.data.keys`). ``level`` is the durability level (0 for none) and
    ``timeout`` its time limit in seconds, if one was given. ``limits`` is what the user may do for whom the
    request is: the connection's, or another one that is named in it; ``None`` if everything.
    """

    __slots__ = (
        "bucket",
        "collection",
        "frame",
        "key",
        "level",
        "limits",
        "preserve_expiry",
        "session",
        "timeout",
        "vbucket",
    )

    bucket: NodeBucket
    collection: Collection
    vbucket: VBucket

    def __init__(self, session: Session, frame: Frame) -> None:
        self.session = session
        self.frame = frame
        self.key = frame.key
        self.level = 0
        self.limits = session.limits
        self.timeout: float | None = None
        self.preserve_expiry = False

    def durable(self) -> bool:
        """Return whether the write has to be prepared and wait for other copies, at the level of the request
        or the bucket's least one.

        :raises StatusError: the level is not possible here and now.
        """
        level = self.level = max(self.level, self.bucket.min_level)
        return level != 0 and self.bucket.check_durability(self.vbucket, level)

    def finish(self, item: Item, durable: bool, answer: Callable[[], bytes]) -> Answer:
        """Answer a mutation; a prepared one is answered after its commit."""
        if not durable:
            return answer()
        settled = self.bucket.settle(self.vbucket, item, self.level, self.timeout)
        return settled.addCallback(lambda _: answer())


def resolve_key(session: Session, bucket: NodeBucket, key: bytes) -> tuple[Collection, bytes]:
    """Return the collection that the key of a request is in, and the key under which vbuckets hold it.

    :raises StatusError: EINVAL for a bad length or prefix, UNKNOWN_COLLECTION for one that is not in the
        manifest.
    """
    number, size = DEFAULT_ID, len(DEFAULT_PREFIX)
    if not session.collections:
        key = DEFAULT_PREFIX + key
    else:
        try:
            number, size = decode_leb128(key)
        except ValueError as fault:
            raise StatusError(Status.EINVAL, f"the collection id of the key: {fault}") from fault
        if size == len(key):
            raise StatusError(Status.EINVAL, "the key holds a collection id and nothing else")
    longest = longest_key(number)
    if not 0 < len(key) - size <= longest:
        raise StatusError(
            Status.EINVAL,
            f"a key in collection 0x{number:x} has 1 to {longest} bytes, not {len(key) - size}",
        )
    return find_collection(bucket, number), key


def find_collection(bucket: NodeBucket, number: int) -> Collection:
    """Return the collection of that id.

    :raises StatusError: UNKNOWN_COLLECTION: it is not in the manifest.
    """
    collection = bucket.collections.by_id.get(number)
    if collection is None:
        raise _unknown_collection(bucket, number)
    return collection


def _unknown_collection(bucket: NodeBucket, number: int) -> StatusError:
    uid = bucket.collections.manifest.uid
    return StatusError(Status.UNKNOWN_COLLECTION, f"collection 0x{number:x} is not in the manifest 0x{uid:x}")


def has(request: CommandRequest, privilege: int) -> bool:
    """Return whether the user of a request has a privilege on its collection."""
    limits, collection = request.limits, request.collection
    return limits is None or limits.has(privilege, collection.scope, collection.name)


def require(request: CommandRequest, one_of: tuple[int, ...], collection: Collection) -> None:
    """Check that the user of a request has a privilege on a collection.

    :param one_of: as :attr:`~couchnode.kv.privileges.Needs.one_of`.
    :raises StatusError: EACCESS; or, if the user may not know of the collection, as if it did not exist.
    """
    limits = request.limits
    if limits is None or limits.require_on(one_of, collection.scope, collection.name, request.frame.opcode):
        return
    raise _hidden(request, collection)


def require_visible(request: CommandRequest, collection: Collection) -> None:
    """Check that the user of a request may know of a collection.

    :raises StatusError: the answer for a collection that does not exist.
    """
    limits = request.limits
    if limits is not None and not limits.shows(collection.scope, collection.name):
        raise _hidden(request, collection)


def _hidden(request: CommandRequest, collection: Collection) -> StatusError:
    if not request.session.collections:
        # There is no missing collection on such a connection.
        return StatusError(Status.EACCESS, "Authorization failure: no privilege on the default collection")
    return _unknown_collection(request.bucket, collection.id)
