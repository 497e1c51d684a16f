"""What the connections of one node share."""

from __future__ import annotations

from typing import Protocol, TypeVar

from couchnode.ports import NodeView
from couchnode.tls import NodeTls
from reactor.sparselog import SparseLog

_C = TypeVar("_C", contravariant=True)


class Owner(Protocol[_C]):
    """The state that all connections of one node share; ``_C`` is their class.

    :ivar held_bytes: incomplete requests and unread answers of all connections together.
    :ivar tls: identifies a client by its certificate.
    :ivar max_held_bytes: limit on ``held_bytes``; the connection that exceeds it is cut.
    """

    node: NodeView
    log: SparseLog
    held_bytes: int
    tls: NodeTls | None
    max_held_bytes: int

    def admit(self, connection: _C) -> bool:
        """Count a new connection; false if there are too many."""

    def release(self, connection: _C) -> None:
        """Forget a connection that is gone."""
