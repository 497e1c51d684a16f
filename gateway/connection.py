"""Connections to the cluster as the gateway opens them."""

from __future__ import annotations

from typing import Any

from couchbase.transcoder import RawTranscoder
from txcouchbase.connection import Connection

__all__ = ["GatewayConnection"]


TOGETHER = 16
"""Operations that are sent in one piece. Reading a request takes longer than a system call's share of so
many, and a node that has something to do is not waited for afterwards."""


class GatewayConnection(Connection):
    """A connection whose keys and values are bytes: what a node stored is what a client gets, unread.

    :ivar operations: operations on single documents that tell a receiver how they ended
        (:class:`txcouchbase.direct.Direct`); the connection's own return Deferreds.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(transcoder=RawTranscoder(), **kwargs)
        self.operations = self.direct(together=TOGETHER)
