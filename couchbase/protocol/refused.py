"""Refusals of a node as results: for callers that handle them in large numbers.

An exception, its message and its result cost as much as half an operation. A caller that needs none of them
sets :attr:`couchbase.protocol.request.Request.quiet` to :data:`REFUSALS`.
"""

from __future__ import annotations

from typing import NamedTuple

from couchbase.protocol.constants import Status
from couchbase.protocol.statuses import RC_OF_STATUS, result_code
from couchbase.result import OperationResult

REFUSALS = 2
"""Value of ``quiet``: all refusals of these kinds are results, each a :class:`Refused`."""

STATUSES = frozenset(
    map(
        int,
        (
            *(Status.KEY_ENOENT, Status.KEY_EEXISTS, Status.NOT_STORED, Status.DELTA_BADVAL),
            *(Status.LOCKED, Status.NOT_LOCKED),
        ),
    )
)
"""What a node answers because of the state of a document. No operation is retried because of them."""

PATH_STATUSES = frozenset(
    int(status)
    for status in RC_OF_STATUS
    if Status.SUBDOC_PATH_ENOENT <= status < Status.SUBDOC_MULTI_PATH_FAILURE
)
"""What a node answers because of one path of a mutation."""


class Kind(NamedTuple):
    """Why a node has refused an operation."""

    rc: int
    status: int
    """The status of the node's answer."""
    path_index: int | None
    """Which of the operation's specs failed, from 0; ``None`` if it is not a path that failed."""


class Refused(OperationResult):
    """An operation that changed nothing, because of the state of its document.

    All such results of an operation with the same status are one object, without a key, unless they have a
    path.

    :ivar kind: why it was refused.
    :ivar path: the path that failed; ``None`` if it is not a path that failed.
    """

    __slots__ = ("kind", "path")

    def __init__(self, kind: Kind, path: str | None = None) -> None:
        self._rc = kind.rc
        self._cas = 0
        self._token = None
        self.kind = kind
        self.path = path


class _Refusals(dict[tuple[str, int], Refused]):
    def __missing__(self, key: tuple[str, int]) -> Refused:
        made = self[key] = Refused(Kind(result_code(*key), key[1], None))
        return made


refusals = _Refusals()
"""The results, by the name of an operation, and one of :data:`STATUSES`."""


class _PathKinds(dict[tuple[int, int], Kind]):
    def __missing__(self, key: tuple[int, int]) -> Kind:
        made = self[key] = Kind(RC_OF_STATUS[key[0]], *key)
        return made


path_kinds = _PathKinds()
"""Why mutations were refused, by one of :data:`PATH_STATUSES`, and by which spec failed."""
